//! How many guests run at once. Knows nothing of what they do.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::guest::MEMORY_MIB;

/// How many to run: each has two processors, its memory, and a GiB at most for what it is translated to.
pub(super) fn jobs(guests: usize) -> usize {
    /// What each may take of memory.
    const GUEST_KIB: usize = (MEMORY_MIB + 1024) << 10;
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    let fitting = free.map_or(1, |kib| kib / GUEST_KIB);
    // A guest waits for a quarter of the time, even alone. Each more makes all of them take longer, and what they do
    // while they wait for each other is work, too.
    let busy = processors + processors.div_ceil(2);
    guests.min(busy).min(fitting).max(1)
}

/// Does `work` to each item, `jobs` of them at once, in their order.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = work(item);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
