//! The loop behind `record`: looks at the live kernel at a steady pace and writes what
//! it sees. It decides nothing, and signals nothing.
//!
//! What one look yields is written at once, so that whatever ends the recorder costs
//! the last look at most.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use crate::{
    agent::watch,
    clock,
    core::{
        machine::IDENTIFY_AFTER,
        model::{Mono, WriterId},
        reader::{Readership, State},
        tracker::Tracker,
    },
    probe::{
        kernel::{Kernel, Notes},
        process::Reader,
        readers::People,
    },
    recording::{Clocks, Encoder, Frame, Header, steady::Steady},
};

/// How far the two clocks may come apart before that is written.
const CLOCKS_APART: Duration = Duration::from_millis(100);

/// The two clocks, now.
#[must_use]
pub fn clocks() -> Clocks {
    Clocks {
        wall: i64::try_from(clock::wall().as_nanosecond()).unwrap_or(i64::MAX),
        mono: clock::now(),
    }
}

/// A recording that is being made.
pub struct Recorder {
    kernel: Kernel,
    output: Output,
    steady: Steady,
    tracker: Tracker,
    reader: Reader,
    /// Whose facts have been written.
    known: BTreeSet<WriterId>,
    readers: Readership,
    clocks: Clocks,
    summary: Summary,
}

/// What a recording came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many looks were taken.
    pub looks: u64,
    /// How many writers were seen, one that came back counted again.
    pub writers: u64,
    /// How many bytes were written.
    pub bytes: u64,
}

/// The file, and what is not in it yet.
struct Output {
    file: File,
    path: PathBuf,
    encoder: Encoder,
    pending: Vec<u8>,
    written: u64,
}

impl Output {
    fn add(&mut self, frame: &Frame) {
        self.encoder.frame(frame, &mut self.pending);
    }

    /// The error is text: a closed pipe is no way for a recording to end well.
    fn flush(&mut self) -> Result<()> {
        if let Err(error) = self.file.write_all(&self.pending) {
            // What was written before is a recording; half a frame is not.
            let _ = self.file.set_len(self.written);
            return Err(anyhow!(
                "cannot write the recording {}: {error}",
                self.path.display()
            ));
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Recorder {
    /// Begins a recording in an empty file.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn begin(kernel: Kernel, file: File, path: &Path, header: &Header) -> Result<Self> {
        let mut pending = Vec::new();
        let encoder = Encoder::begin(header, &mut pending);
        let mut output = Output {
            file,
            path: path.to_owned(),
            encoder,
            pending,
            written: 0,
        };
        output.flush()?;
        Ok(Self {
            kernel,
            output,
            steady: Steady::default(),
            tracker: Tracker::new(header.began.mono),
            reader: Reader::default(),
            known: BTreeSet::new(),
            readers: Readership::default(),
            clocks: header.began,
            summary: Summary::default(),
        })
    }

    /// Looks every so often until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The kernel side or the file failed; what was written before is a recording.
    pub async fn run(mut self, every: Duration) -> Result<Summary> {
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminated = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let notes = self
            .kernel
            .take_notes()
            .context("the kernel object has no ring buffer")?;
        let mut notes = watch(notes)?;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = interrupted.recv() => break,
                _ = terminated.recv() => break,
                ready = notes.readable_mut() => {
                    ready?.clear_ready();
                    self.take_notes(notes.get_mut())?;
                }
                _ = ticks.tick() => {
                    self.take_notes(notes.get_mut())?;
                    self.look(every)?;
                }
            }
            self.output.flush()?;
        }
        self.output.add(&Frame::End(clock::now()));
        self.output.flush()?;
        self.summary.bytes = self.output.written;
        Ok(self.summary)
    }

    fn take_notes(&mut self, notes: &mut Notes) -> Result<()> {
        while let Some(note) = notes.next_note()? {
            self.output.add(&Frame::Note(clock::now(), note));
        }
        Ok(())
    }

    fn look(&mut self, every: Duration) -> Result<()> {
        let now = clocks();
        let apart = now.wall.abs_diff(self.clocks.wall_at(now.mono));
        if Duration::from_nanos(apart) > CLOCKS_APART {
            self.clocks = now;
            self.output.add(&Frame::Clocks(now));
        }
        let (look, _) = self.kernel.look()?;
        let look = self.steady.prepare(look);
        self.output.add(&Frame::Look(look.clone()));
        self.summary.looks += 1;
        let new = look
            .sightings
            .iter()
            .filter(|sighting| self.tracker.get(sighting.writer).is_none());
        self.summary.writers += new.count() as u64;
        let at = look.at;
        self.tracker.observe(look);
        self.known.retain(|writer| self.tracker.get(*writer).is_some());
        let old: Vec<_> = self
            .tracker
            .stalls()
            .filter(|stall| stall.missing.is_none() && stall.age(at) >= IDENTIFY_AFTER.min(every))
            .map(|stall| stall.last.writer)
            .filter(|writer| !self.known.contains(writer))
            .collect();
        for writer in &old {
            self.known.insert(*writer);
            if let Some(facts) = self.reader.facts(writer.process) {
                self.output.add(&Frame::Facts(*writer, Box::new(facts)));
            }
        }
        self.look_at_readers(at, &old)
    }

    /// Writes who should read from what those write to who are new, and what has changed about
    /// the readers of the others.
    fn look_at_readers(&mut self, at: Mono, new: &[WriterId]) -> Result<()> {
        let channel = |writer: &WriterId| self.tracker.get(*writer).map(|stall| stall.last.channel);
        let known = self.known.iter().filter_map(channel).collect::<BTreeSet<_>>();
        self.readers.keep(known);
        let mut news = Readership::default();
        let processes: Vec<_> = self.readers.people.keys().copied().collect();
        for (process, person) in People::default().see_all(&processes) {
            let before = &self.readers.people[&process];
            if (before.state, &before.comm) != (person.state, &person.comm) {
                news.people.insert(process, person);
                let writing = self.readers.writing.get(&process);
                news.writing
                    .extend(writing.map(|channels| (process, channels.clone())));
            }
        }
        // Somebody else may have the end of one that is gone.
        let is_gone = news.people.values().any(|person| person.state == State::Gone);
        let channels: Vec<_> = if is_gone {
            self.readers.ends.keys().copied().collect()
        } else {
            new.iter().filter_map(channel).collect()
        };
        if !channels.is_empty() {
            news.merge(
                self.kernel
                    .open_files()?
                    .readership(&channels, &mut People::default()),
            );
        }
        if news != Readership::default() {
            self.readers.merge(news.clone());
            self.output.add(&Frame::Readers(at, Box::new(news)));
        }
        Ok(())
    }
}
