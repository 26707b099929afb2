//! Policy over a recording: the core's machine, in the time that was recorded.
//!
//! A recording holds what was there at some moments, and the machine asks about
//! others. It is answered with what is known and with nothing else:
//!
//! - *At a recorded look* it is shown that look, asked for or not.
//! - *Between two looks* it is shown as stalled only those of whom the later look proves
//!   it: the look before saw them too and nothing was drained or left in between (the
//!   tracker's own test), or the tracer saw them enter, and their token become what it
//!   is, before the moment in question. Where the reader took something in between,
//!   nobody knows when, so the token is shown as changing at every moment; who left the
//!   write is not shown. A replay plans no kill that is not certain to have hit a
//!   writer in its stall.
//! - *A signal* changes the world from there on. SIGKILL ends the process; so does
//!   SIGTERM where the rule goes no further. Where SIGKILL follows, SIGTERM is taken to
//!   change nothing: ffmpeg, stuck in a write, restarts the write. So a plan shows a
//!   process as let go if the recording shows that it made progress within the grace.
//!   Of a process that was ended here nothing more is shown.
//! - *Readers* are who was recorded last. A recording that knows none, as those of version 1,
//!   holds no rule back, and rules that ask about readers do not match.
//! - *Rules in dry-run* act as if they enforced, and everything that is said of them
//!   keeps `dry-run` as its mode.
//!
//! What a recording cannot tell is how the world would have gone on: a parent that
//! restarts its child is seen to do so when it did, not when it would have. This module
//! must not know how a plan is shown, and reads no clock.

pub mod plan;
mod simulation;

use std::collections::{BTreeMap, BTreeSet};

pub use self::simulation::{Outcome, run};
use crate::{
    core::{
        model::{Channel, Facts, Mono, Process},
        reader::{Person, Readership},
    },
    recording::{Clocks, Frame, Header, Loss, Recording},
};

/// What has to be known of a recording before it is replayed.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where and how it was made.
    pub header: Header,
    /// What was read of processes, in whatever moment: it is taken to have been true before.
    pub facts: BTreeMap<Process, Facts>,
    /// Who should read, and when that was found; of a channel or a process, what was found first
    /// is taken to have been true before.
    pub readers: Vec<(Mono, Readership)>,
    /// How many looks there are.
    pub looks: usize,
    /// How many writers there are.
    pub writers: usize,
    /// From the first look to the last.
    pub span: Option<(Mono, Mono)>,
    /// What could not be read.
    pub loss: Option<Loss>,
    /// Whether it tells how long writers were blocked across their writes.
    pub counts: bool,
    clocks: Vec<Clocks>,
}

impl Survey {
    /// Reads a recording through.
    #[must_use]
    pub fn of(mut recording: Recording<'_>) -> Self {
        let header = recording.header().clone();
        let mut survey = Self {
            clocks: vec![header.began],
            header,
            facts: BTreeMap::new(),
            readers: Vec::new(),
            looks: 0,
            writers: 0,
            span: None,
            loss: None,
            counts: false,
        };
        let mut writers = BTreeSet::new();
        for frame in recording.by_ref() {
            match frame {
                Frame::Look(look) => {
                    survey.looks += 1;
                    survey.span = Some((survey.span.map_or(look.at, |(first, _)| first), look.at));
                    survey.counts |= look.sightings.iter().any(|sighting| sighting.counted.is_some());
                    writers.extend(look.sightings.iter().map(|sighting| sighting.writer));
                }
                Frame::Facts(writer, facts) => {
                    survey.facts.entry(writer.process).or_insert(*facts);
                }
                Frame::Readers(at, readers) => survey.readers.push((at, *readers)),
                Frame::Clocks(clocks) => survey.clocks.push(clocks),
                Frame::Note(..) | Frame::End(_) => {}
            }
        }
        survey.writers = writers.len();
        survey.loss = recording.loss();
        survey
    }

    /// Who should read from these channels at a moment.
    #[must_use]
    pub fn readership(&self, channels: &[Channel], at: Mono) -> Readership {
        let mut known = self.known_readers(at);
        known.keep(channels.iter().copied());
        known
    }

    /// What these do at a moment.
    #[must_use]
    pub fn people(&self, processes: &[Process], at: Mono) -> Vec<(Process, Person)> {
        let known = self.known_readers(at).people;
        let person = |process: &Process| Some((*process, known.get(process)?.clone()));
        processes.iter().filter_map(person).collect()
    }

    /// All that is known of readers at a moment.
    fn known_readers(&self, at: Mono) -> Readership {
        let mut known = Readership::default();
        let later = self.readers.iter().rev().filter(|(when, _)| *when > at);
        let earlier = self.readers.iter().filter(|(when, _)| *when <= at);
        for (_, readers) in later.chain(earlier) {
            known.merge(readers.clone());
        }
        known
    }

    /// What people called a moment of the recording, in nanoseconds since 1970.
    #[must_use]
    pub fn wall(&self, at: Mono) -> i64 {
        let known = self.clocks.iter().rev().find(|clocks| clocks.mono <= at);
        known.unwrap_or(&self.header.began).wall_at(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Encoder;

    #[test]
    fn the_time_of_day_follows_a_clock_that_was_set() {
        let clocks = |wall, mono| Clocks {
            wall,
            mono: Mono::from_nanos(mono),
        };
        let header = Header {
            node: String::new(),
            kernel: String::new(),
            program: String::new(),
            comm: Vec::new(),
            began: clocks(1_000, 100),
        };
        let mut bytes = Vec::new();
        let mut encoder = Encoder::begin(&header, &mut bytes);
        encoder.frame(&Frame::Clocks(clocks(9_000, 200)), &mut bytes);

        let survey = Survey::of(Recording::open(&bytes).unwrap());

        let wall = [90, 100, 199, 200, 201].map(|at| survey.wall(Mono::from_nanos(at)));
        assert_eq!(wall, [990, 1_000, 1_099, 9_000, 9_001]);
    }
}
