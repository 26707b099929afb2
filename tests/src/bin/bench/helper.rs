//! What the processes have in common that the benchmark starts of itself to be looked at.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Ends a process whose benchmark has forgotten it.
const LIFETIME: Duration = Duration::from_mins(15);

/// Takes a comm, and ends with the benchmark from now on.
pub(crate) fn begin(name: &str) -> Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure!(getppid() == parent, "the parent is gone already");
    rustix::thread::set_name(&std::ffi::CString::new(name)?)?;
    Ok(())
}

/// Says that everything is as it should be, and stays.
pub(crate) fn stay() -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    rest();
    Ok(())
}

/// Sleeps for as long as there is any use in it.
pub(crate) fn rest() {
    thread::sleep(LIFETIME);
}
