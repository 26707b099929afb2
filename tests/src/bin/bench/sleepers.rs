//! Many threads that sleep and write nothing: what most tasks of any machine are.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// A thread that only parks needs next to nothing; the kernel's minimum is `PTHREAD_STACK_MIN`.
const STACK: usize = 16 << 10;
/// Ends a process whose benchmark has forgotten it.
const LIFETIME: Duration = Duration::from_mins(15);

/// How many, under which name.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of threads.
    count: u32,
    /// The comm to take.
    name: String,
}

/// Starts the threads, prints `ready` and stays.
pub(crate) fn run(options: &Options) -> Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    anyhow::ensure!(getppid() == parent, "the parent is gone already");
    let name = std::ffi::CString::new(options.name.as_str())?;
    rustix::thread::set_name(&name)?;
    for number in 0..options.count {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(|| thread::sleep(LIFETIME))
            .with_context(|| format!("thread {number}"))?;
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    thread::sleep(LIFETIME);
    Ok(())
}
