//! Turns looks into stalls: who is blocked, since when, and what ended it.
//!
//! A look is a snapshot. What joins two of them is the drain token: unchanged, the
//! reader took nothing in between, and the stall goes on whatever woke the writer;
//! changed, the old stall is over and a new one begins. The tracker knows no rules.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::model::{Bound, Channel, ChannelKind, Facts, Look, Mono, Sighting, Stall, StallId, WriterId};

/// How long a writer may be missing from looks before its stall counts as ended: a
/// look that lands in a signal handler misses it by microseconds.
pub const MISSING_FOR: Duration = Duration::from_millis(100);

/// Why a stall is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The reader took something, and the writer is still in its write.
    Drained,
    /// The writer is not in the write any more.
    Left,
    /// The writer's thread has exited.
    Exited,
}

impl Ended {
    /// The reason's name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Left => "left",
            Self::Exited => "exited",
        }
    }
}

/// The stalls that are known.
#[derive(Debug)]
pub struct Tracker {
    started: Mono,
    looks: u64,
    stalls: BTreeMap<WriterId, Stall>,
    next_id: u64,
}

impl Tracker {
    /// An observer that has seen nothing yet.
    #[must_use]
    pub const fn new(started: Mono) -> Self {
        Self {
            started,
            looks: 0,
            stalls: BTreeMap::new(),
            next_id: 1,
        }
    }

    /// Takes in a look; returns the stalls that it ended.
    pub fn observe(&mut self, look: Look) -> Vec<(Stall, Ended)> {
        let Look {
            at,
            traced,
            sightings,
        } = look;
        self.looks += 1;
        let drained = drained_channels(&sightings);
        let mut ended = Vec::new();
        for sighting in sightings {
            let id = StallId(self.next_id);
            match self.stalls.get_mut(&sighting.writer) {
                None => {
                    let mut stall = begin(id, sighting, self.started, self.looks == 1);
                    stall.look = self.looks;
                    self.stalls.insert(stall.last.writer, stall);
                    self.next_id += 1;
                }
                Some(stall) => match compare(&stall.last, &sighting, traced, &drained) {
                    None => {
                        if !is_same_process(&stall.last, &sighting) {
                            stall.facts = None;
                        }
                        stall.last = sighting;
                        stall.look = self.looks;
                        stall.draining = false;
                        stall.missing = None;
                    }
                    Some(why) => {
                        let facts = stall.facts.take_if(|_| is_same_process(&stall.last, &sighting));
                        let next = match why {
                            Ended::Drained => resume(id, sighting, facts.clone()),
                            Ended::Left | Ended::Exited => Stall {
                                facts: facts.clone(),
                                ..begin(id, sighting, self.started, false)
                            },
                        };
                        let mut old = std::mem::replace(
                            stall,
                            Stall {
                                look: self.looks,
                                ..next
                            },
                        );
                        old.facts = old.facts.or(facts);
                        ended.push((old, why));
                        self.next_id += 1;
                    }
                },
            }
        }
        self.sweep(at, &mut ended);
        ended
    }

    /// A thread has exited; returns its stall.
    pub fn exited(&mut self, writer: WriterId) -> Option<Stall> {
        self.stalls.remove(&writer)
    }

    /// Files what was read of a writer's process with its stall; returns that.
    pub fn identify(&mut self, writer: WriterId, facts: Facts) -> Option<&Stall> {
        let stall = self.stalls.get_mut(&writer)?;
        stall.facts = Some(facts);
        Some(stall)
    }

    /// All stalls, those missing from the last look included.
    pub fn stalls(&self) -> impl Iterator<Item = &Stall> {
        self.stalls.values()
    }

    /// The stall of a writer.
    #[must_use]
    pub fn get(&self, writer: WriterId) -> Option<&Stall> {
        self.stalls.get(&writer)
    }

    /// Marks and drops those that the look at `at` did not show.
    fn sweep(&mut self, at: Mono, ended: &mut Vec<(Stall, Ended)>) {
        let looks = self.looks;
        let gone: Vec<_> = self
            .stalls
            .values_mut()
            .filter(|stall| stall.look < looks)
            .filter_map(|stall| {
                let missing = *stall.missing.get_or_insert(at);
                (at.since(missing) >= MISSING_FOR).then_some(stall.last.writer)
            })
            .collect();
        for writer in gone {
            ended.extend(self.stalls.remove(&writer).map(|stall| (stall, Ended::Left)));
        }
    }
}

