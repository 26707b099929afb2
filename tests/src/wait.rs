//! Waiting with a deadline: for a condition, and for time itself where time is what is tested.

use std::env;
use std::panic::Location;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::clock;

/// How long a test waits for what should take milliseconds, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Tells how many times slower than on a machine of its own things may be: what
/// `PIPESTALL_TEST_SLOWNESS` says, for machines that are emulated.
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    *SLOWNESS.get_or_init(|| match env::var("PIPESTALL_TEST_SLOWNESS") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("PIPESTALL_TEST_SLOWNESS is {text}, not a number")),
        Err(_) => 1,
    })
}

/// Tells how late, in seconds, something may be that is so late on a machine of its own.
pub fn late(seconds: f64) -> f64 {
    seconds * f64::from(slowness())
}

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
    let deadline = clock::mono() + within * slowness();
    loop {
        // The deadline is read before the look, so a slow look still counts.
        let last = clock::mono() >= deadline;
        if let Some(found) = look() {
            return Some(found);
        }
        if last {
            return None;
        }
        thread::sleep(LOOK_EVERY * slowness());
    }
}

/// Lets time pass until `moment` on the monotonic clock. For tests of ages only, where the
/// passing of time is the event.
pub fn till(moment: Duration) {
    while let Some(left) = moment.checked_sub(clock::mono()).filter(|left| !left.is_zero()) {
        thread::sleep(left);
    }
}
