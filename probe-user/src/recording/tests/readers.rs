//! Who should read, in recordings.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::{decode, encode};
use crate::{
    core::{
        model::{Channel, ChannelKind, Mono, Process},
        reader::{End, Person, Readership, State},
    },
    recording::Frame,
};

/// What version 2 brought.
pub(super) fn small() -> Vec<Frame> {
    let process = |tgid| Process { tgid, start: 77 };
    let channel = |inode| Channel {
        kind: ChannelKind::Unix,
        dev: 8,
        inode,
    };
    let end = End {
        process: process(50),
        fd: 3,
        inherited: true,
    };
    let person = Person {
        comm: "node".into(),
        state: State::Frozen,
        sleeps_in: Some("ep_poll".into()),
        at: Mono::from_nanos(1_000),
    };
    let readers = Readership {
        ends: HashMap::from([(channel(100), vec![end]), (channel(99), vec![])]),
        people: BTreeMap::from([(process(50), person)]),
        writing: BTreeMap::from([(process(50), vec![channel(101)])]),
        clients: BTreeMap::new(),
    };
    vec![Frame::Readers(Mono::from_nanos(1_000), Box::new(readers))]
}

#[test]
fn readers_are_read_as_they_were_written() {
    let (bytes, _) = encode(&small());
    let (frames, _) = decode(&bytes).unwrap();
    assert_eq!(frames, small());
}

prop_compose! {
    pub(super) fn readership()(
        ends in prop::collection::hash_map((0..200_u64, 1..4_u8), prop::collection::vec((0..9_u32, 0..9_u32, prop::bool::ANY), 0..3), 0..4),
        people in prop::collection::btree_map(0..9_u32, ("[a-z]{0,15}", prop::sample::select(State::ALL.to_vec()), prop::option::of("[a-z_]{1,9}")), 0..4),
        writing in prop::collection::btree_map(0..9_u32, prop::collection::vec(0..200_u64, 1..3), 0..3),
    ) -> Readership {
        let process = |tgid| Process { tgid, start: u64::from(tgid) * 7 };
        let channel = |(inode, kind)| Channel { kind: ChannelKind::from_u8(kind).unwrap(), dev: 8, inode };
        let end = |(tgid, fd, inherited)| End { process: process(tgid), fd, inherited };
        Readership {
            ends: ends.into_iter().map(|(key, ends)| (channel(key), ends.into_iter().map(end).collect())).collect(),
            people: people.into_iter().map(|(tgid, (comm, state, sleeps_in))| {
                (process(tgid), Person { comm, state, sleeps_in, at: Mono::from_nanos(u64::from(tgid)) })
            }).collect(),
            writing: writing.into_iter().map(|(tgid, inodes)| {
                (process(tgid), inodes.into_iter().map(|inode| channel((inode, 1))).collect())
            }).collect(),
            clients: BTreeMap::new(),
        }
    }
}
