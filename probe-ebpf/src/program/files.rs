//! One walk over all open files: emits each end of a channel, and each TCP connection that is
//! full because its other side does not read. What belongs together is found in userspace.

use probe_ebpf::{
    AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP,
    fields::ABSENT,
    record::{ChannelKind, END_CLOSES, END_EXECED, END_READS, FullQueue, KIND_END, KIND_QUEUE, OpenEnd},
};

use crate::{
    layout::{self, peek, peek_at, typed},
    output::{S_IFIFO, S_IFMT, S_IFSOCK, Skip, pipe_kind},
    scanner::{emit, header, reader},
    task::Task,
};

/// `FMODE_READ` (include/linux/fs.h)
const FMODE_READ: u32 = 1;

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c): each member takes 8 bytes.
#[repr(C)]
pub(crate) struct IterFile {
    meta: *const u8,
    task: *const u8,
    fd: u32,
    padding: u32,
    file: *const u8,
}

/// The iterator calls this for each open file, and once more with none at the end.
#[inline(always)]
pub(crate) fn visit(ctx: *const IterFile) {
    // SAFETY: the context's fields are read once each, before the null check, because the
    // verifier does not carry the check over to a second read.
    let (meta, task, fd, file) = unsafe {
        (
            (&raw const (*ctx).meta).read_volatile(),
            (&raw const (*ctx).task).read_volatile(),
            (&raw const (*ctx).fd).read_volatile(),
            (&raw const (*ctx).file).read_volatile(),
        )
    };
    // SAFETY: `meta` is the context's, typed and never null.
    if unsafe { typed::<u64>(meta, &layout::ITER_SEQ_NUM) } == 0 {
        emit(meta, &header());
    }
    if task.is_null() || file.is_null() {
        return;
    }
    let task = Task::new(task);
    if !task.is_eligible(reader()) {
        return;
    }
    // SAFETY: `file` is the context's; pointers that are read from it keep their types, and a
    // fault reads as zero.
    let (inode, mode) = unsafe {
        let inode: *const u8 = typed(file, &layout::FILE_INODE);
        if inode.is_null() {
            return;
        }
        (inode, typed::<u16>(inode, &layout::INODE_MODE) & S_IFMT)
    };
    // What cannot be read has just been closed.
    let _ = match mode {
        S_IFIFO => pipe(meta, task, fd, file, inode),
        S_IFSOCK => socket(meta, task, fd, file, inode),
        _ => Ok(()),
    };
}

#[inline(always)]
fn pipe(meta: *const u8, task: Task, fd: u32, file: *const u8, inode: *const u8) -> Result<(), Skip> {
    // SAFETY: both come typed from `visit`.
    let (access, sb) = unsafe {
        let sb: *const u8 = typed(inode, &layout::INODE_SB);
        (typed::<u32>(file, &layout::FILE_MODE), sb)
    };
    if sb.is_null() {
        return Err(Skip::Fault);
    }
    // SAFETY: as above.
    let magic = unsafe { typed::<u64>(sb, &layout::SB_MAGIC) };
    let reads = if access & FMODE_READ != 0 { END_READS } else { 0 };
    end(meta, task, fd, (inode, sb), pipe_kind(magic), reads, 0)
}

#[inline(always)]
fn socket(meta: *const u8, task: Task, fd: u32, file: *const u8, inode: *const u8) -> Result<(), Skip> {
    // SAFETY: both come typed from `visit`.
    let (private, sb) = unsafe {
        let sb: *const u8 = typed(inode, &layout::INODE_SB);
        (typed::<u64>(file, &layout::FILE_PRIVATE), sb)
    };
    let sk: u64 = peek(private, &layout::SOCKET_SK)?;
    if sk == 0 || sb.is_null() {
        return Err(Skip::Fault);
    }
    match peek::<u16>(sk, &layout::SK_FAMILY)? {
        AF_UNIX => {
            let peer: u64 = peek(sk, &layout::UNIX_PEER)?;
            let number = if peer == 0 {
                0
            } else {
                number_of(peer).unwrap_or(0)
            };
            end(meta, task, fd, (inode, sb), ChannelKind::Unix, END_READS, number)
        }
        family @ (AF_INET | AF_INET6) if peek::<u16>(sk, &layout::SK_PROTOCOL)? == IPPROTO_TCP => {
            queue(meta, task, fd, sk, family)
        }
        _ => Ok(()),
    }
}

/// The number of the inode that a socket has in userspace.
#[inline(always)]
fn number_of(sk: u64) -> Result<u64, Skip> {
    let socket: u64 = peek(sk, &layout::SK_SOCKET)?;
    if socket == 0 {
        // Not accepted yet.
        return Err(Skip::NoPeer);
    }
    let file: u64 = peek(socket, &layout::SOCKET_FILE)?;
    let inode: u64 = peek(file, &layout::FILE_INODE)?;
    peek(inode, &layout::INODE_NUMBER)
}

#[inline(always)]
fn end(
    meta: *const u8,
    task: Task,
    fd: u32,
    (inode, sb): (*const u8, *const u8),
    kind: ChannelKind,
    reads: u8,
    peer: u64,
) -> Result<(), Skip> {
    let closes = task.close_on_exec().ok_or(Skip::Fault)?;
    let word: u64 = peek_at(closes + u64::from(fd / 64) * 8)?;
    let mut flags = reads;
    if word >> (fd % 64) & 1 != 0 {
        flags |= END_CLOSES;
    }
    if task.has_execed() {
        flags |= END_EXECED;
    }
    // SAFETY: both come typed from `visit`'s file.
    let (number, dev) = unsafe { (typed(inode, &layout::INODE_NUMBER), typed(sb, &layout::SB_DEV)) };
    emit(
        meta,
        &OpenEnd {
            kind: KIND_END,
            tgid: task.tgid(),
            start: task.start(),
            inode: number,
            peer,
            dev,
            fd,
            ppid: task.parent(),
            channel: kind as u8,
            flags,
            reserved: 0,
        },
    );
    Ok(())
}

/// Emits a connection that takes no more: `sk_stream_is_writeable` (include/net/sock.h) is false,
/// and something in it is not acknowledged.
#[inline(always)]
fn queue(meta: *const u8, task: Task, fd: u32, sk: u64, family: u16) -> Result<(), Skip> {
    let queued = peek::<u32>(sk, &layout::TCP_WRITE_SEQ)?.wrapping_sub(peek(sk, &layout::TCP_SND_UNA)?);
    let (used, limit): (i32, i32) = (peek(sk, &layout::SK_WMEM_QUEUED)?, peek(sk, &layout::SK_SNDBUF)?);
    if queued == 0 || queued > i32::MAX as u32 || limit.wrapping_sub(used) >= used >> 1 {
        return Ok(());
    }
    let mut address = [0; 16];
    if family == AF_INET {
        let short: [u8; 4] = peek(sk, &layout::SK_DADDR)?;
        address[..4].copy_from_slice(&short);
    } else if layout::SK_V6_DADDR.load() != ABSENT {
        address = peek(sk, &layout::SK_V6_DADDR)?;
    }
    emit(
        meta,
        &FullQueue {
            kind: KIND_QUEUE,
            tgid: task.tgid(),
            start: task.start(),
            address,
            fd,
            queued,
            window: peek(sk, &layout::TCP_SND_WND)?,
            port: u16::from_be(peek(sk, &layout::SK_DPORT)?),
            family,
        },
    );
    Ok(())
}
