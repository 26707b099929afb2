//! The incident: 534 stuck writers under one parent, found by an agent that starts after them.
//! How long from the moment the rule's condition holds until each is signalled, and until all are gone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use tests::config::Config;
use tests::crowd::Plan;
use tests::family::Family;
use tests::scratch::Scratch;
use tests::{binary, clock, wait};

use crate::report::{Report, Row};
use crate::turns::{median, percentile};
use crate::{Effort, limits};

/// How long all of it may take before the benchmark gives up: the threshold, and ten times the limit.
const PATIENCE: Duration = Duration::from_secs(25);

/// How often the journal is read meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const CONFIRMED: &str = "kill.confirmed";

/// What is read of an event here; `since_threshold_ms` is from the threshold to the exit,
/// `took_ms` from the first signal to the exit.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    took_ms: Option<f64>,
    since_threshold_ms: Option<f64>,
}

/// One incident: milliseconds from the threshold to the first signal and to the exit, of each writer.
#[derive(Debug, Default)]
struct Incident {
    to_signal: Vec<f64>,
    to_exit: Vec<f64>,
}

/// Ends 534 writers some times and reports the worst incident.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut incidents = Vec::new();
    for _ in 0..effort.of(3, 1) {
        report.progress("534 stuck writers, to be ended");
        incidents.push(incident()?);
    }
    let worst = |of: &dyn Fn(&Incident) -> f64| incidents.iter().map(of).fold(0.0, f64::max);
    report.add(Row::of(
        "534 stuck: threshold → signal, p50",
        worst(&|i| median(i.to_signal.clone())),
        "ms",
    ));
    report.add(
        Row::of(
            "  threshold → signal, p99",
            worst(&|i| percentile(i.to_signal.clone(), 99)),
            "ms",
        )
        .at_most(limits::SIGNAL_P99_MS),
    );
    report.add(
        Row::of(
            "  threshold → last confirmed exit",
            worst(&|i| percentile(i.to_exit.clone(), 100)),
            "ms",
        )
        .at_most(limits::LAST_EXIT_MS),
    );
    Ok(())
}

fn incident() -> Result<Incident> {
    let scratch = Scratch::new();
    let crowd = Plan::stuck(usize::try_from(limits::STUCK_WRITERS)?).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("3s")
        .grace("10s")
        .action("kill");
    // Nobody but the agent has work meanwhile: its journal is read now and then, parsed at the end.
    let mut command = Command::new(binary::pipestall());
    command.args(["run", "--config"]).arg(config.file(&scratch));
    let mut agent = Family::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let journal = config.journal();
    let end = clock::mono() + PATIENCE;
    while count(&journal, CONFIRMED) < limits::STUCK_WRITERS {
        ensure!(
            clock::mono() < end && agent.exited(LOOK_EVERY).is_none(),
            "only {} of {} writers are confirmed dead after {PATIENCE:?}, or `pipestall run` has ended",
            count(&journal, CONFIRMED),
            limits::STUCK_WRITERS
        );
    }
    agent.signal(Signal::INT);
    ensure!(
        agent.exited(wait::PATIENCE).is_some(),
        "`pipestall run` does not end by SIGINT"
    );
    let mut incident = Incident::default();
    for line in lines(&journal)? {
        if line.kind != CONFIRMED {
            continue;
        }
        let exit = line
            .since_threshold_ms
            .context("kill.confirmed without since_threshold_ms")?;
        incident
            .to_signal
            .push(exit - line.took_ms.context("kill.confirmed without took_ms")?);
        incident.to_exit.push(exit);
    }
    Ok(incident)
}

fn lines(journal: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(journal).with_context(|| format!("{}", journal.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// Counts events of a kind without parsing what may still be written.
pub(crate) fn count(journal: &Path, kind: &str) -> u32 {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let found = text.matches(&format!("\"type\":\"{kind}\"")).count();
    u32::try_from(found).unwrap_or(u32::MAX)
}
