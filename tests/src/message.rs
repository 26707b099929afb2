//! The program's JSON as its users see it: the fields the tests look at, and nothing lenient
//! about those that must be there.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// One stall, from `ps --json` or from within an event.
#[derive(Debug, Clone, Deserialize)]
pub struct Stall {
    /// Names the stall for as long as it lasts.
    pub id: String,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The leader's comm.
    pub comm: String,
    /// The thread's own comm.
    pub thread: String,
    /// The program's file.
    pub exe: Option<String>,
    /// The arguments.
    pub cmdline: Vec<String>,
    /// The real user's id.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<String>,
    /// The parent.
    pub ppid: Option<u32>,
    /// The parent's comm.
    pub parent: Option<String>,
    /// `pipe`, `fifo` or `unix`.
    pub channel: String,
    /// The channel's inode.
    pub inode: u64,
    /// The fd that is written to.
    pub fd: u32,
    /// `stdin`, `stdout` or `stderr` where the channel is the one behind that fd.
    pub stream: Option<String>,
    /// The syscall's name.
    pub syscall: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// For how long, in seconds.
    pub age_seconds: f64,
    /// Whether the stall is older than the observer.
    pub preexisting: bool,
    /// Bytes waiting in the channel.
    pub queued_bytes: Option<u64>,
    /// In `ps` only: `stalled` or `draining`.
    pub state: Option<String>,
    /// Whether the age is only a lower bound.
    #[serde(default)]
    pub age_is_minimum: bool,
}

/// One event.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// The format's version.
    pub v: u32,
    /// The event's own name.
    pub id: String,
    /// Its place in the order of events.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// What: `stall.detected`, `kill.sent` …
    #[serde(rename = "type")]
    pub kind: String,
    /// The stall it is about.
    pub stall: Option<Stall>,
    /// The rule it is about.
    pub rule: Option<String>,
    /// Why, for `kill.skipped`, `kill.failed` and `stall.ended`.
    pub reason: Option<String>,
    /// More of it, for people.
    pub detail: Option<String>,
    /// The signal of `kill.sent`.
    pub signal: Option<String>,
    /// How long a kill took, for `kill.confirmed`.
    pub took_ms: Option<f64>,
    /// How long it took from the rule's threshold on, for `kill.confirmed`.
    pub since_threshold_ms: Option<f64>,
    /// The histogram in `agent.stopping`.
    pub blocked_seconds: Option<Histogram>,
}

impl Event {
    /// Reads one line.
    ///
    /// # Errors
    /// If the line is not an event as documented.
    pub fn parse(line: &str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    /// Says whether the event is about a process.
    pub fn is_of(&self, pid: u32) -> bool {
        self.pid() == Some(pid)
    }

    /// Names the process the event is about.
    pub fn pid(&self) -> Option<u32> {
        self.stall.as_ref().map(|stall| stall.pid)
    }

    /// Tells the age of the stall the event is about.
    #[track_caller]
    pub fn age(&self) -> f64 {
        self.stall
            .as_ref()
            .unwrap_or_else(|| panic!("{} carries no stall", self.kind))
            .age_seconds
    }
}

/// How often writers were blocked for how long.
#[derive(Debug, Clone, Deserialize)]
pub struct Histogram {
    /// All intervals.
    pub count: u64,
    /// Intervals by length.
    pub buckets: Vec<Bucket>,
}

/// The intervals up to a length. The last bound may be written as null or a text for infinity.
#[derive(Debug, Clone, Deserialize)]
pub struct Bucket {
    /// The upper bound in seconds.
    pub le: Value,
    /// How many.
    pub count: u64,
}
