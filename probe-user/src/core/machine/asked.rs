//! What somebody asks of the machine: a kill, a new policy, a fresh look.

use std::time::Duration;

use super::{Fate, Machine, Settings};
use crate::core::{
    kill::{Kill, Step},
    model::{Mono, StallId, human},
    policy::{MANUAL, Trigger, WATCH_BEFORE_KILL},
    report::{RuleRef, Signal},
    rule::{Action, Mode, Policy, Rule},
};

/// A kill that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The stall that is the reason.
    pub stall: StallId,
    /// Who asks, for the record.
    pub by: String,
    /// How long after SIGTERM an exit or progress is awaited.
    pub grace: Duration,
}

/// Why a kill that was asked for is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The stall is over, or there never was one.
    #[error("there is no such stall; it may have ended")]
    NoStall,
    /// Its process is being ended already.
    #[error("its process is being ended already")]
    UnderWay,
    /// Nothing is known of the process.
    #[error("its process has not been read about yet; try again in a second")]
    Unknown,
    /// It is protected.
    #[error("it is protected: {0}")]
    Protected(String),
    /// The observer itself has not watched it for long enough to know that nobody reads.
    #[error("it has been watched for {} only; a kill takes {}", tenths(*watched), human(*needed))]
    TooYoung {
        /// How long it has been watched.
        watched: Duration,
        /// How long it must be.
        needed: Duration,
    },
    /// Nothing can be ended here.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Nothing is ended for now.
    #[error("nothing is ended while the journal cannot be written")]
    Unrecorded,
}

/// Rounded down: to more digits nobody reads a wait.
fn tenths(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    human(Duration::from_millis(
        u64::try_from(tenths * 100).unwrap_or(u64::MAX),
    ))
}

impl Machine {
    /// Begins a kill that somebody asks for: by the protocol of any other, but of no rule's
    /// mode or pace.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn handle_asked(&mut self, asked: Asked, now: Mono) -> Result<(), Refusal> {
        let stall = self
            .stalls()
            .find(|stall| stall.id == asked.stall)
            .cloned()
            .ok_or(Refusal::NoStall)?;
        if let Some(why) = self.settings.unsupported {
            return Err(Refusal::Unsupported(why));
        }
        if self.unrecorded {
            return Err(Refusal::Unrecorded);
        }
        if self.targets.contains_key(&stall.last.writer.process) {
            return Err(Refusal::UnderWay);
        }
        let facts = stall.facts.as_ref().ok_or(Refusal::Unknown)?;
        let protect = &self.settings.policy.protect;
        if let Some(why) = protect.reason(crate::core::matcher::Subject::writing(&stall.last, facts)) {
            return Err(Refusal::Protected(why));
        }
        let watched = now.since(stall.watched.max(stall.since));
        if watched < WATCH_BEFORE_KILL {
            let needed = WATCH_BEFORE_KILL;
            return Err(Refusal::TooYoung { watched, needed });
        }
        let case = self.cases.entry(stall.id).or_default();
        case.fate = Fate::Decided;
        self.begin(Kill {
            rule: RuleRef {
                name: MANUAL.to_owned(),
                action: Action::Kill,
                mode: Mode::Enforce,
                stalled_for: Some(WATCH_BEFORE_KILL),
                stalled_share: None,
            },
            grace: asked.grace,
            pre_kill: None,
            hooked: Some(asked.by),
            trigger: Trigger::Age,
            crossed: now,
            step: Step::Opening,
            // Nobody's pace counts what a person asks for.
            ticket: None,
            first_signal: None,
            last_signal: Signal::Term,
            unseen: None,
            again: None,
            stall,
        });
        Ok(())
    }

    /// Asks for a look if the last one is older than this.
    pub fn handle_refresh(&mut self, oldest: Duration, now: Mono) {
        if self.last_look.is_none_or(|last| now.since(last) > oldest) {
            self.queue_look();
        }
    }

    /// Whether what is reported can be made durable, as far as the machine was told.
    #[must_use]
    pub const fn is_recording(&self) -> bool {
        !self.unrecorded
    }

    /// When the last look began, if there was one.
    #[must_use]
    pub const fn last_look(&self) -> Option<Mono> {
        self.last_look
    }

    /// What the machine goes by.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Goes by new settings from now on. Stalls keep their ages, and rules that keep their
    /// names their budgets and cool-downs; what an unchanged rule has decided stays decided.
    pub fn reload(&mut self, settings: Settings) {
        let old = std::mem::replace(&mut self.settings, settings);
        let policy = &self.settings.policy;
        let is_same = |before: Option<usize>, after: Option<usize>| {
            let rule = |policy: &Policy, at: Option<usize>| policy.rules.get(at?).cloned();
            let (before, after) = (rule(&old.policy, before), rule(policy, after));
            before == after
                && old.policy.protect == policy.protect
                && old.unsupported == self.settings.unsupported
        };
        self.tracker.set_windows(policy.windows());
        let stalls: Vec<_> = self.tracker.stalls().cloned().collect();
        for stall in stalls {
            let Some(case) = self.cases.get_mut(&stall.id) else {
                continue;
            };
            let rule = policy.rule_for(&stall);
            let being_ended = self.targets.contains_key(&stall.last.writer.process);
            if !being_ended && !is_same(case.rule, rule) {
                *case = case.afresh();
            }
            case.rule = rule;
        }
        self.pacer.rearm();
        self.next_stall = None;
        self.queue_look();
    }
}

impl RuleRef {
    /// Whether a rule of the policy still is what decided.
    #[must_use]
    pub fn is(&self, rule: &Rule) -> bool {
        *self == Self::from(rule)
    }
}
