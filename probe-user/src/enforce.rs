//! Carries out what the machine decided, on one process and no other.
//!
//! A pidfd names a process for as long as it is open: once the start time has been
//! compared, a signal through it cannot reach a later user of the pid. Nothing
//! here decides whether, and nothing here signals a group, a thread or a name.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, pidfd_send_signal, setrlimit},
};

use crate::{
    core::{
        machine::{Opened, Sent},
        model::Process,
        report::Signal,
    },
    probe::process::start_ticks,
};

/// Descriptors that handles leave to looks, to reading about processes, and to hooks, of which
/// eight may be starting with their pipes.
const RESERVE: usize = 96;

/// The table of descriptors is made so large ahead of time. Each time that it grows, a process
/// with several threads waits until all CPUs have noticed (`expand_fdtable`, fs/file.c): for some
/// 10 ms, and between verdicts and their signals.
const TABLE: usize = 4096;

/// Raises the limit on descriptors as far as it goes, and makes their table large; returns how many
/// handles may be open at once. An incident has hundreds of processes to end, and each takes one.
#[must_use]
pub fn make_room_for_handles() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    make_the_table_large();
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    match getrlimit(Resource::Nofile).current {
        None => usize::MAX,
        Some(limit) => room_for_handles(usize::try_from(limit).unwrap_or(usize::MAX), open),
    }
}

/// The table grows to hold the highest descriptor, and never shrinks. Where that is not to be had,
/// it grows when it must.
fn make_the_table_large() {
    let limit = getrlimit(Resource::Nofile).current.map_or(TABLE, |limit| {
        usize::try_from(limit).map_or(TABLE, |limit| limit.min(TABLE))
    });
    if let (Ok(any), Ok(last)) = (File::open("/dev/null"), i32::try_from(limit.saturating_sub(1))) {
        let _ = fcntl_dupfd_cloexec(any, last);
    }
}

/// How many handles fit under a limit. Where there is hardly room for anything, one at a time
/// still gets the work done.
fn room_for_handles(limit: usize, open: usize) -> usize {
    let left = limit.saturating_sub(open);
    left.saturating_sub(RESERVE).max(left / 4).max(1)
}

/// A handle on one process.
#[derive(Debug)]
pub struct Handle {
    pidfd: OwnedFd,
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Handle {
    /// Opens a handle and makes sure that it is on the process that is meant.
    ///
    /// # Errors
    /// Why there is no handle; never [`Opened::Ready`].
    pub fn open(process: Process) -> Result<Self, Opened> {
        let pid = i32::try_from(process.tgid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Opened::OtherProcess)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => Opened::Exited,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Opened::Later,
            _ => Opened::Unsupported,
        })?;
        let handle = Self { pidfd };
        // Read after the handle is open: if it was someone else by then, it still is.
        match start_ticks(process.tgid) {
            _ if handle.has_exited() => Err(Opened::Exited),
            // It is there, as the handle shows, and cannot be read.
            None => Err(Opened::Later),
            Some(ticks) if ticks == process.start_ticks() => Ok(handle),
            Some(_) => Err(Opened::OtherProcess),
        }
    }

    /// Whether the process has exited, reaped or not.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        Self::have_exited([self]).contains(&true)
    }

    /// The same of each of these, in their order, by one call for all.
    #[must_use]
    pub fn have_exited<'a>(handles: impl IntoIterator<Item = &'a Self>) -> Vec<bool> {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds: Vec<_> = handles
            .into_iter()
            .map(|handle| PollFd::new(&handle.pidfd, PollFlags::IN))
            .collect();
        // Most looks have none to ask for.
        let polled = fds.is_empty() || poll(&mut fds, Some(&at_once)).is_ok();
        fds.iter().map(|fd| polled && !fd.revents().is_empty()).collect()
    }

    /// Sends a signal to the process.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> Sent {
        if self.has_exited() {
            return Sent::Gone;
        }
        let number = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        match pidfd_send_signal(&self.pidfd, number) {
            Ok(()) => Sent::Yes,
            Err(Errno::SRCH) => Sent::Gone,
            Err(errno) => Sent::Failed(errno.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn handles_leave_descriptors_to_everything_else() {
        for (limit, open, expected) in [
            (1024, 24, 904),
            (128, 28, 25),
            (30, 28, 1),
            (20, 28, 1),
            (usize::MAX, 28, usize::MAX - 28 - 96),
        ] {
            assert_eq!(super::room_for_handles(limit, open), expected, "{limit}");
        }
    }

    #[test]
    fn the_table_of_descriptors_does_not_grow_with_the_handles_of_an_incident() {
        let _ = make_room_for_handles();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: u64 = size.unwrap().trim().parse().unwrap();
        assert!(size >= limit.min(4096), "{size} of {limit}");
    }

    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A child that reads for ever, ended and reaped when dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> (Self, Process) {
            let child = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let tgid = child.id();
            (Self(child), Process::from_ticks(tgid, start_ticks(tgid).unwrap()))
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_process_that_is_meant_gets_the_signal() {
        let (mut sleeper, process) = Sleeper::start();
        let handle = Handle::open(process).unwrap();
        assert!(!handle.has_exited());
        assert_eq!(handle.signal(Signal::Term), Sent::Yes);
        sleeper.0.wait().unwrap();
        assert!(handle.has_exited());
        assert_eq!(handle.signal(Signal::Kill), Sent::Gone);
    }

    #[test]
    fn another_process_under_the_same_pid_is_refused() {
        let (_sleeper, process) = Sleeper::start();
        let earlier = Process::from_ticks(process.tgid, process.start_ticks() - 5);
        assert_eq!(Handle::open(earlier).err(), Some(Opened::OtherProcess));
    }

    #[test]
    fn a_process_that_has_exited_is_refused_even_before_it_is_reaped() {
        let (mut sleeper, process) = Sleeper::start();
        let handle = Handle::open(process).unwrap();
        sleeper.0.kill().unwrap();
        let mut fds = [PollFd::new(&handle.pidfd, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        assert_eq!(Handle::open(process).err(), Some(Opened::Exited));
    }
}
