//! The kernel side used as a library: several observers of one workload, and what each says of it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write as _};
use std::path::Path;
use std::time::Duration;

use probe_ebpf::pattern::CommFilter;
use probe_user::core::machine::Note;
use probe_user::core::model::{Channel, DrainToken, Look, Mono, Sighting, StallId, WriterId};
use probe_user::core::tracker::{Ended, Tracker};
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{Kernel, Losses, Notes, Options, ProbeError};

use crate::clock;

/// An observer.
pub struct Eye {
    name: String,
    tracer: Tracer,
    kernel: Kernel,
    notes: Option<Notes>,
    tracker: Tracker,
    open: BTreeMap<StallId, Stall>,
    closed: Vec<Stall>,
    exits: Vec<(WriterId, Mono)>,
    looks: u64,
    record: BTreeMap<WriterId, Vec<Seen>>,
}

/// A stall, as an observer told of it.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    /// Who was stuck.
    pub writer: WriterId,
    /// On what.
    pub channel: Channel,
    /// Since when.
    pub since: Mono,
    /// When it was first seen.
    pub first: Mono,
    /// When the tracer had noted the writer's exit, or a look before that did not show it; else when it was
    /// last seen.
    pub until: Mono,
    /// What ended it.
    pub ended: Option<Ended>,
    /// Whether the tracer had told since when by the first look: of what it has not seen it tells then
    /// at the second one only.
    pub traced: bool,
}

impl Stall {
    /// Tells how long it was seen to last.
    pub fn lasted(&self) -> Duration {
        self.until.since(self.since)
    }

    /// Says whether another observer's is the same one, if it began within so much time, and ended
    /// within so much, of this.
    pub fn agrees_with(&self, other: &Self, (begin, end): (Duration, Duration)) -> bool {
        self.writer == other.writer
            && self.channel == other.channel
            && apart(self.since, other.since) <= begin
            && apart(self.until, other.until) <= end
    }
}

/// Tells how much time lies between two moments, whichever is first.
fn apart(one: Mono, other: Mono) -> Duration {
    one.since(other).max(other.since(one))
}

impl Display for Stall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { writer, channel, .. } = self;
        let (since, until) = (seconds(self.since), seconds(self.until));
        let end = self.ended.map_or("not ended", Ended::as_str);
        write!(
            f,
            "{} (started {}) on {:?} {}:{}: {since:.4} to {until:.4}, {end}",
            writer.tid, writer.process.start, channel.kind, channel.dev, channel.inode
        )
    }
}

/// What looks in a row saw of a writer, as long as it was all the same.
#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Mono,
    last: Mono,
    look: u64,
    looks: u64,
    entered: Option<Mono>,
    token_since: Option<Mono>,
    token: DrainToken,
}

impl Seen {
    fn is_followed_by(&self, next: &Self) -> bool {
        self.look + 1 == next.look
            && (self.entered, self.token_since, self.token) == (next.entered, next.token_since, next.token)
    }
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let known = |moment: Option<Mono>| {
            moment.map_or_else(|| "?".to_owned(), |moment| format!("{:.4}", seconds(moment)))
        };
        let DrainToken([one, other]) = self.token;
        write!(
            f,
            "{:.4} to {:.4}, {} looks: entered {}, token {one:x}.{other:x} since {}",
            seconds(self.first),
            seconds(self.last),
            self.looks,
            known(self.entered),
            known(self.token_since)
        )
    }
}

