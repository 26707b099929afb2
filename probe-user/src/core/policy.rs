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

/// How long the observer itself must have watched a token before it says anything, at the
/// most. What it finds at its start may be old and yet be draining, slowly.
pub const WATCH_BEFORE_REPORT: Duration = Duration::from_secs(1);

impl Policy {
    /// When a stall is to be reported, if nothing changes until then.
    #[must_use]
    pub fn reporting(&self, stall: &Stall) -> Mono {
        crossing(stall, self.report_after, WATCH_BEFORE_REPORT)
    }

    /// The place of the rule that decides about a stall: the first that matches.
    #[must_use]
    pub fn rule_for(&self, stall: &Stall) -> Option<usize> {
        let facts = stall.facts.as_ref()?;
        self.rules
            .iter()
            .position(|rule| rule.matches.holds(&stall.last, facts))
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

/// When a stall is as old as `age`, and the observer has watched it for itself for that
/// long or `watch`, whichever is less: of what it found at its start it has no history.
fn crossing(stall: &Stall, age: Duration, watch: Duration) -> Mono {
    stall.since.after(age).max(stall.watched.after(age.min(watch)))
}

impl Rule {
    /// When a stall's condition is met, if nothing changes until then: it, the time that it was
    /// watched, and its process are old enough.
    #[must_use]
    pub fn crossing(&self, stall: &Stall) -> Mono {
        let watch = match self.action {
            Action::Alert => WATCH_BEFORE_REPORT,
            Action::Term | Action::Kill => WATCH_BEFORE_KILL,
        };
        let grown_up = stall.facts.as_ref().map(|facts| self.matches.not_before(facts));
        crossing(stall, self.stalled_for, watch).max(grown_up.unwrap_or_default())
    }

    /// What is to be done about a stall whose condition is met.
    #[must_use]
    pub fn verdict(&self, policy: &Policy, stall: &Stall) -> Verdict {
        let protected = stall
            .facts
            .as_ref()
            .is_none_or(|facts| policy.protect.covers(&stall.last, facts));
        self.verdict_on(protected, stall.last.stream)
    }

    /// What is to be done about a process, protected or not, that is stuck on a stream.
    pub(super) const fn verdict_on(&self, protected: bool, stream: Option<Stream>) -> Verdict {
        match (self.action, self.mode) {
            (Action::Alert, _) => Verdict::Alert,
            _ if protected => Verdict::Skip(Skipped::Protected, None),
            _ if matches!(stream, Some(Stream::Stderr)) && !self.allow_stderr_kill => Verdict::Skip(
                Skipped::Protected,
                Some("it is stuck on its stderr, and the rule does not say allow_stderr_kill = true"),
            ),
            (Action::Term | Action::Kill, Mode::DryRun) => Verdict::Skip(Skipped::DryRun, None),
            (Action::Term | Action::Kill, Mode::Enforce) => Verdict::Kill,
        }
    }
}
