//! The arguments that all observing commands share.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use probe_ebpf::pattern::{CommFilter, CommPattern};

use crate::probe::kernel::{KERNEL_BTF, Options, tracer::Tracer};

/// Which processes to look at.
#[derive(Debug, Args)]
pub struct Commands {
    /// Commands to look at: an exact name or a prefix such as 'ffmpeg*'; may be given often
    #[arg(long, value_name = "GLOB", default_value = "ffmpeg*", value_parser = pattern)]
    comm: Vec<String>,
    /// Look at every command
    #[arg(long, conflicts_with = "comm")]
    all: bool,
}

impl Commands {
    /// The commands as they were written; `*` is every one.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        if self.all {
            vec!["*".to_owned()]
        } else {
            self.comm.clone()
        }
    }

    /// The filter for the kernel side.
    ///
    /// # Errors
    /// More patterns than it can hold.
    pub fn filter(&self) -> anyhow::Result<CommFilter> {
        let patterns = self.names();
        CommFilter::parse(patterns.iter().map(String::as_str))
            .map_err(|(i, error)| super::Usage(format!("--comm '{}' {}", patterns[i], error.as_str())).into())
    }
}

/// How to reach the kernel.
#[derive(Debug, Args)]
pub struct KernelArgs {
    /// The kernel's type information
    #[arg(long, value_name = "FILE", default_value = KERNEL_BTF)]
    pub btf: PathBuf,
    /// Print what the kernel programs log, on standard error
    #[arg(long)]
    pub kernel_log: bool,
}

impl KernelArgs {
    /// What to load.
    #[must_use]
    pub fn options(&self, filter: CommFilter) -> Options {
        Options {
            btf: self.btf.clone(),
            kernel_log: self.kernel_log,
            ..Options::new(filter)
        }
    }
}

/// How to follow writers between looks.
#[derive(Debug, Args)]
pub struct TracerArgs {
    /// How to follow writers between looks; auto is the first of the others that this kernel takes
    #[arg(long, value_name = "TRACER", value_enum, default_value_t)]
    tracer: Choice,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Choice {
    #[default]
    Auto,
    /// By their sleeps: nothing on the write path
    Sched,
    /// By the functions that write, at their entry and exit
    Fentry,
    /// The same, through breakpoints
    Kprobe,
    /// Not at all: looks alone
    Scan,
}

impl TracerArgs {
    /// The same options with the choice in them.
    #[must_use]
    pub fn choose(&self, options: Options) -> Options {
        let tracer = match self.tracer {
            Choice::Auto => None,
            Choice::Sched => Some(Tracer::Sched),
            Choice::Fentry => Some(Tracer::Fentry),
            Choice::Kprobe => Some(Tracer::Kprobe),
            Choice::Scan => Some(Tracer::Scan),
        };
        Options { tracer, ..options }
    }
}

/// How to follow writers, and whether to count each write.
#[derive(Debug, Args)]
pub struct WriteArgs {
    #[command(flatten)]
    tracer: TracerArgs,
    /// Count the bytes and the time of each write, by fentry or kprobe, so that every write of these
    /// commands costs more: `watch` tells them by channel at its end, `run` in its metrics
    #[arg(long)]
    trace_writes: bool,
}

impl WriteArgs {
    /// The same options with the choice in them.
    ///
    /// # Errors
    /// The tracer that was chosen does not see each write.
    pub fn choose(&self, options: Options) -> anyhow::Result<Options> {
        let mut options = self.tracer.choose(options);
        options.trace_writes = self.trace_writes;
        match options.tracer {
            Some(tracer) if self.trace_writes && !tracer.is_by_function() => Err(super::Usage(format!(
                "--trace-writes takes --tracer fentry or kprobe: {tracer} does not see writes that do not sleep"
            ))
            .into()),
            _ => Ok(options),
        }
    }
}

/// Parses a duration such as `500ms`, `5s` or `1m 30s`.
///
/// # Errors
/// It is none, or it is negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .ok_or_else(|| "not a duration; write it as 500ms, 5s or '1m 30s'".to_owned())
}

fn pattern(text: &str) -> Result<String, String> {
    CommPattern::parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("it {}", error.as_str()))
}
