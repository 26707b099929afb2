//! `pipestall run`

use std::{future::Future, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{
    log,
    observe::{KernelArgs, WriteArgs},
};
use crate::{
    agent::{
        Agent, Outputs, control,
        hub::Hub,
        journal::Journal,
        printer::{Format, Printer},
        privilege,
        reload::Origin,
        serve::Sockets,
    },
    alert::Alerts,
    config::Config,
    core::{machine::Settings, rule::Mode},
    event::Stamp,
    probe::{kernel::Kernel, process::ancestry},
};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Rules only say what they would do until they say mode = \"enforce\". Every event goes to
journal.ndjson in [state] dir (/var/lib/pipestall) and to standard output. Try a
configuration first:

  pipestall check-config pipestall.toml      what it would do, or what is wrong with it
  pipestall ps --explain PID                 why a rule does or does not match a process
  pipestall record FILE, replay FILE         what it would have done yesterday")]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print events as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Do not print events: the journal and the API have them
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    /// How to log on standard error, where that is not the system's journal
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: log::Format,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    writes: WriteArgs,
}

/// Said with each kill that is not carried out because pids do not mean the same to both sides.
const OTHER_PIDS: &str =
    "this process is in a pid namespace of its own, so its pids are not the kernel's (run it with hostPID)";

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init_service(args.kernel.kernel_log, args.log_format);
    let config = Config::load(&args.config)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let Config {
        observe,
        mut policy,
        state,
        api,
        metrics,
        webhooks,
        spool,
        ..
    } = config;
    policy.protect.pids = ancestry();

    let mut options = args.writes.choose(args.kernel.options(observe.filter))?;
    options.count_blocked = !policy.windows().is_empty();
    let notify_after = policy.smallest_threshold();
    let mut kernel = Kernel::tracer(&options, notify_after)?;
    let (journal, last) = Journal::open(&state.dir, (&state).into())?;
    let sockets = Sockets::bind(api.as_ref(), metrics.as_ref())?;
    // Before there is any other thread: what is dropped, is dropped of one.
    let observer = privilege::drop_rest(&mut kernel)?;
    let unsupported = (observer.tgid != std::process::id()).then_some(OTHER_PIDS);
    if let Some(why) = unsupported
        && policy.rules.iter().any(|rule| rule.mode == Mode::Enforce)
    {
        tracing::warn!("nothing will be enforced: {why}");
    }
    let hub = Hub::default();
    let (control, requests) = control::channel();
    let alerts = if webhooks.is_empty() {
        None
    } else {
        Some(Alerts::start(webhooks.clone(), spool, &state.dir, last)?)
    };
    let handle = alerts.as_ref().map(Alerts::handle);
    let _serving = sockets.serve(control, hub.clone(), state.dir.clone(), handle)?;
    let format = if args.json { Format::Json } else { Format::Text };
    let printer = (!args.quiet).then(|| Printer::start(format));
    let outputs = Outputs::new(Some(journal), printer, hub, Stamp::after(last)).telling(alerts);
    let settings = Settings {
        policy,
        refresh: None,
        unsupported,
    };
    let origin = Origin {
        path: args.config.clone(),
        options,
        notify_after,
        api,
        metrics,
        state,
    };
    let agent =
        Agent::new(kernel, settings, observe.channels, outputs).serving(requests, origin, observe.comm);
    block_on(agent.run(args.kernel.kernel_log))
}

/// Runs the agent's loop on this thread.
pub(super) fn block_on<T>(agent: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(agent)
}
