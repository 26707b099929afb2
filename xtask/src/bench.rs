//! Starts the benchmark, which is a program of the package `tests`. Knows nothing of what it measures.

use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::shell;

/// Builds what is measured, as users get it, and runs the benchmark with `args`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let pipestall = build::pipestall(Profile::Release)?;
    // Beside it are the programs that it starts.
    build::helpers(Profile::Release)?;
    let bench = pipestall.with_file_name("bench");
    shell::run(Command::new(bench).args(args).env("PIPESTALL_BIN", pipestall))
}
