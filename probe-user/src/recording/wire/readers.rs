//! Who should read, as it is written: in a fixed order, and without the clients, whose
//! addresses are nobody's business and decide nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::{
    model::{Channel, ChannelKind, Mono, Process},
    reader::{End, Person, Readership, State},
};

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::recording) struct Readers {
    ends: Vec<(WireChannel, Vec<WireEnd>)>,
    people: Vec<(Who, WirePerson)>,
    writing: Vec<(Who, Vec<WireChannel>)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Who {
    tgid: u32,
    start: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireChannel {
    kind: u8,
    dev: u32,
    inode: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireEnd {
    who: Who,
    fd: u32,
    inherited: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct WirePerson {
    comm: String,
    state: char,
    sleeps_in: Option<String>,
    at: u64,
}

impl From<Process> for Who {
    fn from(Process { tgid, start }: Process) -> Self {
        Self { tgid, start }
    }
}

impl From<Who> for Process {
    fn from(Who { tgid, start }: Who) -> Self {
        Self { tgid, start }
    }
}

impl From<Channel> for WireChannel {
    fn from(Channel { kind, dev, inode }: Channel) -> Self {
        Self {
            kind: kind as u8,
            dev,
            inode,
        }
    }
}

impl WireChannel {
    fn channel(&self) -> Option<Channel> {
        Some(Channel {
            kind: ChannelKind::from_u8(self.kind)?,
            dev: self.dev,
            inode: self.inode,
        })
    }
}

impl From<&Readership> for Readers {
    fn from(readership: &Readership) -> Self {
        let Readership {
            ends,
            people,
            writing,
            clients: _,
        } = readership;
        let end = |end: &End| WireEnd {
            who: end.process.into(),
            fd: end.fd,
            inherited: end.inherited,
        };
        let person = |person: &Person| WirePerson {
            comm: person.comm.clone(),
            state: person.state.letter().chars().next().unwrap_or('?'),
            sleeps_in: person.sleeps_in.clone(),
            at: person.at.as_nanos(),
        };
        let sorted: BTreeMap<_, _> = ends.iter().collect();
        Self {
            ends: sorted
                .into_iter()
                .map(|(channel, ends)| ((*channel).into(), ends.iter().map(end).collect()))
                .collect(),
            people: people
                .iter()
                .map(|(who, known)| ((*who).into(), person(known)))
                .collect(),
            writing: writing
                .iter()
                .map(|(who, channels)| ((*who).into(), channels.iter().map(|c| (*c).into()).collect()))
                .collect(),
        }
    }
}

impl Readers {
    /// `None` if it names a channel that there is not.
    pub(in crate::recording) fn readership(self) -> Option<Readership> {
        let end = |end: WireEnd| End {
            process: end.who.into(),
            fd: end.fd,
            inherited: end.inherited,
        };
        let mut readership = Readership::default();
        for (channel, ends) in self.ends {
            let ends = ends.into_iter().map(end).collect();
            readership.ends.insert(channel.channel()?, ends);
        }
        for (who, person) in self.people {
            let person = Person {
                comm: person.comm,
                state: State::from_letter(person.state),
                sleeps_in: person.sleeps_in,
                at: Mono::from_nanos(person.at),
            };
            readership.people.insert(who.into(), person);
        }
        for (who, channels) in self.writing {
            let channels: Option<_> = channels.iter().map(WireChannel::channel).collect();
            readership.writing.insert(who.into(), channels?);
        }
        Some(readership)
    }
}
