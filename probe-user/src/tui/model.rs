//! What the dashboard reads: the agent's JSON, and the rows made of it.
//!
//! An agent may be older or newer than the dashboard. What is missing takes its default, what is
//! unknown is left out, and neither is an error.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer};

use crate::core::{
    matcher::{Subject, Write},
    model::{ChannelKind, Facts, Mono, Stream, channel_name},
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

/// A stalled writer as the table has it.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts as they are told, each by itself"
)]
pub struct Row {
    /// Names the stall for as long as the agent runs.
    pub id: String,
    /// The process.
    pub pid: u32,
    /// The thread that writes.
    pub tid: u32,
    /// The process's command.
    pub comm: String,
    /// The thread's name.
    pub thread: String,
    /// The user's number.
    pub uid: u32,
    /// The parent's pid.
    pub ppid: u32,
    /// What rules ask about; without groups and ancestors where an agent told it.
    pub facts: Arc<Facts>,
    /// The arguments, with spaces between them.
    pub command: String,
    /// What is written to, by name.
    pub channel: String,
    /// The channel's inode.
    pub inode: u64,
    /// The descriptor that is written to.
    pub fd: u32,
    /// Which standard stream that is.
    pub stream: Option<Stream>,
    /// The call that it is blocked in.
    pub syscall: String,
    /// Since when, as the source tells the time.
    pub since: String,
    /// How long, when the snapshot was taken.
    pub age: Duration,
    /// Whether it may be older.
    pub at_least: bool,
    /// Whether it began before the observer did.
    pub preexisting: bool,
    /// Whether its reader took something between the last two looks.
    pub draining: bool,
    /// What is queued, in bytes.
    pub queued: Option<u64>,
    /// Who holds the reading end; `None` where nobody said.
    pub readers: Option<Vec<Party>>,
    /// Who does not read, at the end of the chain.
    pub culprit: Option<Party>,
    /// From the writer's reader to the culprit, each with what it should read from.
    pub chain: Vec<Party>,
    /// The clients that the culprit waits for.
    pub clients: Vec<Client>,
    /// Whether it is part of a circle.
    pub deadlock: bool,
    /// The rule that decides about it.
    pub rule: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
}

impl Row {
    /// The process as filters ask about it.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        let known = [ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix];
        let channel = known.into_iter().find(|kind| channel_name(*kind) == self.channel);
        Subject {
            pid: self.pid,
            comm: &self.comm,
            uid: self.uid,
            at: Mono::NEVER,
            facts: &self.facts,
            write: channel.map(|channel| Write {
                thread: &self.thread,
                channel,
                stream: self.stream,
            }),
            cause: None,
        }
    }

    /// The user by name, else by number.
    #[must_use]
    pub fn user(&self) -> String {
        self.facts.user.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// The systemd unit, else the container.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        let container = self.facts.container.as_deref();
        self.facts.unit.as_deref().or(container)
    }

    /// Who does not read, as a word; the deadlock where that is the reason.
    #[must_use]
    pub fn culprit_label(&self) -> Option<String> {
        if self.deadlock {
            return Some("deadlock".to_owned());
        }
        let culprit = self.culprit.as_ref()?;
        Some(format!("{}[{}]", culprit.comm, culprit.pid))
    }

    /// What stays the same while a slow reader makes one stall after another of the same write.
    #[must_use]
    pub const fn writer(&self) -> (u32, u64) {
        (self.tid, self.inode)
    }
}

impl From<StallState> for Row {
    fn from(state: StallState) -> Self {
        let StallState { stall, rule, fate } = state;
        let stream = [Stream::Stdin, Stream::Stdout, Stream::Stderr]
            .into_iter()
            .find(|stream| stall.stream.as_deref() == Some(stream.as_str()));
        let (culprit, clients) = match stall.culprit {
            Some(Culprit { party, clients }) => (Some(party), clients),
            None => (None, Vec::new()),
        };
        // What is known of a process is said where it is a reader, or the culprit.
        let known = |link: &Party| {
            let parties = stall.readers.iter().flatten().chain(&culprit);
            let mut parties = parties.filter(|party| party.pid == link.pid);
            parties.next().cloned().unwrap_or_else(|| link.clone())
        };
        let link = |pair: &[Party]| match pair {
            [writer, reader] => Some(Party {
                channel: writer.channel.clone(),
                inode: writer.inode,
                ..known(reader)
            }),
            _ => None,
        };
        let chain = stall.chain.windows(2).filter_map(link).collect();
        Self {
            command: stall.cmdline.join(" "),
            facts: Arc::new(Facts {
                cmdline: stall.cmdline,
                exe: stall.exe,
                user: stall.user,
                parent: stall.parent,
                cgroup: stall.cgroup,
                unit: stall.unit,
                container: stall.container,
                pod: stall.pod,
                ..Facts::default()
            }),
            id: stall.id,
            pid: stall.pid,
            tid: stall.tid,
            comm: stall.comm,
            thread: stall.thread,
            uid: stall.uid,
            ppid: stall.ppid,
            channel: stall.channel,
            inode: stall.inode,
            fd: stall.fd,
            stream,
            syscall: stall.syscall,
            since: stall.since,
            age: Duration::try_from_secs_f64(stall.age_seconds).unwrap_or_default(),
            at_least: stall.age_is_minimum,
            preexisting: stall.preexisting,
            draining: stall.state.as_deref() == Some("draining"),
            queued: stall.queued_bytes,
            readers: stall.readers,
            culprit,
            deadlock: stall.deadlock.is_some_and(|members| !members.is_empty()),
            chain,
            clients,
            rule,
            fate,
        }
    }
}

