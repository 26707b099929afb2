//! What the tracer tells userspace: notes of what happened, and counts.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use probe_ebpf::{histogram, record::Note};

use crate::task::Task;

/// Blocked intervals by [`histogram::slot`].
#[map]
static BLOCKED_NS: PerCpuArray<u64> = PerCpuArray::with_max_entries(histogram::SLOTS, 0);

#[map]
static NOTES: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Things that went wrong, counted: see [`Loss`].
#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// What userspace has to make up for by scanning.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Loss {
    /// The ring buffer was full.
    Note = 0,
    /// The table of followed threads was full.
    Entry = 1,
}

#[inline(always)]
pub(super) fn note(kind: u32, task: Task, now: u64) {
    let Some(mut slot) = NOTES.reserve::<Note>(0) else {
        count_loss(Loss::Note);
        return;
    };
    slot.write(Note {
        kind,
        pid: task.pid(),
        tgid: task.tgid(),
        reserved: 0,
        start: task.start(),
        now,
    });
    slot.submit(0);
}

#[inline(always)]
pub(super) fn count_interval(ns: u64) {
    count(&BLOCKED_NS, histogram::slot(ns));
}

#[inline(always)]
pub(super) fn count_loss(loss: Loss) {
    count(&LOSSES, loss as u32);
}

#[inline(always)]
fn count(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: an aligned word of a non-null map value. It is this CPU's, but a program at a
        // function may be preempted.
        unsafe { atomic_add(counter, 1) };
    }
}

/// # Safety
/// `at` is an aligned word of a map or of the object.
#[inline(always)]
pub(crate) unsafe fn atomic_add(at: *mut u64, n: i64) {
    // SAFETY: the caller's promise; one add, and nothing else is touched.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({at} + 0) += {n}",
            at = in(reg) at,
            n = in(reg) n,
        );
    }
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
