//! What the rules say of a stall.

use std::time::Duration;

use super::{
    model::{Bound, Mono, Stall, Stream},
    report::{RuleRef, Skipped},
    rule::{Action, Policy, Rule},
};

/// The name that stands for a rule where somebody asked for a kill; no rule may have it.
pub const MANUAL: &str = "manual";

/// How long the observer itself must have watched a token before it acts, at the most.
pub const WATCH_BEFORE_KILL: Duration = Duration::from_secs(5);

/// What is to be done about a stall that has crossed its rule's threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Say so.
    Alert,
    /// Do not act, and say why.
    Skip(Skipped, Option<&'static str>),
    /// End the process, or say so in dry-run, once the rule's pace allows it.
    End,
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

    /// Whether a process that a rule wanted ended is still one that it may end.
    ///
    /// # Errors
    /// Why it is not, and in words.
    pub fn still_means(&self, rule: &RuleRef, stall: &Stall) -> Result<(), (Skipped, &'static str)> {
        let Some(facts) = &stall.facts else {
            return Err((
                Skipped::Identity,
                "it has a new parent or user, or is another program",
            ));
        };
        if self.protect.covers(&stall.last, facts) {
            return Err((Skipped::Protected, "it has become one that is protected"));
        }
        if rule.name == MANUAL {
            return Ok(());
        }
        match self.rule_for(stall).and_then(|at| self.rules.get(at)) {
            Some(decides) if rule.is(decides) => Ok(()),
            Some(decides) if decides.name == rule.name => {
                Err((Skipped::Identity, "the rule has been changed"))
            }
            Some(_) | None => Err((Skipped::Identity, "the rule does not match it any more")),
        }
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
            Action::Term | Action::Kill if stall.bound != Bound::AtMost => WATCH_BEFORE_KILL,
            // It may have been draining, slowly, before the observer came.
            Action::Term | Action::Kill => self.stalled_for,
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
        match self.action {
            Action::Alert => Verdict::Alert,
            _ if protected => Verdict::Skip(Skipped::Protected, None),
            _ if matches!(stream, Some(Stream::Stderr)) && !self.allow_stderr_kill => Verdict::Skip(
                Skipped::Protected,
                Some("it is stuck on its stderr, and the rule does not say allow_stderr_kill = true"),
            ),
            Action::Term | Action::Kill => Verdict::End,
        }
    }
}
