//! `bench`: what pipestall costs, and how fast it is, on this machine.
//!
//! Costs are ratios against the same work without pipestall, the two taken in turns; each has its
//! limit, and a limit that is missed is exit code 1. Nothing here is measured by sleeping and
//! hoping: a sample is the fastest of many short batches, because on a shared machine anything can
//! make a batch slower and nothing can make it faster.
//!
//! The helper processes are this same program under a hidden subcommand, or `stuck`; all of them
//! end with it. The only rule that enforces names a comm and a parent that exist here alone.

mod alerts;
mod bpf;
mod cpu;
mod dashboard;
mod helper;
mod idle;
mod incident;
mod limits;
mod load;
mod machine;
mod memory;
mod observer;
mod pipe;
mod readers;
mod report;
mod scan;
mod sleepers;
mod soak;
mod storm;
mod switch;
mod turns;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::report::Report;

/// Measures what pipestall costs, and how fast it is.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    /// Fewer repeats: for a look, not for a record.
    #[arg(long)]
    quick: bool,
    /// Measure only this; may be given often.
    #[arg(long, value_enum, value_name = "NAME")]
    only: Vec<Part>,
    /// Also give the figures as JSON: to FILE, or to stdout in place of the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is started as by itself.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Role {
    /// Does what is measured.
    #[command(hide = true)]
    Work(worker::Job),
    /// Sends back what comes on stdin.
    #[command(hide = true)]
    Echo {
        /// The CPU to stay on, where it is not the one that is inherited.
        cpu: Option<usize>,
    },
    /// Keeps a CPU from going idle.
    #[command(hide = true)]
    Spin {
        /// The CPU.
        cpu: usize,
    },
    /// Threads that sleep, but not in a write.
    #[command(hide = true)]
    Sleepers(sleepers::Options),
    /// Short blocks, one after the other.
    #[command(hide = true)]
    Storm(storm::Options),
}

/// The parts, in the order in which they are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Writing to and reading from a pipe that has room.
    Pipe,
    /// Switching between two processes.
    Switch,
    /// One look at 10,000 threads.
    Scan,
    /// Who should read, for 1,000 stuck writers.
    Readers,
    /// 534 stuck writers: from the threshold to the last confirmed exit.
    Incident,
    /// From an event to a local receiver's answer, by way of the spool on disk.
    Alerts,
    /// What `run` occupies with 534 stalls.
    Memory,
    /// What `run` takes with 10,000 stalls, quiet and in a storm of short blocks.
    Load,
    /// What `run` uses when nothing is stalled.
    Idle,
    /// What `top` takes for a frame of 10,000 stalls, and of a core with 1,000.
    Top,
    /// The first, while each write is counted; only where it is asked for.
    Writes,
    /// What `run` occupies after ten minutes of work; only where it is asked for.
    Soak,
}

/// How thorough to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    quick: bool,
}

impl Effort {
    /// Chooses between a full and a quick number of repeats.
    pub(crate) const fn of(self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.role {
        Some(Role::Work(job)) => job.run().map(|()| true),
        Some(Role::Echo { cpu }) => switch::echo(*cpu).map(|()| true),
        Some(Role::Spin { cpu }) => switch::spin(*cpu).map(|()| true),
        Some(Role::Sleepers(options)) => sleepers::run(options).map(|()| true),
        Some(Role::Storm(options)) => storm::run(options).map(|()| true),
        None => bench(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for and says whether every limit was kept.
fn bench(cli: &Cli) -> Result<bool> {
    if let Err(why) = tests::need::root() {
        bail!("nothing can be measured: {why}");
    }
    let to_stdout = cli.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let effort = Effort { quick: cli.quick };
    let mut report = Report::new(!to_stdout, cli.quick)?;
    for part in Part::value_variants() {
        let is_usual = !matches!(part, Part::Writes | Part::Soak);
        if !(cli.only.is_empty() && is_usual || cli.only.contains(part)) {
            continue;
        }
        match part {
            Part::Pipe => pipe::measure(effort, &mut report).context("pipe")?,
            Part::Switch => switch::measure(effort, &mut report).context("switch")?,
            Part::Scan => scan::measure(effort, &mut report).context("scan")?,
            Part::Readers => readers::measure(effort, &mut report).context("readers")?,
            Part::Incident => incident::measure(effort, &mut report).context("incident")?,
            Part::Alerts => alerts::measure(effort, &mut report).context("alerts")?,
            Part::Memory => memory::measure(&mut report).context("memory")?,
            Part::Top => dashboard::measure(effort, &mut report).context("top")?,
            Part::Load => load::measure(effort, &mut report).context("load")?,
            Part::Writes => pipe::measure_traced(effort, &mut report).context("writes")?,
            Part::Soak => soak::measure(effort, &mut report).context("soak")?,
            Part::Idle => idle::measure(effort, &mut report).context("idle")?,
        }
    }
    report.finish(cli.json.as_deref())?;
    Ok(report.all_kept())
}
