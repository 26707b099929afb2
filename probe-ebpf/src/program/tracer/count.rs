//! How long threads have been blocked on their channels, across writes; off unless a rule asks.

use aya_ebpf::{macros::map, maps::LruHashMap};
use probe_ebpf::MAX_TRACKED;

use super::table::{Entry, Phase, TRACKED};
use crate::{layout::COUNT_BLOCKED, task::Task};

/// How long a thread has been blocked on a channel, in nanoseconds, since a moment of
/// `CLOCK_MONOTONIC`; whatever it did in between, it is one count.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Count {
    pub(crate) since: u64,
    pub(crate) blocked: u64,
}

impl Count {
    pub(super) const fn from(now: u64) -> Self {
        Self {
            since: now,
            blocked: 0,
        }
    }
}

/// What is kept of a thread that is not in a write: see [`Entry`] for the fields.
#[derive(Clone, Copy)]
#[repr(C)]
struct Past {
    inode: u64,
    start: u64,
    exec: u64,
    count: Count,
}

/// Threads that may come back to their channel. One that is pushed out is counted anew.
#[map]
static PAST: LruHashMap<u32, Past> = LruHashMap::with_max_entries(MAX_TRACKED, 0);

/// Whether blocked time is counted across writes.
#[inline(always)]
pub(crate) fn counts_blocked() -> bool {
    COUNT_BLOCKED.load() != 0
}

/// How long a thread that is blocked has been so; nothing if it is about to wake up.
#[inline(always)]
pub(crate) fn blocked_time(pid: u32, now: u64) -> Option<Count> {
    let entry = TRACKED.get_ptr(pid)?;
    // SAFETY: a non-null map value, of which its thread's CPU may change fields meanwhile; each
    // is an aligned word, and the phase is compared as a number.
    let (before, phase, since, start, after) = unsafe {
        let blocked = &raw const (*entry).count.blocked;
        (
            blocked.read_volatile(),
            (&raw const (*entry).phase).cast::<u64>().read_volatile(),
            (&raw const (*entry).since).read_volatile(),
            (&raw const (*entry).count.since).read_volatile(),
            blocked.read_volatile(),
        )
    };
    (phase == Phase::Blocked as u64 && before == after).then(|| Count {
        since: start,
        blocked: before.wrapping_add(now.saturating_sub(since)),
    })
}

/// What was counted before of a thread that is back on its channel.
#[inline(always)]
pub(super) fn recall(task: Task, inode: u64, now: u64) -> Count {
    if counts_blocked() {
        // SAFETY: only the thread's own switches, and its exit, write to its value.
        if let Some(past) = unsafe { PAST.get(task.pid()) } {
            let is_same =
                past.inode == inode && past.start == task.start() && past.exec == u64::from(task.exec_id());
            if is_same {
                return past.count;
            }
        }
    }
    Count::from(now)
}

/// Keeps the count of a thread that leaves its write.
#[inline(always)]
pub(super) fn remember(pid: u32, entry: &Entry) {
    let past = Past {
        inode: entry.inode,
        start: entry.start,
        exec: entry.exec,
        count: entry.count,
    };
    // Without it, the thread is counted anew when it comes back.
    let _ = PAST.insert(pid, past, 0);
}

/// Forgets the count of a thread that exits.
#[inline(always)]
pub(super) fn drop_past(pid: u32) {
    let _ = PAST.remove(pid);
}
