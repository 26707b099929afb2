//! The tracker against a model of it that keeps nothing: after each look, everything is worked out
//! anew from all looks and exits there have been, by what the terms mean.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{CLOCK_SLACK, Ended, MISSING_FOR, Tracker};
use crate::core::model::{
    Bound, Channel, ChannelKind, DrainToken, Look, Mono, Process, Sighting, Stream, WriteSyscall, WriterId,
};

/// One thing that the observer learned.
#[derive(Clone, Debug)]
enum Past {
    Look(Look),
    Exited(WriterId),
}

/// What is to be compared of a stall.
#[derive(Clone, Debug, PartialEq)]
struct View {
    writer: WriterId,
    seen: Mono,
    since: Mono,
    bound: Bound,
    preexisting: bool,
    draining: bool,
    watched: Mono,
    missing: Option<Mono>,
}

/// All that is known of one writer, in order: what each look showed, and when it exited.
#[derive(Debug)]
enum Known<'a> {
    Shown {
        look: &'a Look,
        number: usize,
        sighting: &'a Sighting,
    },
    NotShown {
        at: Mono,
    },
    Exited,
}

fn known_of(history: &[Past], writer: WriterId) -> Vec<Known<'_>> {
    let mut looks = 0;
    history
        .iter()
        .filter_map(|past| match past {
            Past::Exited(who) => (*who == writer).then_some(Known::Exited),
            Past::Look(look) => {
                looks += 1;
                let shown = look.sightings.iter().find(|sighting| sighting.writer == writer);
                Some(
                    shown.map_or(Known::NotShown { at: look.at }, |sighting| Known::Shown {
                        look,
                        number: looks,
                        sighting,
                    }),
                )
            }
        })
        .collect()
}

/// When, by the tracer, anything was last taken out of a socket that a look shows, if it was
/// taken after the writer that tells of it had entered its write.
fn taken_out_of(look: &Look, channel: Channel) -> Option<Mono> {
    let tells = |sighting: &&Sighting| sighting.channel == channel && channel.kind == ChannelKind::Unix;
    let taken = |sighting: &Sighting| {
        let (entered, since) = (sighting.entered?, sighting.token_since?);
        (since > entered).then_some(since)
    };
    look.sightings.iter().filter(tells).filter_map(taken).max()
}

/// What came between two sightings of a writer with no look that missed it for long.
fn between(earlier: &Sighting, later: &Sighting, look: &Look) -> Option<Ended> {
    if later.channel != earlier.channel || later.exec != earlier.exec {
        return Some(Ended::Left);
    }
    if later.entered.is_some_and(|entered| entered > earlier.at) {
        return Some(Ended::Left);
    }
    if later.token != earlier.token {
        return Some(Ended::Drained);
    }
    if later.channel.kind != ChannelKind::Unix {
        return None;
    }
    // The same number may be another buffer.
    let moved = match (look.traced, later.token_since) {
        (true, Some(since)) => since > earlier.at,
        _ => match (earlier.last_ran, later.last_ran) {
            (Some(before), Some(now)) => now.since(before) > CLOCK_SLACK,
            _ => false,
        },
    };
    let taken = taken_out_of(look, later.channel).is_some_and(|when| when > earlier.at);
    (moved || taken).then_some(Ended::Drained)
}

/// The stall that a sighting begins.
fn begun(started: Mono, look: &Look, number: usize, first: &Sighting) -> View {
    let alone = look
        .sightings
        .iter()
        .filter(|other| other.channel == first.channel)
        .count()
        == 1;
    let at = first.at;
    let (since, bound) = if let Some(entered) = first.entered {
        (
            first.token_since.map_or(at, |token| token.max(entered)),
            Bound::Exact,
        )
    } else if let Some(ran) = first.last_ran {
        let bound = if first.untouched && alone {
            Bound::Exact
        } else {
            Bound::AtMost
        };
        (ran.min(at), bound)
    } else {
        (at, Bound::AtLeast)
    };
    let is_older = since < started || bound == Bound::AtLeast && number == 1;
    View {
        writer: first.writer,
        seen: at,
        since,
        bound,
        preexisting: first.entered.is_none() && is_older,
        draining: false,
        watched: first.token_since.unwrap_or(at).max(since),
        missing: None,
    }
}

