//! The recordings under `tests/fixtures/recordings`, made from simulated processes. What
//! is looked at here goes through the same preparation and encoding as a live look.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use probe_user::{
    core::{
        machine::Note,
        model::{
            Channel, ChannelKind, Counted, DrainToken, Facts, Look, Mono, Process, Sighting, Stream,
            WriteSyscall, WriterId,
        },
        reader::{End, Person, Readership, State},
    },
    recording::{Clocks, Encoder, Frame, Header, steady::Steady},
};

/// When each recording begins: by the kernel's clock, and by people's (2026-11-20 07:50 UTC).
const BEGAN: Clocks = Clocks {
    wall: 1_795_161_000_000_000_000,
    mono: Mono::from_nanos(1_000_000_000_000_000),
};

/// Like the recorder's default.
const EVERY: Duration = Duration::from_secs(1);

/// A process, from the recording's beginning; times count from there, and may be before it.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) pid: u32,
    parent: (u32, &'static str),
    unit: String,
    kind: ChannelKind,
    /// When it blocks in its one write.
    blocks: f64,
    /// When the reader takes something without waking it.
    drains: Vec<f64>,
    /// When it is through with its write.
    leaves: Option<f64>,
    exits: Option<f64>,
    /// From when to when its parent, which should read, is held by a tracer.
    traced: Option<(f64, f64)>,
}

impl Life {
    fn writer(&self) -> WriterId {
        let start = at(self.blocks - 2.0);
        WriterId {
            tid: self.pid + 3,
            process: Process {
                tgid: self.pid,
                start: start.as_nanos(),
            },
        }
    }

    fn is_blocked(&self, now: f64) -> bool {
        let end = self.leaves.into_iter().chain(self.exits).fold(f64::MAX, f64::min);
        (self.blocks..end).contains(&now)
    }

    /// Whether it is stalled, for how long; by what really happened, recorded or not.
    pub(crate) fn stalled_for(&self, now: f64) -> Option<f64> {
        let drains = self.drains.iter().filter(|drain| **drain <= now);
        self.is_blocked(now)
            .then(|| now - drains.fold(self.blocks, |last, drain| last.max(*drain)))
    }

    fn sighting(&self, now: f64) -> Sighting {
        let drained = self.drains.iter().filter(|drain| **drain <= now).count() as u64;
        let is_traced = self.blocks >= 0.0;
        let token_since = if is_traced { at(self.blocks) } else { at(0.0) };
        Sighting {
            writer: self.writer(),
            at: at(now + 0.000_4),
            channel: Channel {
                kind: self.kind,
                dev: 8,
                inode: u64::from(self.pid) * 7 + 15_000,
            },
            token: DrainToken([0xffff_8881_0000_0000 + u64::from(self.pid) * 4096, drained]),
            entered: is_traced.then(|| at(self.blocks)),
            // The first look hands what it finds to the tracer, which sees no drain by itself.
            token_since: ((is_traced || now > 0.0) && drained == 0).then_some(token_since),
            last_ran: Some(at(self.blocks)),
            untouched: drained == 0,
            exec: 1,
            ppid: self.parent.0,
            uid: 990,
            fd: 3,
            syscall: WriteSyscall::Write,
            stream: Some(Stream::Stdout),
            queued: Some(219_264 - drained % 16 * 4096),
            counted: (is_traced || now > 0.0).then(|| Counted {
                since: at(self.blocks.max(0.0)),
                awake: Duration::ZERO,
            }),
            comm: "ffmpeg".into(),
            thread: "mux0:mp4".into(),
        }
    }

    fn facts(&self) -> Facts {
        let arguments =
            "ffmpeg -i pipe:0 -threads 4 -c copy -movflags frag_keyframe+empty_moov -f mp4 pipe:1";
        Facts {
            cmdline: arguments.split(' ').map(str::to_owned).collect(),
            exe: Some("/usr/bin/ffmpeg".into()),
            user: Some("peertube".to_owned()),
            parent: Some(self.parent.1.to_owned()),
            cgroup: Some(format!("/system.slice/{}", self.unit)),
            unit: Some(self.unit.clone()),
            ..Facts::default()
        }
    }

