//! The Debian package: the program, its manual as it writes it, and what `deploy/` has.

use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::{setup, shell};

/// Builds everything and packs it; cargo-deb prints where.
pub(crate) fn run() -> Result<()> {
    let pipestall = build::pipestall(Profile::Release)?;
    let manual = shell::root().join("target/manual");
    shell::run(Command::new(pipestall).arg("manual").arg(manual))?;
    let tool = setup::cargo_tool(setup::CARGO_DEB, setup::CARGO_DEB_VERSION)?;
    shell::run(
        Command::new(tool)
            .current_dir(shell::root())
            .args(["--package", "probe-user", "--no-build"]),
    )
}
