//! The one place that reads a clock; everything else is handed the time.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::core::model::Mono;

/// Now, on the clock that the kernel programs use.
#[must_use]
pub fn now() -> Mono {
    let time = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Mono::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// The moment that is this many nanoseconds on `CLOCK_BOOTTIME`, by what has been slept in
/// suspend up to now: a moment before a suspend comes out too early.
#[must_use]
pub fn from_boottime(nanos: u64) -> Mono {
    let boot = clock_gettime(ClockId::Boottime);
    let boot = i128::from(boot.tv_sec) * 1_000_000_000 + i128::from(boot.tv_nsec);
    let suspended = boot - i128::from(now().as_nanos());
    Mono::from_nanos(u64::try_from(i128::from(nanos) - suspended).unwrap_or(0))
}

/// Now, as people tell the time.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// A duration in seconds with milliseconds, as events carry it.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
