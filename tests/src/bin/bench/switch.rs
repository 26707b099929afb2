//! Context switches, where the tracer sits: a few bytes go to another process and come back, as in
//! `perf bench sched pipe`.
//!
//! With a CPU for each, as the scheduler places such processes where it can; they are pinned there, so
//! that it does not change its mind between two samples, and a process that gives way to all others keeps
//! each CPU awake: to wake one that has gone idle takes ten times as long as all else, and varies by more than a
//! program costs. And on one CPU for both, where a round trip
//! is two switches and little else: the most that a program on a switch can cost.

use std::env;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::tests::clock;
use ::tests::family::Family;

use anyhow::{Context, Result, ensure};

use crate::cpu::Pinned;
use crate::observer::Program;
use crate::report::{Report, Row};
use crate::turns::{self, Contender, Series};
use crate::worker::{Place, Worker};
use crate::{Effort, cpu, helper, limits};

/// As `perf bench sched pipe` sends: an int.
const BYTES: usize = 4;
/// A few milliseconds for all batches of a sample: short turns, and many of them.
const ROUND_TRIPS: u32 = 600;
/// The same between two CPUs, where a round trip takes ten times as long.
const ROUND_TRIPS_ACROSS: u32 = 150;
const BATCHES: u32 = 3;
/// Ends what keeps a CPU awake if its benchmark has forgotten it.
const LONGEST: Duration = Duration::from_mins(10);

/// Measures round trips under each program, across CPUs and on one.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    report.progress("context switches");
    let programs = [
        Program::empty()?,
        Program::of_watch(&[])?,
        Program::following()?,
        Program::of_watch(&["--all"])?,
    ];
    let [empty, tracer, following, everyone] = &programs;
    let cpu = cpu::chosen()?;
    let contenders = [
        Contender::Nobody,
        Contender::Program(empty),
        Contender::Program(tracer),
        Contender::Program(following),
        Contender::Program(everyone),
    ];
    let [nobody, empty, tracer, ..] = contenders;
    let few = [nobody, empty, tracer];
    match cpu::allowed()?.into_iter().rfind(|&other| other != cpu) {
        None => eprintln!("skipped: a round trip between two CPUs: there is one CPU here"),
        Some(other) => {
            let _awake = [keep_awake(cpu)?, keep_awake(other)?];
            let mut worker = Worker::start("switch", Place::two(cpu, other))?;
            let [nobody, empty, tracer] =
                turns::take(effort.of(300, 60), programs.len(), &few, || worker.sample())?;
            // Not the fastest: where the two meet without waiting, a batch is faster than usual.
            let row = |name: &str, series: &Series| {
                Row::of(name, series.median(), "ns")
                    .against(nobody.median())
                    .with_median(series.median_ratio(&nobody))
            };
            report.add(row("median trip, 2 CPUs: empty program", &empty));
            report.add(row("  2 CPUs: the tracer", &tracer).at_most(limits::SWITCH_RATIO));
        }
    }

    let mut worker = Worker::start("switch", Place::one(cpu))?;
    let [nobody, empty, tracer, following, everyone] =
        turns::take(effort.of(300, 60), programs.len(), &contenders, || {
            worker.sample()
        })?;
    report.add(row("round trip, 1 CPU: empty program", &empty, &nobody));
    report.add(row("  1 CPU: the tracer", &tracer, &nobody));
    // What any program there costs is the kernel's and the machine's; this is ours.
    report.add(row("  1 CPU: the tracer over the empty", &tracer, &empty).at_most(limits::OVER_EMPTY_RATIO));
    report.add(row("  1 CPU: following a writer", &following, &nobody));
    report.add(row("  1 CPU: of every command", &everyone, &nobody));
    Ok(())
}

fn row(name: &str, series: &Series, baseline: &Series) -> Row {
    Row::of(name, series.minimum(), "ns")
        .against(baseline.minimum())
        .with_median(series.median_ratio(baseline))
}

/// Starts what keeps a CPU from going idle, at a priority at which it gives way to all others at once.
fn keep_awake(cpu: usize) -> Result<Family> {
    let mut command = Command::new("chrt");
    let this = env::current_exe()?;
    command
        .args(["--idle", "0"])
        .arg(this)
        .args(["spin", &cpu.to_string()]);
    Ok(Family::start(&mut command))
}

/// Does nothing, on this CPU, for as long as any benchmark takes.
pub(crate) fn spin(cpu: usize) -> Result<()> {
    helper::begin("spin")?;
    let _pinned = Pinned::to(cpu)?;
    let begin = clock::mono();
    while clock::lapse(begin, clock::mono()) < LONGEST {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Sends back what comes on stdin, until it ends; on this CPU, or the one that is inherited.
pub(crate) fn echo(cpu: Option<usize>) -> Result<()> {
    let _pinned = cpu.map(Pinned::to).transpose()?;
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
    round_trips: u32,
}

impl Switch {
    /// Starts the other process on this CPU, or on the same as the calling thread.
    pub(crate) fn start(cpu: Option<usize>) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut other = command
            .arg("echo")
            .args(cpu.map(|cpu| cpu.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = other.stdin.take().context("stdin is piped")?.into();
        let from = other.stdout.take().context("stdout is piped")?.into();
        Ok(Self {
            to: Some(to),
            from,
            other,
            round_trips: cpu.map_or(ROUND_TRIPS, |_| ROUND_TRIPS_ACROSS),
        })
    }

    /// Nanoseconds for a round trip.
    pub(crate) fn sample(&self) -> Result<f64> {
        let to = self.to.as_ref().context("the pipe is open")?;
        turns::fastest_batch(BATCHES, self.round_trips, || {
            let mut buffer = [7; BYTES];
            for _ in 0..self.round_trips {
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
