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
    /// Whether the age is only an upper bound.
    #[serde(default)]
    pub age_is_maximum: bool,
    /// Who holds the reading end, if anybody could be found.
    pub readers: Option<Vec<Reader>>,
    /// Who does not read, at the end of the chain.
    pub culprit: Option<Culprit>,
    /// From the writer to the culprit.
    pub chain: Vec<Link>,
    /// The members of the deadlock that it is part of.
    pub deadlock: Option<Vec<u32>>,
}

/// Who holds a reading end.
#[derive(Debug, Clone, Deserialize)]
pub struct Reader {
    /// The process.
    pub pid: u32,
    /// Its comm.
    pub comm: String,
    /// The letter of its state.
    pub state: String,
    /// The kernel function that it sleeps in.
    pub sleeps_in: Option<String>,
    /// `reader`, `holder` or `writer`.
    pub kind: String,
    /// By which fd.
    pub fd: u32,
}

/// Who does not read.
#[derive(Debug, Clone, Deserialize)]
pub struct Culprit {
    /// As a reader.
    #[serde(flatten)]
    pub reader: Reader,
    /// Those of its clients that do not read.
    pub clients: Vec<Client>,
    /// How many there are.
    pub clients_total: usize,
}

/// A client that does not read.
#[derive(Debug, Clone, Deserialize)]
pub struct Client {
    /// The culprit's fd.
    pub fd: u32,
    /// The address.
    pub peer: String,
    /// Bytes on their way.
    pub queued_bytes: u32,
}

/// A member of a chain.
#[derive(Debug, Clone, Deserialize)]
pub struct Link {
    /// The process.
    pub pid: u32,
    /// Its comm.
    pub comm: String,
    /// What it writes to, but for the last.
    pub channel: Option<String>,
}

impl Stall {
    /// Tells the pids of the chain, the writer's first.
    pub fn chain_pids(&self) -> Vec<u32> {
        self.chain.iter().map(|link| link.pid).collect()
    }

    /// Tells the pid of the culprit.
    pub fn culprit_pid(&self) -> Option<u32> {
        self.culprit.as_ref().map(|culprit| culprit.reader.pid)
    }

    /// Gives one of those who hold the reading end.
    #[track_caller]
    pub fn reader(&self, pid: u32) -> &Reader {
        let readers = self.readers.as_deref().unwrap_or_default();
        let found = readers.iter().find(|reader| reader.pid == pid);
        found.unwrap_or_else(|| panic!("{pid} is not among the readers: {self:#?}"))
    }
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
    /// The share that the rule asks for, and what was measured of it.
    pub stalled_share: Option<Share>,
    /// How long a kill took, for `kill.confirmed`.
    pub took_ms: Option<f64>,
    /// How long it took from the rule's threshold on, for `kill.confirmed`.
    pub since_threshold_ms: Option<f64>,
    /// The histogram in `agent.stopping`.
    pub blocked_seconds: Option<Histogram>,
    /// What was written, in `agent.stopping` where that was asked for.
    #[serde(default)]
    pub written: Vec<Written>,
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

/// What was written to a channel.
#[derive(Debug, Clone, Deserialize)]
pub struct Written {
    /// `pipe`, `fifo` or `unix`.
    pub channel: String,
    /// The channel's inode.
    pub inode: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long the writes took.
    pub write_seconds: Histogram,
}

/// A share of the time.
#[derive(Debug, Clone, Deserialize)]
pub struct Share {
    /// What the rule asks for.
    pub share: f64,
    /// The window.
    pub over_seconds: f64,
    /// How much of it the writer was blocked, at least.
    pub blocked: Option<f64>,
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
