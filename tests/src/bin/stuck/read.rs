//! The reader: holds stdin open and reads it slowly, or never.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How to read.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Take this comm first.
    #[arg(long)]
    name: Option<String>,
    /// Never read, only hold the reading end.
    #[arg(long)]
    silent: bool,
    /// Bytes per read.
    #[arg(long, default_value_t = 64 << 10)]
    bytes: usize,
    /// Wait this long before each read.
    #[arg(long, value_parser = crate::duration, default_value = "0s", conflicts_with = "silent")]
    every: Duration,
    /// Be killed when the thread that started this process ends.
    #[arg(long)]
    die_with_parent: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.die_with_parent {
        crate::write::die_with_parent()?;
    }
    if let Some(name) = &options.name {
        crate::set_name(name)?;
    }
    if options.silent {
        crate::stay();
        return Ok(());
    }
    let mut buffer = vec![0; options.bytes];
    loop {
        if !options.every.is_zero() {
            thread::sleep(options.every);
        }
        // Rust's stdin would read ahead: what is asked for is what may leave the channel.
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("reading"),
        }
    }
}