/// Whether what was read of a process still holds: it runs the same program, for the same
/// user, under the same parent.
fn is_same_process(last: &Sighting, now: &Sighting) -> bool {
    (last.exec, last.uid, last.ppid) == (now.exec, now.uid, now.ppid)
}

/// Sockets on which the tracer has seen something taken, and when, by way of any writer:
/// the token belongs to the channel.
pub(crate) fn drained_channels(sightings: &[Sighting]) -> HashMap<Channel, Mono> {
    let mut drained = HashMap::new();
    for sighting in sightings.iter().filter(|s| s.channel.kind == ChannelKind::Unix) {
        if let (Some(entered), Some(since)) = (sighting.entered, sighting.token_since)
            && since > entered
        {
            let latest = drained.entry(sighting.channel).or_insert(since);
            *latest = since.max(*latest);
        }
    }
    drained
}

/// What happened to a stall between its last sighting and this one; `None` if nothing did.
pub(crate) fn compare(
    last: &Sighting,
    now: &Sighting,
    traced: bool,
    drained: &HashMap<Channel, Mono>,
) -> Option<Ended> {
    let came_back = now.entered.is_some_and(|entered| entered > last.at);
    if last.channel != now.channel || last.exec != now.exec || came_back {
        return Some(Ended::Left);
    }
    let recurred = || now.channel.kind == ChannelKind::Unix && may_have_recurred(last, now, traced);
    let shared = || drained.get(&now.channel).is_some_and(|when| *when > last.at);
    (last.token != now.token || recurred() || shared()).then_some(Ended::Drained)
}

/// Whether a socket's token may be the same by chance.
///
/// It holds the address of the first queued buffer, and the allocator hands freed
/// addresses out again, the last one first. That takes a writer that woke up and queued
/// more. The tracer looks at each wake-up, before the writer can; where it does not know
/// the writer, having run at all counts as progress. A pipe's token holds counters, which
/// do not come back.
fn may_have_recurred(last: &Sighting, now: &Sighting, traced: bool) -> bool {
    match now.token_since.filter(|_| traced) {
        Some(since) => since > last.at,
        None => now
            .last_ran
            .zip(last.last_ran)
            .is_some_and(|(now, last)| now.since(last) > CLOCK_SLACK),
    }
}

/// How far the scheduler's clock, as converted at two looks, may disagree with itself.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// A stall that is seen for the first time.
fn begin(id: StallId, sighting: Sighting, started: Mono, first_look: bool) -> Stall {
    let at = sighting.at;
    let watched = sighting.token_since.unwrap_or(at);
    let (since, bound) = match (sighting.entered, sighting.token_since, sighting.last_ran) {
        (Some(entered), Some(token_since), _) => (entered.max(token_since), Bound::Exact),
        // The tracer saw it block, and the token has changed since.
        (Some(_), None, _) => (at, Bound::Exact),
        (None, _, Some(ran)) if sighting.untouched => (ran.min(at), Bound::Exact),
        (None, _, Some(ran)) => (ran.min(at), Bound::AtMost),
        (None, _, None) => (at, Bound::AtLeast),
    };
    let preexisting =
        sighting.entered.is_none() && (since < started || bound == Bound::AtLeast && first_look);
    Stall {
        id,
        last: sighting,
        since,
        bound,
        preexisting,
        draining: false,
        watched: watched.max(since),
        look: 0,
        missing: None,
        facts: None,
    }
}

/// The stall of a writer whose reader has just taken something.
fn resume(id: StallId, sighting: Sighting, facts: Option<Facts>) -> Stall {
    let since = sighting.token_since.unwrap_or(sighting.at);
    Stall {
        id,
        last: sighting,
        since,
        bound: Bound::Exact,
        preexisting: false,
        draining: true,
        watched: since,
        look: 0,
        missing: None,
        facts,
    }
}