    /// Who should read, as far as it differs from what was recorded at `before`.
    fn readers(&self, now: f64, before: Option<f64>) -> Option<Readership> {
        let (from, to) = self.traced?;
        let state = |at: f64| {
            if (from..to).contains(&at) {
                State::Traced
            } else {
                State::Sleeping
            }
        };
        if before.is_some_and(|before| state(before) == state(now)) {
            return None;
        }
        let process = Process {
            tgid: self.parent.0,
            start: 1,
        };
        let end = End {
            process,
            fd: 21,
            inherited: false,
        };
        let person = Person {
            comm: self.parent.1.to_owned(),
            state: state(now),
            sleeps_in: Some("ep_poll".to_owned()),
            at: at(now),
        };
        let mut readers = Readership::default();
        if before.is_none() {
            readers.ends.insert(self.sighting(now).channel, vec![end]);
        }
        readers.people.insert(process, person);
        Some(readers)
    }

    /// What the tracer notes: an exit, and that one who was stalled for long is awake.
    fn notes(&self) -> impl Iterator<Item = (f64, Note)> {
        let writer = self.writer();
        let exit = self.exits.map(|exit| (exit, Note::Exited(writer)));
        let leave = self.leaves.map(|leave| (leave, Note::Woke(writer)));
        exit.into_iter().chain(leave).filter(|(when, _)| *when > 0.0)
    }
}

fn at(seconds: f64) -> Mono {
    let wait = Duration::from_secs_f64(seconds.abs());
    if seconds < 0.0 {
        let nanos = u64::try_from(wait.as_nanos()).expect("it is within the recording");
        return Mono::from_nanos(BEGAN.mono.as_nanos() - nanos);
    }
    BEGAN.mono.after(wait)
}

/// What a recorder makes of them in so many seconds.
pub(crate) fn record(lives: &[Life], seconds: u32) -> Vec<u8> {
    let header = Header {
        node: "peertube-1".to_owned(),
        kernel: "6.12.57-amd64".to_owned(),
        program: "0.1.0".to_owned(),
        comm: vec!["ffmpeg*".to_owned()],
        began: BEGAN,
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header, &mut bytes);
    let mut steady = Steady::default();
    let mut known = BTreeSet::new();
    let mut readers_known = BTreeMap::new();
    let mut notes: Vec<_> = lives.iter().flat_map(Life::notes).collect();
    notes.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut notes = notes.into_iter().peekable();
    for step in 0..=seconds {
        let now = f64::from(step) * EVERY.as_secs_f64();
        while let Some((when, note)) = notes.next_if(|(when, _)| *when <= now) {
            encoder.frame(&Frame::Note(at(when), note), &mut bytes);
        }
        let blocked: Vec<_> = lives.iter().filter(|life| life.is_blocked(now)).collect();
        let look = Look {
            at: at(now),
            traced: true,
            sightings: blocked.iter().map(|life| life.sighting(now)).collect(),
            awake: None,
        };
        encoder.frame(&Frame::Look(steady.prepare(look)), &mut bytes);
        for life in blocked {
            if now - life.blocks >= 1.0 && known.insert(life.writer()) {
                encoder.frame(&Frame::Facts(life.writer(), Box::new(life.facts())), &mut bytes);
                readers_known.remove(&life.writer());
            }
            if known.contains(&life.writer()) {
                let before = readers_known.insert(life.writer(), now);
                if let Some(readers) = life.readers(now, before) {
                    encoder.frame(&Frame::Readers(at(now), Box::new(readers)), &mut bytes);
                }
            }
        }
    }
    encoder.frame(&Frame::End(at(f64::from(seconds))), &mut bytes);
    bytes
}

