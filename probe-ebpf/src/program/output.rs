//! Where a sleeping task is writing to, and where the channel's reader stands.

use probe_ebpf::{
    AF_UNIX, PIPEFS_MAGIC, SOCK_DGRAM,
    fields::ABSENT,
    record::{ChannelKind, DrainToken, STREAM_STDERR, STREAM_STDIN, STREAM_STDOUT},
};

use crate::{
    layout::{self, peek, peek_at, peek_fields},
    task::{Call, Task},
};

/// `FMODE_WRITE` (include/linux/fs.h)
const FMODE_WRITE: u32 = 2;
/// The file-type bits of `i_mode`, and two of their values (include/uapi/linux/stat.h).
pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFIFO: u16 = 0o010_000;
pub(crate) const S_IFSOCK: u16 = 0o140_000;

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
    /// The inode's number.
    pub(crate) number: u64,
    /// The device of its file system.
    pub(crate) dev: u32,
    file: u64,
    end: End,
}

/// What there is to know of a channel, each field read once.
#[derive(Clone, Copy)]
enum End {
    Pipe(Ring),
    Unix(Socket),
}

/// A pipe's ring of buffers (include/linux/pipe_fs_i.h).
#[derive(Clone, Copy)]
struct Ring {
    head: u32,
    tail: u32,
    size: u32,
    bufs: u64,
    /// How often it is open for writing.
    writers: u32,
}

/// The writer's end of a pair of unix sockets.
#[derive(Clone, Copy)]
struct Socket {
    sk: u64,
    /// Memory that is queued at the peer.
    queued: u32,
    sndbuf: u32,
}

impl Output {
    /// The channel that a sleeping task is blocked on.
    #[inline(always)]
    pub(crate) fn of(task: Task) -> Result<Self, Skip> {
        let call = task.write_call().ok_or(Skip::NotWriting)?;
        Self::behind(file_at(task, call.fd)?, call)
    }

    /// The channel behind a file, if a sleep in the call can be for want of room.
    #[inline(always)]
    pub(crate) fn behind(file: u64, call: Call) -> Result<Self, Skip> {
        let [access, inode, private] = peek_fields::<8, 3>(
            file,
            [&layout::FILE_MODE, &layout::FILE_INODE, &layout::FILE_PRIVATE],
        )?;
        if access as u32 & FMODE_WRITE == 0 {
            return Err(Skip::NoFile);
        }
        let [mode, number, sb] = peek_fields::<10, 3>(
            inode,
            [&layout::INODE_MODE, &layout::INODE_NUMBER, &layout::INODE_SB],
        )?;
        let [magic, dev] = peek_fields::<12, 2>(sb, [&layout::SB_MAGIC, &layout::SB_DEV])?;
        let (kind, end) = match mode as u16 & S_IFMT {
            S_IFIFO => (pipe_kind(magic), End::Pipe(Ring::full(private)?)),
            S_IFSOCK => (ChannelKind::Unix, End::Unix(Socket::full(private, call)?)),
            _ => return Err(Skip::NotAChannel),
        };
        Ok(Self {
            call,
            kind,
            inode,
            number,
            dev: dev as u32,
            file,
            end,
        })
    }

