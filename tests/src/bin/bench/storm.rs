//! A storm: one thread that blocks in a write as often as it is told to, and one that drains it.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tests::clock;

const PAGE: usize = 4096;
/// Within each it blocks its share, and then waits for the next.
const BEAT: Duration = Duration::from_millis(5);
const BEATS_A_SECOND: u32 = 200;
/// Ends a process whose benchmark has forgotten it.
const LIFETIME: Duration = Duration::from_mins(15);

/// How often, under which name.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Blocks a second.
    rate: u32,
    /// The comm to take.
    name: String,
}

/// Prints `ready` and storms.
pub(crate) fn run(options: &Options) -> Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    anyhow::ensure!(getppid() == parent, "the parent is gone already");
    let name = std::ffi::CString::new(options.name.as_str())?;
    rustix::thread::set_name(&name)?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&write, PAGE)?;
    thread::spawn(move || {
        let mut page = [0; PAGE];
        while rustix::io::read(&read, &mut page).is_ok_and(|len| len > 0) {}
    });
    println!("ready");
    io::stdout().flush()?;
    let page = [0; PAGE];
    let (begun, share) = (clock::mono(), options.rate / BEATS_A_SECOND);
    let mut next = begun;
    while clock::lapse(begun, next) < LIFETIME {
        // With the pipe full, each write waits for the reader.
        for _ in 0..share {
            rustix::io::write(&write, &page)?;
        }
        next += BEAT;
        if let Some(left) = next.checked_sub(clock::mono()) {
            thread::sleep(left);
        }
    }
    Ok(())
}
