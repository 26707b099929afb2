//! `pipestall check-config`

use std::path::PathBuf;

use anyhow::Result;

use super::explain;
use crate::config::Config;

/// Arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; the *.toml files of a folder pipestall.d beside it are read too
    #[arg(default_value = crate::config::DEFAULT_PATH)]
    file: PathBuf,
    #[command(flatten)]
    explain: explain::Explain,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.file)?;
    if let Some(pid) = args.explain.explain {
        return super::print(&explain::as_text(&config, &explain::Process::by_pid(pid)?));
    }
    super::print(&format!("{}\n", config.summary()))
}
