//! Starts the benchmark, which is a program of the package `tests`. Knows nothing of what it measures.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::shell;

/// Builds what is measured, as users get it, and runs the benchmark with `args`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let pipestall = build::pipestall(Profile::Release)?;
    let mut bench = shell::cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "tests",
        "--bin",
        "bench",
        "--",
    ]);
    shell::run(bench.args(args).env("PIPESTALL_BIN", pipestall))
}
