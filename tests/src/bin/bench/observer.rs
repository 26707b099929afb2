//! What watches while something is measured, and the certainty that nothing else does.
//!
//! Two ways. The whole product: `pipestall watch`, started and ended for each sample. Or its program
//! alone, taken over from a `watch` that has ended and attached for milliseconds at a time: a
//! machine's speed wanders by more than a program costs, and only turns that short cancel it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::Btf;
use aya::programs::loaded_programs;
use aya_obj::generated::bpf_prog_type;
use tests::agent::Agent;
use tests::crowd::{Crowd, Plan};
use tests::wait;

use crate::bpf;

/// The tracer's program on context switches, as `bpftool prog` lists it.
const TRACER: &str = "sched_switch";

/// Something that watches, until dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "what is held is held for its Drop")]
pub(crate) enum Watching {
    /// Nothing does.
    Nobody,
    /// An attached program.
    Program(OwnedFd),
    /// The product.
    Product(Agent),
}

/// A loaded program on context switches, attached or not.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
    /// What the program is to follow, if anything.
    _followed: Option<Crowd>,
}

impl Program {
    /// A program that does nothing: the floor under every program in that place.
    pub(crate) fn empty() -> Result<Self> {
        let kernel = Btf::from_sys_fs().context("the kernel's type information")?;
        Ok(Self {
            fd: bpf::load_empty(&kernel)?,
            _followed: None,
        })
    }

    /// The tracer of `pipestall watch` with these arguments.
    pub(crate) fn of_watch(arguments: &[&str]) -> Result<Self> {
        Self::taken_from(|| (Agent::watch(arguments), None))
    }

    /// The tracer while it follows a stuck writer.
    pub(crate) fn following() -> Result<Self> {
        Self::taken_from(|| {
            let plan = Plan::stuck(1);
            let agent = Agent::watch(&["--comm", plan.writer_name()]);
            // Begun under the tracer's eyes, so that it is followed from its first sleep on.
            (agent, Some(plan.start()))
        })
    }

    fn taken_from(start: impl FnOnce() -> (Agent, Option<Crowd>)) -> Result<Self> {
        let before = tracers()?;
        let (agent, followed) = start();
        let added: Vec<Tracer> = tracers()?
            .into_iter()
            .filter(|one| !before.contains(one))
            .collect();
        let [Tracer { id }] = added[..] else {
            anyhow::bail!(
                "`pipestall watch` loaded {} tracers; is another one starting?",
                added.len()
            )
        };
        let info = loaded_programs()
            .filter_map(Result::ok)
            .find(|program| program.id() == id);
        let fd = info
            .context("the tracer is gone")?
            .fd()?
            .as_fd()
            .try_clone_to_owned()?;
        agent.stop();
        Ok(Self {
            fd,
            _followed: followed,
        })
    }

    /// Attaches it for as long as what is returned lives.
    pub(crate) fn attach(&self) -> Result<Watching> {
        Ok(Watching::Program(bpf::attach(&self.fd)?))
    }
}

/// A loaded program on context switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tracer {
    id: u32,
}

/// Another program of the kind that is measured came or went: the sample says nothing.
#[derive(Debug)]
pub(crate) struct Disturbed;

impl std::fmt::Display for Disturbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another tracer comes and goes; run the benchmark while no test does")
    }
}

impl std::error::Error for Disturbed {}

/// Waits until exactly so many tracers are loaded. The kernel frees them some time after their owner's exit.
pub(crate) fn await_tracers(count: usize) -> Result<Vec<Tracer>> {
    const PATIENCE: Duration = Duration::from_mins(1);
    let found = wait::until_or_none(PATIENCE, || tracers().ok().filter(|found| found.len() == count));
    found.ok_or_else(|| Disturbed.into())
}

/// Says whether the same tracers are still loaded.
pub(crate) fn ensure_still(before: &[Tracer]) -> Result<()> {
    ensure!(tracers()? == before, Disturbed);
    Ok(())
}

/// Lists the loaded programs that run on context switches, as far as they are of the kinds known here.
fn tracers() -> Result<Vec<Tracer>> {
    let mut found = Vec::new();
    for program in loaded_programs() {
        // One that goes while the list is made is not there.
        let Ok(program) = program else { continue };
        let name = program.name_as_str().context("a program's name")?;
        if program.program_type() == bpf_prog_type::BPF_PROG_TYPE_TRACING
            && [TRACER, bpf::EMPTY].contains(&name)
        {
            found.push(Tracer { id: program.id() });
        }
    }
    Ok(found)
}
