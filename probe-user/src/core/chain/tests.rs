use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::{
    matcher::tests::sighting,
    model::{Bound, ChannelKind, Mono, WriterId},
    reader::End,
};

fn process(pid: u32) -> Process {
    Process {
        tgid: pid,
        start: u64::from(pid),
    }
}

fn channel(inode: u64) -> Channel {
    Channel {
        kind: ChannelKind::Pipe,
        dev: 1,
        inode,
    }
}

fn stall(id: u64, pid: u32, inode: u64) -> Stall {
    let mut last = sighting();
    last.channel = channel(inode);
    last.writer = WriterId {
        process: process(pid),
        tid: u32::try_from(id).unwrap(),
    };
    Stall {
        id: StallId(id),
        last,
        since: Mono::from_nanos(0),
        bound: Bound::Exact,
        preexisting: false,
        draining: false,
        watched: Mono::from_nanos(0),
        look: 1,
        missing: None,
        shares: Vec::new(),
        crawls: None,
        facts: None,
        cause: None,
    }
}

/// Channels by their inodes, each with those who hold the reading end; `true` for who inherited it.
fn readership(ends: &[(u64, &[(u32, bool)])]) -> Readership {
    let mut all = Readership::default();
    for (inode, held) in ends {
        let ends = held.iter().map(|(pid, inherited)| End {
            process: process(*pid),
            fd: 3,
            inherited: *inherited,
        });
        all.ends.insert(channel(*inode), ends.collect());
        for (pid, _) in *held {
            all.people.insert(process(*pid), person(State::Sleeping));
        }
    }
    all
}

fn person(state: State) -> Person {
    Person {
        comm: "x".into(),
        state,
        sleeps_in: None,
        at: Mono::from_nanos(0),
    }
}

fn pids(cause: &Cause) -> Vec<u32> {
    cause.chain.iter().map(|link| link.reader.process.tgid).collect()
}

fn cause_of(stalls: &[Stall], readership: &Readership, id: u64) -> Cause {
    let mut all = causes(stalls, readership).into_iter();
    all.find(|(stall, _)| *stall == StallId(id)).unwrap().1
}

#[test]
fn a_chain_leads_over_stalled_readers_to_who_does_not_read() {
    let stalls = [stall(1, 10, 100), stall(2, 11, 101)];
    let all = readership(&[(100, &[(11, false)]), (101, &[(12, false)])]);

    let first = cause_of(&stalls, &all, 1);

    assert_eq!(pids(&first), [11, 12]);
    assert_eq!(first.culprit().unwrap().process, process(12));
    assert_eq!(first.deadlock, []);
    assert_eq!(pids(&cause_of(&stalls, &all, 2)), [12]);
}

#[test]
fn a_reader_that_is_not_observed_is_followed_if_it_was_seen_writing() {
    let stalls = [stall(1, 10, 100)];
    let mut all = readership(&[(100, &[(11, false)]), (101, &[(12, false)])]);
    all.writing.insert(process(11), vec![channel(101)]);

    assert_eq!(pids(&cause_of(&stalls, &all, 1)), [11, 12]);
}

#[test]
fn two_that_wait_for_each_other_are_a_deadlock_and_who_waits_for_them_is_not_part_of_it() {
    let stalls = [stall(1, 10, 100), stall(2, 11, 101), stall(3, 12, 102)];
    let all = readership(&[
        (100, &[(11, false)]),
        (101, &[(10, false)]),
        (102, &[(10, false)]),
    ]);

    for id in [1, 2] {
        let cause = cause_of(&stalls, &all, id);
        assert_eq!(cause.deadlock, [process(10), process(11)]);
        assert_eq!(cause.chain.len(), 2);
    }
    let outside = cause_of(&stalls, &all, 3);
    assert_eq!(outside.deadlock, []);
    assert_eq!(pids(&outside), [10, 11, 10]);
}

#[test]
fn a_circle_with_another_reader_who_could_read_is_no_deadlock_and_that_one_is_the_culprit() {
    let stalls = [stall(1, 10, 100), stall(2, 11, 101)];
    let all = readership(&[(100, &[(11, false), (12, false)]), (101, &[(10, false)])]);

    let cause = cause_of(&stalls, &all, 1);

    assert_eq!((pids(&cause), cause.deadlock), (vec![12], vec![]));
    assert_eq!(pids(&cause_of(&stalls, &all, 2)), [10, 12]);
}

