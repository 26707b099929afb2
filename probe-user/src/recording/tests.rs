//! What is written is read again; what is not whole is noticed.

mod readers;

use std::{path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::{steady::Steady, *};
use crate::core::model::{
    Channel, ChannelKind, Counted, DrainToken, Group, Process, Sighting, Stream, WriteSyscall,
};

fn mono() -> impl Strategy<Value = Mono> {
    prop_oneof![0..100_u64, any::<u64>()].prop_map(Mono::from_nanos)
}

/// Few, so that they meet again from look to look.
fn writer() -> impl Strategy<Value = WriterId> {
    (1..5_u32, 1..3_u32, 0..2_u64).prop_map(|(tid, tgid, start)| WriterId {
        tid,
        process: Process { tgid, start },
    })
}

prop_compose! {
    fn channel()(
        kind in prop::sample::select(vec![ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix]),
        dev in any::<u32>(),
        inode in any::<u64>(),
    ) -> Channel {
        Channel { kind, dev, inode }
    }
}

prop_compose! {
    fn sighting()(
        (writer, at, channel) in (writer(), mono(), channel()),
        token in prop::array::uniform2(0..3_u64),
        (entered, token_since, last_ran) in (prop::option::of(mono()), prop::option::of(mono()), prop::option::of(mono())),
        (ppid, uid, fd) in any::<(u32, u32, u32)>(),
        syscall in 1..=10_u8,
        stream in prop::option::of(prop::sample::select(vec![Stream::Stdin, Stream::Stdout, Stream::Stderr])),
        queued in any::<Option<u64>>(),
        counted in prop::option::of((mono(), 0..3_u64)),
        (untouched, exec) in any::<(bool, u32)>(),
        (comm, thread) in any::<(String, String)>(),
    ) -> Sighting {
        Sighting {
            writer,
            at,
            channel,
            token: DrainToken(token),
            entered,
            token_since,
            last_ran,
            untouched,
            exec,
            ppid,
            uid,
            fd,
            syscall: WriteSyscall::from_u8(syscall).unwrap(),
            stream,
            queued,
            counted: counted.map(|(since, awake)| Counted {
                since,
                awake: Duration::from_nanos(awake),
            }),
            comm: comm.into(),
            thread: thread.into(),
        }
    }
}

/// Looks as a recorder has them: by writer, each once.
fn look() -> impl Strategy<Value = Look> {
    (mono(), any::<bool>(), prop::collection::vec(sighting(), 0..6)).prop_map(|(at, traced, all)| {
        let by_writer: std::collections::BTreeMap<_, _> = all
            .into_iter()
            .map(|sighting| (sighting.writer, sighting))
            .collect();
        Look {
            at,
            traced,
            sightings: by_writer.into_values().collect(),
            awake: None,
        }
    })
}

prop_compose! {
    fn facts()(
        cmdline in prop::collection::vec(any::<String>(), 0..3),
        exe in prop::option::of(any::<String>()),
        texts in prop::array::uniform6(prop::option::of("[ab]")),
        groups in prop::collection::vec((0..3_u32, prop::option::of("[ab]")), 0..3),
        ancestors in prop::collection::vec("[ab]", 0..3),
        born in prop::option::of(mono()),
    ) -> Facts {
        let [user, parent, cgroup, unit, container, pod] = texts;
        let groups = groups.into_iter().map(|(gid, name)| Group { gid, name }).collect();
        let exe = exe.map(PathBuf::from);
        Facts { cmdline, exe, user, groups, parent, ancestors, cgroup, unit, container, pod, born }
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    let note = prop_oneof![writer().prop_map(Note::Exited), writer().prop_map(Note::Woke)];
    let clocks = (any::<i64>(), mono()).prop_map(|(wall, mono)| Clocks { wall, mono });
    prop_oneof![
        4 => look().prop_map(Frame::Look),
        2 => (writer(), facts()).prop_map(|(writer, facts)| Frame::Facts(writer, Box::new(facts))),
        1 => (mono(), note).prop_map(|(at, note)| Frame::Note(at, note)),
        1 => clocks.prop_map(Frame::Clocks),
        1 => (mono(), readers::readership()).prop_map(|(at, readers)| Frame::Readers(at, Box::new(readers))),
    ]
}

/// The looks of writers that mostly stay as they are, which is what there is in practice.
fn calm_looks() -> impl Strategy<Value = Vec<Look>> {
    let step = (
        0..2000_u64,
        prop::collection::vec((0..8_usize, any::<bool>(), 0..3_u64), 0..3),
    );
    (
        prop::collection::vec(sighting(), 8),
        prop::collection::vec(step, 0..12),
    )
        .prop_map(|(writers, steps)| {
            let mut present = std::collections::BTreeMap::new();
            let mut at = 1_000;
            steps
                .into_iter()
                .map(|(wait, changes)| {
                    at += wait;
                    for (which, here, token) in changes {
                        let mut sighting = writers[which].clone();
                        sighting.token = DrainToken([token, 0]);
                        present.remove(&sighting.writer);
                        if here {
                            present.insert(sighting.writer, sighting);
                        }
                    }
                    for sighting in present.values_mut() {
                        sighting.at = Mono::from_nanos(at + 7);
                    }
                    let sightings = present.values().cloned().collect();
                    Look {
                        at: Mono::from_nanos(at),
                        traced: true,
                        sightings,
                        awake: None,
                    }
                })
                .collect()
        })
}

fn header() -> Header {
    Header {
        node: "host".into(),
        kernel: "6.18.0".into(),
        program: "0.1.0".into(),
        comm: vec!["ffmpeg*".into()],
        began: Clocks {
            wall: 1_795_420_800_000_000_000,
            mono: Mono::from_nanos(5),
        },
    }
}

/// The bytes, and where each frame ends.
fn encode(frames: &[Frame]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header(), &mut bytes);
    let mut ends = vec![bytes.len()];
    for frame in frames {
        encoder.frame(frame, &mut bytes);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn decode(bytes: &[u8]) -> Result<(Vec<Frame>, Option<Loss>), OpenError> {
    let mut recording = Recording::open(bytes)?;
    let frames = recording.by_ref().collect();
    Ok((frames, recording.loss()))
}

/// A small recording of all looks, notes and facts that there are.
fn small() -> Vec<Frame> {
    looks(Some(Counted {
        since: Mono::from_nanos(500),
        awake: Duration::from_nanos(20),
    }))
}

/// The same, as version 1 knew it.
fn first() -> Vec<Frame> {
    looks(None)
}

fn looks(counted: Option<Counted>) -> Vec<Frame> {
    let writer = WriterId {
        tid: 7,
        process: Process {
            tgid: 7,
            start: 12_345_678_901,
        },
    };
    let sighting = Sighting {
        writer,
        at: Mono::from_nanos(1_100),
        channel: Channel {
            kind: ChannelKind::Unix,
            dev: 8,
            inode: 15_641,
        },
        token: DrainToken([1, 0]),
        entered: None,
        token_since: Some(Mono::from_nanos(900)),
        last_ran: Some(Mono::from_nanos(400)),
        untouched: true,
        exec: 3,
        ppid: 2,
        uid: 1000,
        fd: 1,
        syscall: WriteSyscall::Write,
        stream: Some(Stream::Stdout),
        queued: Some(219_264),
        counted,
        comm: "ffmpeg".into(),
        thread: "mux0:mp4".into(),
    };
    let look = |at: u64, sightings: Vec<Sighting>| {
        Frame::Look(Look {
            at: Mono::from_nanos(at),
            traced: true,
            sightings,
            awake: None,
        })
    };
    let later = Sighting {
        at: Mono::from_nanos(2_100),
        ..sighting.clone()
    };
    let facts = Facts {
        cmdline: vec!["ffmpeg".into(), "-i".into(), "pipe:0".into()],
        exe: Some("/usr/bin/ffmpeg".into()),
        user: Some("peertube".into()),
        ..Facts::default()
    };
    vec![
        look(1_000, vec![sighting]),
        Frame::Facts(writer, Box::new(facts)),
        look(2_000, vec![later]),
        Frame::Clocks(Clocks {
            wall: -1,
            mono: Mono::from_nanos(2_500),
        }),
        Frame::Note(Mono::from_nanos(2_600), Note::Woke(writer)),
        Frame::Note(Mono::from_nanos(2_700), Note::Exited(writer)),
        look(3_000, vec![]),
        Frame::End(Mono::from_nanos(3_100)),
    ]
}

#[test]
fn a_recording_is_read_as_it_was_written() {
    let (bytes, _) = encode(&small());
    assert_eq!(Recording::open(&bytes).unwrap().header(), &header());
    assert_eq!(decode(&bytes), Ok((small(), None)));
}

#[test]
fn the_bytes_of_the_format_are_what_they_were() {
    // Whoever changes these breaks recordings that people keep: see `wire`.
    let (mut bytes, _) = encode(&first());
    bytes[8] = 1;
    assert_eq!(
        (bytes.len(), crc32fast::hash(&bytes)),
        (286, 1_755_654_822),
        "version 1"
    );
    let (bytes, _) = encode(&small());
    assert_eq!(
        (bytes.len(), crc32fast::hash(&bytes)),
        (307, 439_040_576),
        "version 2, counts"
    );
    let (bytes, _) = encode(&readers::small());
    assert_eq!(
        (bytes.len(), crc32fast::hash(&bytes)),
        (107, 3_857_229_508),
        "version 2, readers"
    );
}

#[test]
fn what_version_1_wrote_is_read() {
    let (mut bytes, _) = encode(&first());
    bytes[8] = 1;
    assert_eq!(decode(&bytes), Ok((first(), None)));
}

#[test]
fn cut_at_any_byte_the_frames_before_are_kept_and_the_loss_is_said() {
    let (bytes, ends) = encode(&small());
    for cut in 0..bytes.len() {
        let Ok((frames, loss)) = decode(&bytes[..cut]) else {
            assert!(cut < ends[0], "cut at {cut}");
            continue;
        };
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        assert_eq!(frames, small()[..whole], "cut at {cut}");
        assert_eq!(loss.map(|loss| loss.at), Some(ends[whole]), "cut at {cut}");
    }
}

#[test]
fn any_damaged_byte_is_noticed() {
    let (bytes, ends) = encode(&small());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let Ok((frames, loss)) = decode(&bytes) else {
                assert!(at < ends[0], "damaged at {at}");
                continue;
            };
            let whole = ends.iter().filter(|end| **end <= at).count() - 1;
            assert_eq!(frames, small()[..whole], "damaged at {at}");
            assert_eq!(loss.map(|loss| loss.at), Some(ends[whole]), "damaged at {at}");
        }
    }
}

#[test]
fn a_tail_of_zeros_is_damage() {
    let (bytes, ends) = encode(&small()[..3]);
    let padded = [&bytes[..], &[0; 4096]].concat();
    let (frames, loss) = decode(&padded).unwrap();
    assert_eq!(frames.len(), 3);
    assert_eq!(
        loss.unwrap().to_string(),
        format!("stopped at byte {}: the frame there is damaged", ends[3])
    );
}

#[test]
fn what_is_no_recording_or_too_new_is_refused() {
    let (bytes, ends) = encode(&[]);
    let mut newer = bytes.clone();
    newer[8] = 3;
    for (bytes, error) in [
        (&b""[..], OpenError::Foreign),
        (b"[observe]\n", OpenError::Foreign),
        (&bytes[..8], OpenError::Header),
        (&bytes[..ends[0] - 1], OpenError::Header),
        (&newer, OpenError::Newer(3)),
    ] {
        assert_eq!(decode(bytes), Err(error));
    }
}

#[test]
fn writers_that_do_not_move_cost_little() {
    let (bytes, ends) = encode(&small()[..3]);
    assert!(bytes.len() - ends[2] <= 30, "{}", bytes.len() - ends[2]);
}

#[test]
fn no_address_is_left_in_a_prepared_look_and_tokens_stay_told_apart() {
    let Frame::Look(first) = &small()[0] else { panic!() };
    let mut steady = Steady::default();
    let mut prepared = |address: u64, consumed: u64, at: u64| {
        let mut look = first.clone();
        look.sightings[0].token = DrainToken([address, consumed]);
        look.sightings[0].last_ran = Some(Mono::from_nanos(400 + at % 1000));
        look.at = Mono::from_nanos(at);
        steady.prepare(look).sightings.remove(0)
    };
    let (a, b) = (0xffff_8881_0000_1000, 0xffff_8881_0000_2000);

    let sightings = [
        prepared(a, 0, 1),
        prepared(a, 9, 2),
        prepared(b, 0, 3),
        prepared(a, 0, 4),
    ];

    let tokens = sightings.each_ref().map(|s| s.token.0);
    assert_eq!(tokens, [[1, 0], [2, 0], [3, 0], [1, 0]]);
    assert!(
        sightings.iter().all(|s| s.last_ran == sightings[0].last_ran),
        "jitter is no run"
    );
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(frames in prop::collection::vec(frame(), 0..12)) {
        let (bytes, _) = encode(&frames);
        let (read, loss) = decode(&bytes).unwrap();
        prop_assert_eq!(read, frames);
        prop_assert!(loss.is_some(), "it has no end");
    }

    #[test]
    fn looks_are_read_as_they_were_written(looks in calm_looks()) {
        let frames: Vec<_> = looks.into_iter().map(Frame::Look).collect();
        let (bytes, _) = encode(&frames);
        prop_assert_eq!(decode(&bytes).unwrap().0, frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let (mut start, _) = encode(&[]);
        start.extend(bytes);
        let _ = decode(&start);
    }

    /// Past the checksum: what a program would have to be wrong, or mean, to write.
    #[test]
    fn arbitrary_frames_with_a_right_checksum_never_panic(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..4),
        kind in 0..6_u8,
    ) {
        let (mut bytes, _) = encode(&small()[..2]);
        for mut body in bodies {
            if let Some(first) = body.first_mut() {
                *first = kind;
            }
            let length = u32::try_from(body.len()).unwrap().to_le_bytes();
            bytes.extend(length);
            bytes.extend(read::checksum(length, &body).to_le_bytes());
            bytes.extend(body);
        }
        let (frames, loss) = decode(&bytes).unwrap();
        prop_assert!(frames.len() >= 2);
        prop_assert!(loss.is_some() || matches!(frames.last(), Some(Frame::End(_))));
    }

    #[test]
    fn one_changed_byte_never_panics_and_never_invents_a_frame(
        frames in prop::collection::vec(frame(), 1..6),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let (mut bytes, ends) = encode(&frames);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok((read, _)) = decode(&bytes) {
            let whole = ends.iter().filter(|end| **end <= at).count() - 1;
            prop_assert_eq!(&read[..], &frames[..whole]);
        }
    }

    #[test]
    fn prepared_tokens_are_equal_where_the_raw_ones_are(
        raw in prop::collection::vec((0..3_u64, 0..3_u64), 1..20),
    ) {
        let Frame::Look(first) = &small()[0] else { panic!() };
        let mut steady = Steady::default();
        let mut seen = Vec::new();
        for (inode, token) in raw {
            let mut look = first.clone();
            look.sightings[0].channel.inode = inode;
            look.sightings[0].token = DrainToken([token, 0]);
            seen.push((inode, token, steady.prepare(look).sightings[0].token));
        }
        for (inode, token, number) in &seen {
            for (other_inode, other_token, other_number) in &seen {
                if inode == other_inode {
                    prop_assert_eq!(token == other_token, number == other_number);
                }
            }
        }
    }
}
