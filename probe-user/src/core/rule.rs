//! Rules: what is matched, when, and what is to be done. Parsed and validated
//! elsewhere; here they only answer.

use std::time::Duration;

pub use super::{matcher::Match, pattern::Pattern, protect::Protect};
use super::{
    pace::{Limits, Pace},
    share::StalledShare,
};

/// What a rule does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Says so.
    Alert,
    /// Sends SIGTERM.
    Term,
    /// Sends SIGTERM and, once the grace is over, SIGKILL.
    Kill,
}

impl Action {
    /// The action's name in the configuration and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Term => "term",
            Self::Kill => "kill",
        }
    }
}

/// Whether a rule may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It only says what it would do.
    DryRun,
    /// It acts.
    Enforce,
}

impl Mode {
    /// The mode's name in the configuration and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Enforce => "enforce",
        }
    }
}

/// A program that is run before a process is ended, for a stack or a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program and its arguments; the stall goes to its standard input as JSON.
    pub command: Vec<String>,
    /// When it is ended.
    pub timeout: Duration,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, unique among the rules.
    pub name: String,
    /// What it applies to.
    pub matches: Match,
    /// The age from which it acts. Of this and the share, whichever is met first decides.
    pub stalled_for: Option<Duration>,
    /// How much of a window a writer must have been blocked for it to act.
    pub stalled_share: Option<StalledShare>,
    /// What it does.
    pub action: Action,
    /// How long after SIGTERM it waits for an exit or for progress.
    pub grace: Duration,
    /// Whether it may act.
    pub mode: Mode,
    /// How fast and how far.
    pub pace: Pace,
    /// Whether it waits while a reader is stopped, traced or frozen.
    pub hold_when_reader_stopped: bool,
    /// What to run before the first signal.
    pub pre_kill: Option<Hook>,
    /// Whether it may also end a process that is stuck on its stderr.
    pub allow_stderr_kill: bool,
}

/// The rules in their order, and who is exempt from them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The first that matches decides.
    pub rules: Vec<Rule>,
    /// Who is never signalled.
    pub protect: Protect,
    /// What all rules together may do.
    pub limits: Limits,
    /// The age from which any stall is reported.
    pub report_after: Duration,
}
