//! The writer: fills whatever its stdout is, and stays in the syscall that found no room.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::method::{Method, Source};
use crate::signals::{self, OnTerm};

/// What to write, where, and under which conditions.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Options {
    /// Take this comm before the first write.
    #[arg(long)]
    name: Option<String>,
    /// Write from a second thread of this name; the leader waits for it.
    #[arg(long, value_name = "NAME")]
    thread: Option<String>,
    /// Write to a duplicate of stdout with this number.
    #[arg(long, value_name = "N")]
    fd: Option<i32>,
    /// Write to stderr instead of stdout.
    #[arg(long, conflicts_with = "fd")]
    stderr: bool,
    /// The syscall to write with.
    #[arg(long, value_enum, default_value_t = Method::Write)]
    how: Method,
    /// Send to the socket bound to this path, whomever stdout is connected to.
    #[arg(long, value_name = "PATH", requires = "how")]
    to: Option<PathBuf>,
    /// Have splice and tee take from stdin, a pipe, whatever there is in it.
    #[arg(long, requires = "how")]
    from_stdin: bool,
    /// Set `O_NONBLOCK`, and poll(2) for room.
    #[arg(long)]
    nonblock: bool,
    /// Bytes per write.
    #[arg(long, default_value_t = 64 << 10)]
    chunk: usize,
    /// Sleep so long after each write.
    #[arg(long, value_parser = crate::duration, default_value = "0s")]
    pause: Duration,
    /// Stop writing after so many bytes and stay.
    #[arg(long)]
    bytes: Option<usize>,
    /// Take SIGALRM this often a second, in a handler installed with `SA_RESTART`.
    #[arg(long, value_name = "HZ")]
    alarm: Option<u32>,
    /// Ignore SIGTERM.
    #[arg(long)]
    ignore_term: bool,
    /// Handle SIGTERM by doing nothing, with `SA_RESTART`: what a stuck ffmpeg does.
    #[arg(long, conflicts_with = "ignore_term")]
    catch_term: bool,
    /// Be killed when the thread that started this process ends.
    #[arg(long)]
    die_with_parent: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.die_with_parent {
        die_with_parent()?;
    }
    if let Some(name) = &options.name {
        crate::set_name(name)?;
    }
    if options.ignore_term {
        signals::on_term(OnTerm::Ignore)?;
    } else if options.catch_term {
        signals::on_term(OnTerm::Catch)?;
    }
    if let Some(hz) = options.alarm {
        signals::alarm(hz)?;
    }
    match &options.thread {
        None => write(options),
        Some(name) => thread::scope(|scope| {
            let writer = thread::Builder::new()
                .name(name.clone())
                .spawn_scoped(scope, || write(options))?;
            writer
                .join()
                .map_err(|_| anyhow::anyhow!("the writing thread panicked"))?
        }),
    }
}

/// Asks the kernel for SIGKILL at the parent's end; the parent may have ended before.
pub(crate) fn die_with_parent() -> Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    anyhow::ensure!(getppid() == parent, "the parent is gone already");
    Ok(())
}

fn write(options: &Options) -> Result<()> {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let duplicate = options
        .fd
        .map(|number| duplicate(stdout.as_fd(), number))
        .transpose()?;
    let out = match &duplicate {
        Some(fd) => fd.as_fd(),
        None if options.stderr => stderr.as_fd(),
        None => stdout.as_fd(),
    };
    if options.nonblock {
        fcntl_setfl(out, fcntl_getfl(out)? | OFlags::NONBLOCK)?;
    }
    let mut source = Source::new(options.how, options.chunk).context("the source of what is written")?;
    if let Some(path) = &options.to {
        source = source.to(path).with_context(|| format!("{}", path.display()))?;
    }
    if options.from_stdin {
        source = source.from(std::io::stdin().as_fd().try_clone_to_owned()?);
    }
    let mut left = options.bytes.unwrap_or(usize::MAX);
    while left > 0 {
        match source.push(out, left.min(options.chunk)) {
            Ok(written) => {
                if options.bytes.is_some() {
                    left -= written;
                }
                if !options.pause.is_zero() {
                    thread::sleep(options.pause);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::from_borrowed_fd(out, PollFlags::OUT)], None)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The reading end was closed: what ends most writers in the world.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("writing"),
        }
    }
    crate::stay();
    Ok(())
}

/// Duplicates `fd` to exactly this number, which must be free.
fn duplicate(fd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(fd, number)?;
    let got = std::os::fd::AsRawFd::as_raw_fd(&duplicate);
    anyhow::ensure!(got == number, "fd {number} is taken, the next free one is {got}");
    Ok(File::from(duplicate).into())
}
