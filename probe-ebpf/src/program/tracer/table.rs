//! The table of followed threads: what is known of each, and how many there are.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use probe_ebpf::{MAX_TRACKED, record::DrainToken};

use super::{
    count::Count,
    notes::{Loss, atomic_add, count_loss},
};
use crate::task::Task;

/// Where a followed thread is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Phase {
    /// Asleep in the write.
    Blocked,
    /// Stopped, by job control or a tracer, on its way back into the write.
    Held,
    /// On a CPU, or waiting for one, since `Entry::since`.
    Awake,
}

/// What is known of a followed thread. Times are `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Entry {
    /// Address of the channel's inode.
    pub(super) inode: u64,
    /// Address of the open file.
    pub(super) file: u64,
    /// When the process started, and how often it has called `exec` since: a thread's number
    /// may come to mean another's, and a process another program.
    pub(super) start: u64,
    pub(super) exec: u64,
    /// Start of this stay in the write; 0 for one that was found, not seen.
    pub(super) entered: u64,
    pub(super) token: DrainToken,
    /// When the token was first seen with this value.
    pub(super) token_since: u64,
    /// What the queue weighed at that time: see [`Output::weight`].
    pub(super) weight: u64,
    /// Start of the phase.
    pub(super) since: u64,
    /// How often the thread had gone to sleep when its call of a function began.
    pub(super) sleeps: u64,
    pub(super) phase: Phase,
    /// Intervals that are over.
    pub(super) count: Count,
}

#[map]
pub(super) static TRACKED: HashMap<u32, Entry> = HashMap::with_max_entries(MAX_TRACKED, 0);

/// Entries in [`TRACKED`]; read on every context switch.
#[unsafe(no_mangle)]
static mut FOLLOWED: u64 = 0;

/// Whether any thread is followed, so that a switch can do without a look-up.
#[inline(always)]
pub(crate) fn follows_any() -> bool {
    // SAFETY: an aligned word, changed only by atomic adds.
    unsafe { (&raw const FOLLOWED).read_volatile() != 0 }
}

/// The token of a queue that has been emptied, which no blocked writer's is.
pub(super) const EMPTY: DrainToken = DrainToken([0; 2]);

impl Entry {
    #[inline(always)]
    pub(super) fn new(
        task: Task,
        inode: u64,
        file: u64,
        token: DrainToken,
        weight: u64,
        entered: u64,
        now: u64,
    ) -> Self {
        Self {
            inode,
            file,
            start: task.start(),
            exec: u64::from(task.exec_id()),
            entered,
            token,
            token_since: now,
            weight,
            since: now,
            sleeps: 0,
            phase: Phase::Blocked,
            count: Count::from(now),
        }
    }

    /// In this order for [`blocked_time`]: an interval that is over is never counted twice.
    #[inline(always)]
    pub(super) fn set_phase(&mut self, phase: Phase) {
        // SAFETY: a field of a live value.
        unsafe { (&raw mut self.phase).write_volatile(phase) };
    }

    #[inline(always)]
    pub(super) fn add(&mut self, interval: u64) {
        let blocked = &raw mut self.count.blocked;
        // SAFETY: a field of a live value.
        unsafe { blocked.write_volatile(blocked.read_volatile().wrapping_add(interval)) };
    }

    /// Whether the entry is about this thread of this program on this channel.
    #[inline(always)]
    pub(super) fn is_of(&self, task: Task, inode: u64) -> bool {
        self.inode == inode && self.is_by(task)
    }

    /// Whether it is about this thread of this program.
    #[inline(always)]
    pub(super) fn is_by(&self, task: Task) -> bool {
        self.start == task.start() && self.exec == u64::from(task.exec_id())
    }

    /// Takes in where the reader stands now.
    #[inline(always)]
    pub(super) fn look(&mut self, token: DrainToken, weight: u64, now: u64) {
        if self.token != token || weight < self.weight {
            self.token = token;
            self.token_since = now;
        }
        self.weight = weight;
    }
}

#[inline(always)]
pub(super) fn insert(pid: u32, entry: &Entry) {
    match TRACKED.insert(pid, entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => add_followed(1),
        // -EEXIST: the thread's own switch and a scan met, and the first has it right.
        Err(-17) => {}
        Err(_) => count_loss(Loss::Entry),
    }
}

#[inline(always)]
pub(super) fn forget(pid: u32) -> bool {
    // A look-up takes no lock, and most who come here are not in the table.
    let was_there = TRACKED.get_ptr(pid).is_some() && TRACKED.remove(pid).is_ok();
    if was_there {
        add_followed(-1);
    }
    was_there
}

#[inline(always)]
fn add_followed(n: i64) {
    // SAFETY: an aligned word that lives as long as the object.
    unsafe { atomic_add(&raw mut FOLLOWED, n) };
}
