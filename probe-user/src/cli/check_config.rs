//! `pipestall check-config`

use std::path::PathBuf;

use anyhow::Result;

use super::explain;
use crate::{config::Config, core::pace::NO_PRESSURE, probe::pressure};

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
    let mut lines = vec![config.summary()];
    if config.policy.asks_for_pressure() && pressure::cpu().is_none() {
        lines.push(format!("warning: on this machine, {NO_PRESSURE}"));
    }
    super::print(&(lines.join("\n") + "\n"))
}
