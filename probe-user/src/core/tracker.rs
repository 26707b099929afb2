//! Turns looks into stalls: who is blocked, since when, and what ended it.
//!
//! A look is a snapshot. What joins two of them is the drain token: unchanged, the
//! reader took nothing in between, and the stall goes on whatever woke the writer;
//! changed, the old stall is over and a new one begins. The tracker knows no rules.

use std::{collections::BTreeMap, time::Duration};

use super::model::{ChannelKind, Facts, Look, Mono, Sighting, Stall, StallId, WriterId};

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
    stalls: BTreeMap<WriterId, Stall>,
    next_id: u64,
}

impl Tracker {
    /// An observer that has seen nothing yet.
    #[must_use]
    pub const fn new(started: Mono) -> Self {
        Self {
            started,
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
        let mut ended = Vec::new();
        for sighting in sightings {
            let id = StallId(self.next_id);
            match self.stalls.get_mut(&sighting.writer) {
                None => {
                    let stall = begin(id, sighting, self.started);
                    self.stalls.insert(stall.last.writer, stall);
                    self.next_id += 1;
                }
                Some(stall) => match compare(&stall.last, &sighting, traced) {
                    None => {
                        stall.last = sighting;
                        stall.draining = false;
                        stall.missing = None;
                    }
                    Some(why) => {
                        let mut next = match why {
                            Ended::Drained => resume(id, sighting),
                            Ended::Left | Ended::Exited => begin(id, sighting, self.started),
                        };
                        next.facts.clone_from(&stall.facts);
                        ended.push((std::mem::replace(stall, next), why));
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
        let gone: Vec<_> = self
            .stalls
            .values_mut()
            .filter(|stall| stall.last.at < at)
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

/// What happened to a stall between its last sighting and this one; `None` if nothing did.
pub(crate) fn compare(last: &Sighting, now: &Sighting, traced: bool) -> Option<Ended> {
    if last.channel != now.channel || now.entered.is_some_and(|entered| entered > last.at) {
        return Some(Ended::Left);
    }
    if last.token != now.token
        || (now.channel.kind == ChannelKind::Unix && may_have_recurred(last, now, traced))
    {
        return Some(Ended::Drained);
    }
    None
}

/// Whether a socket's token may be the same by chance.
///
/// It holds the address of the first queued buffer, and the allocator hands freed
/// addresses out again. That takes a writer that woke up and queued more, so the
/// tracer saw the token change; where no tracer runs, having run at all counts. A
/// pipe's token holds counters, which do not come back.
fn may_have_recurred(last: &Sighting, now: &Sighting, traced: bool) -> bool {
    if traced {
        now.token_since.is_some_and(|since| since > last.at)
    } else {
        now.last_ran
            .zip(last.last_ran)
            .is_some_and(|(now, last)| now.since(last) > CLOCK_SLACK)
    }
}

/// How far the scheduler's clock, as converted at two looks, may disagree with itself.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// A stall that is seen for the first time.
fn begin(id: StallId, sighting: Sighting, started: Mono) -> Stall {
    let at = sighting.at;
    let (since, at_least, watched) = match (sighting.entered, sighting.token_since, sighting.last_ran) {
        (Some(entered), Some(token_since), _) => {
            let since = entered.max(token_since);
            (since, false, since)
        }
        // The tracer saw it block, and the token has changed since.
        (Some(_), None, _) => (at, false, at),
        (None, _, Some(ran)) => (ran.min(at), false, at),
        (None, _, None) => (at, true, at),
    };
    let preexisting = sighting.entered.is_none() && since < started || at_least && at <= started;
    Stall {
        id,
        last: sighting,
        since,
        at_least,
        preexisting,
        draining: false,
        watched,
        missing: None,
        facts: None,
    }
}

/// The stall of a writer whose reader has just taken something.
fn resume(id: StallId, sighting: Sighting) -> Stall {
    let since = sighting.token_since.unwrap_or(sighting.at);
    Stall {
        id,
        last: sighting,
        since,
        at_least: false,
        preexisting: false,
        draining: true,
        watched: since,
        missing: None,
        facts: None,
    }
}