/// The writer's stall by now, and the stalls that the last thing learned has ended.
fn replayed(started: Mono, known: &[Known<'_>]) -> (Option<View>, Vec<Ended>) {
    let mut stall: Option<(View, &Sighting)> = None;
    let mut ended = Vec::new();
    for what in known {
        ended.clear();
        stall = match (what, stall.take()) {
            (Known::Exited, one) => {
                ended.extend(one.map(|_| Ended::Exited));
                None
            }
            (Known::NotShown { .. }, None) => None,
            (Known::NotShown { at }, Some((mut view, last))) => {
                let missing = *view.missing.get_or_insert(*at);
                if at.since(missing) >= MISSING_FOR {
                    ended.push(Ended::Left);
                    None
                } else {
                    Some((view, last))
                }
            }
            (
                Known::Shown {
                    look,
                    number,
                    sighting,
                },
                None,
            ) => Some((begun(started, look, *number, sighting), sighting)),
            (
                Known::Shown {
                    look,
                    number,
                    sighting,
                },
                Some((view, last)),
            ) => {
                let why = between(last, sighting, look);
                ended.extend(why);
                let view = match why {
                    None => View {
                        seen: sighting.at,
                        draining: false,
                        missing: None,
                        ..view
                    },
                    Some(Ended::Drained) => {
                        // What the tracer knows from before has been seen to be over.
                        let since = sighting.token_since.filter(|since| *since > last.at);
                        let since = since.unwrap_or(sighting.at);
                        View {
                            since,
                            watched: since,
                            bound: Bound::Exact,
                            preexisting: false,
                            draining: true,
                            ..begun(started, look, *number, sighting)
                        }
                    }
                    Some(Ended::Left | Ended::Exited) => begun(started, look, *number, sighting),
                };
                Some((view, sighting))
            }
        };
    }
    (stall.map(|(view, _)| view), ended)
}

fn mono(millis: u64) -> Mono {
    Mono::from_nanos(1_000_000_000 + millis * 1_000_000)
}

const STARTED: u64 = 10_000;

fn writer(number: u32) -> WriterId {
    WriterId {
        tid: number,
        process: Process {
            tgid: number / 2,
            start: u64::from(number % 3),
        },
    }
}

/// A moment up to three seconds ago, as (milliseconds), or none.
fn ago() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.7, prop_oneof![0..30_u64, 0..300_u64, 0..3000_u64])
}

prop_compose! {
    fn sighting()(
        number in 0..4_u32,
        (inode, kind) in (0..2_u64, prop::sample::select(vec![ChannelKind::Pipe, ChannelKind::Unix])),
        token in 0..2_u64,
        (entered, token_since, ran) in (ago(), ago(), ago()),
        untouched in any::<bool>(),
        exec in prop::sample::select(vec![0, 0, 0, 0, 0, 1]),
    ) -> Aged {
        let sighting = Sighting {
            channel: Channel { kind, dev: 1, inode },
            token: DrainToken([token, 0]),
            untouched,
            exec,
            ..asleep(writer(number))
        };
        (sighting, [entered, token_since, ran])
    }
}

/// A sighting, and how long ago it entered its write, its token was last changed, and it ran.
type Aged = (Sighting, [Option<u64>; 3]);

/// A look with or without the tracer, or the exit of a writer.
type Step = Result<(bool, Vec<Aged>), u32>;

/// Steps, each so many milliseconds after the one before.
fn history() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let look = (prop::bool::weighted(0.8), prop::collection::vec(sighting(), 0..4)).prop_map(Ok);
    let what = prop_oneof![12 => look, 1 => (0..4_u32).prop_map(Err)];
    prop::collection::vec((0..120_u64, what), 1..40)
}