    /// See [`DrainToken`].
    #[inline(always)]
    pub(crate) fn token(&self) -> Result<DrainToken, Skip> {
        match &self.end {
            End::Pipe(ring) => {
                let slot = ring.slot(ring.tail);
                let [offset, len] = peek_fields::<2, 2>(slot, [&layout::BUF_OFFSET, &layout::BUF_LEN])?;
                Ok(DrainToken([
                    pair(ring.head, ring.tail),
                    pair(offset as u32, len as u32),
                ]))
            }
            End::Unix(socket) => {
                let peer: u64 = peek(socket.sk, &layout::UNIX_PEER)?;
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
    /// A pipe's reader wakes a writer with each buffer that it frees, and leaves its mark
    /// in one that it has begun; had it woken another writer, that would have filled the
    /// buffer, so there must not be one. A socket's writer sleeps on, but the queue then holds less
    /// than what made it sleep, unless another writer has filled it up.
    #[inline(always)]
    pub(crate) fn is_untouched(&self, task: Task, token: DrainToken) -> bool {
        let DrainToken([_, second]) = token;
        let is_whole = match &self.end {
            // The upper half is the tail buffer's offset.
            End::Pipe(ring) => second >> 32 == 0 && ring.writers == 1,
            End::Unix(socket) => second == 0 && socket.queued >= socket.sndbuf,
        };
        is_whole && self.is_of_one(task).unwrap_or(false)
    }

    /// Whether the task's process alone holds the open file, as far as can be told: one that was
    /// forked with it could write as well. What holds it for another reason counts as another, and so does
    /// a descriptor of its own that is none of the first three nor the one that it writes to.
    #[inline(always)]
    fn is_of_one(&self, task: Task) -> Result<bool, Skip> {
        let references = if layout::FILE_REF.load() != ABSENT {
            // One reference is zero (FILE_REF_ONEREF, include/linux/file_ref.h).
            peek::<u64>(self.file, &layout::FILE_REF)?.wrapping_add(1)
        } else if layout::FILE_COUNT.load() != ABSENT {
            peek(self.file, &layout::FILE_COUNT)?
        } else {
            return Ok(false);
        };
        let by_descriptors = references.wrapping_sub(u64::from(task.pins_its_file()));
        if by_descriptors == 1 {
            return Ok(true);
        }
        let mut others = by_descriptors.wrapping_sub(u64::from(self.call.fd > 2));
        for file in first_files(task)? {
            others = others.wrapping_sub(u64::from(file == self.file));
        }
        Ok(others == 0)
    }

    /// What a socket's queue weighs; it falls with each buffer that is taken. 0 for pipes,
    /// whose token says it all.
    #[inline(always)]
    pub(crate) fn weight(&self) -> u64 {
        match &self.end {
            End::Pipe(_) => 0,
            End::Unix(socket) => u64::from(socket.queued),
        }
    }

    /// What is queued: bytes for pipes, memory for sockets.
    #[inline(always)]
    pub(crate) fn queued(&self, token: DrainToken) -> Result<u64, Skip> {
        match &self.end {
            End::Pipe(ring) => ring.bytes(token),
            End::Unix(socket) => Ok(u64::from(socket.queued)),
        }
    }

    /// Which of the first three descriptors lead to the same channel.
    #[inline(always)]
    pub(crate) fn streams(&self, task: Task) -> u8 {
        let Ok([stdin, stdout, stderr]) = first_files(task) else {
            return 0;
        };
        self.stream(stdin, STREAM_STDIN)
            | self.stream(stdout, STREAM_STDOUT)
            | self.stream(stderr, STREAM_STDERR)
    }

    #[inline(always)]
    fn stream(&self, file: u64, bit: u8) -> u8 {
        let leads_there = file == self.file
            || file != 0 && peek::<u64>(file, &layout::FILE_INODE).is_ok_and(|inode| inode == self.inode);
        if leads_there { bit } else { 0 }
    }
}

impl Ring {
    /// The ring of a pipe that has no room (`pipe_full`, include/linux/pipe_fs_i.h).
    #[inline(always)]
    fn full(pipe: u64) -> Result<Self, Skip> {
        let [head, tail, max_usage, size, bufs, writers] = peek_fields::<12, 6>(
            pipe,
            [
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
        })
    }

    /// The address of the slot for a position of head or tail.
    #[inline(always)]
    fn slot(&self, position: u32) -> u64 {
        let index = position & self.size.wrapping_sub(1);
        self.bufs + u64::from(index) * layout::BUF_SIZE.load()
    }

    /// The bytes in all slots, as far as they are counted.
    #[inline(always)]
    fn bytes(&self, token: DrainToken) -> Result<u64, Skip> {
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

impl Socket {
    /// The unix socket of a `struct socket`, if a sleep on it can be for want of room.
    #[inline(always)]
    fn full(socket: u64, call: Call) -> Result<Self, Skip> {
        let sk: u64 = peek(socket, &layout::SOCKET_SK)?;
        if sk == 0 || peek::<u16>(sk, &layout::SK_FAMILY)? != AF_UNIX {
            return Err(Skip::NotAChannel);
        }
        if call.names_receiver && peek::<u16>(sk, &layout::SK_TYPE)? == SOCK_DGRAM {
            return Err(Skip::NoPeer);
        }
        // sk_wmem_alloc_get(), include/net/sock.h
        let queued = peek::<u32>(sk, &layout::SK_WMEM)?.saturating_sub(1);
        let sndbuf = peek(sk, &layout::SK_SNDBUF)?;
        // A socket's writer sleeps on until three quarters are drained (unix_writable(),
        // net/unix/af_unix.c), so room proves nothing except for calls with another thing
        // to wait for.
        if call.syscall.may_wait_for_input() && queued <= sndbuf / 4 {
            return Err(Skip::NotFull);
        }
        Ok(Self { sk, queued, sndbuf })
    }
}

/// What the first three descriptors stand for.
#[inline(always)]
fn first_files(task: Task) -> Result<[u64; 3], Skip> {
    // No table is shorter (NR_OPEN_DEFAULT, include/linux/fdtable.h).
    let (table, _) = task.descriptors().ok_or(Skip::NoFile)?;
    peek_at(table)
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

/// What is behind a file, if it is a channel: its kind, the inode's number and its device.
#[inline(always)]
pub(crate) fn identity(file: u64) -> Result<(ChannelKind, u64, u32), Skip> {
    let inode = peek(file, &layout::FILE_INODE)?;
    let [mode, number, sb] = peek_fields::<10, 3>(
        inode,
        [&layout::INODE_MODE, &layout::INODE_NUMBER, &layout::INODE_SB],
    )?;
    let [magic, dev] = peek_fields::<12, 2>(sb, [&layout::SB_MAGIC, &layout::SB_DEV])?;
    let kind = match mode as u16 & S_IFMT {
        S_IFIFO => pipe_kind(magic),
        S_IFSOCK => ChannelKind::Unix,
        _ => return Err(Skip::NotAChannel),
    };
    Ok((kind, number, dev as u32))
}

pub(crate) const fn pipe_kind(magic: u64) -> ChannelKind {
    if magic == PIPEFS_MAGIC {
        ChannelKind::Pipe
    } else {
        ChannelKind::Fifo
    }
}

const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}
