//! What the owner of the state lets others see: made when somebody asks, and shared.

use std::time::Duration;

use jiff::Timestamp;

use super::counts::Counts;
use crate::{
    api::{Fate, RuleState, StallState, Stalls, Status},
    clock,
    core::{
        kill::Step,
        machine::{Outlook, Standing},
        model::{ChannelKind, Mono, Stall},
        policy::Verdict,
        rule::{Action, Mode},
    },
    event::{Name, StallView, rfc3339, stall_name},
    probe::kernel::written::Written,
};

/// From this age on a blocked writer counts as stalled for those who watch, as in `ps`.
pub const STALLED: Duration = Duration::from_secs(1);

/// The agent at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// The moment.
    pub at: Mono,
    /// The same as people tell the time.
    pub time: Timestamp,
    /// The whole in numbers.
    pub status: Status,
    /// The blocked writers.
    pub rows: Vec<Row>,
    /// The rules, in their order.
    pub rules: Vec<RuleState>,
    /// What was counted.
    pub counts: Counts,
    /// Counts of blocked intervals, one for each slot of the kernel side's histogram.
    pub blocked: Vec<u64>,
    /// What was written, where calls are traced.
    pub written: Vec<Written<ChannelKind>>,
    /// Subscribers, and events that wait for them.
    pub queued: (usize, usize),
    /// Events that wait to be written to the journal, in bytes.
    pub unwritten: usize,
    /// How the kernel programs run.
    pub programs: Vec<ProgramRun>,
}

/// How a kernel program has run since it was loaded, where the kernel counts that
/// (`kernel.bpf_stats_enabled`).
#[derive(Clone, Debug)]
pub struct ProgramRun {
    /// The program.
    pub name: String,
    /// How often.
    pub count: u64,
    /// For how long altogether.
    pub time: Duration,
}

/// A blocked writer, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its stall.
    pub stall: Stall,
    /// The rule that decides, by name.
    pub rule: Option<(String, Action, Mode)>,
    /// What becomes of it.
    pub outlook: Outlook,
}

impl From<Standing<'_>> for Row {
    fn from(standing: Standing<'_>) -> Self {
        Self {
            stall: standing.stall.clone(),
            rule: standing
                .rule
                .map(|rule| (rule.name.clone(), rule.action, rule.mode)),
            outlook: standing.outlook,
        }
    }
}

impl Row {
    /// The kind of channel that it is blocked on.
    #[must_use]
    pub const fn channel(&self) -> ChannelKind {
        self.stall.last.channel.kind
    }

    /// As the API shows it.
    #[must_use]
    pub fn view(&self, at: Mono, time: Timestamp) -> StallState {
        let left = |until: Mono| (until != Mono::NEVER).then(|| clock::seconds(until.since(at)));
        let fate = match self.outlook {
            Outlook::Unknown => Fate::Unknown,
            Outlook::NoRule => Fate::NoRule,
            Outlook::Due(due, verdict) => {
                let (action, mode) = self
                    .rule
                    .as_ref()
                    .map_or((Name::default(), Name::default()), |(_, action, mode)| {
                        (action.as_str().into(), mode.as_str().into())
                    });
                Fate::Due {
                    in_seconds: (due < Mono::NEVER).then(|| clock::seconds(due.since(at))),
                    action,
                    mode,
                    unless: match verdict {
                        Verdict::Skip(reason, _) => Some(reason.as_str().into()),
                        Verdict::Alert | Verdict::End => None,
                    },
                }
            }
            Outlook::Alerted => Fate::Alerted,
            Outlook::LeftAlone(reason, detail) => Fate::LeftAlone {
                reason: reason.as_str().into(),
                detail: detail.map(str::to_owned),
            },
            Outlook::Held(reason, until) => Fate::Held {
                reason: reason.as_str().into(),
                for_seconds: left(until),
            },
            Outlook::Piling => Fate::Held {
                reason: "pile-up".into(),
                for_seconds: None,
            },
            Outlook::Ending(step) => {
                let (name, until) = match step {
                    Step::Opening => ("opening", None),
                    Step::Hooking => ("hooking", None),
                    Step::Opened | Step::Committed => ("confirming", None),
                    Step::Committing => ("recording", None),
                    Step::Terminating { until } => ("terminating", Some(until)),
                    Step::Killing { until } => ("killing", Some(until)),
                };
                Fate::Ending {
                    step: name.into(),
                    for_seconds: until.and_then(left),
                }
            }
            Outlook::Tried => Fate::Tried,
        };
        StallState {
            stall: StallView::new(&self.stall, at, time),
            rule: self.rule.as_ref().map(|(name, ..)| name.clone()),
            fate,
        }
    }
}

impl State {
    /// The stalls of at least this age, the oldest first, `most` of them.
    #[must_use]
    pub fn stalls(&self, min: Duration, most: usize) -> Stalls {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.stall.age(self.at) >= min)
            .collect();
        rows.sort_by_key(|row| (row.stall.since, row.stall.id));
        Stalls {
            time: rfc3339(self.time),
            total: rows.len() as u64,
            stalls: rows
                .into_iter()
                .take(most)
                .map(|row| row.view(self.at, self.time))
                .collect(),
        }
    }

    /// The stall of that name.
    #[must_use]
    pub fn stall(&self, name: &str) -> Option<StallState> {
        let row = self.rows.iter().find(|row| stall_name(&row.stall) == name)?;
        Some(row.view(self.at, self.time))
    }
}
