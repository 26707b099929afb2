//! `stuck`: writers that block, readers that do not read, and parents of both, for the tests, the
//! demo and the benchmarks. It knows nothing of pipestall.

mod crowd;
mod limits;
mod method;
mod read;
mod reading_end;
mod signals;
mod threads;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Stuck pipe writers and the other ends of their pipes.
#[derive(Debug, Parser)]
#[command(name = "stuck")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Writes to stdout until nobody reads.
    Write(write::Options),
    /// Reads stdin slowly, or only holds it open.
    Read(read::Options),
    /// Parents many writers, each on a channel of its own. Prints one JSON object a line, takes
    /// orders on stdin, and ends with stdin.
    Crowd(crowd::Options),
    /// Blocks many threads, each on a full pipe of its own; prints `ready` and stays.
    Threads(threads::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().mode {
        Mode::Write(options) => write::run(&options),
        Mode::Read(options) => read::run(&options),
        Mode::Crowd(options) => crowd::run(&options),
        Mode::Threads(options) => threads::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stuck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a duration such as `500ms` or `0.5s` from the command line.
fn duration(text: &str) -> Result<std::time::Duration, jiff::Error> {
    text.parse::<jiff::SignedDuration>()?.try_into()
}

/// Gives the calling thread a comm.
fn set_name(name: &str) -> anyhow::Result<()> {
    let name = std::ffi::CString::new(name)?;
    rustix::thread::set_name(&name)?;
    Ok(())
}

/// Does nothing for as long as any test lasts. Signals do not end it.
fn stay() {
    const LONGER_THAN_ANY_TEST: std::time::Duration = std::time::Duration::from_hours(1);
    tests::wait::till(tests::clock::mono() + LONGER_THAN_ANY_TEST);
}
