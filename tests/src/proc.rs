//! What /proc says of a process: the ground truth the program's output is compared with.
//! It shares no code with the program on purpose.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{clock, wait};

/// A thread asleep inside a write-class syscall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedWrite {
    /// The thread.
    pub tid: u32,
    /// The thread's own comm.
    pub thread: String,
    /// The syscall's name.
    pub syscall: &'static str,
    /// The fd written to.
    pub fd: u32,
}

/// The write-class syscalls: number, name, and which argument is the output's fd.
const WRITE_CLASS: [(i64, &str, usize); 10] = [
    (libc::SYS_write, "write", 0),
    (libc::SYS_writev, "writev", 0),
    (libc::SYS_pwritev2, "pwritev2", 0),
    (libc::SYS_sendto, "sendto", 0),
    (libc::SYS_sendmsg, "sendmsg", 0),
    (libc::SYS_sendmmsg, "sendmmsg", 0),
    (libc::SYS_splice, "splice", 2),
    (libc::SYS_tee, "tee", 1),
    (libc::SYS_vmsplice, "vmsplice", 0),
    (libc::SYS_sendfile, "sendfile", 0),
];

/// Reads the comm of a process, the leader's.
pub fn comm(pid: u32) -> Option<String> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(comm.trim_end_matches('\n').to_owned())
}

/// Reads the state letter of a thread: `S`, `R`, `Z` …
pub fn state(pid: u32, tid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // The comm may hold spaces and parentheses: what follows the last one is fixed.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

/// Says whether a process is there and neither a zombie nor dead.
pub fn alive(pid: u32) -> bool {
    state(pid, pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Lists the threads of a process that are asleep in a write-class syscall.
pub fn blocked_writes(pid: u32) -> Vec<BlockedWrite> {
    tids(pid)
        .into_iter()
        .filter_map(|tid| blocked_write(pid, tid))
        .collect()
}

/// How long a write stays unchanged before it is taken for stuck: a reader that is only slow to
/// start has read by then.
const STEADY: Duration = Duration::from_millis(150);

/// Waits until a thread of `pid` is stuck in a write-class syscall: asleep in it, and not run
/// again for a while. Also tells when that was seen first, at most some milliseconds late.
#[track_caller]
pub fn await_blocked_write(pid: u32) -> (BlockedWrite, Duration) {
    await_steady(&format!("pid {pid} blocked in a write"), || {
        let write = blocked_writes(pid).into_iter().next()?;
        let switches = switches(pid, write.tid)?;
        Some((write, switches))
    })
}

/// Waits until `pid` sleeps, in any way, and is not run again for a while.
#[track_caller]
pub fn await_asleep(pid: u32) {
    await_steady(&format!("pid {pid} asleep"), || {
        let asleep = state(pid, pid) == Some('S');
        let switches = switches(pid, pid)?;
        asleep.then_some(((), switches))
    });
}

#[track_caller]
fn await_steady<T: PartialEq>(what: &str, look: impl Fn() -> Option<(T, Switches)>) -> (T, Duration) {
    let mut first: Option<((T, Switches), Duration)> = None;
    wait::until(what, wait::PATIENCE, || {
        let now = clock::mono();
        let seen = look();
        let steady = match (&first, &seen) {
            (Some((before, at)), Some(seen)) if before == seen => now.saturating_sub(*at) >= STEADY,
            _ => {
                first = seen.map(|seen| (seen, now));
                false
            }
        };
        if steady {
            first.take().map(|((what, _), at)| (what, at))
        } else {
            None
        }
    })
}

/// Lists the children of a process, of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
    tids(pid)
        .into_iter()
        .filter_map(|tid| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Waits for the child of `pid` whose comm is `comm`.
#[track_caller]
pub fn await_child(pid: u32, comm_of_child: &str) -> u32 {
    wait::until(
        &format!("child {comm_of_child} of pid {pid}"),
        wait::PATIENCE,
        || {
            children(pid)
                .into_iter()
                .find(|child| comm(*child).as_deref() == Some(comm_of_child))
        },
    )
}

/// Tells the inode behind a process's fd.
pub fn inode(pid: u32, fd: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/fd/{fd}"))
        .ok()
        .map(|meta| meta.ino())
}

/// Tells what a process's fd links to, as in `pipe:[123]`.
pub fn link(pid: u32, fd: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()
}

/// Tells how much CPU time a process has used.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // utime and stime, fields 14 and 15 of the whole line, in USER_HZ, which is 100 for every program.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Lists the threads of a process.
pub fn tids(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// How often a thread left the CPU of its own will, and how often not: the same numbers twice mean
/// that it did not run in between.
pub type Switches = (u64, u64);

/// Reads how often a thread left the CPU.
pub fn switches(pid: u32, tid: u32) -> Option<Switches> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let count = |key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    Some((
        count("voluntary_ctxt_switches:")?,
        count("nonvoluntary_ctxt_switches:")?,
    ))
}

fn blocked_write(pid: u32, tid: u32) -> Option<BlockedWrite> {
    let (syscall, fd) = write_class(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?)?;
    if state(pid, tid)? != 'S' {
        return None;
    }
    let thread = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(BlockedWrite {
        tid,
        thread: thread.trim_end_matches('\n').to_owned(),
        syscall,
        fd,
    })
}

/// Reads a line of /proc/PID/syscall, `1 0x3 0x55… 0x8000 … sp pc`, or `running`.
fn write_class(line: &str) -> Option<(&'static str, u32)> {
    let mut fields = line.split_whitespace();
    let number: i64 = fields.next()?.parse().ok()?;
    let (_, name, argument) = WRITE_CLASS.iter().find(|(known, ..)| *known == number)?;
    let fd = fields.nth(*argument)?.strip_prefix("0x")?;
    // The register is 64 bits wide, the fd its lower half.
    let fd = u64::from_str_radix(fd, 16).ok()? & u64::from(u32::MAX);
    Some((name, u32::try_from(fd).ok()?))
}

/// Waits until a process is in a state, by the letter that `/proc` has for it.
#[track_caller]
pub fn await_state(pid: u32, letter: char) {
    wait::until(&format!("{pid} is {letter}"), wait::PATIENCE, || {
        (state(pid, pid) == Some(letter)).then_some(())
    });
}

#[cfg(test)]
mod tests {
    use super::write_class;

    #[test]
    fn a_write_gives_its_first_argument_as_the_fd() {
        let line = format!(
            "{} 0x3 0x5561b172ddc0 0x8000 0x0 0x0 0x0 0x7f 0x7f",
            libc::SYS_write
        );
        assert_eq!(write_class(&line), Some(("write", 3)));
    }

    #[test]
    fn a_splice_gives_its_third_argument_as_the_fd() {
        let line = format!("{} 0x3 0x0 0x1 0x0 0x10 0x0 0x7f 0x7f", libc::SYS_splice);
        assert_eq!(write_class(&line), Some(("splice", 1)));
    }

    #[test]
    fn other_syscalls_and_running_threads_are_no_writes() {
        assert_eq!(write_class(&format!("{} 0x3 0x0 0x1", libc::SYS_read)), None);
        assert_eq!(write_class("running"), None);
    }
}
