//! Rules: what is matched, when, and what is to be done. Parsed and validated
//! elsewhere; here they only answer.

use std::time::Duration;

use globset::GlobMatcher;

use super::{
    model::{Facts, Sighting, Stream},
    pace::{Limits, Pace},
};

/// A shell glob over a whole text, where `*` also matches `/`.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    matcher: GlobMatcher,
}

impl Glob {
    /// Parses a glob.
    ///
    /// # Errors
    /// The pattern is no glob; the message says where.
    pub fn parse(text: &str) -> Result<Self, globset::Error> {
        let glob = globset::GlobBuilder::new(text)
            .literal_separator(false)
            .backslash_escape(true)
            .build()?;
        Ok(Self {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }

    /// The glob as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What a rule applies to. Every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// The group leader's command.
    pub comm: Option<Glob>,
    /// The command line, its arguments joined by single spaces.
    pub cmdline: Option<Glob>,
    /// The user's name, or its number.
    pub user: Option<Glob>,
    /// The parent's command.
    pub parent: Option<Glob>,
    /// Which standard stream the channel is.
    pub stream: Option<Stream>,
}

impl Match {
    /// Whether everything that is given holds.
    #[must_use]
    pub fn holds(&self, sighting: &Sighting, facts: &Facts) -> bool {
        let holds = |glob: &Option<Glob>, text: Option<&str>| {
            glob.as_ref()
                .is_none_or(|glob| text.is_some_and(|text| glob.matches(text)))
        };
        self.stream.is_none_or(|stream| sighting.stream == Some(stream))
            && holds(&self.comm, Some(&sighting.comm))
            && holds(&self.parent, facts.parent.as_deref())
            && (holds(&self.user, facts.user.as_deref())
                || holds(&self.user, Some(&sighting.uid.to_string())))
            && self
                .cmdline
                .as_ref()
                .is_none_or(|glob| glob.matches(&facts.cmdline.join(" ")))
    }
}

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
    /// The age from which it acts.
    pub stalled_for: Duration,
    /// What it does.
    pub action: Action,
    /// How long after SIGTERM it waits for an exit or for progress.
    pub grace: Duration,
    /// Whether it may act.
    pub mode: Mode,
    /// How fast and how far.
    pub pace: Pace,
    /// What to run before the first signal.
    pub pre_kill: Option<Hook>,
    /// Whether it may also end a process that is stuck on its stderr.
    pub allow_stderr_kill: bool,
}

/// Who is never signalled, whatever a rule says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Protect {
    /// Commands.
    pub comm: Vec<Glob>,
    /// Users, by name or number.
    pub users: Vec<Glob>,
    /// Processes: the tool itself and its ancestors. Pid 1 is always protected.
    pub pids: Vec<u32>,
}

impl Protect {
    /// Whether the process must be left alone.
    #[must_use]
    pub fn covers(&self, sighting: &Sighting, facts: &Facts) -> bool {
        let pid = sighting.writer.process.tgid;
        let uid = sighting.uid.to_string();
        pid <= 1
            || self.pids.contains(&pid)
            || self.comm.iter().any(|glob| glob.matches(&sighting.comm))
            || self
                .users
                .iter()
                .any(|glob| glob.matches(&uid) || facts.user.as_ref().is_some_and(|user| glob.matches(user)))
    }
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
