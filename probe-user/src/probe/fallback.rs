//! Finds blocked writers through `/proc` alone, where BPF may not be used.
//!
//! It sees only the processes that the caller may trace, and neither ages nor, on
//! sockets, whether the reader takes anything. Good enough to look; never to act on.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use probe_ebpf::{
    pattern::CommFilter,
    record::{STREAM_STDERR, STREAM_STDIN, STREAM_STDOUT},
    syscall::Arch,
};
use procfs::process::Process as ProcProcess;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{
    clock,
    core::model::{
        Channel, ChannelKind, DrainToken, Look, Process, Sighting, Stream, WriteSyscall, WriterId,
    },
    probe::{process::comm_bytes, readers::device},
};

const ARCH: Arch = if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else {
    Arch::X86_64
};

/// Walks `/proc` once.
///
/// # Errors
/// `/proc` is not there.
pub fn look(filter: &CommFilter) -> procfs::ProcResult<Look> {
    let at = clock::now();
    let unix = unix_inodes();
    let sightings = procfs::process::all_processes()?
        .flatten()
        .filter(|process| process.pid.unsigned_abs() != std::process::id())
        .filter_map(|process| writers_of(&process, filter, &unix))
        .flatten()
        .collect();
    Ok(Look {
        at,
        traced: false,
        sightings,
        awake: None,
    })
}

fn writers_of(process: &ProcProcess, filter: &CommFilter, unix: &HashSet<u64>) -> Option<Vec<Sighting>> {
    let stat = process.stat().ok()?;
    if !filter.matches(comm_bytes(&stat.comm)) {
        return None;
    }
    let uid = process.uid().ok()?;
    let tgid = u32::try_from(process.pid).ok()?;
    let of_thread = |task: procfs::process::Task| -> Option<Sighting> {
        let thread = task.stat().ok()?;
        if thread.state != 'S' {
            return None;
        }
        let dir = PathBuf::from(format!("/proc/{tgid}/task/{}", task.tid));
        let (syscall, fd) = write_call(&dir)?;
        let channel = channel_of(tgid, fd, unix)?;
        let queued = queued(tgid, fd, channel.kind);
        Some(Sighting {
            writer: WriterId {
                tid: u32::try_from(task.tid).ok()?,
                process: Process::from_ticks(tgid, stat.starttime),
            },
            at: clock::now(),
            channel,
            token: DrainToken([queued.unwrap_or(0), 0]),
            entered: None,
            token_since: None,
            last_ran: None,
            untouched: false,
            exec: 0,
            ppid: u32::try_from(stat.ppid).unwrap_or(0),
            uid,
            fd,
            syscall,
            stream: stream_of(tgid, channel),
            queued,
            counted: None,
            comm: stat.comm.as_str().into(),
            thread: thread.comm.into(),
        })
    };
    Some(process.tasks().ok()?.flatten().filter_map(of_thread).collect())
}

/// The write-class call that a thread sleeps in: `/proc/PID/task/TID/syscall` has its number
/// and arguments.
pub(super) fn write_call(dir: &Path) -> Option<(WriteSyscall, u32)> {
    let line = fs::read_to_string(dir.join("syscall")).ok()?;
    let mut words = line.split_ascii_whitespace();
    let syscall = WriteSyscall::from_number(ARCH, words.next()?.parse().ok()?)?;
    let argument = words.nth(syscall.output_argument().into())?.strip_prefix("0x")?;
    let fd = u64::from_str_radix(argument, 16).ok()?;
    if syscall.may_wait_for_input() {
        let place = fs::read_to_string(dir.join("wchan")).unwrap_or_default();
        // As in pipe_wait_writable() (fs/pipe.c), sock_alloc_send_pskb() (net/core/sock.c).
        if !place.contains("writ") && !place.contains("send") {
            return None;
        }
    }
    // The register is 64 bits wide, the descriptor 32.
    Some((syscall, u32::try_from(fd & 0xffff_ffff).ok()?))
}

fn channel_of(tgid: u32, fd: u32, unix: &HashSet<u64>) -> Option<Channel> {
    let link = format!("/proc/{tgid}/fd/{fd}");
    let meta = fs::metadata(&link).ok()?;
    let file_type = meta.file_type();
    let kind = if file_type.is_fifo() {
        let anonymous = fs::read_link(&link).ok()?.to_str()?.starts_with("pipe:[");
        if anonymous {
            ChannelKind::Pipe
        } else {
            ChannelKind::Fifo
        }
    } else if file_type.is_socket() && unix.contains(&meta.ino()) {
        ChannelKind::Unix
    } else {
        return None;
    };
    Some(Channel {
        kind,
        dev: device(meta.dev()),
        inode: meta.ino(),
    })
}

fn stream_of(tgid: u32, channel: Channel) -> Option<Stream> {
    let leads_there = |fd: u32| {
        fs::metadata(format!("/proc/{tgid}/fd/{fd}"))
            .is_ok_and(|meta| (device(meta.dev()), meta.ino()) == (channel.dev, channel.inode))
    };
    let bits = [STREAM_STDIN, STREAM_STDOUT, STREAM_STDERR];
    Stream::from_bits(
        (0..)
            .zip(bits)
            .filter(|(fd, _)| leads_there(*fd))
            .map(|(_, bit)| bit)
            .sum(),
    )
}

/// The bytes in a pipe, by way of a copy of the descriptor. Opening the pipe through
/// `/proc` instead would make us a reader of it for a moment.
fn queued(tgid: u32, fd: u32, kind: ChannelKind) -> Option<u64> {
    if kind == ChannelKind::Unix {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(tgid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let copy = pidfd_getfd(&pidfd, i32::try_from(fd).ok()?, PidfdGetfdFlags::empty()).ok()?;
    rustix::io::ioctl_fionread(&copy).ok()
}

fn unix_inodes() -> HashSet<u64> {
    procfs::net::unix()
        .map(|entries| entries.into_iter().map(|e| e.inode).collect())
        .unwrap_or_default()
}
