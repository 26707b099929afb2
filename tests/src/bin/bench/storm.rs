//! A storm: on each CPU a thread that blocks in a write as often as it is told to, and one that
//! drains it.
//!
//! Two threads on one CPU hand a page over for two switches. On two CPUs each would take an
//! interrupt of the other, which is slow in a virtual machine. They run before whatever else the
//! machine does, so that the storm is as strong on a busy one.

use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tests::{clock, proc};

use crate::cpu::{self, Pinned};
use crate::helper;

const PAGE: usize = 4096;
/// Within each a writer blocks its share, and then waits for the next.
const BEAT: Duration = Duration::from_millis(5);
const BEATS_A_SECOND: u32 = 200;
/// What the threads that write are called.
const WRITER: &str = "storm-writer";

/// How often, under which name.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Blocks a second, of all CPUs together.
    rate: u32,
    /// The comm to take.
    name: String,
}

/// Prints `ready` and storms.
pub(crate) fn run(options: &Options) -> Result<()> {
    helper::begin(&options.name)?;
    let cpus = cpu::allowed()?;
    let share = options.rate.div_ceil(BEATS_A_SECOND * u32::try_from(cpus.len())?);
    for cpu in cpus {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setpipe_size(&write, PAGE)?;
        on(cpu, "storm-reader", move || {
            let mut page = [0; PAGE];
            while rustix::io::read(&read, &mut page)? > 0 {}
            Ok(())
        })?;
        on(cpu, WRITER, move || {
            let (page, mut next) = ([0; PAGE], clock::mono());
            loop {
                // With the pipe full, each write waits for the reader.
                for _ in 0..share {
                    rustix::io::write(&write, &page)?;
                }
                next += BEAT;
                // One that cannot keep up does not try to make up for it.
                let now = clock::mono();
                next = next.max(now);
                thread::sleep(clock::lapse(now, next));
            }
        })?;
    }
    helper::stay()
}

/// How often a second the writers sleep for their next beat.
pub(crate) fn waits_a_second() -> Result<f64> {
    let cpus = u32::try_from(cpu::allowed()?.len())?;
    Ok(f64::from(BEATS_A_SECOND * cpus))
}

/// How often the writers of a storm have blocked, or waited for a beat.
pub(crate) fn blocks(pid: u32) -> u64 {
    let writers = proc::tids(pid)
        .into_iter()
        .filter(|tid| proc::comm(*tid).as_deref() == Some(WRITER));
    writers
        .filter_map(|tid| proc::switches(pid, tid))
        .map(|(voluntary, _)| voluntary)
        .sum()
}

/// Starts a thread on a CPU that runs before all that is not of its kind.
fn on(cpu: usize, name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let done = Pinned::to(cpu).and_then(|_pinned| {
                take_precedence()?;
                work()
            });
            if let Err(error) = done {
                eprintln!("storm: {error:#}");
            }
        })
        .context("no thread")?;
    Ok(())
}

/// Lets the calling thread run in real time, at the lowest of its priorities (sched(7)).
fn take_precedence() -> Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a value that outlives the call, which does not keep it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context("cannot run in real time")
    }
}
