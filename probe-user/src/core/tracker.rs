//! Turns looks into stalls: who is blocked, since when, and what ended it.
//!
//! A look is a snapshot. What joins two of them is the drain token: unchanged, the
//! reader took nothing in between, and the stall goes on whatever woke the writer;
//! changed, the old stall is over and a new one begins. The tracker knows no rules.

#[cfg(test)]
mod naive_tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    chain::Cause,
    model::{Bound, Channel, ChannelKind, Facts, Look, Mono, Process, Sighting, Stall, StallId, WriterId},
    share::{History, Share},
};

/// How long a writer may be missing from looks before its stall counts as ended: a
/// look that lands in a signal handler misses it by microseconds.
pub const MISSING_FOR: Duration = Duration::from_millis(100);

/// Of so many writers it is kept how long they were blocked; the tracer follows no more.
const MAX_COUNTED: usize = probe_ebpf::MAX_TRACKED as usize;

impl Stall {
    /// How long the writer may be missing before the stall counts as ended.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.crawls.unwrap_or_default().max(MISSING_FOR)
    }
}

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
    /// The windows over which rules ask for a share.
    windows: Vec<Duration>,
    counts: BTreeMap<WriterId, History>,
    looks: u64,
    stalls: BTreeMap<WriterId, Stall>,
    next_id: u64,
}

impl Tracker {
    /// An observer that has seen nothing yet.
    #[must_use]
    pub const fn new(started: Mono) -> Self {
        Self::counting(started, Vec::new())
    }

    /// One that also says how much of each window a writer was blocked.
    #[must_use]
    pub const fn counting(started: Mono, windows: Vec<Duration>) -> Self {
        Self {
            started,
            windows,
            counts: BTreeMap::new(),
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
            awake: _,
        } = look;
        self.looks += 1;
        let channels = Channels::of(&sightings);
        let mut ended = Vec::new();
        for sighting in sightings {
            let shares = self.count(&sighting);
            let stall = match self.stalls.remove(&sighting.writer) {
                None => self.begin(sighting, &channels),
                Some(mut stall) => {
                    let facts = stall
                        .facts
                        .clone()
                        .filter(|_| is_same_process(&stall.last, &sighting));
                    let goes_on = match compare(&stall.last, &sighting, traced, &channels) {
                        None => {
                            stall.last = sighting;
                            stall.look = self.looks;
                            stall.draining = false;
                            stall.missing = None;
                            stall
                        }
                        Some(why) => {
                            let is_there =
                                (stall.last.channel, stall.last.exec) == (sighting.channel, sighting.exec);
                            let next = match why {
                                Ended::Drained => self.resume(sighting, stall.last.at),
                                Ended::Left | Ended::Exited => self.begin(sighting, &channels),
                            };
                            if stall.crawls.is_some() && is_there {
                                Stall {
                                    id: stall.id,
                                    crawls: stall.crawls,
                                    cause: stall.cause,
                                    ..next
                                }
                            } else {
                                ended.push((stall, why));
                                next
                            }
                        }
                    };
                    Stall { facts, ..goes_on }
                }
            };
            self.stalls.insert(stall.last.writer, Stall { shares, ..stall });
        }
        let longest = self.windows.iter().max().copied().unwrap_or_default();
        self.counts
            .retain(|_, history| at.since(history.seen()) <= longest);
        self.sweep(at, &mut ended);
        ended
    }

    /// A thread has exited; returns its stall.
    pub fn exited(&mut self, writer: WriterId) -> Option<Stall> {
        self.counts.remove(&writer);
        self.stalls.remove(&writer)
    }

    /// Asks about other windows from now on; what was counted is kept where they are the same.
    pub fn set_windows(&mut self, windows: Vec<Duration>) {
        if windows != self.windows {
            self.counts.clear();
            self.windows = windows;
        }
    }

    /// From now on a writer's stall goes on when its reader takes something or it comes back to
    /// its channel, and may be missing for so long; or not any more.
    pub fn set_crawling(&mut self, writer: WriterId, crawls: Option<Duration>) {
        if let Some(stall) = self.stalls.get_mut(&writer) {
            stall.crawls = crawls;
        }
    }

    /// Takes in how long a writer was blocked, if that is asked for and known.
    fn count(&mut self, sighting: &Sighting) -> Vec<Share> {
        let Some(counted) = sighting.counted.filter(|_| !self.windows.is_empty()) else {
            return Vec::new();
        };
        let is_known = self.counts.contains_key(&sighting.writer);
        if !is_known && self.counts.len() >= MAX_COUNTED {
            return Vec::new();
        }
        self.counts
            .entry(sighting.writer)
            .or_insert_with(|| History::new(counted, self.windows.len()))
            .add(sighting.at, counted, &self.windows)
    }

    /// Files what was read of a process with each of its stalls.
    pub fn identify(&mut self, process: Process, facts: &Arc<Facts>) {
        for stall in self
            .stalls
            .range_mut(WriterId::all_of(process))
            .map(|(_, stall)| stall)
        {
            stall.facts = Some(Arc::clone(facts));
        }
    }

