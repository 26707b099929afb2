//! Counts each call of a function that writes: its bytes, and how long it took. Off unless it is asked for.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use probe_ebpf::{
    MAX_TRACKED, MAX_WRITTEN, WRITTEN_KINDS, histogram,
    record::{Written, WrittenKey},
};

use crate::{
    output,
    tracer::{atomic_add, now},
};

/// A call that has not returned.
#[derive(Clone, Copy)]
#[repr(C)]
struct Call {
    since: u64,
    key: WrittenKey,
}

/// The calls that threads are in, each of which is followed: there is room for all.
#[map]
static CALLS: HashMap<u32, Call> = HashMap::with_max_entries(MAX_TRACKED, 0);

#[map]
static WRITTEN: LruHashMap<WrittenKey, Written> = LruHashMap::with_max_entries(MAX_WRITTEN, 0);

/// The same for all channels of a kind, [`probe_ebpf::record::ChannelKind`], which nothing is taken out of.
#[map]
static WRITTEN_BY_KIND: Array<Written> = Array::with_max_entries(WRITTEN_KINDS, 0);

/// What a channel begins with: it is more than a program's stack holds.
#[map]
static NOTHING: Array<Written> = Array::with_max_entries(1, 0);

/// A followed thread enters a function that writes to a file.
#[inline(always)]
pub(crate) fn begins(pid: u32, file: u64) {
    let Ok((kind, inode, dev)) = output::identity(file) else {
        return;
    };
    let key = WrittenKey {
        inode,
        dev,
        channel: kind as u32,
    };
    let _ = CALLS.insert(pid, &Call { since: now(), key }, u64::from(BPF_ANY));
}

/// It returns; `written` is what the function returns.
#[inline(always)]
pub(crate) fn ends(pid: u32, written: i64, now: u64) {
    // SAFETY: only its own thread changes or removes it.
    let Some(call) = (unsafe { CALLS.get(pid) }) else {
        return;
    };
    let Call { since, key } = *call;
    let _ = CALLS.remove(pid);
    let slot = histogram::slot(now.saturating_sub(since));
    if let Some(entry) = WRITTEN_BY_KIND.get_ptr_mut(key.channel) {
        // SAFETY: a non-null map value.
        unsafe { add(entry, slot, written) };
    }
    let entry = match WRITTEN.get_ptr_mut(key) {
        Some(entry) => entry,
        None => {
            let Some(nothing) = NOTHING.get(0) else {
                return;
            };
            // Another thread may have been first, which is as good.
            let _ = WRITTEN.insert(key, nothing, u64::from(BPF_NOEXIST));
            let Some(entry) = WRITTEN.get_ptr_mut(key) else {
                return;
            };
            entry
        }
    };
    // SAFETY: a non-null map value.
    unsafe { add(entry, slot, written) };
}

/// A thread exits that may be in a call whose return was missed.
#[inline(always)]
pub(crate) fn forget(pid: u32) {
    let _ = CALLS.remove(pid);
}

/// # Safety
/// `entry` is a value of a map.
#[inline(always)]
unsafe fn add(entry: *mut Written, slot: u32, written: i64) {
    let slot = slot as usize & (histogram::SLOTS as usize - 1);
    // SAFETY: the caller's promise; both are aligned words of it, and the slot is within the array.
    unsafe {
        atomic_add((&raw mut (*entry).took).cast::<u64>().add(slot), 1);
        if written > 0 {
            atomic_add(&raw mut (*entry).bytes, written);
        }
    }
}

const _: () = assert!(histogram::SLOTS.is_power_of_two());
