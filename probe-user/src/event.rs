//! Events as users see them: one JSON object a line, the same in every output.
//!
//! `core` says what happened; here it gets a name, a number and a time of day.

pub mod cause;

use std::{borrow::Cow, fmt, ops::Deref, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::cause::CauseView;
use crate::{
    clock,
    core::{
        model::{Bound, Facts, Mono, Stall, Stream, channel_name, human},
        report::{KillReport, Report, RuleRef, Snapshot},
        share::StalledShare,
    },
    probe::kernel::written::Written,
};

/// Version of the format.
const VERSION: u32 = 1;

/// A name out of a fixed list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Name(Cow<'static, str>);

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// All kinds of events.
pub const KINDS: [&str; 12] = [
    "agent.started",
    "agent.reloaded",
    "agent.degraded",
    "agent.recovered",
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Version of the format.
    pub v: u32,
    /// Sortable and unique over all nodes (ULID).
    pub id: String,
    /// Counts up within a journal.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The host's name.
    pub node: String,
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub kind: Name,
    /// The stall that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallView>,
    /// The rule that decided; `manual` for a kill that somebody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What the rule does: `alert`, `term` or `kill`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Name>,
    /// Whether it may: `dry-run` or `enforce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Name>,
    /// The age from which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_for_seconds: Option<f64>,
    /// The share of the time from which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_share: Option<ShareView>,
    /// What only some events carry.
    #[serde(flatten)]
    pub what: What,
}

/// A rule's share of the time, and what of it a writer has come to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShareView {
    /// From 0 to 1.
    pub share: f64,
    /// Of a window of this length.
    pub over_seconds: f64,
    /// How much of the time the writer was blocked, at least; null where it is not known.
    pub blocked: Option<f64>,
}

impl ShareView {
    /// Shows a rule's share, and the stall's where it is known.
    #[must_use]
    pub fn new(limit: StalledShare, stall: Option<&Stall>) -> Self {
        let window = |stall: &Stall| {
            stall
                .shares
                .iter()
                .find(|share| share.over == limit.over)
                .copied()
        };
        let blocked = stall.and_then(window);
        let three_digits = |share: f64| (share * 1e3).round() / 1e3;
        Self {
            share: three_digits(limit.share()),
            over_seconds: clock::seconds(limit.over),
            blocked: blocked
                .map(|share| three_digits(share.blocked.as_secs_f64() / share.over.as_secs_f64())),
        }
    }
}

/// What only some events carry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct What {
    /// Why a stall ended, or why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// The same, or more, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The signal that was sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Name>,
    /// From the first signal to the exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// From the moment that the rule's condition was met to the exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_threshold_ms: Option<f64>,
    /// How long writers were blocked, as the kernel counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_seconds: Option<HistogramView>,
    /// What was written to each channel, where that is counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<WrittenView>,
}

/// A stall, as `ps --json`, events and the API show it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StallView {
    /// Names the stall for as long as the agent runs.
    pub id: String,
    /// `stalled` or `draining`, where both are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Name>,
    /// The process.
    pub pid: u32,
    /// The thread that writes.
    pub tid: u32,
    /// The process's command.
    pub comm: String,
    /// The thread's name.
    pub thread: String,
    /// The executable's path.
    pub exe: Option<String>,
    /// The command line.
    pub cmdline: Vec<String>,
    /// The user's number.
    pub uid: u32,
    /// The user's name.
    pub user: Option<String>,
    /// The parent's pid.
    pub ppid: u32,
    /// The parent's command.
    pub parent: Option<String>,
    /// The control group's path.
    pub cgroup: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The container's id.
    pub container: Option<String>,
    /// The Kubernetes pod's UID.
    pub pod: Option<String>,
    /// `pipe`, `fifo` or `unix`.
    pub channel: Name,
    /// The channel's inode.
    pub inode: u64,
    /// The descriptor that is written to.
    pub fd: u32,
    /// `stdin`, `stdout` or `stderr`, where it is one.
    pub stream: Option<Name>,
    /// The call that it is blocked in.
    pub syscall: Name,
    /// Since when, RFC 3339.
    pub since: String,
    /// How long.
    pub age_seconds: f64,
    /// Whether it may be older.
    pub age_is_minimum: bool,
    /// Whether it began before the observer did.
    pub preexisting: bool,
    /// What is queued: bytes for pipes, memory in bytes for sockets.
    pub queued_bytes: Option<u64>,
    /// Who should read and does not, and why.
    #[serde(flatten)]
    pub cause: CauseView,
}

