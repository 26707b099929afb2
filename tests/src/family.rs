//! A process a test starts, with whatever it starts itself: all of it is ended with its guard.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::pidfd::PidFd;
use crate::{proc, wait};

/// A child of the test and its descendants.
#[derive(Debug)]
pub struct Family {
    child: Child,
    pidfd: PidFd,
    status: Option<ExitStatus>,
}

impl Family {
    /// Starts a process that is killed when its guard is dropped, and by the kernel when the
    /// calling thread ends without dropping it.
    pub fn start(command: &mut Command) -> Self {
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only prctl and getppid are called, both safe there; no
        // memory is allocated unless the test is gone, when it no longer matters.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if getppid() == Some(parent) {
                    Ok(())
                } else {
                    Err(ErrorKind::NotFound.into())
                }
            });
        }
        // A copy that was just made is still open for writing in what another test forks at that moment.
        let spawned = wait::until("a copy is closed", wait::PATIENCE, || match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            done => Some(done),
        });
        let child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The child is not reaped before this: its pid cannot be another's.
        let pidfd = PidFd::open(child.id()).expect("a pidfd of a child");
        Self {
            child,
            pidfd,
            status: None,
        }
    }

    /// Tells the pid of the child.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives the child itself, to take its stdio.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends the child, and only it, a signal.
    pub fn signal(&self, signal: Signal) {
        self.pidfd.signal(signal).expect("a signal to a child");
    }

    /// Waits for the child to exit, or gives nothing if it has not `within` that time.
    pub fn exited(&mut self, within: Duration) -> Option<ExitStatus> {
        if self.status.is_none() && self.pidfd.exited(within * wait::slowness()) {
            self.status = Some(self.child.wait().expect("the child is ours"));
        }
        self.status
    }

    /// Opens pidfds of all descendants. Each was still its parent's child after it was opened, so
    /// it is the process that was listed.
    fn descendants(&self) -> Vec<PidFd> {
        const DEEPEST: usize = 8;
        let mut found = Vec::new();
        let mut parents = vec![self.pid()];
        for _ in 0..DEEPEST {
            let mut next = Vec::new();
            for parent in parents {
                for pid in proc::children(parent) {
                    let Ok(pidfd) = PidFd::open(pid) else { continue };
                    if proc::children(parent).contains(&pid) {
                        found.push(pidfd);
                        next.push(pid);
                    }
                }
            }
            parents = next;
        }
        found
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        let descendants = self.descendants();
        for member in std::iter::once(&self.pidfd).chain(&descendants) {
            // A process that cannot be killed is reported by the wait below.
            let _ = member.signal(Signal::KILL);
        }
        let _ = self.child.wait();
        for member in &descendants {
            if !member.exited(wait::PATIENCE) {
                eprintln!("a descendant of {} does not end", self.pid());
            }
        }
    }
}

/// Starts a program between two descriptors, of which this process keeps no copy.
pub fn between(
    program: &Path,
    arguments: &[&str],
    stdin: impl Into<Stdio>,
    stdout: impl Into<Stdio>,
) -> Family {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::null());
    Family::start(&mut command)
}
