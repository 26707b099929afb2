//! What is still to be delivered to one receiver, and in which order.
//!
//! A state machine without clock or I/O. Many messages may be on their way at once, but
//! never two about one writer, and never a later one before an earlier: each waits until
//! it is the first of all its writers. A message that fails is tried again after its own
//! delay; a receiver that does nothing but fail is asked about one message at a time.

mod entry;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;

pub use self::entry::{Entry, Number, hash};
use super::{outcome::Outcome, time::later, webhook::Retry};

/// How many requests are on their way to one receiver at once.
const AT_ONCE: usize = 8;

/// After so many failures in a row a receiver is taken to be down.
const DOWN: u32 = 5;

/// What has become of messages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the receiver.
    pub delivered: u64,
    /// Attempts that failed and are made again.
    pub failed: u64,
    /// Refused by the receiver, and kept for who looks after it.
    pub refused: u64,
    /// Given up: too old, or no room.
    pub dropped: u64,
}

/// The messages to one receiver.
#[derive(Debug)]
pub struct Queue {
    retry: Retry,
    entries: BTreeMap<Number, Entry>,
    /// The messages about each writer, in their order.
    chains: HashMap<u64, VecDeque<Number>>,
    /// In how many chains a message is not the first.
    behind: HashMap<Number, usize>,
    /// Those that may go, by when.
    ready: BTreeSet<(Timestamp, Number)>,
    flying: BTreeSet<Number>,
    incidents: HashMap<String, usize>,
    size: u64,
    failures: u32,
    paused: Option<Timestamp>,
    disabled: Option<String>,
    counts: Counts,
    last_error: Option<(Timestamp, String)>,
    touched: BTreeSet<Number>,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(retry: Retry) -> Self {
        Self {
            retry,
            entries: BTreeMap::new(),
            chains: HashMap::new(),
            behind: HashMap::new(),
            ready: BTreeSet::new(),
            flying: BTreeSet::new(),
            incidents: HashMap::new(),
            size: 0,
            failures: 0,
            paused: None,
            disabled: None,
            counts: Counts::default(),
            last_error: None,
            touched: BTreeSet::new(),
        }
    }

    /// Goes on with a message of an earlier run; in the order of their numbers.
    pub fn restore(&mut self, mut entry: Entry, now: Timestamp) {
        // A clock that was set back meanwhile is no reason to wait longer than ever.
        entry.next_try = entry.next_try.min(later(now, self.retry.max));
        self.insert(entry);
    }

    /// Takes a new message.
    pub fn push(&mut self, entry: Entry) {
        self.touched.insert(entry.number);
        self.insert(entry);
    }

    fn insert(&mut self, entry: Entry) {
        self.size += entry.size();
        *self.incidents.entry(entry.incident.clone()).or_default() += 1;
        if !entry.refused {
            self.link(&entry);
        }
        self.entries.insert(entry.number, entry);
    }

    fn link(&mut self, entry: &Entry) {
        let mut behind = 0;
        for subject in &entry.subjects {
            let chain = self.chains.entry(*subject).or_default();
            behind += usize::from(!chain.is_empty());
            chain.push_back(entry.number);
        }
        if behind == 0 {
            self.ready.insert((entry.next_try, entry.number));
        } else {
            self.behind.insert(entry.number, behind);
        }
    }

    /// Takes a message out of the order: those behind it move up.
    fn unlink(&mut self, entry: &Entry) {
        self.ready.remove(&(entry.next_try, entry.number));
        self.behind.remove(&entry.number);
        for subject in &entry.subjects {
            let Some(chain) = self.chains.get_mut(subject) else {
                continue;
            };
            let was_first = chain.front() == Some(&entry.number);
            chain.retain(|number| *number != entry.number);
            let next = chain.front().copied();
            if chain.is_empty() {
                self.chains.remove(subject);
            }
            if let (true, Some(next)) = (was_first, next) {
                self.moved_up(next);
            }
        }
    }

    fn moved_up(&mut self, number: Number) {
        let Some(behind) = self.behind.get_mut(&number) else {
            return;
        };
        *behind -= 1;
        if *behind == 0 {
            self.behind.remove(&number);
            if let Some(entry) = self.entries.get(&number) {
                self.ready.insert((entry.next_try, number));
            }
        }
    }

