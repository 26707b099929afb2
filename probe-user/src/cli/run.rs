//! `pipestall run`

use std::{future::Future, path::PathBuf};

use anyhow::{Context as _, Result};

use super::observe::KernelArgs;
use crate::{
    agent::{
        Agent, Outputs,
        journal::Journal,
        printer::{Format, Printer},
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
    #[command(flatten)]
    kernel: KernelArgs,
}

/// Said with each kill on a machine whose registers do not tell a frozen writer from a blocked one.
const UNTRIED: &str = "enforcement has not been tried on aarch64";

/// Said with each kill that is not carried out because pids do not mean the same to both sides.
const OTHER_PIDS: &str =
    "this process is in a pid namespace of its own, so its pids are not the kernel's (run it with hostPID)";

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(args.kernel.kernel_log);
    let Config {
        observe,
        mut policy,
        state,
        webhooks,
        spool,
        warnings,
    } = Config::load(&args.config)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    policy.protect.pids = ancestry();

    let options = args.kernel.options(observe.filter);
    let mut kernel = Kernel::tracer(&options, policy.smallest_threshold())?;
    let (_, observer) = kernel.look()?;
    let unsupported = if cfg!(target_arch = "aarch64") {
        Some(UNTRIED)
    } else {
        (observer.tgid != std::process::id()).then_some(OTHER_PIDS)
    };
    if let Some(why) = unsupported
        && policy.rules.iter().any(|rule| rule.mode == Mode::Enforce)
    {
        log::warn!("nothing will be enforced: {why}");
    }
    raise_file_limit();

    let (journal, last) = Journal::open(&state.dir)?;
    let alerts = if webhooks.is_empty() {
        None
    } else {
        Some(Alerts::start(webhooks, spool, &state.dir, last)?)
    };
    let outputs = Outputs {
        journal: Some(journal),
        alerts,
        printer: Some(Printer::start(if args.json {
            Format::Json
        } else {
            Format::Text
        })),
        stamp: Stamp::after(last),
    };
    let settings = Settings {
        policy,
        refresh: None,
        unsupported,
    };
    block_on(Agent::new(kernel, settings, observe.channels, outputs).run(args.kernel.kernel_log))
}

/// Runs the agent's loop on this thread.
pub(super) fn block_on<T>(agent: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(agent)
}

/// Every process that is being ended takes a descriptor; an incident has hundreds.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
