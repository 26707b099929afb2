//! A pipe's ring of buffers.

use probe_ebpf::record::DrainToken;

use super::Skip;
use crate::layout::{self, peek, peek_fields};

/// Most slots of a pipe whose bytes are summed up: a ring of 1 MiB, the limit for ordinary users.
const MAX_SLOTS: u32 = 256;

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

    /// The bytes in all slots, as far as they are counted.
    #[inline(always)]
    pub(super) fn bytes(&self, token: DrainToken) -> Result<u64, Skip> {
        let used = self.head.wrapping_sub(self.tail);
        // The token has the first one's length, in its lower half.
        let DrainToken([_, first]) = token;
        let mut sum = first & u64::from(u32::MAX);
        let mut i = 1;
        while i < MAX_SLOTS {
            if i >= used {
                break;
            }
            sum += u64::from(peek::<u32>(
                self.slot(self.tail.wrapping_add(i)),
                &layout::BUF_LEN,
            )?);
            i += 1;
        }
        Ok(sum)
    }
}
