//! What the machine has to say, before it is given a number and a time of day.

use std::time::Duration;

use super::{
    model::{Mono, Stall},
    rule::{Action, Mode, Rule},
    share::StalledShare,
    tracker::Ended,
};

/// A stall as it was when something was said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The stall.
    pub stall: Stall,
    /// When.
    pub at: Mono,
}

impl Snapshot {
    /// The stall's age at that moment.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.stall.age(self.at)
    }
}

/// The rule that decided, as far as events show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Whether it may.
    pub mode: Mode,
    /// From which age.
    pub stalled_for: Option<Duration>,
    /// From which share of the time.
    pub stalled_share: Option<StalledShare>,
}

impl From<&Rule> for RuleRef {
    fn from(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            action: rule.action,
            mode: rule.mode,
            stalled_for: rule.stalled_for,
            stalled_share: rule.stalled_share,
        }
    }
}

impl RuleRef {
    /// Whether a stall was as old, or its writer had been blocked for as much of the time, as the
    /// rule asks.
    #[must_use]
    pub fn is_met(&self, snapshot: &Snapshot) -> bool {
        let crawls = |limit: StalledShare| {
            let mut shares = snapshot.stall.shares.iter();
            shares.any(|share| share.over == limit.over && share.blocked > limit.blocked)
        };
        self.stalled_for.is_some_and(|age| snapshot.age() >= age) || self.stalled_share.is_some_and(crawls)
    }
}

/// A signal that the kill protocol sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM
    Term,
    /// SIGKILL
    Kill,
}

impl Signal {
    /// The signal's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

/// Why a process that a rule points at is not signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// The rule only says what it would do.
    DryRun,
    /// The process is protected.
    Protected,
    /// The rule, or all rules together, have ended as many as they may for now.
    Budget,
    /// What the rule ends under this parent or unit keeps coming back.
    Cooldown,
    /// The host is starved of CPU time, so that slow is not dead.
    Pressure,
    /// A reader is stopped, traced or frozen: the writer waits for somebody who may go on.
    ReaderStopped,
    /// The rules have hit more different programs than they should; enforcement is off.
    BlastRadius,
    /// The writer moved, or is no longer in the write.
    Progressed,
    /// The process is gone.
    Exited,
    /// The pid belongs to another process now.
    Identity,
    /// This machine does not let it be done safely.
    Unsupported,
    /// It would leave no record.
    Unrecorded,
}

impl Skipped {
    /// The reason's name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Protected => "protected",
            Self::Budget => "budget",
            Self::Cooldown => "cooldown",
            Self::Pressure => "pressure",
            Self::ReaderStopped => "reader-stopped",
            Self::BlastRadius => "blast-radius",
            Self::Progressed => "progressed",
            Self::Exited => "exited",
            Self::Identity => "identity",
            Self::Unsupported => "unsupported",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// What came of a kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillReport {
    /// Everything is checked; this is on disk before the first signal. With it, what came
    /// of the rule's own program, if it has one.
    Planned(Option<String>),
    /// A signal has been sent.
    Sent(Signal),
    /// The process has exited.
    Confirmed {
        /// From the first signal to the exit.
        took: Duration,
        /// From the moment that the rule's condition was met to the exit.
        since_crossing: Duration,
        /// The last signal sent.
        signal: Signal,
    },
    /// It is still there, or could not be signalled.
    Failed(String),
    /// It is left alone.
    Skipped(Skipped, Option<&'static str>),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A stall has reached the age from which it is reported, or its alerting rule's.
    StallDetected(Snapshot, Option<RuleRef>),
    /// A reported stall is over.
    StallEnded(Snapshot, Ended),
    /// Enforcement has been switched off; why.
    Degraded(&'static str),
    /// A step of a kill.
    Kill(Snapshot, RuleRef, KillReport),
}