/// The stall's name in events and in the API.
#[must_use]
pub fn stall_name(stall: &Stall) -> String {
    let writer = stall.last.writer;
    format!("{}-{:x}-{}", writer.tid, writer.process.start, stall.id)
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
            id: stall_name(stall),
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
            pod: facts.pod.clone(),
            channel: channel_name(last.channel.kind).into(),
            inode: last.channel.inode,
            fd: last.fd,
            stream: last.stream.map(|stream| Stream::as_str(stream).into()),
            syscall: last.syscall.as_str().into(),
            since: rfc3339(before(now, stall.age(at))),
            age_seconds: clock::seconds(stall.age(at)),
            age_is_minimum: stall.bound == Bound::AtLeast,
            preexisting: stall.preexisting,
            queued_bytes: last.queued,
            cause: CauseView::new(stall),
        }
    }

    /// Adds whether the writer is `stalled` or `draining`, for outputs that show both.
    #[must_use]
    pub fn with_state(mut self, state: &'static str) -> Self {
        self.state = Some(state.into());
        self
    }
}

/// A histogram of durations: how many were at most so long, cumulative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistogramView {
    /// All of them.
    pub count: u64,
    /// By rising bounds; those that nothing was added to are left out.
    pub buckets: Vec<Bucket>,
}

/// How many were at most so long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Seconds.
    pub le: f64,
    /// How many.
    pub count: u64,
}

/// What was written to a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WrittenView {
    /// `pipe`, `fifo` or `unix`.
    pub channel: Name,
    /// The channel's inode.
    pub inode: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long the writes took.
    pub write_seconds: HistogramView,
}

impl WrittenView {
    fn new(written: &Written) -> Self {
        Self {
            channel: channel_name(written.to.kind).into(),
            inode: written.to.inode,
            bytes: written.bytes,
            write_seconds: HistogramView::new(&written.took),
        }
    }

    /// For people: what half of the writes took at most, and all of them.
    fn line(&self) -> String {
        let time = |part: u64| human(Duration::from_secs_f64(self.write_seconds.within(part, 100)));
        format!(
            "{} {}: {} writes, {}; half within {}, 99 % within {}, all within {}",
            self.channel,
            self.inode,
            self.write_seconds.count,
            crate::cli::text::size(self.bytes),
            time(50),
            time(99),
            time(100)
        )
    }
}

impl HistogramView {
    /// The bound, in seconds, within which this part of all lie.
    fn within(&self, part: u64, of: u64) -> f64 {
        let enough = |bucket: &&Bucket| bucket.count * of >= self.count * part;
        self.buckets.iter().find(enough).map_or(0.0, |bucket| bucket.le)
    }

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
                stall.stream.as_deref().unwrap_or("-")
            );
            if let Some(culprit) = stall.cause.culprit() {
                let _ = write!(line, " {culprit}");
            }
        }
        for (name, value) in [
            ("rule", self.rule.as_deref()),
            ("signal", self.what.signal.as_deref()),
            ("reason", self.what.reason.as_deref()),
        ] {
            if let Some(value) = value {
                let _ = write!(line, " {name}={value}");
            }
        }
        for written in &self.what.written {
            let _ = write!(line, "\n  {}", written.line());
        }
        if let Some(ShareView {
            blocked: Some(blocked),
            over_seconds,
            ..
        }) = self.stalled_share
        {
            let over = crate::cli::text::age(Duration::from_secs_f64(over_seconds));
            let _ = write!(line, " blocked={:.0}%/{over}", blocked * 100.0);
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

/// A time of day as events carry it.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}