    /// When [`Self::start`] next has something.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let (next, _) = self.ready.first()?;
        let room = self.flying.len() < self.limit() && self.disabled.is_none();
        room.then(|| self.paused.map_or(*next, |paused| paused.max(*next)))
    }

    const fn limit(&self) -> usize {
        if self.failures < DOWN { AT_ONCE } else { 1 }
    }

    /// The next message to be sent, if one is due.
    pub fn start(&mut self, now: Timestamp) -> Option<&Entry> {
        if self.due()? > now {
            return None;
        }
        let (_, number) = self.ready.pop_first()?;
        self.flying.insert(number);
        self.entries.get(&number)
    }

    /// What came of an attempt.
    pub fn finish(&mut self, number: Number, outcome: Outcome, now: Timestamp) {
        self.flying.remove(&number);
        match &outcome {
            Outcome::Delivered => {
                self.counts.delivered += 1;
                self.failures = 0;
                self.paused = None;
            }
            Outcome::Refused(why) => {
                self.counts.refused += 1;
                self.failures = 0;
                self.last_error = Some((now, why.clone()));
            }
            Outcome::Gone(why) => {
                self.counts.failed += 1;
                self.disabled = Some(why.clone());
                self.last_error = Some((now, why.clone()));
            }
            Outcome::Failed { why, wait } => {
                self.counts.failed += 1;
                self.failures = self.failures.saturating_add(1);
                self.last_error = Some((now, why.clone()));
                let down = self.failures.checked_sub(DOWN).map(|more| self.retry.delay(more));
                let pause = down.into_iter().chain(*wait).max();
                self.paused = self.paused.max(pause.map(|pause| later(now, pause)));
            }
        }
        // Somebody may have dropped it while it was on its way.
        let Some(mut entry) = self.entries.remove(&number) else {
            return;
        };
        self.touched.insert(number);
        match outcome {
            Outcome::Delivered => {
                self.unlink(&entry);
                self.forget(&entry);
                return;
            }
            Outcome::Refused(why) => {
                entry.attempts += 1;
                entry.last_error = Some(why);
                entry.refused = true;
                self.unlink(&entry);
            }
            Outcome::Failed { why, .. } | Outcome::Gone(why) => {
                entry.next_try = later(now, self.retry.delay(entry.attempts));
                entry.attempts += 1;
                entry.last_error = Some(why);
                self.ready.insert((entry.next_try, number));
            }
        }
        self.entries.insert(number, entry);
    }

    /// Tries a message again now, one that was refused too.
    pub fn retry_now(&mut self, number: Number, now: Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(&number) else {
            return false;
        };
        let was_ready = self.ready.remove(&(entry.next_try, number));
        entry.next_try = now;
        entry.attempts = 0;
        self.touched.insert(number);
        if entry.refused {
            entry.refused = false;
            let entry = entry.clone();
            self.link(&entry);
        } else if was_ready {
            self.ready.insert((now, number));
        }
        self.paused = None;
        true
    }

    /// Gives a message up.
    pub fn discard(&mut self, number: Number) -> bool {
        let Some(entry) = self.entries.remove(&number) else {
            return false;
        };
        self.counts.dropped += 1;
        self.touched.insert(number);
        self.unlink(&entry);
        self.forget(&entry);
        true
    }

    fn forget(&mut self, entry: &Entry) {
        self.size -= entry.size();
        if let Some(count) = self.incidents.get_mut(&entry.incident) {
            *count -= 1;
            if *count == 0 {
                self.incidents.remove(&entry.incident);
            }
        }
    }

    /// Whether something about an incident is still to be delivered.
    #[must_use]
    pub fn holds(&self, incident: &str) -> bool {
        self.incidents.contains_key(incident)
    }

    /// The messages by number.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<Number, Entry> {
        &self.entries
    }

    /// Whether a message is on its way.
    #[must_use]
    pub fn is_flying(&self, number: Number) -> bool {
        self.flying.contains(&number)
    }

    /// How many messages are still to be delivered, and how many were refused.
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        let flying = self
            .flying
            .iter()
            .filter(|number| self.entries.contains_key(number));
        let waiting = self.ready.len() + self.behind.len() + flying.count();
        (waiting, self.entries.len().saturating_sub(waiting))
    }

    /// What the messages take, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What has become of messages.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The last failure, and when.
    #[must_use]
    pub const fn last_error(&self) -> Option<&(Timestamp, String)> {
        self.last_error.as_ref()
    }

    /// Why nothing is sent until the configuration is loaded anew, if so.
    #[must_use]
    pub fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    /// Nothing is sent; for messages to a webhook that is not configured any more.
    pub fn disable(&mut self, why: &str) {
        self.disabled = Some(why.to_owned());
    }

    /// Starts anew with what was disabled or paused: the configuration has been loaded again.
    pub fn enable(&mut self, retry: Retry) {
        self.retry = retry;
        self.disabled = None;
        self.paused = None;
        self.failures = 0;
    }

    /// Whether the receiver does nothing but fail.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        self.failures >= DOWN
    }

    /// What has changed since this was last asked; it may be gone.
    pub fn touched(&mut self) -> BTreeSet<Number> {
        std::mem::take(&mut self.touched)
    }
}

#[cfg(test)]
mod tests;
