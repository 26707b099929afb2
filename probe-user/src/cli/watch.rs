//! `pipestall watch`

use std::time::Duration;

use anyhow::Result;

use super::{
    observe::{Commands, KernelArgs, WriteArgs, duration},
    run::block_on,
};
use crate::{
    agent::{
        Agent, Outputs,
        hub::Hub,
        printer::{Format, Printer},
    },
    core::{machine::Settings, model::ChannelKind, rule::Policy},
    event::Stamp,
    probe::kernel::Kernel,
};

/// How often `watch` looks, stalls or not.
const REFRESH: Duration = Duration::from_secs(1);

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Report stalls from this age on
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = duration)]
    min: Duration,
    #[command(flatten)]
    commands: Commands,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    writes: WriteArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(args.kernel.kernel_log);
    let options = args.writes.choose(args.kernel.options(args.commands.filter()?))?;
    let kernel = Kernel::tracer(&options, args.min)?;
    let settings = Settings {
        policy: Policy {
            report_after: args.min,
            ..Policy::default()
        },
        refresh: Some(REFRESH),
        unsupported: None,
    };
    let printer = Printer::start(if args.json { Format::Json } else { Format::Text });
    let outputs = Outputs::new(None, Some(printer), Hub::default(), Stamp::after(0));
    let channels = vec![ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix];
    block_on(Agent::new(kernel, settings, channels, outputs).run(args.kernel.kernel_log))
}
