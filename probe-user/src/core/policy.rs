//! What the rules say of a stall.

use std::time::Duration;

use super::{
    matcher::Subject,
    model::{Bound, Mono, Stall, Stream},
    report::{RuleRef, Skipped},
    rule::{Action, Policy, Rule},
};

/// The name that stands for a rule where somebody asked for a kill; no rule may have it.
pub const MANUAL: &str = "manual";

/// What is said of a process that is not what it was when its end was decided.
pub(super) const CHANGED: &str = "it has a new parent or user, or is another program";

/// How long the observer itself must have watched a token before it acts, at the most.
pub const WATCH_BEFORE_KILL: Duration = Duration::from_secs(5);

/// What made a rule act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// `stalled_for`: nothing was taken for so long. One byte is progress.
    Age,
    /// `stalled_share`: the writer was blocked for most of the time. A byte is not progress; less
    /// time blocked is.
    Share,
}

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
            .position(|rule| rule.matches.holds(Subject::stalled(stall, facts)))
    }

    /// Whether any rule asks who should read.
    #[must_use]
    pub fn asks_about_readers(&self) -> bool {
        self.rules.iter().any(|rule| rule.matches.asks_about_readers())
    }

    /// Whether a process that a rule wanted ended is still one that it may end.
    ///
    /// # Errors
    /// Why it is not, and in words.
    pub fn still_means(&self, rule: &RuleRef, stall: &Stall) -> Result<(), (Skipped, &'static str)> {
        let Some(facts) = &stall.facts else {
            return Err((Skipped::Identity, CHANGED));
        };
        if self.protect.covers(&stall.last, facts) {
            return Err((Skipped::Protected, "it has become one that is protected"));
        }
        if rule.name == MANUAL {
            return Ok(());
        }
        let asks = |known: &Rule| known.name == rule.name && known.matches.asks_about_readers();
        if stall.cause.is_none() && self.rules.iter().any(asks) {
            return Err((
                Skipped::Identity,
                "its reader is gone, and the rule asks about readers",
            ));
        }
        match self.rule_for(stall).and_then(|at| self.rules.get(at)) {
            Some(decides) if rule.is(decides) => Ok(()),
            Some(decides) if decides.name == rule.name => {
                Err((Skipped::Identity, "the rule has been changed"))
            }
            Some(_) | None => Err((Skipped::Identity, "the rule does not match it any more")),
        }
    }

    /// The windows over which rules ask how much of them a writer was blocked.
    #[must_use]
    pub fn windows(&self) -> Vec<Duration> {
        let mut windows: Vec<_> = self
            .rules
            .iter()
            .filter_map(|rule| Some(rule.stalled_share?.over))
            .collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }

    /// Whether a stall's writer has been blocked for more of the time than any rule allows.
    #[must_use]
    pub fn may_crawl(&self, stall: &Stall) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.is_over_share(stall) == Some(true))
    }

    /// The youngest age at which anything happens.
    #[must_use]
    pub fn smallest_threshold(&self) -> Duration {
        self.rules
            .iter()
            .flat_map(|rule| {
                rule.stalled_for
                    .into_iter()
                    .chain(rule.stalled_share.map(|share| share.every()))
            })
            .fold(self.report_after, Duration::min)
    }

    /// Whether any rule asks how starved the host is.
    #[must_use]
    pub fn asks_for_pressure(&self) -> bool {
        let mut paces = self.rules.iter().map(|rule| rule.pace);
        paces.any(|pace| pace.unless_cpu_pressure_over.is_some())
    }
}

/// When a stall is as old as `age`, and the observer has watched it for itself for that
/// long or `watch`, whichever is less: of what it found at its start it has no history.
fn crossing(stall: &Stall, age: Duration, watch: Duration) -> Mono {
    stall.since.after(age).max(stall.watched.after(age.min(watch)))
}

impl Rule {
    /// When a stall's condition on its age is met, if nothing changes until then: it, the time
    /// that it was watched, and its process are old enough.
    #[must_use]
    pub fn crossing(&self, stall: &Stall) -> Mono {
        let Some(stalled_for) = self.stalled_for else {
            return Mono::NEVER;
        };
        crossing(stall, stalled_for, self.watch(stall, stalled_for)).max(self.grown_up(stall))
    }

    /// How long the observer itself must have watched a stall before the rule acts on its age,
    /// `stalled_for`.
    #[must_use]
    pub fn watch(&self, stall: &Stall, stalled_for: Duration) -> Duration {
        let enough = match self.action {
            Action::Alert => WATCH_BEFORE_REPORT,
            Action::Term | Action::Kill if stall.bound != Bound::AtMost => WATCH_BEFORE_KILL,
            // It may have been draining, slowly, before the observer came.
            Action::Term | Action::Kill => stalled_for,
        };
        enough.min(stalled_for)
    }

    /// When the process is old enough.
    fn grown_up(&self, stall: &Stall) -> Mono {
        let facts = stall.facts.as_ref();
        facts.map_or(Mono::default(), |facts| self.matches.not_before(facts))
    }

    /// How long the writer was blocked within the window of the rule's share, at least; `None` if
    /// the rule asks for none, or the last look does not tell.
    #[must_use]
    pub fn blocked(&self, stall: &Stall) -> Option<Duration> {
        let over = self.stalled_share?.over;
        let share = stall.shares.iter().find(|share| share.over == over)?;
        Some(share.blocked)
    }

    /// Whether the writer was blocked for more of the time than the rule allows, where that is
    /// asked and known.
    #[must_use]
    pub fn is_over_share(&self, stall: &Stall) -> Option<bool> {
        Some(self.blocked(stall)? > self.stalled_share?.blocked)
    }

    /// Which of its conditions the last look saw met.
    #[must_use]
    pub fn trigger(&self, stall: &Stall) -> Option<Trigger> {
        let at = stall.last.at;
        if self.crossing(stall) <= at {
            return Some(Trigger::Age);
        }
        let crawls = self.is_over_share(stall) == Some(true) && self.grown_up(stall) <= at;
        crawls.then_some(Trigger::Share)
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
