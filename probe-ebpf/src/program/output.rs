//! Where a sleeping task is writing to, and where the channel's reader stands.

mod ring;
mod socket;

use probe_ebpf::{
    PIPEFS_MAGIC,
    fields::ABSENT,
    record::{ChannelKind, DrainToken, STREAM_STDERR, STREAM_STDIN, STREAM_STDOUT},
};

use self::{ring::Ring, socket::Socket};
use crate::{
    layout::{self, peek, peek_at, peek_fields},
    task::{Call, Files, Task},
    tracer,
};

/// `FMODE_WRITE` (include/linux/fs.h)
const FMODE_WRITE: u32 = 2;
/// The file-type bits of `i_mode`, and two of their values (include/uapi/linux/stat.h).
pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFIFO: u16 = 0o010_000;
pub(crate) const S_IFSOCK: u16 = 0o140_000;

/// Most of those who wait for one channel's room that are looked at.
const MAX_WAITERS: u32 = 8;

/// Why a sleeping task is not a blocked writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    /// It is in no write-class call.
    NotWriting,
    /// The descriptor is closed, or not open for writing.
    NoFile,
    /// It writes to something else.
    NotAChannel,
    /// There is room, or it waits for something else, or is about to go on.
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

/// The open file that a task's call writes to. Its address is a kernel address, as all others
/// here are, and those never leave the kernel side.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    call: Call,
    files: Files,
    pub(crate) file: u64,
}

/// The channel that a task waits to write to.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) target: Target,
    pub(crate) kind: ChannelKind,
    pub(crate) inode: u64,
    /// The inode's number.
    pub(crate) number: u64,
    /// The device of its file system.
    pub(crate) dev: u32,
    end: End,
}

/// What there is to know of a channel, each field read once.
#[derive(Clone, Copy)]
enum End {
    Pipe(Ring),
    Unix(Socket),
}

impl Target {
    /// What a task that sleeps writes to.
    ///
    /// A call goes on with the file that it began with, whatever another thread makes of the descriptor
    /// meanwhile. So what the tracer saw the task block on is asked before the descriptor's number.
    #[inline(always)]
    pub(crate) fn of_sleeper(task: Task, call: Call) -> Result<Self, Skip> {
        let files = task.files().ok_or(Skip::NoFile)?;
        let file = match tracer::file_of(task) {
            Some(file) if files.are_pinned => file,
            _ => files.at(call.fd)?,
        };
        Ok(Self { call, files, file })
    }

    /// What a task that runs writes to.
    #[inline(always)]
    pub(crate) fn of(task: Task, call: Call) -> Result<Self, Skip> {
        let files = task.files().ok_or(Skip::NoFile)?;
        let file = files.at(call.fd)?;
        Ok(Self { call, files, file })
    }

    /// A file of which nothing else is known.
    #[inline(always)]
    pub(crate) const fn behind(file: u64) -> Self {
        Self {
            call: Call::UNKNOWN,
            files: Files::UNKNOWN,
            file,
        }
    }

    /// Has the processor fetch what [`Self::is_of_one`] will read.
    #[inline(always)]
    pub(crate) fn approach_holders(&self) {
        if layout::FILE_REF.load() != ABSENT {
            let _ = peek::<u64>(self.file, &layout::FILE_REF);
        }
    }

    /// Whether the task's process alone holds the open file, as far as can be told: one that was
    /// forked with it could write as well. What holds it for another reason counts as another, and so does
    /// a descriptor of its own that is none of the first three nor the one that it writes to.
    #[inline(always)]
    pub(crate) fn is_of_one(&self) -> bool {
        self.has_one_holder().unwrap_or(false)
    }

    #[inline(always)]
    fn has_one_holder(&self) -> Result<bool, Skip> {
        let references = if layout::FILE_REF.load() != ABSENT {
            // One reference is zero (FILE_REF_ONEREF, include/linux/file_ref.h).
            peek::<u64>(self.file, &layout::FILE_REF)?.wrapping_add(1)
        } else if layout::FILE_COUNT.load() != ABSENT {
            peek(self.file, &layout::FILE_COUNT)?
        } else {
            return Ok(false);
        };
        let by_descriptors = references.wrapping_sub(u64::from(self.files.are_pinned));
        if by_descriptors == 1 {
            return Ok(true);
        }
        let mut others = by_descriptors.wrapping_sub(u64::from(self.call.fd > 2));
        for file in self.files.first()? {
            others = others.wrapping_sub(u64::from(file == self.file));
        }
        Ok(others == 0)
    }
}

impl Output {
    /// The channel that a task, which sleeps, waits to write to.
    #[inline(always)]
    pub(crate) fn awaited_by(task: Task, target: Target) -> Result<Self, Skip> {
        let output = Self::in_call(target)?;
        let is_doubtful = target.files.are_pinned || target.call.may_wait_for_input();
        if is_doubtful && !output.is_awaited_by(task)? {
            return Err(Skip::NotFull);
        }
        Ok(output)
    }