    /// Files with a stall why it lasts, or that this is to be asked again; returns the stall
    /// where that is news.
    pub fn explain(&mut self, writer: WriterId, cause: Option<Arc<Cause>>) -> Option<Stall> {
        let stall = self.stalls.get_mut(&writer)?;
        if stall.cause == cause {
            return None;
        }
        stall.cause = cause;
        Some(stall.clone())
    }

    /// The stalls of a process's threads.
    pub fn stalls_of(&self, process: Process) -> impl Iterator<Item = &Stall> {
        self.stalls
            .range(WriterId::all_of(process))
            .map(|(_, stall)| stall)
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

    /// A stall that is seen for the first time.
    fn begin(&mut self, sighting: Sighting, channels: &Channels) -> Stall {
        let at = sighting.at;
        let watched = sighting.token_since.unwrap_or(at);
        let (since, bound) = match (sighting.entered, sighting.token_since, sighting.last_ran) {
            (Some(entered), Some(token_since), _) => (entered.max(token_since), Bound::Exact),
            // The tracer saw it block, and the token has changed since.
            (Some(_), None, _) => (at, Bound::Exact),
            (None, _, Some(ran)) if channels.prove(&sighting) => (ran.min(at), Bound::Exact),
            (None, _, Some(ran)) => (ran.min(at), Bound::AtMost),
            (None, _, None) => (at, Bound::AtLeast),
        };
        let is_older = since < self.started || bound == Bound::AtLeast && self.looks == 1;
        let preexisting = sighting.entered.is_none() && is_older;
        Stall {
            bound,
            preexisting,
            watched: watched.max(since),
            ..self.stall(sighting, since)
        }
    }

    /// The stall of a writer whose reader has taken something since the look at `last`.
    fn resume(&mut self, sighting: Sighting, last: Mono) -> Stall {
        // The tracer looks when the writer runs. Where others write to the same socket, a token may come
        // back while this one sleeps; to the tracer it is then as old as it was.
        let since = sighting.token_since.filter(|since| *since > last);
        let since = since.unwrap_or(sighting.at);
        Stall {
            draining: true,
            ..self.stall(sighting, since)
        }
    }

    /// A stall that the observer has seen begin.
    fn stall(&mut self, sighting: Sighting, since: Mono) -> Stall {
        let id = StallId(self.next_id);
        self.next_id += 1;
        Stall {
            id,
            last: sighting,
            since,
            bound: Bound::Exact,
            preexisting: false,
            draining: false,
            watched: since,
            look: self.looks,
            missing: None,
            shares: Vec::new(),
            crawls: None,
            facts: None,
            cause: None,
        }
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
                (at.since(missing) >= stall.patience()).then_some(stall.last.writer)
            })
            .collect();
        for writer in gone {
            ended.extend(self.stalls.remove(&writer).map(|stall| (stall, Ended::Left)));
        }
    }
}

/// Whether what was read of a process still holds: it runs the same program, for the same
/// user, under the same parent.
pub(super) fn is_same_process(last: &Sighting, now: &Sighting) -> bool {
    (last.exec, last.uid, last.ppid) == (now.exec, now.uid, now.ppid)
}

/// What the sightings of one look say together of a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Shared {
    writers: usize,
    /// When the tracer last saw something taken out of it, by way of any writer: the token
    /// belongs to the channel.
    drained: Option<Mono>,
}

/// The channels of one look.
#[derive(Debug, Default)]
pub(crate) struct Channels(HashMap<Channel, Shared>);

impl Channels {
    pub(crate) fn of(sightings: &[Sighting]) -> Self {
        let mut channels = HashMap::<_, Shared>::new();
        for sighting in sightings {
            let shared = channels.entry(sighting.channel).or_default();
            shared.writers += 1;
            // A pipe's token holds counters, which tell by themselves.
            if sighting.channel.kind == ChannelKind::Unix
                && let (Some(entered), Some(since)) = (sighting.entered, sighting.token_since)
                && since > entered
            {
                shared.drained = shared.drained.max(Some(since));
            }
        }
        Self(channels)
    }

    fn drained_after(&self, channel: Channel, moment: Mono) -> bool {
        self.0
            .get(&channel)
            .and_then(|shared| shared.drained)
            .is_some_and(|when| when > moment)
    }

    /// Whether a channel proves that nothing was taken since its writer went to sleep. With
    /// several writers it proves nothing: a pipe's reader wakes one of them for each buffer,
    /// which fills it up again while the others sleep on (`pipe_read`, fs/pipe.c).
    fn prove(&self, sighting: &Sighting) -> bool {
        sighting.untouched
            && self
                .0
                .get(&sighting.channel)
                .is_some_and(|shared| shared.writers == 1)
    }
}

/// What happened to a stall between its last sighting and this one; `None` if nothing did.
pub(crate) fn compare(last: &Sighting, now: &Sighting, traced: bool, channels: &Channels) -> Option<Ended> {
    let came_back = now.entered.is_some_and(|entered| entered > last.at);
    if last.channel != now.channel || last.exec != now.exec || came_back {
        return Some(Ended::Left);
    }
    let recurred = || now.channel.kind == ChannelKind::Unix && may_have_recurred(last, now, traced);
    let seen_by_another = || channels.drained_after(now.channel, last.at);
    (last.token != now.token || recurred() || seen_by_another()).then_some(Ended::Drained)
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