#[test]
fn a_writer_that_alone_holds_its_reading_end_waits_for_itself() {
    let stalls = [stall(1, 10, 100)];
    let cause = cause_of(&stalls, &readership(&[(100, &[(10, false)])]), 1);

    assert_eq!(cause.readers[0].kind, Kind::Writer);
    assert_eq!(cause.deadlock, [process(10)]);
}

#[test]
fn who_inherited_a_descriptor_is_the_culprit_only_where_nobody_else_reads() {
    let stalls = [stall(1, 10, 100), stall(2, 20, 200)];
    let all = readership(&[
        (100, &[(9, true), (11, false), (10, false)]),
        (200, &[(21, true)]),
    ]);

    let cause = cause_of(&stalls, &all, 1);
    let kinds: Vec<_> = cause.readers.iter().map(|reader| reader.kind).collect();
    assert_eq!(kinds, [Kind::Holder, Kind::Reader, Kind::Writer]);
    assert_eq!(pids(&cause), [11]);
    assert_eq!(cause_of(&stalls, &all, 2).culprit().unwrap().kind, Kind::Holder);
}

#[test]
fn a_stopped_process_anywhere_on_the_chain_holds_but_a_stopped_holder_does_not() {
    let stalls = [stall(1, 10, 100), stall(2, 11, 101)];
    let mut all = readership(&[(100, &[(11, false), (13, true)]), (101, &[(12, false)])]);
    all.people.insert(process(13), person(State::Stopped));
    assert_eq!(cause_of(&stalls, &all, 1).held(), None);

    all.people.insert(process(12), person(State::Frozen));
    let cause = cause_of(&stalls, &all, 1);
    assert_eq!(cause.held().unwrap().process, process(12));
}

#[test]
fn nobody_found_is_no_cause() {
    let stalls = [stall(1, 10, 100)];
    let cause = cause_of(&stalls, &readership(&[(100, &[])]), 1);
    assert_eq!(cause, Cause::default());
    assert!(causes(&stalls, &Readership::default()).is_empty());
}

#[test]
fn ten_thousand_in_a_row_are_followed_and_shown_in_part() {
    let stalls: Vec<_> = (0..10_000)
        .map(|n| stall(n, u32::try_from(n).unwrap(), n))
        .collect();
    let mut all = Readership::default();
    for n in 0..10_000_u32 {
        let end = End {
            process: process(n + 1),
            fd: 0,
            inherited: false,
        };
        all.ends.insert(channel(u64::from(n)), vec![end]);
        all.people.insert(process(n + 1), person(State::Sleeping));
    }
    let found = causes(&stalls, &all);
    assert_eq!(found.len(), 10_000);
    assert_eq!(found[0].1.chain.len(), MAX_LINKS);
}

/// Up to eight processes, each with up to two blocked writes, and who holds their other ends.
#[test]
fn a_process_with_fifty_thousand_writes_that_only_it_could_read_is_no_work_of_their_square() {
    const COUNT: u64 = 50_000;
    let own: &[(u32, bool)] = &[(1, false)];
    let stalls: Vec<_> = (1..=COUNT).map(|id| stall(id, 1, id)).collect();
    let ends: Vec<_> = (1..=COUNT).map(|inode| (inode, own)).collect();
    // Each of them behind each other would be 2.5 thousand million.
    let causes = causes(&stalls, &readership(&ends));
    assert_eq!(causes.len(), stalls.len());
    assert!(causes.iter().all(|(_, cause)| cause.deadlock == [process(1)]));
}

fn any_graph() -> impl Strategy<Value = (Vec<Stall>, Readership)> {
    let ends = prop::collection::vec((0..9_u32, prop::bool::weighted(0.2)), 0..4);
    let write = (0..8_u32, prop::bool::ANY, ends);
    prop::collection::vec(write, 1..12).prop_map(|writes| {
        let mut stalls = Vec::new();
        let mut all = Readership::default();
        for (n, (pid, observed, ends)) in (1_u64..).zip(writes) {
            let mut ends = ends;
            ends.sort_unstable();
            ends.dedup_by_key(|(pid, _)| *pid);
            all.merge(readership(&[(n, &ends)]));
            if observed {
                stalls.push(stall(n, pid, n));
            } else {
                all.writing.entry(process(pid)).or_default().push(channel(n));
            }
        }
        (stalls, all)
    })
}

