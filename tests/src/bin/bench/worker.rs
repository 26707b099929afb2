//! The process that does the work that is measured, apart from the one that measures.
//!
//! Apart, because it must be the same with and without an observer: a process that has threads, as
//! the harness has to follow what the observer prints, pays for each fd it uses in each syscall
//! (`fdget()`, fs/file.c), and that is more than what is measured here.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use tests::family::Family;

use crate::cpu::Pinned;
use crate::pipe::Pipe;
use crate::switch::Switch;

/// What to do, where.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Job {
    /// The work.
    #[arg(value_enum)]
    pub(crate) work: Work,
    /// The CPUs to stay on.
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where it is done.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Place {
    /// The process's CPU.
    cpu: usize,
    /// The CPU of a second process, if that is to have its own.
    other: Option<usize>,
}

impl Place {
    /// On one CPU, all of it.
    pub(crate) const fn one(cpu: usize) -> Self {
        Self { cpu, other: None }
    }

    /// On two, with a process on each.
    pub(crate) const fn two(cpu: usize, other: usize) -> Self {
        Self {
            cpu,
            other: Some(other),
        }
    }
}

/// Something to measure.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Work {
    /// See [`Pipe`].
    Pipe,
    /// See [`Switch`].
    Switch,
}

impl Job {
    /// Takes a sample for each line that comes on stdin, and prints nanoseconds an operation.
    pub(crate) fn run(self) -> Result<()> {
        let _pinned = Pinned::to(self.place.cpu)?;
        let mut sample: Box<dyn FnMut() -> Result<f64>> = match self.work {
            Work::Pipe => {
                let pipe = Pipe::new()?;
                Box::new(move || pipe.sample())
            }
            Work::Switch => {
                let switch = Switch::start(self.place.other)?;
                Box::new(move || switch.sample())
            }
        };
        for line in io::stdin().lock().lines() {
            line?;
            let nanos = sample()?;
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{nanos}")?;
            stdout.flush()?;
        }
        Ok(())
    }
}

/// That process, from this side. It ends with this.
#[derive(Debug)]
pub(crate) struct Worker {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Family,
}

impl Worker {
    /// Starts one.
    pub(crate) fn start(work: &str, place: Place) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["work", work])
            .args(
                [Some(place.cpu), place.other]
                    .into_iter()
                    .flatten()
                    .map(|cpu| cpu.to_string()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Family::start(&mut command);
        let orders = process.child().stdin.take().context("stdin is piped")?;
        let stdout = process.child().stdout.take().context("stdout is piped")?;
        Ok(Self {
            orders,
            answers: BufReader::new(stdout),
            _process: process,
        })
    }

    /// Takes a sample: nanoseconds an operation.
    pub(crate) fn sample(&mut self) -> Result<f64> {
        self.orders.write_all(b"\n").context("the worker is gone")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim_end()
            .parse()
            .with_context(|| format!("the worker says {line:?}"))
    }
}
