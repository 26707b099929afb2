//! Waiting with a deadline: for a condition, and for time itself where time is what is tested.

use std::panic::Location;
use std::thread;
use std::time::Duration;

use crate::clock;

/// How long a test waits for what should take milliseconds, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(15);

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until `look` gives something and returns it.
///
/// # Panics
/// If nothing was given `within` that time; the message says `what` was awaited.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, look: impl FnMut() -> Option<T>) -> T {
    match until_or_none(within, look) {
        Some(found) => found,
        None => panic!(
            "{what}: not within {within:?} (awaited at {})",
            Location::caller()
        ),
    }
}

/// Waits until `look` gives something, or until the time is over.
pub fn until_or_none<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = clock::mono() + within;
    loop {
        // The deadline is read before the look, so a slow look still counts.
        let last = clock::mono() >= deadline;
        if let Some(found) = look() {
            return Some(found);
        }
        if last {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Lets time pass until `moment` on the monotonic clock. For tests of ages only, where the
/// passing of time is the event.
pub fn till(moment: Duration) {
    while let Some(left) = moment.checked_sub(clock::mono()).filter(|left| !left.is_zero()) {
        thread::sleep(left);
    }
}
