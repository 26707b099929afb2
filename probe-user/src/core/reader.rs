//! Who holds the reading end of a channel, what they do instead of reading, and for whom.
//!
//! Values only: they are found elsewhere, and `chain` draws the conclusions.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use super::model::{Channel, Mono, Process};

/// What a process does, as far as the scheduler and job control are concerned; of one with
/// several threads, what its first one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// On a CPU, or waiting for one.
    Running,
    /// Asleep until something happens.
    Sleeping,
    /// Asleep, and deaf to signals.
    Uninterruptible,
    /// Stopped by job control (SIGSTOP and the like).
    Stopped,
    /// Held by a tracer.
    Traced,
    /// Held by its control group's freezer.
    Frozen,
    /// Over, and not reaped.
    Zombie,
    /// Gone altogether.
    Gone,
    /// It could not be read.
    Unknown,
}

impl State {
    /// All that can be asked for.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Sleeping,
        Self::Uninterruptible,
        Self::Stopped,
        Self::Traced,
        Self::Frozen,
        Self::Zombie,
    ];

    /// From the letter of `/proc/PID/stat` (fs/proc/array.c, `task_state_array`).
    #[must_use]
    pub const fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' | 'I' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'F' => Self::Frozen,
            'Z' => Self::Zombie,
            'X' => Self::Gone,
            _ => Self::Unknown,
        }
    }

    /// The letter, as in `/proc/PID/stat`; `F` for frozen, which has none there.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Running => "R",
            Self::Sleeping => "S",
            Self::Uninterruptible => "D",
            Self::Stopped => "T",
            Self::Traced => "t",
            Self::Frozen => "F",
            Self::Zombie => "Z",
            Self::Gone => "X",
            Self::Unknown => "?",
        }
    }

    /// The state's name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Frozen => "frozen",
            Self::Zombie => "zombie",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }

    /// Whether somebody holds the process on purpose, and may let it go on; or that cannot be told.
    #[must_use]
    pub const fn may_be_held(self) -> bool {
        matches!(self, Self::Stopped | Self::Traced | Self::Frozen | Self::Unknown)
    }
}

/// What holding a reading end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It is there to read, as far as can be known.
    Reader,
    /// It inherited the descriptor by accident, as far as can be known: it was started with it
    /// open, at a number that no standard stream has and that its command line does not name.
    Holder,
    /// The writer's own process: it keeps its own reading end open.
    Writer,
}

impl Kind {
    /// The kind's name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Holder => "holder",
            Self::Writer => "writer",
        }
    }
}

/// A process that holds the reading end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Who.
    pub process: Process,
    /// By which descriptor: the lowest.
    pub fd: u32,
    /// Whether it was started with the descriptor open, and without having been told of it.
    pub inherited: bool,
}

/// What was last seen of a process that holds a reading end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Its command.
    pub comm: String,
    /// What it does.
    pub state: State,
    /// The kernel function that its first thread sleeps in.
    pub sleeps_in: Option<String>,
    /// When that was seen.
    pub at: Mono,
}

/// A TCP connection whose other side does not read: what was sent fills the send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The descriptor of the process that sends.
    pub fd: u32,
    /// Who does not read.
    pub peer: SocketAddr,
    /// Bytes sent, or to be sent, that were not acknowledged.
    pub queued: u32,
    /// Bytes that the other side would take.
    pub window: u32,
}

/// What one search found, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readership {
    /// Who holds the reading end of each channel that was asked for, and of those that the
    /// chains from there lead over. Empty: nobody was found, which is not "nobody reads".
    pub ends: HashMap<Channel, Vec<End>>,
    /// All who hold one.
    pub people: BTreeMap<Process, Person>,
    /// Those of them that are asleep in a write themselves, and on what.
    pub writing: BTreeMap<Process, Vec<Channel>>,
    /// The clients of each that do not read.
    pub clients: BTreeMap<Process, Vec<Client>>,
}

impl Readership {
    /// Takes in what a later search found.
    pub fn merge(&mut self, later: Self) {
        let Self {
            ends,
            people,
            writing,
            clients,
        } = later;
        // A process that was seen again may not be writing any more, or have other clients.
        for process in people.keys() {
            self.writing.remove(process);
            self.clients.remove(process);
        }
        self.ends.extend(ends);
        self.people.extend(people);
        self.writing.extend(writing);
        self.clients.extend(clients);
    }

    /// Forgets what chains from these channels do not lead to.
    pub fn keep(&mut self, channels: impl IntoIterator<Item = Channel>) {
        let mut wanted: Vec<_> = channels.into_iter().collect();
        let mut ends = HashMap::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(channel) = wanted.pop() {
            let Some((channel, held)) = self.ends.remove_entry(&channel) else {
                continue;
            };
            for end in &held {
                if seen.insert(end.process) {
                    wanted.extend(self.writing.get(&end.process).into_iter().flatten());
                }
            }
            ends.insert(channel, held);
        }
        self.ends = ends;
        self.people.retain(|process, _| seen.contains(process));
        self.writing.retain(|process, _| seen.contains(process));
        self.clients.retain(|process, _| seen.contains(process));
    }
}