/// All that was known at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When it was asked for.
    pub at: Mono,
    /// The agent as a whole.
    pub status: Status,
    /// The rules.
    pub rules: Vec<Rule>,
    /// The stalled writers.
    pub rows: Vec<Row>,
    /// How many there are, more than there are rows where not all were handed out.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_agent_does_not_say_takes_its_default() {
        assert_eq!(serde_json::from_str::<Status>("{}").unwrap(), Status::default());
        let stalls: Stalls = serde_json::from_str(r#"{"stalls": [{"stall": {"pid": 7}}]}"#).unwrap();

        let row = Row::from(stalls.stalls[0].clone());

        assert_eq!(
            (row.pid, row.fate, row.readers, row.deadlock),
            (7, Fate::Unsaid, None, false)
        );
    }

    #[test]
    fn what_a_newer_agent_adds_is_no_error() {
        let text = r#"{"stall": {"id": "s1", "new": 1, "deadlock": [1, 2]},
            "fate": {"state": "absolved", "by": "x"}, "more": []}"#;

        let row = Row::from(serde_json::from_str::<StallState>(text).unwrap());

        assert_eq!((row.fate, row.deadlock), (Fate::Unsaid, true));
        let due = r#"{"state": "due", "in_seconds": 3.5, "since": 1}"#;
        let expected = Fate::Due {
            in_seconds: Some(3.5),
            action: String::new(),
            mode: String::new(),
            unless: None,
        };
        assert_eq!(serde_json::from_str::<Fate>(due).unwrap(), expected);
    }

    #[test]
    fn a_chain_begins_with_the_writer_and_each_link_has_what_is_read_from() {
        let text = r#"{"stall": {"pid": 10,
            "readers": [{"pid": 20, "comm": "gzip", "state": "S", "sleeps_in": null, "kind": "reader", "fd": 0}],
            "culprit": {"pid": 30, "comm": "ssh", "state": "T", "sleeps_in": "do_epoll_wait",
                "kind": "reader", "fd": 4, "clients": [{"fd": 7, "peer": "127.0.0.1:80",
                "queued_bytes": 9, "window_bytes": 0}], "clients_total": 1},
            "chain": [{"pid": 10, "comm": "ffmpeg", "channel": "unix", "inode": 7},
                {"pid": 20, "comm": "gzip", "channel": "pipe", "inode": 8},
                {"pid": 30, "comm": "ssh", "channel": null, "inode": null}],
            "deadlock": null}}"#;

        let row = Row::from(serde_json::from_str::<StallState>(text).unwrap());

        let links: Vec<_> = row
            .chain
            .iter()
            .map(|link| (link.pid, link.channel.as_deref(), link.inode, link.state.as_str()))
            .collect();
        let expected = [(20, Some("unix"), Some(7), "S"), (30, Some("pipe"), Some(8), "T")];
        assert_eq!(links, expected);
        assert_eq!(row.clients[0].queued_bytes, 9);
        assert_eq!(
            (row.deadlock, row.culprit_label().as_deref()),
            (false, Some("ssh[30]"))
        );

        let nobody = r#"{"stall": {"readers": null, "culprit": null, "chain": [], "deadlock": [1, 2]}}"#;
        let row = Row::from(serde_json::from_str::<StallState>(nobody).unwrap());
        assert_eq!((row.readers, row.deadlock), (Some(Vec::new()), true));
    }

    #[test]
    fn every_fate_that_the_agent_tells_is_understood() {
        use crate::api::Fate as Told;
        let told = [
            Told::Unknown,
            Told::NoRule,
            Told::Due {
                in_seconds: Some(1.5),
                action: "kill".into(),
                mode: "enforce".into(),
                unless: None,
            },
            Told::Alerted,
            Told::LeftAlone {
                reason: "dry-run".into(),
                detail: None,
            },
            Told::Held {
                reason: "budget".into(),
                for_seconds: Some(2.0),
            },
            Told::Ending {
                step: "killing".into(),
                for_seconds: None,
            },
            Told::Tried,
        ];
        for fate in told {
            // The compiler leads here from a new one.
            match fate {
                Told::Unknown
                | Told::NoRule
                | Told::Due { .. }
                | Told::Alerted
                | Told::LeftAlone { .. }
                | Told::Held { .. }
                | Told::Ending { .. }
                | Told::Tried => {}
            }
            let json = serde_json::to_value(&fate).unwrap();
            let understood: Fate = serde_json::from_value(json.clone()).unwrap();
            assert_ne!(understood, Fate::Unsaid, "{json}");
        }
    }

    #[test]
    fn ages_that_are_no_durations_are_zero() {
        for age in [-1.0, 1e300] {
            let stall = Stall {
                age_seconds: age,
                ..Stall::default()
            };
            let row = Row::from(StallState {
                stall,
                ..StallState::default()
            });
            assert_eq!(row.age, Duration::ZERO);
        }
    }
}
