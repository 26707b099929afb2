//! A pipe's ring of buffers.

use aya_ebpf::{macros::map, maps::Array};
use probe_ebpf::record::DrainToken;

use super::Skip;
use crate::layout::{self, copy_to, peek_fields};

/// Most slots of a pipe whose bytes are summed up: a ring of 1 MiB, the limit for ordinary users.
const MAX_SLOTS: u32 = 256;

/// A copy of so many, each a `struct pipe_buffer`, which is no larger: more than a program's stack holds. Only a scan
/// writes to it, and no two scans by one object run at once.
#[map]
static SLOTS: Array<[[u64; 8]; MAX_SLOTS as usize]> = Array::with_max_entries(1, 0);

/// A pipe's ring of buffers (include/linux/pipe_fs_i.h).
#[derive(Clone, Copy)]
pub(super) struct Ring {
    pub(super) head: u32,
    pub(super) tail: u32,
    size: u32,
    bufs: u64,
    /// How often it is open for writing.
    pub(super) writers: u32,
    /// Who waits for room: the address of the list's head, and of its first entry.
    pub(super) waiters: u64,
    pub(super) first_waiter: u64,
}

impl Ring {
    /// The ring of a pipe that has no room (`pipe_full`, include/linux/pipe_fs_i.h).
    #[inline(always)]
    pub(super) fn full(pipe: u64) -> Result<Self, Skip> {
        let [first_waiter, head, tail, max_usage, size, bufs, writers] = peek_fields::<14, 7>(
            pipe,
            [
                &layout::PIPE_WAITERS,
                &layout::PIPE_HEAD,
                &layout::PIPE_TAIL,
                &layout::PIPE_MAX_USAGE,
                &layout::PIPE_RING_SIZE,
                &layout::PIPE_BUFS,
                &layout::PIPE_WRITERS,
            ],
        )?;
        let (head, tail, size) = (head as u32, tail as u32, size as u32);
        if head.wrapping_sub(tail) < max_usage as u32 {
            return Err(Skip::NotFull);
        }
        Ok(Self {
            head,
            tail,
            size,
            bufs,
            writers: writers as u32,
            waiters: pipe + layout::PIPE_WAITERS.load(),
            first_waiter,
        })
    }

    /// The address of the slot for a position of head or tail.
    #[inline(always)]
    pub(super) fn slot(&self, position: u32) -> u64 {
        let index = position & self.size.wrapping_sub(1);
        self.bufs + u64::from(index) * layout::BUF_SIZE.load()
    }

    /// The bytes in all slots, as far as they are counted: of a larger ring, in as many.
    ///
    /// The slots are copied as a whole. To read each by itself takes as many calls, and the verifier follows each of
    /// those that there may be.
    #[inline(always)]
    pub(super) fn bytes(&self, token: DrainToken) -> Result<u64, Skip> {
        let used = self.head.wrapping_sub(self.tail);
        // The token has the first one's length, in its lower half.
        let DrainToken([_, first]) = token;
        let first = first & u64::from(u32::MAX);
        if used < 2 {
            return Ok(first);
        }
        let (slot_size, len_at) = (layout::BUF_SIZE.load(), layout::BUF_LEN.load());
        let copy = SLOTS.get_ptr_mut(0).ok_or(Skip::Fault)?.cast::<u8>();
        // A ring's size is a power of two.
        let mask = self.size.wrapping_sub(1) & (MAX_SLOTS - 1);
        let len = u64::from(mask + 1) * slot_size;
        // SAFETY: the verifier, which knows the size of a slot, sees that so many fit; the helper checks the address.
        unsafe { copy_to(copy, len as u32, self.bufs)? };
        // SAFETY: it holds the lengths of as many slots.
        let others = unsafe {
            sum(
                copy.add(len_at as usize),
                u64::from(self.tail),
                u64::from(mask),
                u64::from(used),
            )
        };
        Ok(first + others)
    }
}

/// Adds up the lengths of `used` slots but the first, which is at `tail`. By itself it has all that it needs in
/// registers, and the verifier has the less to follow.
///
/// # Safety
/// `lengths` points to the first of as many lengths as `mask` has values, each a slot's size from the next.
#[inline(never)]
unsafe fn sum(lengths: *const u8, tail: u64, mask: u64, used: u64) -> u64 {
    let size = layout::BUF_SIZE.load();
    let mut sum = 0;
    let mut i = 1;
    while i < u64::from(MAX_SLOTS) && i < used {
        let slot = ((tail + i) & mask) * size;
        // SAFETY: the caller's promise.
        sum += u64::from(unsafe { lengths.add(slot as usize).cast::<u32>().read_volatile() });
        i += 1;
    }
    sum
}
