//! A unix socket, by its writer's end.

use probe_ebpf::{AF_UNIX, SOCK_DGRAM, SOCK_STREAM};

use super::Skip;
use crate::{
    layout::{self, peek},
    task::Call,
};

/// Most of a socket's queued buffers whose sizes are compared.
const MAX_SIZES: u32 = 6;

/// The writer's end of a pair of unix sockets.
#[derive(Clone, Copy)]
pub(super) struct Socket {
    pub(super) sk: u64,
    /// `SOCK_STREAM`: its writers wait for room only. Others wait for the receiver's queue too, in which
    /// there may be what others have sent.
    pub(super) is_stream: bool,
    /// Memory that is queued at the peer.
    pub(super) queued: u32,
    sndbuf: u32,
}

impl Socket {
    /// The unix socket of a `struct socket`.
    #[inline(always)]
    pub(super) fn of(socket: u64, call: Call) -> Result<Self, Skip> {
        let sk: u64 = peek(socket, &layout::SOCKET_SK)?;
        if sk == 0 || peek::<u16>(sk, &layout::SK_FAMILY)? != AF_UNIX {
            return Err(Skip::NotAChannel);
        }
        let kind = peek::<u16>(sk, &layout::SK_TYPE)?;
        if call.names_receiver() && kind == SOCK_DGRAM {
            return Err(Skip::NoPeer);
        }
        Ok(Self {
            sk,
            is_stream: kind == SOCK_STREAM,
            queued: queued(sk)?,
            sndbuf: peek(sk, &layout::SK_SNDBUF)?,
        })
    }

    /// Whether there is so much room that the kernel has woken whoever waited for it: a writer sleeps
    /// on until three quarters are drained (`unix_writable`, net/unix/af_unix.c, which counts the two references that
    /// `sock_wfree`, net/core/sock.c, holds when it asks). Of other sockets than streams it says so only
    /// of calls that have another thing to wait for.
    #[inline(always)]
    pub(super) fn has_room(&self, call: Call) -> bool {
        let is_told = self.is_stream || call.may_wait_for_input();
        is_told && u64::from(self.queued) + 2 <= u64::from(self.sndbuf / 4)
    }

    /// Whether the queue, whose first buffer this is, is as heavy as it was when its only writer went to sleep.
    ///
    /// A buffer is allocated while the queue weighs less than `sndbuf`, whatever the buffer weighs
    /// itself, and a writer sleeps when it weighs no less (`sock_alloc_send_pskb`,
    /// `sock_wait_for_wmem`, net/core/sock.c; `unix_stream_sendmsg`, net/unix/af_unix.c, allocates one,
    /// queues it, and allocates the next). So it slept at a weight of at least `sndbuf`, and
    /// of at most `sndbuf - 1 + last`, where `last` is what the newest buffer weighs, and since then less than
    /// `sndbuf + last - queued` can have been taken (`sock_wfree` takes a buffer off whole). If
    /// no buffer weighed so little, none was taken.
    ///
    /// What was taken is gone, so what it weighed is told by what is left. With writes of one size
    /// it is always proven, as the last one began below `sndbuf`. The first buffer is not asked: what a
    /// stream begins with is often smaller than the rest. So it is claimed wrongly only of a writer whose
    /// first records were smaller than those that followed, if just of these some were taken,
    /// whole, after it slept.
    #[inline(always)]
    pub(super) fn is_whole(&self, first: u64) -> Result<bool, Skip> {
        if !self.is_stream {
            return Ok(false);
        }
        let peer: u64 = peek(self.sk, &layout::UNIX_PEER)?;
        let last: u64 = peek(peer, &layout::SK_RECEIVE_QUEUE_LAST)?;
        let last_size = u64::from(peek::<u32>(last, &layout::SKB_TRUESIZE)?);
        // After the token was read, so that whatever is taken from now on will show there.
        let queued = u64::from(queued(self.sk)?);
        let sndbuf = u64::from(self.sndbuf);
        if queued < sndbuf || queued >= sndbuf + last_size {
            return Ok(false);
        }
        let taken = sndbuf + last_size - 1 - queued;
        let head = peer + layout::SK_RECEIVE_QUEUE.load();
        let mut buffer = first;
        let mut i = 0;
        while i < MAX_SIZES {
            buffer = peek(buffer, &layout::SKB_NEXT)?;
            if buffer == head {
                break;
            }
            if u64::from(peek::<u32>(buffer, &layout::SKB_TRUESIZE)?) <= taken {
                return Ok(false);
            }
            i += 1;
        }
        Ok(true)
    }
}

/// What a socket has queued at its peer (`sk_wmem_alloc_get`, include/net/sock.h).
#[inline(always)]
fn queued(sk: u64) -> Result<u32, Skip> {
    Ok(peek::<u32>(sk, &layout::SK_WMEM)?.saturating_sub(1))
}
