//! The kill protocol as a state machine: one instance for each process that is to be ended.
//!
//! ```text
//! Opening ─► [Hooking] ─► Opened ─► Committing ─► Committed ─► Terminating ─► Killing ─► (exit)
//!  pidfd,     the rule's   fresh     record        fresh        SIGTERM,      SIGKILL
//!  identity   own program  look      on disk       look         grace
//! ```
//! Any doubt on the way ends it. It keeps no clock and sends no signal; `machine`
//! moves it on.

use std::time::Duration;

use super::{
    model::{Mono, Process, Stall},
    pace::Ticket,
    policy::Trigger,
    report::{RuleRef, Signal},
    rule::Hook,
};

/// How long after SIGKILL an exit is awaited.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

/// Names a kill for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KillId(pub u64);

/// How far a kill has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A handle on the process is being opened.
    Opening,
    /// The rule's own program runs.
    Hooking,
    /// The handle is open; a look from after that moment must confirm the stall.
    Opened,
    /// Confirmed; the record must reach the disk.
    Committing,
    /// The record is on disk, which may have taken long; another look must confirm the stall.
    Committed,
    /// SIGTERM is sent; an exit or progress is awaited until the grace is over.
    Terminating {
        /// End of the grace.
        until: Mono,
    },
    /// SIGKILL is sent; the exit is awaited.
    Killing {
        /// When to give up.
        until: Mono,
    },
}

/// What a look may move a kill on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To its record.
    Plan,
    /// To SIGTERM.
    Terminate,
    /// To what the rule has for after the grace.
    GoFurther,
}

impl Step {
    /// What a look that confirms the stall moves the kill on to, if it waits for one.
    #[must_use]
    pub fn after_look(self, now: Mono) -> Option<Next> {
        match self {
            Self::Opened => Some(Next::Plan),
            Self::Committed => Some(Next::Terminate),
            Self::Terminating { until } => (until <= now).then_some(Next::GoFurther),
            Self::Opening | Self::Hooking | Self::Committing | Self::Killing { .. } => None,
        }
    }

    /// Whether nothing was sent yet.
    #[must_use]
    pub const fn is_before_signal(self) -> bool {
        match self {
            Self::Opening | Self::Hooking | Self::Opened | Self::Committing | Self::Committed => true,
            Self::Terminating { .. } | Self::Killing { .. } => false,
        }
    }
}

/// A process that is being ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The stall that is the reason, as last confirmed.
    pub stall: Stall,
    /// The rule that decided.
    pub rule: RuleRef,
    /// Its grace.
    pub grace: Duration,
    /// What it runs before the first signal.
    pub pre_kill: Option<Hook>,
    /// What came of that.
    pub hooked: Option<String>,
    /// Which of the rule's conditions was met, and what must still hold.
    pub trigger: Trigger,
    /// When it was met.
    pub crossed: Mono,
    /// How far it has come.
    pub step: Step,
    /// Its places in the rule's pace, until the first signal uses them up.
    pub ticket: Option<Ticket>,
    /// When the first signal was sent.
    pub first_signal: Option<Mono>,
    /// The last signal that was sent.
    pub last_signal: Signal,
    /// Since when looks have not shown that a crawling writer still is one.
    pub unseen: Option<Mono>,
    /// When the next look is due for that.
    pub again: Option<Mono>,
}

impl Kill {
    /// The process.
    #[must_use]
    pub const fn process(&self) -> Process {
        self.stall.last.writer.process
    }

    /// When this kill next needs attention without any event.
    #[must_use]
    pub const fn deadline(&self) -> Option<Mono> {
        match self.step {
            Step::Terminating { until } | Step::Killing { until } => Some(until),
            Step::Opened | Step::Committed => self.again,
            Step::Opening | Step::Hooking | Step::Committing => None,
        }
    }
}
