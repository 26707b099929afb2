//! Builds the program and starts it. Knows no more of it than its name.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{setup, shell, toolchain};

/// Which of cargo's profiles to build with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds `pipestall` and returns its path.
pub(crate) fn pipestall(profile: Profile) -> Result<PathBuf> {
    build(&["--package", "probe-user"], profile)
}

/// Builds the programs that tests and the benchmark start, beside `pipestall`.
pub(crate) fn helpers(profile: Profile) -> Result<()> {
    build(&["--package", "tests"], profile).map(drop)
}

/// Builds all programs of the workspace, the tests' helpers too, and returns the path of `pipestall`.
pub(crate) fn everything(profile: Profile) -> Result<PathBuf> {
    build(&["--workspace"], profile)
}

fn build(packages: &[&str], profile: Profile) -> Result<PathBuf> {
    setup::toolchain()?;
    let (flags, folder): (&[&str], _) = match profile {
        Profile::Dev => (&[], "debug"),
        Profile::Release => (&["--release"], "release"),
    };
    shell::run(shell::cargo(&["build", "--bins"]).args(packages).args(flags))?;
    Ok(shell::target_dir()?.join(folder).join("pipestall"))
}

/// Builds the program and becomes it; returns only if that fails.
pub(crate) fn run(args: &[String]) -> anyhow::Error {
    match pipestall(Profile::Release) {
        Ok(program) => {
            let error = with_privileges(&program).args(args).exec();
            anyhow::Error::new(error).context(format!("cannot run {}", program.display()))
        }
        Err(error) => error,
    }
}

/// A command that runs `program` as root if there is a way to.
pub(crate) fn with_privileges(program: &Path) -> Command {
    if shell::is_root() || toolchain::on_path("sudo").is_none() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(program);
    sudo
}
