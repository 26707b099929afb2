//! Where a sleeping task is writing to, and where the channel's reader stands.

use probe_ebpf::{
    AF_UNIX, PIPEFS_MAGIC, SOCK_DGRAM,
    record::{ChannelKind, DrainToken, STREAM_STDERR, STREAM_STDIN, STREAM_STDOUT},
};

use crate::{
    layout::{self, peek, peek_at},
    task::{Call, Task},
};

/// `FMODE_WRITE` (include/linux/fs.h)
const FMODE_WRITE: u32 = 2;
/// The file-type bits of `i_mode`, and two of their values (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFSOCK: u16 = 0o140_000;

/// Most slots of a pipe whose bytes are summed up: a ring of 1 MiB, the limit for ordinary users.
const MAX_SLOTS: u32 = 256;

/// Why a sleeping task is not a blocked writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    /// It is in no write-class call.
    NotWriting,
    /// The descriptor is closed, or not open for writing.
    NoFile,
    /// It writes to something else.
    NotAChannel,
    /// There is room, so it waits for something else or is about to go on.
    NotFull,
    /// The socket has no peer that could read, or the message goes elsewhere.
    NoPeer,
    /// Kernel memory changed or went away while it was looked at.
    Fault,
}

impl Skip {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotWriting => "not in a write",
            Self::NoFile => "descriptor not open for writing",
            Self::NotAChannel => "not a pipe or unix socket",
            Self::NotFull => "channel not full",
            Self::NoPeer => "socket without a peer",
            Self::Fault => "memory could not be read",
        }
    }
}

/// The channel that a task waits to write to. The addresses are kernel addresses,
/// which never leave the kernel side.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) call: Call,
    pub(crate) kind: ChannelKind,
    pub(crate) inode: u64,
    object: u64,
}

impl Output {
    /// The channel that a sleeping task is blocked on.
    #[inline(always)]
    pub(crate) fn of(task: Task) -> Result<Self, Skip> {
        let call = task.write_call().ok_or(Skip::NotWriting)?;
        let file = file_at(task, call.fd)?;
        if peek::<u32>(file, &layout::FILE_MODE)? & FMODE_WRITE == 0 {
            return Err(Skip::NoFile);
        }
        let inode = peek(file, &layout::FILE_INODE)?;
        let private: u64 = peek(file, &layout::FILE_PRIVATE)?;
        let (kind, object) = match peek::<u16>(inode, &layout::INODE_MODE)? & S_IFMT {
            S_IFIFO => (pipe_kind(inode)?, private),
            S_IFSOCK => (ChannelKind::Unix, unix_sock(private, call)?),
            _ => return Err(Skip::NotAChannel),
        };
        let output = Self {
            call,
            kind,
            inode,
            object,
        };
        if output.has_room()? {
            return Err(Skip::NotFull);
        }
        Ok(output)
    }

    /// Whether the sleep is not, or no longer, for want of room.
    #[inline(always)]
    fn has_room(&self) -> Result<bool, Skip> {
        match self.kind {
            // pipe_full(), include/linux/pipe_fs_i.h
            ChannelKind::Pipe | ChannelKind::Fifo => {
                let head: u32 = peek(self.object, &layout::PIPE_HEAD)?;
                let tail: u32 = peek(self.object, &layout::PIPE_TAIL)?;
                Ok(head.wrapping_sub(tail) < peek::<u32>(self.object, &layout::PIPE_MAX_USAGE)?)
            }
            // A socket's writer sleeps on until three quarters are drained (unix_writable(),
            // net/unix/af_unix.c), so room proves nothing except for calls with another
            // thing to wait for.
            ChannelKind::Unix => {
                let sndbuf: u32 = peek(self.object, &layout::SK_SNDBUF)?;
                Ok(self.call.syscall.may_wait_for_input() && self.queued_memory()? <= sndbuf / 4)
            }
        }
    }

    /// See [`DrainToken`].
    #[inline(always)]
    pub(crate) fn token(&self) -> Result<DrainToken, Skip> {
        match self.kind {
            ChannelKind::Pipe | ChannelKind::Fifo => {
                let head: u32 = peek(self.object, &layout::PIPE_HEAD)?;
                let tail: u32 = peek(self.object, &layout::PIPE_TAIL)?;
                let buf = self.slot(tail)?;
                let offset: u32 = peek(buf, &layout::BUF_OFFSET)?;
                let len: u32 = peek(buf, &layout::BUF_LEN)?;
                Ok(DrainToken([pair(head, tail), pair(offset, len)]))
            }
            ChannelKind::Unix => {
                let peer: u64 = peek(self.object, &layout::UNIX_PEER)?;
                if peer == 0 {
                    return Err(Skip::NoPeer);
                }
                let first: u64 = peek(peer, &layout::SK_RECEIVE_QUEUE)?;
                if first == peer + layout::SK_RECEIVE_QUEUE.load() {
                    // All is taken, and the writer is about to be woken.
                    return Err(Skip::NotFull);
                }
                let consumed: u32 = peek_at(first + layout::SKB_CB.load() + layout::UNIX_CONSUMED.load())?;
                Ok(DrainToken([first, u64::from(consumed)]))
            }
        }
    }

