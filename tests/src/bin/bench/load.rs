//! What `run` takes with 10,000 stalled writers, quiet and in a storm of short blocks, and whether
//! it still decides in time.

use std::env;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::agent::Agent;
use tests::config::Config;
use tests::family::Family;
use tests::scratch::Scratch;
use tests::{binary, clock, names, proc};

use crate::memory::mebibytes;
use crate::report::{Report, Row};
use crate::{Effort, idle, incident, limits, scan, storm};

/// For the agent to find and decide on all of them, and for a machine that is busy with them.
const PATIENCE: Duration = Duration::from_mins(2);
const SETTLE: Duration = Duration::from_secs(10);
const STALLED_FOR: Duration = Duration::from_secs(5);
/// Writers that stall in the storm.
const LATECOMERS: usize = 5;

/// Measures CPU and memory, first in quiet, then in the storm.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let count = limits::SCANNED_THREADS;
    let name = names::unique("many");
    report.progress("10,000 stalled writers");
    let stuck = threads(count, &name)?;
    let scratch = Scratch::new();
    let parent = proc::comm(process::id()).context("this process has a name")?;
    // In dry-run: it decides on each, and signals nobody.
    let config = Config::new(&name, &parent, &scratch.path("state"))
        .stalled_for("5s")
        .report_after("5s");
    let mut agent = Agent::run(&config, &scratch);
    let mut decided = 0;
    let all = tests::wait::until_or_none(PATIENCE, || {
        // By the journal: standard output may lose what comes all at once.
        decided = incident::count(&config.journal(), "kill.skipped");
        (decided >= count).then_some(())
    });
    all.with_context(|| format!("only {decided} of {count} writers were decided on"))?;
    thread::sleep(SETTLE);

    let quiet = cpu_over(&agent, Duration::from_secs(effort.of(30, 10).into()))?;
    report.add(Row::of("10,000 stalled: of one core, quiet", quiet, "%").at_most(limits::QUIET_PERCENT));

    report.progress("10,000 stalled writers, and a storm");
    let mut storm = Command::new(env::current_exe()?);
    // A little more, as some beats are late.
    let aim = limits::STORM_BLOCKS + limits::STORM_BLOCKS / 20;
    storm.args(["storm", &aim.to_string(), &name]);
    let storm = scan::start(&mut storm)?;
    let blocks = || storm::blocks(storm.pid());
    let (start, before) = (clock::mono(), blocks());
    // A third of the storm goes by before they stall, and two thirds while they do.
    let third = Duration::from_secs(effort.of(20, 7).into());
    let alone = cpu_over(&agent, third)?;
    let late = threads(u32::try_from(LATECOMERS)?, &name)?;
    let busy = (alone + 2.0 * cpu_over(&agent, 2 * third)?) / 3.0;
    let lapse = clock::lapse(start, clock::mono()).as_secs_f64();
    let rate = f64::from(u32::try_from(blocks() - before)?) / lapse - storm::waits_a_second()?;
    let wanted = f64::from(limits::STORM_BLOCKS);
    report.add(Row::of("  blocks a second in the storm", rate, "/s").at_least(wanted));
    report.add(Row::of("  of one core, in the storm", busy, "%").at_most(limits::STORM_PERCENT));

    let mut latest: f64 = 0.0;
    for tid in proc::tids(late.pid())
        .into_iter()
        .filter(|tid| *tid != late.pid())
    {
        let seen = agent.await_event("kill.skipped", |event| {
            event.stall.as_ref().is_some_and(|stall| stall.tid == tid)
        });
        latest = latest.max((seen.age() - STALLED_FOR.as_secs_f64()) * 1e3);
    }
    report.add(Row::of("  a decision in it, late by at most", latest, "ms").at_most(limits::STORM_LATE_MS));
    let resident = mebibytes(agent.pid(), "status", "VmRSS:")?;
    let peak = mebibytes(agent.pid(), "status", "VmHWM:")?;
    report.add(Row::of("  resident memory", resident, "MiB").at_most(limits::LOADED_MIB));
    report.add(Row::of("  its peak (VmHWM)", peak, "MiB"));
    drop((storm, late, stuck));
    agent.stop();
    Ok(())
}

/// Starts so many threads, each blocked on a full pipe of its own.
pub(crate) fn threads(count: u32, name: &str) -> Result<Family> {
    let mut stuck = Command::new(binary::stuck());
    stuck.args(["threads", &count.to_string(), "--name", name, "--die-with-parent"]);
    scan::start(&mut stuck)
}

/// Percent of one core.
fn cpu_over(agent: &Agent, span: Duration) -> Result<f64> {
    let (start, before) = (clock::mono(), idle::on_cpu(agent.pid())?);
    thread::sleep(span);
    let (end, after) = (clock::mono(), idle::on_cpu(agent.pid())?);
    let lapse = clock::lapse(start, end).as_secs_f64();
    Ok(clock::lapse(before, after).as_secs_f64() / lapse * 100.0)
}
