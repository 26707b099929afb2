//! Which live tests may say `skipped:` where everything that they need can be had.

use std::fs;

use crate::shell;

/// What a tracer cannot do, or a kernel, and programs that no set-up brings. The rest is missing by mistake.
const FOR_GOOD_REASON: [fn(&str) -> bool; 8] = [
    // Functions are for a kernel to let alone: locked down, or built without. What guests' kernels allow is pinned.
    |why| why.starts_with("fentry is not usable: ") || why.starts_with("kprobe is not usable: "),
    |why| why.starts_with("this kernel has no kprobes: "),
    |why| why.ends_with(" is no tracer of functions"),
    |why| why.ends_with(" does not count blocked time"),
    |why| why.starts_with("looks alone are later"),
    |why| why.ends_with(" wakes a pipe's writer with each read"),
    |why| why == "this kernel has no /proc/pressure/cpu to be hidden",
    |why| why == "neither kustomize nor kubectl is installed" || why.starts_with("kubectl is older than "),
];

/// Those of the reasons, each with its test's name, that are none on a machine where kernel programs can be loaded.
pub(crate) fn unexpected(reasons: &[String]) -> Vec<&str> {
    let is_expected = |reason: &str| {
        let why = reason.rsplit_once(" (").map_or(reason, |(why, _)| why);
        FOR_GOOD_REASON.iter().any(|is_good| is_good(why))
    };
    let reasons = reasons.iter().map(String::as_str);
    reasons.filter(|reason| !is_expected(reason)).collect()
}

/// Whether kernel programs can be loaded here, as far as can be told without any.
pub(crate) fn can_load_programs() -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    shell::is_root()
        && fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false)
        && !read("/sys/kernel/security/lockdown").contains("[confidentiality]")
        && may_load(&read("/proc/self/status"))
}

/// Whether a process has the capabilities, by its `/proc/PID/status`.
fn may_load(status: &str) -> bool {
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok());
    held.is_some_and(|held| {
        let has = |capability: u32| held >> capability & 1 == 1;
        has(SYS_ADMIN) || has(BPF) && has(PERFMON)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_refuses_is_expected_and_what_set_up_brings_is_not() {
        let reasons = [
            "kprobe is not usable: \"the kernel refuses (kprobe): no (os error 2)\" (a_breakpoint)",
            "this kernel has no kprobes: there is no /sys/bus/event_source/devices/kprobe (a_breakpoint)",
            "sched is no tracer of functions (an_agent)",
            "6.1.0-56-cloud-amd64 wakes a pipe's writer with each read (a_test)",
            "sched is not usable: \"the kernel refuses (sched)\" (a_stall)",
            "tmux is not installed (a_screen)",
            "needs root (a_stall)",
        ]
        .map(str::to_owned);
        assert_eq!(unexpected(&reasons), reasons[4..]);
    }

    #[test]
    fn kernel_programs_are_loaded_with_either_set_of_capabilities() {
        assert!(may_load("Name:\tx\nCapEff:\t0000000000200000\n"));
        assert!(may_load("CapEff:\t000000c000000000\n"));
        assert!(!may_load("CapEff:\t0000008000000000\n"));
        assert!(!may_load("CapPrm:\t0000000000200000\n"));
    }
}
