//! What the rules say of a stall.

use std::time::Duration;

use super::{
    model::{Mono, Stall, Stream},
    report::Skipped,
    rule::{Action, Mode, Policy, Rule},
};

/// How long the observer itself must have watched a token before it acts, at the most.
pub const WATCH_BEFORE_KILL: Duration = Duration::from_secs(5);

/// What is to be done about a stall that has crossed its rule's threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Say so.
    Alert,
    /// Do not act, and say why.
    Skip(Skipped, Option<&'static str>),
    /// Begin the kill protocol.
    Kill,
}

impl Policy {
    /// The rule that decides about a stall: the first that matches.
    #[must_use]
    pub fn rule_for(&self, stall: &Stall) -> Option<&Rule> {
        let facts = stall.facts.as_ref()?;
        self.rules
            .iter()
            .find(|rule| rule.matches.holds(&stall.last, facts))
    }

    /// The youngest age at which anything happens.
    #[must_use]
    pub fn smallest_threshold(&self) -> Duration {
        self.rules
            .iter()
            .map(|rule| rule.stalled_for)
            .fold(self.report_after, Duration::min)
    }
}

impl Rule {
    /// When a stall's condition is met, if nothing changes until then.
    ///
    /// A rule that acts also waits until the observer has watched the token for
    /// itself: of what it found at its start it has no history.
    #[must_use]
    pub fn crossing(&self, stall: &Stall) -> Mono {
        let old_enough = stall.since.after(self.stalled_for);
        match self.action {
            Action::Alert => old_enough,
            Action::Term | Action::Kill => {
                old_enough.max(stall.watched.after(self.stalled_for.min(WATCH_BEFORE_KILL)))
            }
        }
    }

    /// What is to be done about a stall whose condition is met.
    #[must_use]
    pub fn verdict(&self, policy: &Policy, stall: &Stall) -> Verdict {
        let protected = stall
            .facts
            .as_ref()
            .is_none_or(|facts| policy.protect.covers(&stall.last, facts));
        match (self.action, self.mode) {
            (Action::Alert, _) => Verdict::Alert,
            _ if protected => Verdict::Skip(Skipped::Protected, None),
            _ if stall.last.stream == Some(Stream::Stderr) && !self.allow_stderr_kill => Verdict::Skip(
                Skipped::Protected,
                Some("it is stuck on its stderr, and the rule does not say allow_stderr_kill = true"),
            ),
            (Action::Term | Action::Kill, Mode::DryRun) => Verdict::Skip(Skipped::DryRun, None),
            (Action::Term | Action::Kill, Mode::Enforce) => Verdict::Kill,
        }
    }
}
