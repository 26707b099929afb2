//! A pipe that has room: what nearly every write in the world is, and what pipestall must not touch.

use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::report::{Report, Row};
use crate::turns::{self, Contender};
use crate::worker::{Place, Worker};
use crate::{Effort, cpu, limits};

const BYTES: usize = 64;
/// About a millisecond: most batches see no interruption at all.
const PAIRS: u32 = 2_000;
const BATCHES: u32 = 200;

/// Measures a write and the read of what was written, with and without the whole of `pipestall watch`.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    report.progress("a write and a read on a pipe with room");
    let mut worker = Worker::start("pipe", Place::one(cpu::chosen()?))?;
    let contenders = [Contender::Nobody, Contender::Product];
    let [nobody, watch] = turns::take(effort.of(15, 4), 0, &contenders, || worker.sample())?;
    report.add(
        Row::of("pipe with room: write + read", watch.minimum(), "ns")
            .against(nobody.minimum())
            .with_median(watch.median_ratio(&nobody))
            .at_most(limits::PIPE_RATIO),
    );
    Ok(())
}

/// Measures the same while `watch --trace-writes` counts the writes of others, and of this program.
/// Only where a tracer of functions can be had.
pub(crate) fn measure_traced(effort: Effort, report: &mut Report) -> Result<()> {
    if let Err(why) = ::tests::need::functions() {
        eprintln!("skipped: --trace-writes: {why}");
        return Ok(());
    }
    report.progress("a write and a read while writes are counted");
    let mut worker = Worker::start("pipe", Place::one(cpu::chosen()?))?;
    let contenders = [
        Contender::Nobody,
        Contender::Counting("no-such-command"),
        Contender::Counting("bench*"),
    ];
    let [nobody, others, own] = turns::take(effort.of(15, 4), 0, &contenders, || worker.sample())?;
    let tracer = ::tests::binary::tracer();
    for (whose, series) in [("another's", others), ("one that is counted", own)] {
        let name = format!("write + read, {whose}, by {tracer}");
        report.add(
            Row::of(&name, series.minimum(), "ns")
                .against(nobody.minimum())
                .with_median(series.median_ratio(&nobody)),
        );
    }
    Ok(())
}

/// A pipe, both ends non-blocking.
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }

    /// Nanoseconds for a write and a read.
    pub(crate) fn sample(&self) -> Result<f64> {
        turns::fastest_batch(BATCHES, PAIRS, || self.pairs())
    }

    fn pairs(&self) -> Result<()> {
        let (from, mut to) = ([7; BYTES], [0; BYTES]);
        for _ in 0..PAIRS {
            let moved = rustix::io::write(&self.writer, &from)? + rustix::io::read(&self.reader, &mut to)?;
            ensure!(moved == 2 * BYTES, "a pipe moved {moved} of {} bytes", 2 * BYTES);
        }
        Ok(())
    }
}
