//! What `run` uses of a CPU while nothing is stalled.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::agent::Agent;
use tests::config::Config;
use tests::scratch::Scratch;
use tests::{clock, names, proc};

use crate::report::{Report, Row};
use crate::{Effort, limits};

/// After the start, which takes CPU of its own.
const SETTLE: Duration = Duration::from_secs(2);

/// Runs the agent with the thresholds of the documented example, and waits.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let span = Duration::from_secs(effort.of(30, 10).into());
    report.progress("an idle agent");
    let scratch = Scratch::new();
    let config = Config::new("ffmpeg*", &names::unique("none"), &scratch.path("state"))
        .stalled_for("60s")
        .report_after("5s");
    let agent = Agent::run(&config, &scratch);
    thread::sleep(SETTLE);
    let (start, before, wakes_before) = (clock::mono(), on_cpu(agent.pid())?, wakes(agent.pid()));
    thread::sleep(span);
    let (end, after, wakes_after) = (clock::mono(), on_cpu(agent.pid())?, wakes(agent.pid()));
    agent.stop();
    let lapse = clock::lapse(start, end).as_secs_f64();
    let percent = clock::lapse(before, after).as_secs_f64() / lapse * 100.0;
    let wakes = u32::try_from(wakes_after.saturating_sub(wakes_before))?;
    report.add(Row::of("idle run, of one core", percent, "%").at_most(limits::IDLE_PERCENT));
    report.add(Row::of("  wake-ups a second", f64::from(wakes) / lapse, "/s"));
    Ok(())
}

/// The time that all threads of a process have run, to the nanosecond (Documentation/scheduler/sched-stats.rst).
pub(crate) fn on_cpu(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for tid in proc::tids(pid) {
        let path = format!("/proc/{pid}/task/{tid}/schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let nanos = text
            .split(' ')
            .next()
            .and_then(|first| first.parse().ok())
            .context(path)?;
        sum += Duration::from_nanos(nanos);
    }
    Ok(sum)
}

fn wakes(pid: u32) -> u64 {
    proc::tids(pid)
        .into_iter()
        .filter_map(|tid| proc::switches(pid, tid))
        .map(|(voluntary, _)| voluntary)
        .sum()
}
