//! `pipestall replay`

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    config::Config,
    event::Stamp,
    recording::Recording,
    replay::{self, Outcome, Survey, plan},
};

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It needs no privileges and signals nothing. Rules in dry-run are shown as what they would do.
A SIGTERM is taken to change nothing if the rule's SIGKILL follows it. Between two recorded
looks only those writers count as stalled of which both looks prove it.")]
pub struct Args {
    /// The recording
    file: PathBuf,
    /// The configuration whose rules are run over it
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// Show only what this configuration would do differently
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    diff: Option<PathBuf>,
    /// Print events as JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(false);
    let name = args.file.display();
    let bytes = fs::read(&args.file).map_err(|error| anyhow!("cannot read the recording {name}: {error}"))?;
    let recording = Recording::open(&bytes).with_context(|| format!("cannot read the recording {name}"))?;
    let config = Config::load(&args.config)?;
    let other = args.diff.as_deref().map(Config::load).transpose()?;

    let survey = Survey::of(recording.clone());
    if let Some(loss) = survey.loss {
        tracing::warn!("{name}: {loss}; what comes before is replayed");
    }
    let outcome = |config: &Config| {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        if !survey.counts && !config.policy.windows().is_empty() {
            log::warn!(
                "{name} does not tell how long writers were blocked; no rule acts by its stalled_share"
            );
        }
        if config.policy.asks_for_pressure() {
            log::warn!(
                "{name} does not tell how starved the host was; unless_cpu_pressure_over holds nothing here"
            );
        }
        replay::run(recording.clone(), &survey, &config.observe, &config.policy)
    };
    let first = outcome(&config);
    if args.json {
        return print_events(&survey, &first);
    }
    let shown = match &other {
        Some(other) => plan::difference(&first, &outcome(other)),
        None => plan::show(&survey, &first, &config.policy),
    };
    super::print(&(plan::heading(&file_name(args), &survey) + &shown))
}

fn file_name(args: &Args) -> String {
    let name = args.file.file_name().unwrap_or(args.file.as_os_str());
    name.to_string_lossy().into_owned()
}

fn print_events(survey: &Survey, outcome: &Outcome) -> Result<()> {
    let mut stamp = Stamp::replayed(survey.header.node.clone());
    let mut lines = String::new();
    for (at, report) in &outcome.reports {
        let event = stamp.report_at(report, plan::time(survey, *at));
        lines += &serde_json::to_string(&event)?;
        lines.push('\n');
    }
    super::print(&lines)
}
