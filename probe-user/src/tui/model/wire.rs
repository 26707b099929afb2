//! The agent's JSON as it is read here. An agent may be older or newer than the dashboard: what is
//! missing takes its default, what is unknown is left out, and neither is an error. That is why
//! these are not the types of `api`, which say what is always there.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Deserializer};

use crate::core::{
    chain::Reader,
    model::{Mono, Process},
    reader::{Kind, Person, State},
};

/// The agent as a whole: `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The host's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// `enforce`, `dry-run` or `observe`.
    pub mode: String,
    /// Why nothing is enforced now, whatever the rules say.
    pub paused: Option<String>,
    /// What does not work as it should.
    pub degraded: Vec<String>,
    /// How writers are followed between looks.
    pub tracer: String,
    /// The commands that are observed.
    pub observed: Vec<String>,
    /// How many rules there are.
    pub rules: u64,
    /// Processes that are being ended.
    pub kills_under_way: u64,
    /// What came of the kills of the last hour.
    pub kills_last_hour: Kills,
    /// The number of the last event.
    pub last_event: u64,
    /// What was lost on the way.
    pub lost: Lost,
    /// How long writers were blocked, as the kernel counted.
    pub blocked_seconds: Histogram,
}

/// What came of kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Kills {
    /// The process has exited.
    pub confirmed: u64,
    /// It has not, or could not be signalled.
    pub failed: u64,
    /// It was left alone.
    pub skipped: u64,
}

/// What was lost on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// Notes of the tracer; looks make up for them.
    pub notes: u64,
    /// Writers that the tracer could not follow; looks know them.
    pub writers: u64,
    /// Events that standard output did not take.
    pub printed: u64,
    /// Events that subscribers did not take.
    pub streamed: u64,
    /// Events that the journal did not take.
    pub recorded: u64,
}

impl Lost {
    /// All events that somebody did not get.
    #[must_use]
    pub const fn events(self) -> u64 {
        self.notes + self.printed + self.streamed + self.recorded
    }
}

/// How many durations were at most so long, cumulative.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// All of them.
    pub count: u64,
    /// By rising bounds.
    pub buckets: Vec<Bucket>,
}

/// How many were at most so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Seconds.
    pub le: f64,
    /// How many.
    pub count: u64,
}

/// A rule, and what it has done: an element of `GET /v1/rules`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// `dry-run` or `enforce`.
    pub mode: String,
    /// What it does to whom, on one line.
    pub summary: String,
}

/// `GET /v1/rules`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// In their order.
    pub rules: Vec<Rule>,
}

/// `GET /v1/stalls`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Stalls {
    /// How many there are, shown or not.
    pub total: u64,
    /// As many as the agent hands out.
    pub stalls: Vec<StallState>,
}

/// A stall, the rule that decides about it, and what becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StallState {
    /// The stall.
    pub stall: Stall,
    /// The rule.
    pub rule: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
}

/// A stall as JSON has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields of an event's `stall`, by their names there"
)]
pub struct Stall {
    pub id: String,
    pub state: Option<String>,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub thread: String,
    pub exe: Option<PathBuf>,
    pub cmdline: Vec<String>,
    pub uid: u32,
    pub user: Option<String>,
    pub ppid: u32,
    pub parent: Option<String>,
    pub cgroup: Option<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
    pub pod: Option<String>,
    pub channel: String,
    pub inode: u64,
    pub fd: u32,
    pub stream: Option<String>,
    pub syscall: String,
    pub since: String,
    pub age_seconds: f64,
    pub age_is_minimum: bool,
    pub age_is_maximum: bool,
    pub preexisting: bool,
    pub queued_bytes: Option<u64>,
    /// `null` is what is found where nobody is; a source that does not look says nothing.
    #[serde(deserialize_with = "null_is_empty")]
    pub readers: Option<Vec<Party>>,
    pub culprit: Option<Culprit>,
    /// From the writer on, each with what it writes to and the next should read from.
    pub chain: Vec<Party>,
    /// The members, by pid.
    pub deadlock: Option<Vec<u32>>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Party>>, D::Error> {
    Option::deserialize(from).map(|found| Some(found.unwrap_or_default()))
}

/// Who does not read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Culprit {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// Those that it waits for itself.
    pub clients: Vec<Client>,
}

/// A process that holds a reading end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Party {
    /// Its pid.
    pub pid: u32,
    /// Its command.
    pub comm: String,
    /// What it does: the letter of `/proc/PID/stat`, `F` for frozen.
    pub state: String,
    /// `reader`, `holder` of an inherited descriptor, or the `writer` itself.
    pub kind: Option<String>,
    /// The descriptor that it holds.
    pub fd: Option<u32>,
    /// The kernel function that it sleeps in.
    pub sleeps_in: Option<String>,
    /// In a row's chain, what it should read from; in JSON, what it writes to.
    pub channel: Option<String>,
    /// The channel's inode.
    pub inode: Option<u64>,
}

impl Party {
    pub(super) fn reader(&self) -> Reader {
        let kind = [Kind::Holder, Kind::Writer]
            .into_iter()
            .find(|kind| self.kind.as_deref() == Some(kind.as_str()));
        Reader {
            process: Process {
                tgid: self.pid,
                start: 0,
            },
            fd: self.fd.unwrap_or_default(),
            kind: kind.unwrap_or(Kind::Reader),
            person: Arc::new(Person {
                comm: self.comm.clone(),
                state: State::from_letter(self.state.chars().next().unwrap_or('?')),
                sleeps_in: None,
                at: Mono::NEVER,
            }),
        }
    }
}

/// A TCP connection whose other side does not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Client {
    /// Who does not read.
    pub peer: String,
    /// Bytes that were not acknowledged.
    pub queued_bytes: u64,
}

/// What becomes of a stall.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields of the API's `fate`, by their names there")]
pub enum Fate {
    /// Its process has not been read about yet.
    Unknown,
    /// No rule matches.
    NoRule,
    /// Its rule's condition is met so many seconds from the snapshot; without a number, once the
    /// writer was blocked for the rule's share of the time.
    Due {
        #[serde(default)]
        in_seconds: Option<f64>,
        #[serde(default)]
        action: String,
        #[serde(default)]
        mode: String,
        #[serde(default)]
        unless: Option<String>,
    },
    /// Its rule has said so, and does no more.
    Alerted,
    /// Its process is left alone.
    LeftAlone {
        #[serde(default)]
        reason: String,
        #[serde(default)]
        detail: Option<String>,
    },
    /// Its process is to be ended, and has to wait.
    Held {
        #[serde(default)]
        reason: String,
        #[serde(default)]
        detail: Option<String>,
        #[serde(default)]
        for_seconds: Option<f64>,
    },
    /// Its process is being ended.
    Ending {
        #[serde(default)]
        step: String,
        #[serde(default)]
        for_seconds: Option<f64>,
    },
    /// Ending its process was tried, and it is still there.
    Tried,
    /// Nothing is said, or nothing that this dashboard knows.
    #[default]
    #[serde(other)]
    Unsaid,
}

/// An event: what the log shows of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of an event, by their names there")]
pub struct Event {
    pub seq: u64,
    pub time: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub stall: Option<EventStall>,
    pub rule: Option<String>,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub signal: Option<String>,
    pub took_ms: Option<f64>,
}

/// Which stall an event is about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields of an event's `stall`, by their names there"
)]
pub struct EventStall {
    pub id: String,
    pub pid: u32,
    pub comm: String,
    pub age_seconds: f64,
}
