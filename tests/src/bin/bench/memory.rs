//! What `run` occupies while it keeps 534 stalls that its rule only talks about.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::agent::Agent;
use tests::config::Config;
use tests::crowd::Plan;
use tests::scratch::Scratch;

use crate::limits;
use crate::report::{Report, Row};

/// After the last decision: a look or two later, and what was only needed for deciding is free.
const SETTLE: Duration = Duration::from_secs(3);

/// Reads what the kernel says of the agent's memory.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    report.progress("memory with 534 stalls");
    let scratch = Scratch::new();
    let writers = limits::STUCK_WRITERS;
    let crowd = Plan::stuck(usize::try_from(writers)?).start();
    let config = Config::of(&crowd, &scratch).stalled_for("2s");
    let mut agent = Agent::run(&config, &scratch);
    for pid in crowd.stuck() {
        agent.await_event("kill.skipped", |event| event.is_of(pid));
    }
    thread::sleep(SETTLE);
    let resident = mebibytes(agent.pid(), "status", "VmRSS:")?;
    let peak = mebibytes(agent.pid(), "status", "VmHWM:")?;
    let own = mebibytes(agent.pid(), "smaps_rollup", "Pss:")?;
    agent.stop();
    report.add(Row::of("resident memory with 534 stalls", resident, "MiB").at_most(limits::RESIDENT_MIB));
    report.add(Row::of("  its share (Pss)", own, "MiB"));
    report.add(Row::of("  its peak (VmHWM)", peak, "MiB"));
    Ok(())
}

/// A field of what the kernel says of a process.
pub(crate) fn mebibytes(pid: u32, file: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u32>().ok());
    let kib = kib.with_context(|| format!("no {field} in /proc/{pid}/{file}"))?;
    Ok(f64::from(kib) / 1024.0)
}
