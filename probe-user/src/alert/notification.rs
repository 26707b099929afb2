//! What is told of an incident at one moment, before it is written in anybody's format.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::occurrence::{Class, Severity};

/// How many writers of an incident are told with all that is known of them.
pub const WORST: usize = 10;

/// Whether an incident goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Firing,
    /// It is over.
    Resolved,
}

impl Status {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What is told. Templates see its fields by their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notification {
    /// The message's name: the same each time that it is sent.
    pub id: String,
    /// The incident's name: the same in all that is told of it.
    pub incident: String,
    /// The kind of alert, such as `PipestallStalledWriters`.
    pub alert: &'static str,
    /// Whether it goes on.
    pub status: Status,
    /// How bad it is.
    pub severity: Severity,
    /// The machine.
    pub node: String,
    /// The rule, where alerts are grouped by it; else empty.
    pub rule: String,
    /// The systemd unit, where alerts are grouped by it; else empty.
    pub unit: String,
    /// All that alerts are grouped by.
    pub labels: BTreeMap<&'static str, String>,
    /// When the first of what it is about began.
    pub since: Timestamp,
    /// When it was told.
    pub time: Timestamp,
    /// How many there have been since the incident began.
    pub count: u64,
    /// How many go on.
    pub firing: u64,
    /// How many of them are in which state.
    pub states: BTreeMap<String, u64>,
    /// The worst, at most ten: those that go on first, the oldest first.
    pub worst: Vec<Worst>,
    /// The kind of what it is about, for the queue and not for readers.
    #[serde(skip)]
    pub class: Class,
    /// All writers that it is about, for the order in which it is delivered.
    #[serde(skip)]
    pub subjects: Vec<String>,
}

/// One of the worst.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worst {
    /// What has become of it, such as `stalled` or `killed`.
    pub state: String,
    /// The last event about it, as it is in the journal.
    pub event: Value,
}

impl Notification {
    /// A notification that is about nothing, for trying templates and receivers.
    #[must_use]
    pub fn sample(node: &str, now: Timestamp) -> Self {
        let event = json!({
            "v": 1, "id": ulid(now), "seq": 1, "time": format!("{now:.3}"), "node": node, "type": "stall.detected",
            "rule": "sample", "action": "alert", "mode": "dry-run", "stalled_for_seconds": 60.0,
            "stall": {
                "id": "1-0-0", "pid": 1, "tid": 1, "comm": "sample", "thread": "sample", "exe": "/usr/bin/sample",
                "cmdline": ["sample", "-i", "pipe:0", "pipe:1"], "uid": 65534, "user": "nobody", "ppid": 1,
                "parent": "sample", "cgroup": "/sample.slice/sample.service", "unit": "sample.service",
                "container": null, "channel": "pipe", "inode": 1, "fd": 1, "stream": "stdout", "syscall": "write",
                "since": format!("{now:.3}"), "age_seconds": 61.2, "age_is_minimum": false,
                "age_is_maximum": false, "preexisting": false, "queued_bytes": 65536,
            },
        });
        Self::of(Class::Stall, node, now, "stalled", event)
    }

    /// The same about the agent itself, which is about no stall.
    #[must_use]
    pub fn sample_of_agent(node: &str, now: Timestamp) -> Self {
        let event = json!({
            "v": 1, "id": ulid(now), "seq": 1, "time": format!("{now:.3}"), "node": node, "type": "agent.degraded",
            "detail": "a sample",
        });
        Self::of(Class::Degraded, node, now, "agent.degraded", event)
    }

    fn of(class: Class, node: &str, now: Timestamp, state: &str, event: Value) -> Self {
        let (rule, unit) = if class == Class::Stall {
            ("sample", "sample.service")
        } else {
            ("", "")
        };
        Self {
            id: format!("msg_{}_test", ulid(now)),
            incident: ulid(now),
            alert: class.name(),
            status: Status::Firing,
            severity: class.severity(),
            node: node.to_owned(),
            rule: rule.to_owned(),
            unit: unit.to_owned(),
            labels: [("rule", rule.to_owned()), ("unit", unit.to_owned())].into(),
            since: now,
            time: now,
            count: 1,
            firing: 1,
            states: [(state.to_owned(), 1)].into(),
            worst: vec![Worst {
                state: state.to_owned(),
                event,
            }],
            class,
            subjects: Vec::new(),
        }
    }
}

fn ulid(time: Timestamp) -> String {
    let nanos = time.subsec_nanosecond().unsigned_abs().into();
    ulid::Ulid::from_parts(u64::try_from(time.as_millisecond()).unwrap_or(0), nanos).to_string()
}