    /// The channel that a task's call writes to, if a sleep in the call can be for want of room.
    #[inline(always)]
    pub(crate) fn in_call(target: Target) -> Result<Self, Skip> {
        let output = Self::behind(target)?;
        match &output.end {
            End::Unix(socket) if socket.has_room(target.call) => Err(Skip::NotFull),
            _ => Ok(output),
        }
    }

    /// The channel behind a file.
    #[inline(always)]
    pub(crate) fn behind(target: Target) -> Result<Self, Skip> {
        let [access, inode, private] = peek_fields::<8, 3>(
            target.file,
            [&layout::FILE_MODE, &layout::FILE_INODE, &layout::FILE_PRIVATE],
        )?;
        if access as u32 & FMODE_WRITE == 0 {
            return Err(Skip::NoFile);
        }
        let [mode, number, sb] = peek_fields::<10, 3>(
            inode,
            [&layout::INODE_MODE, &layout::INODE_NUMBER, &layout::INODE_SB],
        )?;
        // Ahead of the file system, which many have in common: it is not waited for.
        let end = match mode as u16 & S_IFMT {
            S_IFIFO => End::Pipe(Ring::full(private)?),
            S_IFSOCK => End::Unix(Socket::of(private, target.call)?),
            _ => return Err(Skip::NotAChannel),
        };
        let [magic, dev] = peek_fields::<12, 2>(sb, [&layout::SB_MAGIC, &layout::SB_DEV])?;
        let kind = match &end {
            End::Pipe(_) => pipe_kind(magic),
            End::Unix(_) => ChannelKind::Unix,
        };
        Ok(Self {
            target,
            kind,
            inode,
            number,
            dev: dev as u32,
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

    /// Whether a task that sleeps in the call waits for this channel's room: it is in the queue of
    /// those who are woken when there is some (`wr_wait` of the pipe, `pipe_write` in fs/pipe.c and
    /// `wait_for_space` in fs/splice.c; the socket's own, `sock_wait_for_wmem` in net/core/sock.c).
    ///
    /// A call that moves bytes may wait for its input instead, and who waits for that has nothing to
    /// write. And where another thread may have closed the descriptor since, its number may stand for
    /// another channel.
    #[inline(always)]
    fn is_awaited_by(&self, task: Task) -> Result<bool, Skip> {
        let (head, first) = match &self.end {
            End::Pipe(ring) => (ring.waiters, ring.first_waiter),
            End::Unix(socket) if socket.is_stream => {
                let head = peek::<u64>(socket.sk, &layout::SK_WQ)? + layout::WQ_WAITERS.load();
                (head, peek_at(head)?)
            }
            End::Unix(_) => return Ok(true),
        };
        // Who waits does so on its own stack (`DEFINE_WAIT_FUNC`, include/linux/wait.h): an entry there
        // need not be read.
        if task.has_on_its_stack(first) {
            return Ok(true);
        }
        let mut entry = first;
        let mut i = 0;
        while i < MAX_WAITERS {
            if entry == head {
                return Ok(false);
            }
            let [waiter, next] = peek_fields::<4, 2>(
                entry.wrapping_sub(layout::WAITER_ENTRY.load()),
                [&layout::WAITER_TASK, &layout::WAITER_ENTRY],
            )?;
            if waiter == task.address() {
                return Ok(true);
            }
            entry = next;
            i += 1;
        }
        // Behind so many that it cannot be told.
        Ok(!self.target.call.may_wait_for_input())
    }

    /// Whether the channel shows by itself that nothing was taken since a writer that has not
    /// run since went to sleep.
    ///
    /// A pipe's reader wakes a writer with each buffer that it frees, and leaves its mark
    /// in one that it has begun; had it woken another writer, that would have filled the
    /// buffer, so there must not be one. A socket's writer sleeps on: see [`Socket::is_whole`].
    #[inline(always)]
    pub(crate) fn is_untouched(&self, token: DrainToken) -> bool {
        let DrainToken([first, second]) = token;
        match &self.end {
            // The upper half is the tail buffer's offset.
            End::Pipe(ring) => second >> 32 == 0 && ring.writers == 1,
            End::Unix(socket) => second == 0 && socket.is_whole(first).unwrap_or(false),
        }
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
    pub(crate) fn streams(&self) -> u8 {
        let Ok([stdin, stdout, stderr]) = self.target.files.first() else {
            return 0;
        };
        self.stream(stdin, STREAM_STDIN)
            | self.stream(stdout, STREAM_STDOUT)
            | self.stream(stderr, STREAM_STDERR)
    }

    #[inline(always)]
    fn stream(&self, file: u64, bit: u8) -> u8 {
        let leads_there = file == self.target.file
            || file != 0 && peek::<u64>(file, &layout::FILE_INODE).is_ok_and(|inode| inode == self.inode);
        if leads_there { bit } else { 0 }
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
