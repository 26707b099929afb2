//! Many threads that sleep and write nothing: what most tasks of any machine are.

use std::thread;

use anyhow::{Context, Result};

use crate::helper;

/// A thread that only parks needs next to nothing; the kernel's minimum is `PTHREAD_STACK_MIN`.
const STACK: usize = 16 << 10;

/// How many, under which name.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of threads.
    count: u32,
    /// The comm to take.
    name: String,
}

/// Starts the threads, prints `ready` and stays.
pub(crate) fn run(options: &Options) -> Result<()> {
    helper::begin(&options.name)?;
    for number in 0..options.count {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(helper::rest)
            .with_context(|| format!("thread {number}"))?;
    }
    helper::stay()
}
