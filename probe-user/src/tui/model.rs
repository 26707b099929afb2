//! What the dashboard knows of the agent and of stalled writers: the rows made of the agent's JSON.

mod wire;

use std::{sync::Arc, time::Duration};

pub use self::wire::{
    Bucket, Client, Culprit, Event, EventStall, Fate, Histogram, Kills, Lost, Party, Rule, Rules, Stall,
    StallState, Stalls, Status,
};
use crate::core::{
    chain::{Cause, Link},
    matcher::{Subject, Write},
    model::{Bound, Channel, ChannelKind, Facts, Mono, Process, Stream, channel_name},
};

/// A stalled writer as the table has it.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// What that says of the stall's age.
    pub bound: Bound,
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
    /// The process as filters ask about it, with its [`Self::cause`].
    #[must_use]
    pub fn subject<'a>(&'a self, cause: Option<&'a Cause>) -> Subject<'a> {
        let channel = channel_kind(&self.channel);
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
            cause,
        }
    }

    /// Who should read, as rules ask about it; `None` where nobody is known.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        let readers = self.readers.as_deref().unwrap_or_default();
        if readers.is_empty() && self.culprit.is_none() && !self.deadlock {
            return None;
        }
        let channel = Channel {
            kind: channel_kind(&self.channel).unwrap_or(ChannelKind::Pipe),
            dev: 0,
            inode: self.inode,
        };
        // Nobody asks what is between the writer and the culprit.
        let to_culprit = |culprit: &Party| Link {
            channel,
            reader: culprit.reader(),
        };
        let member = Process {
            tgid: self.pid,
            start: 0,
        };
        Some(Cause {
            readers: readers.iter().map(Party::reader).collect(),
            chain: self.culprit.iter().map(to_culprit).collect(),
            clients: Vec::new(),
            deadlock: self.deadlock.then_some(member).into_iter().collect(),
        })
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

fn channel_kind(name: &str) -> Option<ChannelKind> {
    let known = [ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix];
    known.into_iter().find(|kind| channel_name(*kind) == name)
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
            bound: match (stall.age_is_minimum, stall.age_is_maximum) {
                (true, _) => Bound::AtLeast,
                (false, true) => Bound::AtMost,
                (false, false) => Bound::Exact,
            },
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
mod tests;