#[test]
fn a_socket_token_that_comes_back_by_way_of_another_writer_is_as_old_as_the_look_that_shows_it() {
    let mut tracker = Tracker::new(mono(0));
    for (seconds, token) in [(5, 1), (10, 2), (65, 1)] {
        let at = mono(seconds * 1000);
        let sighting = Sighting {
            at,
            token: DrainToken([token, 0]),
            entered: Some(mono(1000)),
            // The tracer has not looked since this writer went to sleep on the first token.
            token_since: (token == 1).then_some(mono(1000)),
            ..asleep(writer(2))
        };
        tracker.observe(Look {
            at,
            traced: true,
            sightings: vec![sighting],
            awake: None,
        });
    }
    let stall = tracker.get(writer(2)).expect("it is still there");
    assert_eq!((stall.since, stall.watched), (mono(65_000), mono(65_000)));
}

/// A writer to a socket of which nothing else is known.
fn asleep(writer: WriterId) -> Sighting {
    Sighting {
        writer,
        at: Mono::default(),
        channel: Channel {
            kind: ChannelKind::Unix,
            dev: 1,
            inode: 0,
        },
        token: DrainToken([0, 0]),
        entered: None,
        token_since: None,
        last_ran: None,
        untouched: false,
        exec: 0,
        ppid: 1,
        uid: 1000,
        fd: 1,
        syscall: WriteSyscall::Write,
        stream: Some(Stream::Stdout),
        queued: None,
        counted: None,
        comm: "ffmpeg".into(),
        thread: "ffmpeg".into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_kept_is_what_the_whole_history_says(steps in history()) {
        let mut tracker = Tracker::new(mono(STARTED));
        let mut history = Vec::new();
        let mut now = STARTED;
        for (wait, step) in steps {
            now += wait;
            let mut ended = Vec::new();
            match step {
                Err(number) => {
                    let gone = tracker.exited(writer(number));
                    ended.extend(gone.map(|stall| (stall.last.writer, Ended::Exited)));
                    history.push(Past::Exited(writer(number)));
                }
                Ok((traced, sightings)) => {
                    let mut seen = BTreeSet::new();
                    let sightings = sightings
                        .into_iter()
                        .filter(|(sighting, _)| seen.insert(sighting.writer))
                        .map(|(sighting, [entered, token_since, ran])| {
                            let before = |wait: Option<u64>| Some(mono(now - wait?));
                            Sighting {
                                at: mono(now),
                                entered: before(entered),
                                token_since: before(token_since),
                                last_ran: before(ran),
                                ..sighting
                            }
                        })
                        .collect();
                    let look = Look { at: mono(now), traced, sightings, awake: None };
                    history.push(Past::Look(look.clone()));
                    let over = tracker.observe(look);
                    ended.extend(over.into_iter().map(|(stall, why)| (stall.last.writer, why)));
                }
            }
            let mut stalls = Vec::new();
            let mut expected = Vec::new();
            for number in 0..4 {
                let known = known_of(&history, writer(number));
                let (stall, over) = replayed(mono(STARTED), &known);
                stalls.extend(stall);
                let learned_now = match history.last() {
                    Some(Past::Exited(who)) => *who == writer(number),
                    _ => true,
                };
                expected.extend(over.into_iter().filter(|_| learned_now).map(|why| (writer(number), why)));
            }
            stalls.sort_by_key(|view| view.writer);
            let kept: Vec<_> = tracker
                .stalls()
                .map(|stall| View {
                    writer: stall.last.writer,
                    seen: stall.last.at,
                    since: stall.since,
                    bound: stall.bound,
                    preexisting: stall.preexisting,
                    draining: stall.draining,
                    watched: stall.watched,
                    missing: stall.missing,
                })
                .collect();
            prop_assert_eq!(kept, stalls);
            ended.sort_by_key(|(writer, _)| *writer);
            expected.sort_by_key(|(writer, _)| *writer);
            prop_assert_eq!(ended, expected);
        }
    }
}