impl Eye {
    /// Begins to observe the commands of a name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(tracer: Tracer, comm: &str, btf: &Path) -> Result<Self, ProbeError> {
        let filter = CommFilter::parse([comm]).unwrap_or_else(|(_, error)| panic!("{comm}: {error:?}"));
        let options = Options {
            btf: btf.to_owned(),
            tracer: Some(tracer),
            ..Options::new(filter)
        };
        let mut kernel = Kernel::tracer(&options, Duration::from_mins(1))?;
        Ok(Self {
            name: tracer.to_string(),
            tracer,
            notes: kernel.take_notes(),
            kernel,
            tracker: Tracker::new(now()),
            open: BTreeMap::new(),
            closed: Vec::new(),
            exits: Vec::new(),
            looks: 0,
            record: BTreeMap::new(),
        })
    }

    /// Has it go by another name, where several follow writers in the same way.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Has it pass for one that follows writers in this way.
    #[must_use]
    pub fn passing_for(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Tells its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells how it follows writers.
    pub fn tracer(&self) -> Tracer {
        self.tracer
    }

    /// Takes in what the tracer has noted, and looks once.
    ///
    /// # Errors
    /// The kernel refuses, or what it wrote cannot be read.
    pub fn look(&mut self) -> Result<(), ProbeError> {
        self.take_notes()?;
        let (look, _) = self.kernel.look()?;
        self.keep(&look);
        let at = look.at;
        for (stall, why) in self.tracker.observe(look) {
            let seen = self.open.remove(&stall.id);
            let ended = Some(why);
            self.closed.extend(seen.map(|seen| Stall { ended, ..seen }));
        }
        for stall in self.tracker.stalls().filter(|stall| stall.missing.is_none()) {
            let first = Stall {
                writer: stall.last.writer,
                channel: stall.last.channel,
                since: stall.since,
                first: at,
                until: at,
                ended: None,
                traced: stall.last.token_since.is_some(),
            };
            self.open
                .entry(stall.id)
                .and_modify(|known| known.until = at)
                .or_insert(first);
        }
        Ok(())
    }

    /// Tells all stalls that it saw, in order.
    pub fn stalls(&self) -> Vec<Stall> {
        let mut all: Vec<_> = self.closed.iter().chain(self.open.values()).copied().collect();
        all.sort_by_key(|stall| (stall.writer, stall.first));
        all
    }

    /// Tells the exits that its tracer noted, and when it had said so.
    pub fn exits(&self) -> &[(WriterId, Mono)] {
        &self.exits
    }

    /// Tells what its tracer could not keep.
    pub fn lost(&self) -> Losses {
        self.kernel.lost()
    }

    /// Writes out what its looks showed of a writer in a span of time, and what its tracer noted of it.
    pub fn trace(&self, writer: WriterId, from: Mono, to: Mono) -> String {
        let mut text = String::new();
        let seen = self.record.get(&writer).map_or(&[][..], Vec::as_slice);
        for seen in seen.iter().filter(|seen| seen.last >= from && seen.first <= to) {
            let _ = writeln!(text, "        {} saw it {seen}", self.name);
        }
        for (_, at) in self.exits.iter().filter(|(exited, _)| *exited == writer) {
            let _ = writeln!(
                text,
                "        {} noted its exit by {:.4}",
                self.name,
                seconds(*at)
            );
        }
        text
    }

    fn take_notes(&mut self) -> Result<(), ProbeError> {
        let at = now();
        let Some(notes) = &mut self.notes else {
            return Ok(());
        };
        while let Some(note) = notes.next_note()? {
            let Note::Exited(writer) = note else { continue };
            self.exits.push((writer, at));
            if let Some(stall) = self.tracker.exited(writer) {
                let seen = self.open.remove(&stall.id);
                self.closed.extend(seen.map(|seen| Stall {
                    // One that was missing already had left its write before it exited.
                    until: stall.missing.unwrap_or(at),
                    ended: Some(Ended::Exited),
                    ..seen
                }));
            }
        }
        Ok(())
    }

    fn keep(&mut self, look: &Look) {
        self.looks += 1;
        for sighting in &look.sightings {
            let Sighting {
                writer,
                entered,
                token_since,
                token,
                ..
            } = *sighting;
            let seen = Seen {
                first: look.at,
                last: look.at,
                look: self.looks,
                looks: 1,
                entered,
                token_since,
                token,
            };
            let all = self.record.entry(writer).or_default();
            match all.last_mut() {
                Some(last) if last.is_followed_by(&seen) => {
                    *last = Seen {
                        first: last.first,
                        looks: last.looks + 1,
                        ..seen
                    };
                }
                _ => all.push(seen),
            }
        }
    }
}

/// The time now, as observers count it.
pub fn now() -> Mono {
    Mono::from_nanos(u64::try_from(clock::mono().as_nanos()).expect("a machine runs for less than centuries"))
}

/// The seconds on the clock.
pub fn seconds(moment: Mono) -> f64 {
    Duration::from_nanos(moment.as_nanos()).as_secs_f64()
}
