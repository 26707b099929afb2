//! Context switches, where the tracer sits: a few bytes go to another process on the same CPU and
//! come back, which takes two switches (as `perf bench sched pipe`, pinned).

use std::env;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::observer::Program;
use crate::report::{Report, Row};
use crate::turns::{self, Contender, Series};
use crate::worker::Worker;
use crate::{Effort, cpu, limits};

/// As `perf bench sched pipe` sends: an int.
const BYTES: usize = 4;
/// A few milliseconds for all batches of a sample: short turns, and many of them.
const ROUND_TRIPS: u32 = 600;
const BATCHES: u32 = 3;

/// Measures round trips under each program.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    report.progress("context switches");
    let programs = [
        Program::empty()?,
        Program::of_watch(&[])?,
        Program::following()?,
        Program::of_watch(&["--all"])?,
    ];
    let [empty, tracer, following, everyone] = &programs;
    let contenders = [
        Contender::Nobody,
        Contender::Program(empty),
        Contender::Program(tracer),
        Contender::Program(following),
        Contender::Program(everyone),
    ];
    let mut worker = Worker::start("switch", cpu::chosen()?)?;
    let [nobody, empty, tracer, following, everyone] =
        turns::take(effort.of(300, 60), programs.len(), &contenders, || {
            worker.sample()
        })?;
    let row = |name: &str, series: &Series| {
        Row::of(name, series.minimum(), "ns")
            .against(nobody.minimum())
            .with_median(series.median_ratio(&nobody))
    };
    report.add(row("two switches: empty program", &empty));
    report.add(row("  the tracer", &tracer).at_most(limits::SWITCH_RATIO));
    // What any program there costs is the kernel's and the machine's; this is ours.
    report.add(
        Row::of("  the tracer over the empty one", tracer.minimum(), "ns")
            .against(empty.minimum())
            .with_median(tracer.median_ratio(&empty))
            .at_most(limits::OVER_EMPTY_RATIO),
    );
    report.add(row("  the tracer, following a writer", &following));
    report.add(row("  the tracer, of every command", &everyone));
    Ok(())
}

/// Sends back what comes on stdin, until it ends. The CPU is inherited.
pub(crate) fn echo() -> Result<()> {
    let mut buffer = [0; BYTES];
    while rustix::io::read(rustix::stdio::stdin(), &mut buffer)? > 0 {
        rustix::io::write(rustix::stdio::stdout(), &buffer)?;
    }
    Ok(())
}

/// Two processes, of which this is one.
pub(crate) struct Switch {
    to: Option<OwnedFd>,
    from: OwnedFd,
    other: Child,
}

impl Switch {
    /// Starts the other process on the same CPU as the calling thread.
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut other = command
            .arg("echo")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = other.stdin.take().context("stdin is piped")?.into();
        let from = other.stdout.take().context("stdout is piped")?.into();
        Ok(Self {
            to: Some(to),
            from,
            other,
        })
    }

    /// Nanoseconds for a round trip.
    pub(crate) fn sample(&self) -> Result<f64> {
        let to = self.to.as_ref().context("the pipe is open")?;
        turns::fastest_batch(BATCHES, ROUND_TRIPS, || {
            let mut buffer = [7; BYTES];
            for _ in 0..ROUND_TRIPS {
                let sent = rustix::io::write(to, &buffer)?;
                let back = rustix::io::read(&self.from, &mut buffer)?;
                ensure!(sent == BYTES && back == BYTES, "the other process is gone");
            }
            Ok(())
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It ends with its stdin; if this process is killed first, the kernel closes that too.
        drop(self.to.take());
        let _ = self.other.wait();
    }
}
