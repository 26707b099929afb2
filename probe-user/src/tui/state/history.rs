//! What was: how many writers were stalled, and how old each stall was.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{core::model::Mono, tui::model::Row};

/// So many samples are kept.
const KEPT: usize = 120;
/// One is taken so often.
const EVERY: Duration = Duration::from_secs(1);

/// Samples of all that was shown.
#[derive(Clone, Debug, Default)]
pub struct History {
    sampled: Option<Mono>,
    stalled: VecDeque<u64>,
    /// By what stays the same while a slow reader makes one stall after another.
    ages: HashMap<(u32, u64), VecDeque<u32>>,
}

impl History {
    /// Takes a sample, if it is time for one.
    pub fn sample(&mut self, at: Mono, total: u64, rows: &[Row]) {
        if self.sampled.is_some_and(|last| at.since(last) < EVERY) {
            return;
        }
        self.sampled = Some(at);
        push(&mut self.stalled, total);
        let mut before = std::mem::take(&mut self.ages);
        for row in rows {
            let writer = row.writer();
            let mut ages = before.remove(&writer).unwrap_or_default();
            push(&mut ages, u32::try_from(row.age.as_secs()).unwrap_or(u32::MAX));
            self.ages.insert(writer, ages);
        }
    }

    /// How many writers were stalled, the last one now.
    #[must_use]
    pub const fn stalled(&self) -> &VecDeque<u64> {
        &self.stalled
    }

    /// The ages that a writer's stalls had, in seconds, the last one now.
    #[must_use]
    pub fn ages(&self, row: &Row) -> Option<&VecDeque<u32>> {
        self.ages.get(&row.writer())
    }
}

fn push<T>(samples: &mut VecDeque<T>, sample: T) {
    if samples.len() == KEPT {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn samples_are_a_second_apart_bounded_and_forgotten_with_the_writer() {
        let mut history = History::default();
        let row = Row {
            age: Duration::from_secs(7),
            ..Row::default()
        };
        for i in 0..600 {
            history.sample(at(i * 500), i, std::slice::from_ref(&row));
        }
        assert_eq!(history.stalled().len(), KEPT);
        assert_eq!(history.stalled().back(), Some(&598));
        assert_eq!(history.ages(&row).map(VecDeque::len), Some(KEPT));

        history.sample(at(400_000), 0, &[]);

        assert_eq!(history.ages(&row), None);
    }
}
