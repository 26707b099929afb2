//! The commands, and what their failures mean to a caller.
//!
//! Each command is a module that reads its arguments, puts the parts together and
//! prints; none of them decides anything about a stall.

pub mod alerts;
pub mod check_config;
pub mod doctor;
pub mod explain;
pub mod log;
pub mod manual;
pub mod observe;
pub mod ps;
pub mod record;
pub mod replay;
pub mod run;
pub mod test_alert;
pub mod text;
pub mod top;
pub mod watch;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::{config::ConfigError, probe::kernel::ProbeError};

/// Finds processes that are stuck writing to a pipe nobody drains, says who is
/// stuck since when, and, where a rule allows it, ends them safely.
#[derive(Debug, Parser)]
#[command(
    name = "pipestall",
    version,
    after_help = "Exit codes: 0 ok; 1 failed while running; 2 usage; 64 bad configuration; \
                  69 this kernel cannot; 77 privilege missing.\n\nStart with `pipestall ps`; \
                  `pipestall doctor` says what this machine allows.",
    propagate_version = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the writers that are stalled now, older ones than this command too
    Ps(ps::Args),
    /// Print events as they happen until Ctrl-C; signals nothing
    Watch(watch::Args),
    /// Run the agent: watch, decide by the rules, enforce those that say so
    Run(run::Args),
    /// Show it all live on this terminal: who is stalled, why, and what the rules will do
    Top(top::Args),
    /// Say what this kernel and these privileges allow, and what would be used
    Doctor(doctor::Args),
    /// Check a configuration file, and say what it would do
    CheckConfig(check_config::Args),
    /// Send a sample to the webhooks of a configuration, and say what came back
    TestAlert(test_alert::Args),
    /// List, try again or give up messages that are still to be delivered
    Alerts(alerts::Args),
    /// Keep what is seen in a file until Ctrl-C, for `replay`; signals nothing
    Record(record::Args),
    /// Run a configuration's rules over a recording: what would have been ended, and when
    Replay(replay::Args),
    /// Write man pages and completions into a folder
    #[command(hide = true)]
    Manual(manual::Args),
}

/// Runs a command; returns its documented exit code.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Ps(args) => ps::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::TestAlert(args) => test_alert::run(&args),
        Command::Alerts(args) => alerts::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Manual(args) => manual::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // What a reader such as `head` does is no failure of ours.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("pipestall: {error:#}");
            exit_code(&error)
        }
    }
}

/// What clap cannot check by itself is wrong with the arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn exit_code(error: &anyhow::Error) -> ExitCode {
    const USAGE: u8 = 2;
    const BAD_CONFIG: u8 = 64;
    const KERNEL_CANNOT: u8 = 69;
    const NO_PRIVILEGE: u8 = 77;
    if error.is::<Usage>() {
        return ExitCode::from(USAGE);
    }
    if error.is::<ConfigError>() {
        return ExitCode::from(BAD_CONFIG);
    }
    match error.downcast_ref::<ProbeError>() {
        Some(error) if error.is_privilege() => ExitCode::from(NO_PRIVILEGE),
        Some(ProbeError::Read { .. }) | None => ExitCode::FAILURE,
        Some(_) => ExitCode::from(KERNEL_CANNOT),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints to standard output, so that a closed pipe is an error and no panic.
fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
