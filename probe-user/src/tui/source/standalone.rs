//! Looks of our own, once a second, without an agent and without rules. It signals nothing.

mod causes;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::sync::mpsc::Sender;

use self::causes::Causes;
use crate::{
    agent::state::STALLED,
    clock,
    core::{
        model::{Facts, Mono, Process, Stall, StallId},
        tracker::Tracker,
    },
    event::{HistogramView, StallView, rfc3339},
    probe::{
        kernel::{Kernel, Notes},
        process::Reader,
    },
    tui::{
        model::{Event, EventStall, Lost, Row, Snapshot, StallState, Status},
        state::{Message, kill::Rights},
    },
};

const EVERY: Duration = Duration::from_secs(1);
/// Readers take at most one part in so many of the time.
const READERS_SHARE: u32 = 20;

/// Our own looks.
pub struct Standalone {
    kernel: Kernel,
    notes: Notes,
    tracker: Tracker,
    reader: Reader,
    facts: HashMap<Process, Arc<Facts>>,
    causes: Causes,
    /// Readers are not asked about before this.
    readers_again: Mono,
    /// Why readers could not be found.
    no_readers: Option<String>,
    shown: HashSet<StallId>,
    observed: Vec<String>,
    node: String,
    seq: u64,
}

impl Standalone {
    /// Looks by a tracer that has been loaded, for these commands.
    ///
    /// # Errors
    /// The kernel object has no ring buffer.
    pub fn new(mut kernel: Kernel, observed: Vec<String>) -> Result<Self> {
        let notes = kernel
            .take_notes()
            .context("the kernel object has no ring buffer")?;
        Ok(Self {
            kernel,
            notes,
            tracker: Tracker::new(clock::now()),
            reader: Reader::default(),
            facts: HashMap::new(),
            causes: Causes::default(),
            readers_again: Mono::from_nanos(0),
            no_readers: None,
            shown: HashSet::new(),
            observed,
            node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            seq: 0,
        })
    }

    /// Looks from a thread of its own until nobody listens.
    pub(super) fn start(mut self: Box<Self>, to: Sender<Message>) {
        thread::spawn(move || {
            let why = "standalone only observes: the agent (pipestall run) ends processes, and records it";
            let mut open = to
                .blocking_send(Message::Rights(Rights::ReadOnly(why.to_owned())))
                .is_ok();
            while open {
                open = match self.look() {
                    Ok((snapshot, events)) => {
                        let events = events.into_iter().map(|event| Message::Event(Box::new(event)));
                        let snapshot = Message::Snapshot(Box::new(snapshot));
                        events
                            .chain([snapshot])
                            .all(|message| to.blocking_send(message).is_ok())
                    }
                    Err(error) => to
                        .blocking_send(Message::Lost(format!("{error:#}"), clock::now().after(EVERY)))
                        .is_ok(),
                };
                thread::sleep(EVERY);
            }
        });
    }

    fn look(&mut self) -> Result<(Snapshot, Vec<Event>)> {
        // Looks tell the same, if later; what is not taken out counts as lost.
        while self.notes.next_note()?.is_some() {}
        let (look, _) = self.kernel.look()?;
        let (at, now) = (look.at, clock::wall());
        let mut events = Vec::new();
        for (stall, why) in self.tracker.observe(look) {
            if self.shown.remove(&stall.id) {
                events.push(self.event("stall.ended", &stall, Some(why.as_str())));
            }
        }
        let is_shown = |stall: &Stall| stall.missing.is_none() && stall.age(at) >= STALLED;
        self.ask_about_readers(is_shown);
        let mut stalls: Vec<Stall> = self
            .tracker
            .stalls()
            .filter(|stall| is_shown(stall))
            .cloned()
            .collect();
        self.read_facts(&mut stalls);
        for stall in &stalls {
            if self.shown.insert(stall.id) {
                events.push(self.event("stall.detected", stall, None));
            }
        }
        let rows = stalls
            .iter()
            .map(|stall| row(&StallView::new(stall, at, now)))
            .collect::<Result<Vec<_>>>()?;
        let snapshot = Snapshot {
            at,
            status: self.status()?,
            rules: Vec::new(),
            total: rows.len() as u64,
            rows,
        };
        Ok((snapshot, events))
    }

    fn ask_about_readers(&mut self, is_shown: impl Fn(&Stall) -> bool) {
        let begun = clock::now();
        if begun < self.readers_again {
            return;
        }
        let learned = self.causes.learn(&mut self.tracker, is_shown, &mut self.kernel);
        self.no_readers = learned
            .err()
            .map(|error| format!("who reads cannot be found: {error}"));
        let end = clock::now();
        self.readers_again = end.after(end.since(begun) * READERS_SHARE);
    }

    fn read_facts(&mut self, stalls: &mut [Stall]) {
        let mut before = std::mem::take(&mut self.facts);
        for stall in stalls {
            let process = stall.last.writer.process;
            let known = self
                .facts
                .get(&process)
                .cloned()
                .or_else(|| before.remove(&process));
            let facts = known.unwrap_or_else(|| Arc::new(self.reader.facts(process).unwrap_or_default()));
            self.facts.insert(process, Arc::clone(&facts));
            stall.facts = Some(facts);
        }
    }

    fn status(&self) -> Result<Status> {
        let lost = self.kernel.lost();
        let blocked = HistogramView::new(&self.kernel.histogram());
        Ok(Status {
            node: self.node.clone(),
            mode: "observe".to_owned(),
            tracer: self.kernel.traced_by().to_string(),
            observed: self.observed.clone(),
            degraded: self.no_readers.clone().into_iter().collect(),
            lost: Lost {
                notes: lost.notes,
                writers: lost.entries,
                ..Lost::default()
            },
            blocked_seconds: serde_json::from_value(serde_json::to_value(blocked)?)?,
            ..Status::default()
        })
    }

    fn event(&mut self, kind: &str, stall: &Stall, reason: Option<&str>) -> Event {
        self.seq += 1;
        let process = stall.last.writer.process;
        Event {
            seq: self.seq,
            time: rfc3339(clock::wall()),
            kind: kind.to_owned(),
            stall: Some(EventStall {
                pid: process.tgid,
                comm: stall.last.comm.to_string(),
                ..EventStall::default()
            }),
            reason: reason.map(str::to_owned),
            ..Event::default()
        }
    }
}

/// By way of the JSON that an agent would have sent, so that both show the same.
fn row(view: &StallView) -> Result<Row> {
    let state: StallState = serde_json::from_value(json!({ "stall": view }))?;
    Ok(Row::from(state))
}