    /// Whether the channel shows by itself that nothing was taken since a writer that has not
    /// run since went to sleep.
    ///
    /// A pipe's reader wakes the writer with each buffer that it frees, and leaves its mark
    /// in one that it has begun. A socket's writer sleeps on, but the queue then holds less
    /// than what made it sleep.
    #[inline(always)]
    pub(crate) fn is_untouched(&self, token: DrainToken) -> Result<bool, Skip> {
        let DrainToken([_, second]) = token;
        match self.kind {
            // The upper half is the tail buffer's offset.
            ChannelKind::Pipe | ChannelKind::Fifo => Ok(second >> 32 == 0),
            ChannelKind::Unix => {
                let sndbuf: u32 = peek(self.object, &layout::SK_SNDBUF)?;
                Ok(second == 0 && self.queued_memory()? >= sndbuf)
            }
        }
    }

    /// What a socket's queue weighs; it falls with each buffer that is taken. 0 for pipes,
    /// whose token says it all.
    #[inline(always)]
    pub(crate) fn weight(&self) -> Result<u64, Skip> {
        match self.kind {
            ChannelKind::Pipe | ChannelKind::Fifo => Ok(0),
            ChannelKind::Unix => Ok(u64::from(self.queued_memory()?)),
        }
    }

    /// What is queued: bytes for pipes, memory for sockets.
    #[inline(always)]
    pub(crate) fn queued(&self) -> Result<u64, Skip> {
        match self.kind {
            ChannelKind::Pipe | ChannelKind::Fifo => {
                let head: u32 = peek(self.object, &layout::PIPE_HEAD)?;
                let tail: u32 = peek(self.object, &layout::PIPE_TAIL)?;
                let mut sum = 0;
                let mut i = 0;
                while i < MAX_SLOTS {
                    if i >= head.wrapping_sub(tail) {
                        break;
                    }
                    let buf = self.slot(tail.wrapping_add(i))?;
                    sum += u64::from(peek::<u32>(buf, &layout::BUF_LEN)?);
                    i += 1;
                }
                Ok(sum)
            }
            ChannelKind::Unix => Ok(u64::from(self.queued_memory()?)),
        }
    }

    /// The inode's number, and the device of its file system.
    #[inline(always)]
    pub(crate) fn identity(&self) -> Result<(u64, u32), Skip> {
        let sb: u64 = peek(self.inode, &layout::INODE_SB)?;
        Ok((
            peek(self.inode, &layout::INODE_NUMBER)?,
            peek(sb, &layout::SB_DEV)?,
        ))
    }

    /// Which of the first three descriptors lead to the same channel.
    #[inline(always)]
    pub(crate) fn streams(&self, task: Task) -> u8 {
        self.stream(task, 0, STREAM_STDIN)
            | self.stream(task, 1, STREAM_STDOUT)
            | self.stream(task, 2, STREAM_STDERR)
    }

    #[inline(always)]
    fn stream(&self, task: Task, fd: u32, bit: u8) -> u8 {
        match file_at(task, fd).and_then(|file| peek::<u64>(file, &layout::FILE_INODE)) {
            Ok(inode) if inode == self.inode => bit,
            _ => 0,
        }
    }

    /// The address of the pipe's slot for a position of head or tail.
    #[inline(always)]
    fn slot(&self, position: u32) -> Result<u64, Skip> {
        let bufs: u64 = peek(self.object, &layout::PIPE_BUFS)?;
        let ring_size: u32 = peek(self.object, &layout::PIPE_RING_SIZE)?;
        let index = position & ring_size.wrapping_sub(1);
        Ok(bufs + u64::from(index) * layout::BUF_SIZE.load())
    }

    /// `sk_wmem_alloc_get()`, include/net/sock.h
    #[inline(always)]
    fn queued_memory(&self) -> Result<u32, Skip> {
        Ok(peek::<u32>(self.object, &layout::SK_WMEM)?.saturating_sub(1))
    }
}

/// The address of the `struct file` behind a descriptor.
#[inline(always)]
fn file_at(task: Task, fd: u32) -> Result<u64, Skip> {
    let (table, len) = task.descriptors().ok_or(Skip::NoFile)?;
    if fd >= len {
        return Err(Skip::NoFile);
    }
    match peek_at(table + u64::from(fd) * 8)? {
        0 => Err(Skip::NoFile),
        file => Ok(file),
    }
}

#[inline(always)]
fn pipe_kind(inode: u64) -> Result<ChannelKind, Skip> {
    let sb: u64 = peek(inode, &layout::INODE_SB)?;
    let anonymous = peek::<u64>(sb, &layout::SB_MAGIC)? == PIPEFS_MAGIC;
    Ok(if anonymous {
        ChannelKind::Pipe
    } else {
        ChannelKind::Fifo
    })
}

/// The `unix_sock` of a `struct socket`; it begins with its `struct sock`.
#[inline(always)]
fn unix_sock(socket: u64, call: Call) -> Result<u64, Skip> {
    let sk: u64 = peek(socket, &layout::SOCKET_SK)?;
    if sk == 0 || peek::<u16>(sk, &layout::SK_FAMILY)? != AF_UNIX {
        return Err(Skip::NotAChannel);
    }
    if call.names_receiver && peek::<u16>(sk, &layout::SK_TYPE)? == SOCK_DGRAM {
        return Err(Skip::NoPeer);
    }
    Ok(sk)
}

const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}
