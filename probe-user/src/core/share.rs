//! How much of the last minutes a writer was blocked, for those that crawl: their reader takes a
//! little again and again, so that no stall of theirs grows old.
//!
//! The tracer counts; a look shows the count of each writer that it finds blocked. A few of
//! these samples are kept for each window that a rule asks about, and what is said of a window is
//! what they prove: the writer was blocked for at least so long.

use std::{collections::VecDeque, fmt, time::Duration};

use super::model::{Counted, Mono, human};

/// Samples of a window lie this part of it apart, or more where looks do not show the writer.
const SAMPLES: u32 = 16;

/// What a rule asks: blocked for longer than this within any window of that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StalledShare {
    /// How long.
    pub blocked: Duration,
    /// The window.
    pub over: Duration,
}

impl StalledShare {
    /// A share of a window, from 0 to 1.
    #[must_use]
    pub fn new(share: f64, over: Duration) -> Self {
        Self {
            blocked: over.mul_f64(share.clamp(0.0, 1.0)),
            over,
        }
    }

    /// The share, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.blocked.as_secs_f64() / self.over.as_secs_f64()
    }

    /// How often it must be looked at.
    #[must_use]
    pub fn every(&self) -> Duration {
        self.over / SAMPLES
    }

    /// For how long a writer that is over the share may be awake and still be over it.
    #[must_use]
    pub fn slack(&self) -> Duration {
        self.over.saturating_sub(self.blocked)
    }

    /// Whether a writer that was over the share has come to rest well below it.
    #[must_use]
    pub fn is_over_with(&self, blocked: Duration) -> bool {
        blocked < self.blocked / 10 * 9
    }
}

impl fmt::Display for StalledShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.share() * 1000.0).round() / 10.0;
        write!(f, "{percent}% of {}", human(self.over))
    }
}

/// What is proven of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In the window of this length that ends with the last look…
    pub over: Duration,
    /// …it was blocked for at least so long.
    pub blocked: Duration,
}

/// A count as of a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Mono,
    awake: Duration,
}

/// The counts of one writer on one channel.
#[derive(Debug)]
pub(super) struct History {
    last: Counted,
    /// When a look last showed it.
    seen: Mono,
    windows: Vec<VecDeque<Sample>>,
}

impl History {
    /// One that begins where the tracer began to count.
    pub(super) fn new(counted: Counted, windows: usize) -> Self {
        let start = Sample {
            at: counted.since,
            awake: Duration::ZERO,
        };
        Self {
            last: counted,
            seen: counted.since,
            windows: vec![VecDeque::from([start]); windows],
        }
    }

    /// Takes in a count as of `at`; returns what is proven of each window by now.
    pub(super) fn add(&mut self, at: Mono, counted: Counted, windows: &[Duration]) -> Vec<Share> {
        if counted.since != self.last.since || counted.awake < self.last.awake {
            // Another channel, or program, or the tracer has lost count.
            *self = Self::new(counted, windows.len());
        }
        self.last = counted;
        self.seen = at;
        let sample = Sample {
            at,
            awake: counted.awake,
        };
        self.windows
            .iter_mut()
            .zip(windows)
            .filter_map(|(samples, over)| proven(samples, *over, sample))
            .collect()
    }

    /// Since when no look has shown it.
    pub(super) const fn seen(&self) -> Mono {
        self.seen
    }

    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.windows.iter().map(VecDeque::len).sum()
    }
}

/// Files a sample, and says what is proven of the window that ends with it.
fn proven(samples: &mut VecDeque<Sample>, over: Duration, now: Sample) -> Option<Share> {
    let start = now.at.before(over);
    // The last one from before the window is needed, and none before that.
    while samples.get(1).is_some_and(|second| second.at <= start) {
        samples.pop_front();
    }
    let share = samples.front().filter(|first| first.at <= start).map(|first| {
        let second = samples.get(1).unwrap_or(&now);
        // Awake before the window: at least as long as by the sample before it, and as by the
        // one after it if it was awake for all of the time between.
        let certain = second.awake.saturating_sub(second.at.since(start));
        let awake = now.awake.saturating_sub(first.awake.max(certain));
        Share {
            over,
            blocked: over.saturating_sub(awake),
        }
    });
    if samples
        .back()
        .is_none_or(|last| now.at.since(last.at) >= over / SAMPLES)
    {
        samples.push_back(now);
    }
    share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    fn counted(since: u64, awake: u64) -> Counted {
        Counted {
            since: at(since),
            awake: Duration::from_millis(awake),
        }
    }

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn nothing_is_said_of_a_window_that_began_before_the_count() {
        let mut history = History::new(counted(0, 0), 1);
        assert_eq!(history.add(at(9_999), counted(0, 0), &[WINDOW]), []);
        let all = Share {
            over: WINDOW,
            blocked: WINDOW,
        };
        assert_eq!(history.add(at(10_000), counted(0, 0), &[WINDOW]), [all]);
    }

    #[test]
    fn a_count_that_begins_anew_proves_nothing_of_before() {
        let mut history = History::new(counted(0, 0), 1);
        assert_eq!(history.add(at(20_000), counted(0, 0), &[WINDOW]).len(), 1);
        assert_eq!(history.add(at(21_000), counted(20_500, 0), &[WINDOW]), []);
        assert_eq!(history.add(at(30_500), counted(20_500, 0), &[WINDOW]).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Turns of being blocked and awake, looked at now and then while blocked.
        #[test]
        fn what_is_proven_is_true_and_close_to_the_truth(
            turns in prop::collection::vec((1_u64..1500, 0_u64..600, prop::bool::weighted(0.8)), 10..120),
        ) {
            let mut history = History::new(counted(0, 0), 1);
            // Up to each millisecond: for how many it was awake.
            let mut awake: Vec<u64> = vec![0];
            let mut gap = 0;
            let mut last = 0;
            for (blocked, runs, looked_at) in turns {
                let total = *awake.last().unwrap();
                awake.extend(std::iter::repeat_n(total, usize::try_from(blocked).unwrap()));
                if looked_at {
                    let now = awake.len() - 1;
                    gap = gap.max(now - last);
                    last = now;
                    let shares = history.add(at(now as u64), counted(0, total), &[WINDOW]);
                    let window = usize::try_from(WINDOW.as_millis()).unwrap();
                    prop_assert_eq!(shares.len(), usize::from(now >= window));
                    if let Some(share) = shares.first() {
                        let truth = window as u64 - (total - awake[now - window]);
                        let proven = u64::try_from(share.blocked.as_millis()).unwrap();
                        prop_assert!(proven <= truth, "{proven} of {truth}");
                        let doubt = gap + window / SAMPLES as usize;
                        prop_assert!(proven + doubt as u64 >= truth, "{proven} of {truth}, gap {gap}");
                    }
                }
                awake.extend((1..=runs).map(|more| total + more));
                prop_assert!(history.samples() <= SAMPLES as usize + 2);
            }
        }
    }
}
