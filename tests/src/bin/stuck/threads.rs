//! Many blocked threads in one process, for the benchmarks of the scanner.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tests::{proc, wait};

use crate::limits;

/// `PTHREAD_STACK_MIN`, and enough to call write(2).
const STACK: usize = 16 << 10;
const PAGE: usize = 4096;
const PATIENCE: Duration = Duration::from_mins(1);

/// How many threads.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of blocked threads.
    count: usize,
    /// Take this comm first.
    #[arg(long)]
    name: Option<String>,
    /// Be killed when the thread that started this process ends.
    #[arg(long)]
    die_with_parent: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.die_with_parent {
        crate::write::die_with_parent()?;
    }
    if let Some(name) = &options.name {
        crate::set_name(name)?;
    }
    // One fd a pipe, and some for the process itself.
    limits::allow_fds(options.count + 64)?;
    for number in 0..options.count {
        let pipe = pipe_of_one_fd().with_context(|| format!("pipe {number}"))?;
        thread::Builder::new()
            .name(format!("stuck-{number}"))
            .stack_size(STACK)
            .spawn(move || block(&pipe))
            .with_context(|| format!("thread {number}"))?;
    }
    let blocked = wait::until_or_none(PATIENCE, || {
        (proc::blocked_writes(process::id()).len() >= options.count).then_some(())
    });
    blocked.context("the threads did not all block in time")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    crate::stay();
    Ok(())
}

/// Makes a pipe of one page whose two ends are one fd, which halves what `RLIMIT_NOFILE` must allow.
fn pipe_of_one_fd() -> Result<OwnedFd> {
    let (_read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&write, PAGE)?;
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    Ok(open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Fills the pipe and stays in the write that finds no room.
fn block(pipe: &OwnedFd) {
    let page = [0; PAGE];
    // The second write blocks for good; the end of the process ends it.
    for _ in 0..2 {
        if rustix::io::write(pipe, &page).is_err() {
            return;
        }
    }
}
