//! Makes events of what the core reports.

use jiff::Timestamp;

use super::{Event, HistogramView, ShareView, StallView, VERSION, What, WrittenView, rfc3339};
use crate::{
    clock,
    core::report::{KillReport, Report, RuleRef, Snapshot},
    probe::kernel::written::Written,
};

/// Gives events their names, numbers and times.
#[derive(Debug)]
pub struct Stamp {
    node: String,
    next_seq: u64,
    /// The time of day in a replay, where no clock is read.
    simulated: Option<Timestamp>,
}

impl Stamp {
    /// Continues after the event numbered `last`.
    #[must_use]
    pub fn after(last: u64) -> Self {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            node,
            next_seq: last + 1,
            simulated: None,
        }
    }

    /// The number of the last event.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.next_seq - 1
    }

    /// The host's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// For events of a recording made on `node`, each handed its time.
    #[must_use]
    pub const fn replayed(node: String) -> Self {
        Self {
            node,
            next_seq: 1,
            simulated: Some(Timestamp::UNIX_EPOCH),
        }
    }

    /// An event about what the machine reported at a simulated time. The same report at
    /// the same place makes the same event, its id included.
    pub fn report_at(&mut self, report: &Report, time: Timestamp) -> Event {
        self.simulated = Some(time);
        self.report(report)
    }

    /// An event about the agent itself.
    pub fn agent(&mut self, kind: &'static str, detail: Option<String>) -> Event {
        self.event(
            kind,
            None,
            None,
            What {
                detail,
                ..What::default()
            },
        )
    }

    /// The agent's last event, with what the kernel counted.
    pub fn stopping(&mut self, blocked: HistogramView, written: &[Written]) -> Event {
        self.event(
            "agent.stopping",
            None,
            None,
            What {
                blocked_seconds: Some(blocked),
                written: written.iter().map(WrittenView::new).collect(),
                ..What::default()
            },
        )
    }

    /// An event about what the machine reports.
    pub fn report(&mut self, report: &Report) -> Event {
        match report {
            Report::StallDetected(snapshot, rule) => {
                self.event("stall.detected", Some(snapshot), rule.as_ref(), What::default())
            }
            Report::StallEnded(snapshot, why) => {
                let what = What {
                    reason: Some(why.as_str().into()),
                    ..What::default()
                };
                self.event("stall.ended", Some(snapshot), None, what)
            }
            Report::Degraded(why) => self.agent("agent.degraded", Some((*why).to_owned())),
            Report::Kill(snapshot, rule, step) => {
                let (kind, what) = kill(step);
                self.event(kind, Some(snapshot), Some(rule), what)
            }
        }
    }

    fn event(
        &mut self,
        kind: &'static str,
        snapshot: Option<&Snapshot>,
        rule: Option<&RuleRef>,
        what: What,
    ) -> Event {
        let now = self.simulated.unwrap_or_else(clock::wall);
        let seq = self.next_seq;
        self.next_seq += 1;
        let id = self.simulated.map_or_else(ulid::Ulid::new, |time| {
            ulid::Ulid::from_parts(u64::try_from(time.as_millisecond()).unwrap_or(0), seq.into())
        });
        Event {
            v: VERSION,
            id: id.to_string(),
            seq,
            time: rfc3339(now),
            node: self.node.clone(),
            kind: kind.into(),
            stall: snapshot.map(|s| StallView::new(&s.stall, s.at, now)),
            rule: rule.map(|rule| rule.name.clone()),
            action: rule.map(|rule| rule.action.as_str().into()),
            mode: rule.map(|rule| rule.mode.as_str().into()),
            stalled_for_seconds: rule.and_then(|rule| rule.stalled_for).map(clock::seconds),
            stalled_share: rule
                .and_then(|rule| rule.stalled_share)
                .map(|limit| ShareView::new(limit, snapshot.map(|snapshot| &snapshot.stall))),
            what,
        }
    }
}

fn kill(step: &KillReport) -> (&'static str, What) {
    let nothing = What::default();
    match step {
        KillReport::Planned(hooked) => (
            "kill.planned",
            What {
                detail: hooked.clone(),
                ..nothing
            },
        ),
        KillReport::Sent(signal) => (
            "kill.sent",
            What {
                signal: Some(signal.as_str().into()),
                ..nothing
            },
        ),
        KillReport::Confirmed {
            took,
            since_crossing,
            signal,
        } => (
            "kill.confirmed",
            What {
                signal: Some(signal.as_str().into()),
                took_ms: Some(milliseconds(*took)),
                since_threshold_ms: Some(milliseconds(*since_crossing)),
                ..nothing
            },
        ),
        KillReport::Failed(detail) => (
            "kill.failed",
            What {
                detail: Some(detail.clone()),
                ..nothing
            },
        ),
        KillReport::Skipped(reason, detail) => (
            "kill.skipped",
            What {
                reason: Some(reason.as_str().into()),
                detail: detail.map(str::to_owned),
                ..nothing
            },
        ),
    }
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