fn life(pid: u32, blocks: f64) -> Life {
    Life {
        pid,
        parent: (1201, "node"),
        unit: "peertube.service".to_owned(),
        kind: ChannelKind::Unix,
        blocks,
        drains: Vec::new(),
        leaves: None,
        exits: None,
        traced: None,
    }
}

/// 534 writers under ten parents, most of them stuck for hours when the recording begins,
/// and between them some that are served as they should be.
pub(crate) fn incident() -> Vec<u8> {
    let mut random = 1_u32;
    let mut random = move |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    let mut lives: Vec<_> = (0..534)
        .map(|i| {
            let blocks = if i < 500 {
                -f64::from(random(200_000) + 10)
            } else {
                f64::from(random(400_000)) / 1000.0
            };
            Life {
                parent: (1201 + i % 10 * 40, "node"),
                unit: format!("peertube@{}.service", i % 10),
                ..life(20_000 + i * 11, blocks)
            }
        })
        .collect();
    lives.extend((0..30).map(|i| {
        let blocks = f64::from(random(550_000)) / 1000.0;
        let leaves = blocks + f64::from(random(40_000)) / 1000.0;
        Life {
            leaves: Some(leaves),
            exits: Some(leaves + 0.1),
            ..life(40_000 + i * 7, blocks)
        }
    }));
    record(&lives, 600)
}

/// A reader that takes one byte every half second, in a pipe that is always full.
pub(crate) fn slow_reader() -> Vec<u8> {
    let lives = [Life {
        kind: ChannelKind::Pipe,
        parent: (1300, "sh"),
        drains: (1..=240).map(|n| f64::from(n) * 0.5 - 0.2).collect(),
        ..life(5_000, -30.0)
    }];
    record(&lives, 120)
}

/// A parent that ends its child after half a minute without progress, and starts the next.
pub(crate) fn respawn_loop() -> Vec<u8> {
    let lives: Vec<_> = (0..12)
        .map(|n| {
            let blocks = 3.25 + f64::from(n) * 31.5;
            Life {
                exits: Some(blocks + 30.0),
                ..life(6_000 + n * 2, blocks)
            }
        })
        .collect();
    record(&lives, 390)
}

/// A viewer who pauses for forty seconds, and then watches on.
pub(crate) fn paused_viewer() -> Vec<u8> {
    let lives = [Life {
        drains: (0..300).map(|n| 45.0 + f64::from(n) * 0.3).collect(),
        leaves: Some(110.0),
        exits: Some(110.2),
        ..life(7_000, 5.0)
    }];
    record(&lives, 120)
}

/// A server that somebody looks at with a debugger for a minute, and that then does not read.
pub(crate) fn stopped_reader() -> Vec<u8> {
    let lives = [Life {
        traced: Some((10.0, 70.0)),
        ..life(7_100, 5.0)
    }];
    record(&lives, 120)
}

/// Seconds since the recording began.
pub(crate) fn seconds(at: Mono) -> f64 {
    at.since(BEGAN.mono).as_secs_f64()
}

prop_compose! {
    fn any_life(pid: u32)(
        kind in prop::sample::select(vec![ChannelKind::Pipe, ChannelKind::Unix]),
        blocks in -50_000..50_000_i32,
        drains in prop::collection::vec(1..40_000_u32, 0..6),
        leaves in prop::option::of(1..80_000_u32),
        exits in prop::option::of(1..80_000_u32),
    ) -> Life {
        let blocks = f64::from(blocks) / 1000.0;
        let after = |millis: u32| blocks.max(0.0) + f64::from(millis) / 1000.0;
        Life {
            kind,
            drains: drains.into_iter().map(after).collect(),
            leaves: leaves.map(after),
            exits: exits.map(after),
            ..life(pid, blocks)
        }
    }
}

pub(crate) fn any_lives() -> impl Strategy<Value = Vec<Life>> {
    (any_life(10), any_life(20), any_life(30)).prop_map(|(a, b, c)| vec![a, b, c])
}
