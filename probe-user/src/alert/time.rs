//! The time of alerts: times of day, for they outlive the process, on a clock that only goes on.

use std::time::Duration;

use jiff::Timestamp;

use crate::{clock, core::model::Mono};

/// The moment so long after another.
#[must_use]
pub fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How long after one moment another is; nothing if it is before.
#[must_use]
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The time of day at the start, and what has passed since: a clock that is set does not hold up
/// or hurry what is due.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    wall: Timestamp,
    mono: Mono,
}

impl Steady {
    /// Starts with the time of day.
    #[must_use]
    pub fn start() -> Self {
        Self {
            wall: clock::wall(),
            mono: clock::now(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        later(self.wall, clock::now().since(self.mono))
    }
}
