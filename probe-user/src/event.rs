//! Events as users see them: one JSON object a line, the same in every output.
//!
//! `core` says what happened; here it gets a name, a number and a time of day.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock,
    core::{
        model::{Bound, Facts, Mono, Stall, Stream, channel_name},
        report::{KillReport, Report, RuleRef, Snapshot},
    },
};

/// Version of the format.
const VERSION: u32 = 1;

/// All kinds of events.
pub const KINDS: [&str; 11] = [
    "agent.started",
    "agent.reloaded",
    "agent.degraded",
    "agent.stopping",
    "stall.detected",
    "stall.ended",
    "kill.planned",
    "kill.sent",
    "kill.confirmed",
    "kill.failed",
    "kill.skipped",
];

/// An event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    v: u32,
    /// Sortable and unique over all nodes (ULID).
    id: String,
    /// Counts up within a journal.
    pub seq: u64,
    time: String,
    node: String,
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The stall that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_for_seconds: Option<f64>,
    #[serde(flatten)]
    what: What,
}

/// What only some events carry.
#[derive(Clone, Debug, Default, Serialize)]
struct What {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_threshold_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_seconds: Option<HistogramView>,
}

/// A stall, as `ps --json` and events show it.
#[derive(Clone, Debug, Serialize)]
pub struct StallView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    pid: u32,
    tid: u32,
    comm: String,
    thread: String,
    exe: Option<String>,
    cmdline: Vec<String>,
    uid: u32,
    user: Option<String>,
    ppid: u32,
    parent: Option<String>,
    cgroup: Option<String>,
    unit: Option<String>,
    container: Option<String>,
    channel: &'static str,
    inode: u64,
    fd: u32,
    stream: Option<&'static str>,
    syscall: &'static str,
    since: String,
    age_seconds: f64,
    age_is_minimum: bool,
    preexisting: bool,
    queued_bytes: Option<u64>,
}

impl StallView {
    /// Shows a stall as of `at`; `now` is the same moment as people tell the time.
    #[must_use]
    pub fn new(stall: &Stall, at: Mono, now: Timestamp) -> Self {
        let nothing_known = Facts::default();
        let facts = stall.facts.as_deref().unwrap_or(&nothing_known);
        let last = &stall.last;
        let process = last.writer.process;
        Self {
            id: format!("{}-{:x}-{}", last.writer.tid, process.start, stall.id),
            state: None,
            pid: process.tgid,
            tid: last.writer.tid,
            comm: last.comm.clone(),
            thread: last.thread.clone(),
            exe: facts.exe.as_ref().map(|path| path.to_string_lossy().into_owned()),
            cmdline: facts.cmdline.clone(),
            uid: last.uid,
            user: facts.user.clone(),
            ppid: last.ppid,
            parent: facts.parent.clone(),
            cgroup: facts.cgroup.clone(),
            unit: facts.unit.clone(),
            container: facts.container.clone(),
            channel: channel_name(last.channel.kind),
            inode: last.channel.inode,
            fd: last.fd,
            stream: last.stream.map(Stream::as_str),
            syscall: last.syscall.as_str(),
            since: rfc3339(before(now, stall.age(at))),
            age_seconds: clock::seconds(stall.age(at)),
            age_is_minimum: stall.bound == Bound::AtLeast,
            preexisting: stall.preexisting,
            queued_bytes: last.queued,
        }
    }

    /// Adds whether the writer is `stalled` or `draining`, for outputs that show both.
    #[must_use]
    pub fn with_state(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }
}

/// A histogram of durations: how many were at most so long, cumulative.
#[derive(Clone, Debug, Serialize)]
pub struct HistogramView {
    count: u64,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug, Serialize)]
struct Bucket {
    le: f64,
    count: u64,
}

impl HistogramView {
    /// From the kernel's counts, one for each power of two of nanoseconds.
    #[must_use]
    pub fn new(counts: &[u64]) -> Self {
        let mut total = 0;
        let mut buckets = Vec::new();
        for (slot, count) in (0..).zip(counts) {
            total += count;
            if *count > 0 {
                let bound = Duration::from_nanos(probe_ebpf::histogram::upper_bound(slot).saturating_add(1));
                buckets.push(Bucket {
                    le: bound.as_secs_f64(),
                    count: total,
                });
            }
        }
        Self {
            count: total,
            buckets,
        }
    }
}

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
    pub fn stopping(&mut self, blocked: HistogramView) -> Event {
        self.event(
            "agent.stopping",
            None,
            None,
            What {
                blocked_seconds: Some(blocked),
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
                    reason: Some(why.as_str()),
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
            kind,
            stall: snapshot.map(|s| StallView::new(&s.stall, s.at, now)),
            rule: rule.map(|rule| rule.name.clone()),
            action: rule.map(|rule| rule.action.as_str()),
            mode: rule.map(|rule| rule.mode.as_str()),
            stalled_for_seconds: rule.map(|rule| clock::seconds(rule.stalled_for)),
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
                signal: Some(signal.as_str()),
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
                signal: Some(signal.as_str()),
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
                reason: Some(reason.as_str()),
                detail: detail.map(str::to_owned),
                ..nothing
            },
        ),
    }
}

impl Event {
    /// The event as one line for people.
    #[must_use]
    pub fn line(&self) -> String {
        use std::fmt::Write as _;
        let mut line = format!("{} {:<14}", &self.time[11..23], self.kind);
        if let Some(stall) = &self.stall {
            let age = crate::cli::text::age(Duration::from_secs_f64(stall.age_seconds.max(0.0)));
            let _ = write!(
                line,
                " {}[{}] {} {} {age}",
                stall.comm,
                stall.pid,
                stall.channel,
                stall.stream.unwrap_or("-")
            );
        }
        for (name, value) in [
            ("rule", self.rule.as_deref()),
            ("signal", self.what.signal),
            ("reason", self.what.reason),
        ] {
            if let Some(value) = value {
                let _ = write!(line, " {name}={value}");
            }
        }
        if let Some(took) = self.what.took_ms {
            let _ = write!(line, " took={took}ms");
        }
        if let Some(detail) = &self.what.detail {
            let _ = write!(line, " ({detail})");
        }
        if let Some(blocked) = &self.what.blocked_seconds {
            let _ = write!(line, " ({} blocked intervals seen)", blocked.count);
        }
        line
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    now.checked_sub(age).unwrap_or(now)
}

fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}
