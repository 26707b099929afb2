//! `pipestall manual`: man pages and completions, for packages.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

use super::Cli;

/// Arguments of `manual`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to: the man pages go to its folder man
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let context = || format!("cannot write to {}", args.dir.display());
    let man = args.dir.join("man");
    fs::create_dir_all(&man).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), &man).with_context(context)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "pipestall", &args.dir).with_context(context)?;
    }
    Ok(())
}
