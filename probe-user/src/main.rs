//! Parses, calls, and maps an error to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use probe_user::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
