//! One look at 10,000 threads, as the agent takes it: from opening the iterator to decoded records.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use probe_ebpf::pattern::CommFilter;
use probe_user::probe::kernel::{Kernel, Options};
use tests::family::Family;
use tests::{binary, clock, names};

use crate::report::{Report, Row};
use crate::{Effort, limits, turns};

/// Scans threads that are all stuck, then threads that only pass the filter, then ones that do not.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let count = limits::SCANNED_THREADS;
    let name = names::unique("many");
    let looks = effort.of(200, 10);

    report.progress("scans of 10,000 stuck writers");
    let mut stuck = Command::new(binary::stuck());
    stuck.args([
        "threads",
        &count.to_string(),
        "--name",
        &name,
        "--die-with-parent",
    ]);
    let stuck = start(&mut stuck)?;
    let times = scans(&name, count, looks)?;
    report.add(row("scan of 10,000 threads, all stuck", times));
    drop(stuck);

    report.progress("scans of 10,000 sleeping threads");
    let mut sleepers = Command::new(env::current_exe()?);
    sleepers.args(["sleepers", &count.to_string(), &name]);
    let sleepers = start(&mut sleepers)?;
    let times = scans(&name, 0, looks)?;
    report.add(row("  none writing", times));
    let times = scans("no-such-command", 0, looks)?;
    report.add(row("  none of the filter's", times));
    drop(sleepers);
    Ok(())
}

fn row(name: &str, times: Vec<f64>) -> Row {
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    Row::of(name, fastest, "ms")
        .with_median(turns::median(times))
        .at_most(limits::SCAN_MS)
}

/// Starts a process with many threads and waits until it says that they are as they should be.
pub(crate) fn start(command: &mut Command) -> Result<Family> {
    let mut family = Family::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let stdout = family.child().stdout.take().context("stdout is piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(
        line.trim_end() == "ready",
        "{command:?} is not ready but says {line:?}"
    );
    Ok(family)
}

/// Takes so many looks for one command, each of which has to find exactly so many writers.
fn scans(name: &str, expected: u32, looks: u32) -> Result<Vec<f64>> {
    let filter = CommFilter::parse([name]).map_err(|(_, error)| anyhow!("{name} {}", error.as_str()))?;
    let mut kernel = Kernel::scanner(&Options::new(filter))?;
    let mut times = Vec::new();
    for _ in 0..looks {
        let before = clock::mono();
        let (look, _) = kernel.look()?;
        let took = clock::lapse(before, clock::mono());
        let found = look.sightings.len();
        ensure!(
            u32::try_from(found) == Ok(expected),
            "a scan found {found} stuck writers, not {expected}"
        );
        times.push(milliseconds(took));
    }
    Ok(times)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