/// The blocked writes, and by plain repetition which of them somebody may end.
fn naive(stalls: &[Stall], all: &Readership) -> Vec<(Process, Channel, Vec<Process>, bool)> {
    let observed: BTreeSet<_> = stalls.iter().map(|stall| stall.last.writer.process).collect();
    let own = stalls
        .iter()
        .map(|stall| (stall.last.writer.process, stall.last.channel));
    let others = all
        .writing
        .iter()
        .filter(|(process, _)| !observed.contains(process));
    let others = others.flat_map(|(process, channels)| channels.iter().map(|channel| (*process, *channel)));
    let mut nodes: Vec<_> = own
        .chain(others)
        .map(|(process, channel)| {
            let by: Vec<_> = readers(all, channel, process).collect();
            let unknown = by.is_empty();
            (process, channel, by, unknown)
        })
        .collect();
    for _ in 0..nodes.len() {
        let before = nodes.clone();
        for node in &mut nodes {
            node.3 |= node.2.iter().any(|reader| {
                let mut writes = before.iter().filter(|other| other.0 == *reader).peekable();
                writes.peek().is_none() || writes.any(|other| other.3)
            });
        }
    }
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn deadlocks_are_exactly_the_circles_that_nobody_can_open((stalls, all) in any_graph()) {
        let nodes = naive(&stalls, &all);
        let reaches = |from: usize, to: usize| {
            let (mut seen, mut next) = (vec![false; nodes.len()], vec![from]);
            while let Some(at) = next.pop() {
                for (other, node) in nodes.iter().enumerate() {
                    if !node.3 && nodes[at].2.contains(&node.0) && !std::mem::replace(&mut seen[other], true) {
                        next.push(other);
                    }
                }
            }
            seen[to]
        };
        for (stall, (_, cause)) in stalls.iter().zip(causes(&stalls, &all)) {
            let own = (stall.last.writer.process, stall.last.channel);
            let at = nodes.iter().position(|node| (node.0, node.1) == own).unwrap();
            let expected: BTreeSet<_> = (0..nodes.len())
                .filter(|other| !nodes[at].3 && !nodes[*other].3)
                .filter(|other| reaches(at, *other) && reaches(*other, at))
                .map(|other| nodes[other].0)
                .collect();
            prop_assert_eq!(Vec::from_iter(expected), cause.deadlock);
        }
    }

    #[test]
    fn every_chain_follows_readers_and_ends_where_somebody_could_read((stalls, all) in any_graph()) {
        let nodes = naive(&stalls, &all);
        for (stall, (_, cause)) in stalls.iter().zip(causes(&stalls, &all)) {
            let own = (stall.last.writer.process, stall.last.channel);
            let ways_out = nodes.iter().find(|node| (node.0, node.1) == own).unwrap().3;
            let mut writer = own.0;
            for link in &cause.chain {
                let known = nodes.iter().find(|node| (node.0, node.1) == (writer, link.channel)).unwrap();
                prop_assert!(known.2.contains(&link.reader.process));
                writer = link.reader.process;
            }
            if let (true, Some(last)) = (ways_out, cause.chain.last()) {
                let writes: Vec<_> = nodes.iter().filter(|node| node.0 == last.reader.process).collect();
                prop_assert!(writes.is_empty() || writes.iter().any(|node| node.2.is_empty()));
            }
        }
    }

    #[test]
    fn what_is_kept_gives_the_same_causes((stalls, all) in any_graph()) {
        let mut kept = all.clone();
        kept.keep(stalls.iter().map(|stall| stall.last.channel));
        // Writes of processes that nobody waits for change nothing.
        prop_assert_eq!(causes(&stalls, &kept), causes(&stalls, &all));
    }
}

#[test]
fn a_cause_shares_what_was_seen_of_a_process() {
    let stalls = [stall(1, 10, 100), stall(2, 20, 100)];
    let found = causes(&stalls, &readership(&[(100, &[(11, false)])]));
    let [(_, a), (_, b)] = &found[..] else { panic!() };
    assert!(Arc::ptr_eq(&a.readers[0].person, &b.readers[0].person));
}
