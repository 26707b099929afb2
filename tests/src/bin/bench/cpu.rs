//! Pins the calling thread to one CPU for as long as a guard lives.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The calling thread's pinning; undone when dropped, so that processes started later go anywhere.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

/// Chooses the CPU to measure on: the last one allowed, since the first ones take most interrupts.
pub(crate) fn chosen() -> Result<usize> {
    allowed()?.pop().context("no CPU is allowed")
}

/// Lists the CPUs that the calling thread may run on.
pub(crate) fn allowed() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

impl Pinned {
    /// Pins the calling thread.
    pub(crate) fn to(cpu: usize) -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).with_context(|| format!("cannot be pinned to CPU {cpu}"))?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The set was this thread's own a moment ago; without it the rest is only slower.
        let _ = sched_setaffinity(None, &self.before);
    }
}
