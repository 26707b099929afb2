//! An agent that works for long: writers stall and are ended, clients come and go, the
//! configuration is reloaded, over and over. What it occupies must not grow.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::agent::Agent;
use tests::api::Api;
use tests::config::Config;
use tests::crowd::Plan;
use tests::scratch::Scratch;
use tests::{clock, names, wait};

use crate::memory::mebibytes;
use crate::report::{Report, Row};
use crate::{Effort, limits};

const STUCK: usize = 20;
const HEALTHY: usize = 5;
const PATIENCE: Duration = Duration::from_mins(1);
/// Cycles in which caches fill, which are not compared with.
const WARM_UP: usize = 5;

/// What the agent occupies at rest, after a cycle.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: f64,
    resident: f64,
    descriptors: usize,
    tracked: u64,
}

/// Works for ten minutes, or one, and compares the end with the beginning.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let span = Duration::from_secs(effort.of(600, 60).into());
    let scratch = Scratch::new();
    let (writer, parent) = (names::unique("soak"), names::unique("par"));
    let config = Config::new(&writer, &parent, &scratch.path("state"))
        .served(&scratch, "")
        .keeping("rotate_mib = 1\nkeep_files = 3")
        .enforcing()
        .stalled_for("1s")
        .grace("1s");
    let file = config.file(&scratch);
    let mut command = std::process::Command::new(tests::binary::pipestall());
    // Who reads events here is the API's client: standard output would fill this process instead.
    command.args(["run", "--json", "--config"]).arg(&file);
    let agent = Agent::start(&mut command);
    let api = Api::at(&Config::socket(&scratch));
    let begun = clock::mono();
    let mut samples: Vec<Sample> = Vec::new();
    while clock::lapse(begun, clock::mono()) < span {
        report.progress(&format!("soak, cycle {}", samples.len() + 1));
        cycle(&api, &writer, &parent)?;
        let status = wait::until("rest", PATIENCE, || {
            let status = status(&api)?;
            (status["stalled"] == 0 && status["kills_under_way"] == 0).then_some(status)
        });
        samples.push(Sample {
            at: clock::lapse(begun, clock::mono()).as_secs_f64(),
            resident: mebibytes(agent.pid(), "status", "VmRSS:")?,
            descriptors: fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count(),
            tracked: status["looks"]["tracked"].as_u64().context("tracked entries")?,
        });
    }
    agent.stop();
    let steady = samples.get(WARM_UP..).unwrap_or_default();
    ensure!(steady.len() >= 4, "only {} cycles", samples.len());
    let slope = slope(
        &steady
            .iter()
            .map(|s| (s.at / 3600.0, s.resident))
            .collect::<Vec<_>>(),
    );
    let first = steady[0];
    let most = |of: fn(&Sample) -> u64| steady.iter().map(of).max().unwrap_or_default();
    let cycles = u32::try_from(samples.len())?;
    report.add(Row::of("soak: cycles of 20 kills", f64::from(cycles), ""));
    report.add(Row::of(
        "  resident memory at the end",
        samples[samples.len() - 1].resident,
        "MiB",
    ));
    report.add(Row::of("  its slope", slope, "MiB/h").at_most(limits::SOAK_MIB_AN_HOUR));
    let descriptors = most(|s| s.descriptors as u64) - first.descriptors.min(1 << 20) as u64;
    report.add(
        Row::of(
            "  more descriptors at rest",
            f64::from(u32::try_from(descriptors)?),
            "",
        )
        .at_most(0.0),
    );
    let tracked = most(|s| s.tracked);
    report.add(
        Row::of(
            "  entries in the tracer's table at rest",
            f64::from(u32::try_from(tracked)?),
            "",
        )
        .at_most(0.0),
    );
    Ok(())
}

/// One round of everything.
fn cycle(api: &Api, writer: &str, parent: &str) -> Result<()> {
    let mut crowd = Plan::stuck(STUCK)
        .and_healthy(HEALTHY)
        .writers_named(writer)
        .named(parent)
        .start();
    {
        // A client that reads some and goes.
        let mut events = api.events("?after=0");
        let _ = events.next(Duration::from_millis(100));
    }
    let reloaded = api.post("/v1/reload", "");
    ensure!(reloaded.status == 200, "{}", reloaded.body);
    for pid in crowd.stuck() {
        crowd.await_exit(pid);
    }
    for pid in crowd.healthy() {
        ensure!(crowd.exit(pid).is_none(), "a healthy writer was ended");
    }
    Ok(())
}

fn status(api: &Api) -> Option<Value> {
    let answer = api.get("/v1/status");
    (answer.status == 200).then(|| answer.json(200))
}

/// The slope of the line that fits best.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.iter().fold(0.0, |count, _| count + 1.0);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    over / under
}
