//! One process held by a pidfd: signalled and awaited without any doubt who it is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};

use crate::clock;

/// A process that this test started, held by a pidfd.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a pidfd of `pid`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Errno::SRCH)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Sends a signal; that the process is gone already is not an error.
    ///
    /// # Errors
    /// If the signal could not be sent to a process that is there.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a copy of one of its descriptors, as a process that was forked with it has one.
    ///
    /// # Errors
    /// If there is no such descriptor.
    pub fn copy_of(&self, fd: i32) -> io::Result<OwnedFd> {
        Ok(pidfd_getfd(&self.0, fd, PidfdGetfdFlags::empty())?)
    }

    /// Waits for the process to exit and says whether it did `within` that time.
    pub fn exited(&self, within: Duration) -> bool {
        let deadline = clock::mono() + within;
        loop {
            let left = deadline.saturating_sub(clock::mono());
            let timeout = Timespec::try_from(left).expect("a test's patience fits a timespec");
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => {}
                Ok(ready) => return ready > 0,
                Err(error) => panic!("poll on a pidfd: {error}"),
            }
        }
    }
}
