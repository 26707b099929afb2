//! Who should read, for all stalled writers at once, on a host with 1,000 processes and more:
//! one walk over all open files, and what those who were found do.

use std::io::pipe;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, ensure};
use probe_ebpf::pattern::CommFilter;
use probe_user::core::model::Channel;
use probe_user::probe::kernel::{Kernel, Options};
use probe_user::probe::readers::{OpenFiles, People};
use tests::crowd::Plan;
use tests::family::Family;
use tests::{binary, clock, names, wait};

use crate::report::{Report, Row};
use crate::{Effort, limits, turns};

/// Writers under one parent that should read them all, and then pairs of writer and reader.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let passes = effort.of(20, 5);

    report.progress("1,000 stuck writers and their reader");
    let crowd = Plan::stuck(limits::READER_WRITERS).start();
    let name = crowd.writer_name().to_owned();
    let (fast, slow) = passes_of(&name, limits::READER_WRITERS, 1, passes)?;
    report.add(row("readers of 1,000 stuck: one pass", fast).at_most(limits::READERS_MS));
    report.add(row("  by a walk through /proc instead", slow));
    drop(crowd);

    report.progress("500 stuck writers, each with a reader");
    let (name, pairs) = pairs(limits::READER_PAIRS)?;
    let (fast, slow) = passes_of(&name, limits::READER_PAIRS, limits::READER_PAIRS, passes)?;
    report.add(row("  of 500, each with one of its own", fast).at_most(limits::READERS_MS));
    report.add(row("  by a walk through /proc instead", slow));
    drop(pairs);
    Ok(())
}

fn row(name: &str, times: Vec<f64>) -> Row {
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    Row::of(name, fastest, "ms").with_median(turns::median(times))
}

/// Times passes through the kernel and through `/proc`; each has to find everybody.
fn passes_of(name: &str, writers: usize, readers: usize, passes: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let filter = CommFilter::parse([name]).map_err(|(_, error)| anyhow!("{name} {}", error.as_str()))?;
    let mut kernel = Kernel::scanner(&Options::new(filter))?;
    let mut channels = Vec::new();
    wait::until_or_none(wait::PATIENCE * 4, || {
        let (look, _) = kernel.look().ok()?;
        channels = look.sightings.iter().map(|sighting| sighting.channel).collect();
        (channels.len() == writers).then_some(())
    });
    ensure!(channels.len() == writers, "{} writers are stuck", channels.len());
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..passes {
        let before = clock::mono();
        let files = kernel.open_files()?;
        fast.push(finish(&files, &channels, readers, before)?);
        let before = clock::mono();
        let files = OpenFiles::from_proc();
        slow.push(finish(&files, &channels, readers, before)?);
    }
    Ok((fast, slow))
}

fn finish(
    files: &OpenFiles,
    channels: &[Channel],
    readers: usize,
    before: std::time::Duration,
) -> Result<f64> {
    let found = files.readership(channels, &mut People::default());
    let took = clock::lapse(before, clock::mono());
    let read = found.ends.values().filter(|ends| !ends.is_empty()).count();
    ensure!(
        read == channels.len(),
        "readers of {read} of {} were found",
        channels.len()
    );
    ensure!(
        found.people.len() == readers,
        "{} readers were found",
        found.people.len()
    );
    Ok(took.as_secs_f64() * 1e3)
}

/// Starts writers, each with a sleeping process that should read.
fn pairs(count: usize) -> Result<(String, Vec<Family>)> {
    let name = names::unique("pair");
    let mut families = Vec::new();
    for _ in 0..count {
        let (rx, tx) = pipe()?;
        families.push(Family::start(Command::new("sleep").arg("600").stdin(rx)));
        let mut writer = Command::new(binary::stuck());
        writer
            .args(["write", "--name", &name])
            .stdin(Stdio::null())
            .stdout(tx);
        families.push(Family::start(&mut writer));
    }
    Ok((name, families))
}
