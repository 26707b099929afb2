//! The ends of a channel: made, handed to a writer, and read as the crowd decides.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

/// What a writer writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Channel {
    Pipe,
    Fifo,
    Unix,
}

/// How a reading end is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    Silent,
    /// So many bytes at each tick.
    Trickle(usize),
    /// All there is at each tick.
    Drain,
}

/// A reading end, and how much came out of it.
#[derive(Debug)]
pub(crate) struct ReadingEnd {
    fd: Option<OwnedFd>,
    pub(crate) habit: Habit,
    pub(crate) drained: u64,
}

/// Makes a channel and returns its reading end and its writing end. A FIFO gets its file in `dir`.
pub(crate) fn channel(kind: Channel, dir: Option<&Path>, number: usize) -> Result<(OwnedFd, OwnedFd)> {
    match kind {
        Channel::Pipe => pipe_with(PipeFlags::CLOEXEC).context("pipe"),
        Channel::Unix => socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("socketpair"),
        Channel::Fifo => {
            let path = dir.context("a FIFO needs --dir")?.join(format!("fifo-{number}"));
            mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR)
                .with_context(|| format!("mkfifo {}", path.display()))?;
            // Without O_NONBLOCK the first opener would wait for the second.
            let read = open(
                &path,
                OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let write = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok((read, write))
        }
    }
}

impl ReadingEnd {
    /// Takes over a reading end; reads from it will not block.
    pub(crate) fn new(fd: OwnedFd, habit: Habit) -> Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self {
            fd: Some(fd),
            habit,
            drained: 0,
        })
    }

    /// Reads once as its habit is.
    pub(crate) fn tick(&mut self) -> Result<()> {
        match self.habit {
            Habit::Silent => Ok(()),
            Habit::Trickle(bytes) => self.take(bytes),
            // What a writer adds meanwhile is for the next tick: no writer may keep the crowd busy.
            Habit::Drain => self.take(256 << 10),
        }
    }

    /// Reads up to so many bytes that are there.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let mut buffer = [0; 16 << 10];
        let mut left = bytes;
        while left > 0 {
            let len = left.min(buffer.len());
            match rustix::io::read(fd, &mut buffer[..len]) {
                Ok(0) | Err(Errno::AGAIN | Errno::CONNRESET) => break,
                Ok(taken) => {
                    left -= taken;
                    self.drained += u64::try_from(taken)?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("reading"),
            }
        }
        Ok(())
    }

    /// Closes the reading end: the writer's next write fails.
    pub(crate) fn close(&mut self) {
        self.fd = None;
    }
}
