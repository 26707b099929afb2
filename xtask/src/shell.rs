//! Runs other programs, and turns their failure into one clear error. Knows no task.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The cargo that runs this task, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Runs it to its end; the error names the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", describe(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", describe(command));
    Ok(())
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where this build's programs are: the folder that holds `debug` and `release`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let this = env::current_exe().context("cannot tell where xtask runs from")?;
    let target = this
        .ancestors()
        .nth(2)
        .context("xtask does not run from cargo's target directory")?;
    Ok(target.to_owned())
}

/// Whether this process may install packages and load kernel programs.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The time now, to measure how long something takes.
#[expect(clippy::disallowed_methods, reason = "tasks are not on the kernel's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
