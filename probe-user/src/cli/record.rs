//! `pipestall record`

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::{
    observe::{Commands, KernelArgs, TracerArgs, duration},
    run::block_on,
    text,
};
use crate::{
    core::machine::IDENTIFY_AFTER,
    probe::kernel::Kernel,
    recorder::{Recorder, clocks},
    recording::Header,
};

/// Arguments of `record`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file holds command lines and names of users, and no kernel addresses. Whatever ends the
recorder, what it wrote up to its last look can be replayed.")]
pub struct Args {
    /// Where to keep what is seen
    file: PathBuf,
    /// Overwrite the file if there is one
    #[arg(long)]
    force: bool,
    /// Time between two looks, 10 ms at least
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = pace)]
    every: Duration,
    #[command(flatten)]
    commands: Commands,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    tracer: TracerArgs,
}

fn pace(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if every < Duration::from_millis(10) {
        return Err("too short; at least 10ms".to_owned());
    }
    Ok(every)
}

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(args.kernel.kernel_log);
    // Before the kernel is asked for anything, and again when the file is made.
    if !args.force && args.file.symlink_metadata().is_ok() {
        return Err(exists(&args.file));
    }
    let mut options = args.tracer.choose(args.kernel.options(args.commands.filter()?));
    // Some rule may ask for it.
    options.count_blocked = true;
    let kernel = Kernel::tracer(&options, args.every.min(IDENTIFY_AFTER))?;
    let file = create(&args.file, args.force)?;
    let system = rustix::system::uname();
    let header = Header {
        node: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        comm: args.commands.names(),
        began: clocks(),
    };
    let recorder = Recorder::begin(kernel, file, &args.file, &header)?;
    let summary = block_on(recorder.run(args.every))?;
    super::print(&format!(
        "{}: looks {}, writers {}, bytes {} ({})\n",
        args.file.display(),
        summary.looks,
        summary.writers,
        summary.bytes,
        text::size(summary.bytes)
    ))
}

/// Only its owner may read it: command lines can hold what others should not know.
fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return exists(path);
        }
        anyhow!("cannot create the recording {}: {error}", path.display())
    })
}

fn exists(path: &Path) -> anyhow::Error {
    anyhow!("{} exists; --force overwrites it", path.display())
}
