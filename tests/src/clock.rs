//! The clocks a test reads. Ages are compared on the clock the program uses for them.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Tells the time on `CLOCK_MONOTONIC`, since some fixed moment in the past.
pub fn mono() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(tv_sec).expect("CLOCK_MONOTONIC is not negative");
    let nanos = u32::try_from(tv_nsec).expect("nanoseconds are below a second");
    Duration::new(seconds, nanos)
}

/// Tells the wall time, to compare with the times in the program's output.
pub fn wall() -> Timestamp {
    Timestamp::now()
}

/// Tells how much time passed between two moments.
///
/// # Panics
/// If they are in the other order.
#[track_caller]
pub fn lapse(from: Duration, to: Duration) -> Duration {
    to.checked_sub(from)
        .unwrap_or_else(|| panic!("{to:?} is before {from:?}"))
}

/// Tells the wall time of a moment in the past.
pub fn wall_of(moment: Duration) -> Timestamp {
    let ago = jiff::SignedDuration::try_from(lapse(moment, mono())).expect("a test lasts seconds");
    wall() - ago
}

/// Tells how many seconds lie between two wall times, whichever is first.
pub fn apart(one: Timestamp, other: Timestamp) -> f64 {
    one.duration_since(other).as_secs_f64().abs()
}
