//! Gives up what the agent does not need, and takes back for a moment what loading the kernel
//! side takes.

use anyhow::{Context as _, Result};
use rustix::thread::{CapabilitySet as Set, CapabilitySets, capabilities, set_capabilities};

use crate::probe::kernel::{Kernel, Observer};

/// What loading and attaching the kernel side takes.
const LOADING: Set = Set::BPF.union(Set::PERFMON);

/// What the agent needs all the time: to signal, to read what it signals, and to go ahead meanwhile.
const RUNNING: Set = Set::KILL.union(Set::SYS_PTRACE).union(Set::SYS_NICE);

/// Gives up all other capabilities for good, and those for loading until they are needed. It
/// counts for this thread and those that it starts, so it comes before any of them.
///
/// Looks once, to see that what is left will do, and says who looked.
///
/// # Errors
/// The kernel refuses.
pub fn drop_rest(kernel: &mut Kernel) -> Result<Observer> {
    const WHAT: &str = "cannot give up capabilities";
    let held = capabilities(None).context(WHAT)?;
    let keep = |effective: Set| {
        let sets = CapabilitySets {
            effective: held.permitted.intersection(effective),
            permitted: held.permitted.intersection(RUNNING.union(LOADING)),
            inheritable: Set::empty(),
        };
        set_capabilities(None, sets).context(WHAT)
    };
    keep(RUNNING)?;
    // Before 5.19 every use of bpf(2) takes the capability where unprivileged users may not use
    // it (`__sys_bpf`, kernel/bpf/syscall.c).
    if let Ok((_, observer)) = kernel.look() {
        return Ok(observer);
    }
    keep(RUNNING.union(Set::BPF))?;
    let (_, observer) = kernel.look()?;
    Ok(observer)
}

/// Runs something with what loading takes, as far as this thread may have it.
pub fn while_loading<T>(load: impl FnOnce() -> T) -> T {
    let Ok(held) = capabilities(None) else {
        return load();
    };
    let raised = CapabilitySets {
        effective: held.effective.union(held.permitted.intersection(LOADING)),
        ..held
    };
    let _ = set_capabilities(None, raised);
    let loaded = load();
    let _ = set_capabilities(None, held);
    loaded
}
