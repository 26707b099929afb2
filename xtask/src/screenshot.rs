//! Has the README's picture taken anew, by a program of the package `tests`. Knows nothing of what it shows.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::shell;

/// Where the README expects it.
const PICTURE: &str = "probe-user/top.svg";

/// Builds everything, and takes the picture of the program as it runs.
pub(crate) fn run() -> Result<()> {
    let pipestall = build::everything(Profile::Dev)?;
    let mut screenshot = shell::cargo(&[
        "run",
        "--quiet",
        "--package",
        "tests",
        "--bin",
        "screenshot",
        "--",
    ]);
    shell::run(screenshot.arg(PICTURE).env("PIPESTALL_BIN", pipestall))
}
