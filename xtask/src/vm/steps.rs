//! What guests are given to do: each test program with each tracer that it concerns. Knows them by name only.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::Args;
use super::programs::Programs;

/// What measures.
pub(super) const BENCH: &str = "bench";
/// Longest that one test program may take.
const STEP: Duration = Duration::from_mins(6);
/// The tests that tell what a tracer is worth; the others look at what is the same with each of them.
const TRACER_TESTS: [&str; 2] = ["ages", "watch"];

/// The tests of what meets the kernel: the others would tell the same on each.
const KERNEL_TESTS: [&str; 13] = [
    "ages", "agree", "causes", "crawl", "enforce", "find", "matchers", "mutation", "pace", "readers",
    "record", "spared", "watch",
];

/// How the program follows writers: its `--tracer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Tracer {
    Sched,
    Fentry,
    Kprobe,
    Scan,
}

/// All of them, in the order of the table.
pub(super) const TRACERS: [Tracer; 4] = [Tracer::Sched, Tracer::Fentry, Tracer::Kprobe, Tracer::Scan];

impl Tracer {
    const fn name(self) -> &'static str {
        match self {
            Self::Sched => "sched",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Scan => "scan",
        }
    }

    /// The one that a step is about.
    pub(super) fn of_step(name: &str) -> Option<Self> {
        TRACERS
            .into_iter()
            .find(|tracer| name.split(' ').next() == Some(tracer.name()))
    }
}

impl Display for Tracer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One program that a guest runs, as `tests`' program `guest` reads it.
#[derive(Serialize)]
pub(super) struct Step {
    name: String,
    pub(super) command: Vec<String>,
    env: BTreeMap<&'static str, String>,
    /// Seconds.
    timeout: u64,
}

impl Step {
    pub(super) fn new(name: String, command: Vec<String>, tracer: Tracer, limit: Duration) -> Self {
        Self {
            name,
            command,
            env: environment(tracer),
            timeout: limit.as_secs(),
        }
    }
}

/// What is asked for, of the programs that there are.
pub(super) fn steps(args: &Args, programs: &Programs) -> Result<Vec<Step>> {
    let tracers = if args.tracer.is_empty() {
        &TRACERS[..]
    } else {
        &args.tracer[..]
    };
    if let Some(unknown) = args.test.iter().find(|name| !programs.tests.contains_key(*name)) {
        let known: Vec<_> = programs.tests.keys().map(String::as_str).collect();
        bail!("there is no test program {unknown}, but {}", known.join(", "));
    }
    let mut steps = Vec::new();
    for tracer in tracers {
        if args.bench {
            if matches!(tracer, Tracer::Fentry | Tracer::Kprobe) {
                let command = [&format!("/bin/{BENCH}"), "--only", "writes"].map(str::to_owned);
                steps.push(Step::new(
                    format!("{tracer} {BENCH}"),
                    command.into(),
                    *tracer,
                    STEP,
                ));
            }
            continue;
        }
        for test in programs.tests.keys() {
            let wanted = if args.test.is_empty() {
                (*tracer == Tracer::Sched && KERNEL_TESTS.contains(&&**test))
                    || TRACER_TESTS.contains(&&**test)
            } else {
                args.test.contains(test)
            };
            if !wanted {
                continue;
            }
            // When a program is attached to a function, the exits of those asleep in it are lost to the others
            // (bpf_tramp_image_put(), kernel/bpf/trampoline.c), and `watch` counts them.
            let threads = if (*tracer, &**test) == (Tracer::Fentry, "watch") {
                1
            } else {
                2
            };
            let mut command = vec![format!("/tests/{test}"), format!("--test-threads={threads}")];
            command.extend(args.filters.iter().cloned());
            steps.push(Step::new(format!("{tracer} {test}"), command, *tracer, STEP));
        }
    }
    Ok(steps)
}

fn environment(tracer: Tracer) -> BTreeMap<&'static str, String> {
    let pairs = [
        ("PATH", "/bin"),
        ("HOME", "/root"),
        ("PIPESTALL_BIN", "/bin/pipestall"),
        ("PIPESTALL_STUCK", "/bin/stuck"),
        ("PIPESTALL_TEST_TRACER", tracer.name()),
        // Everything is emulated, and the machine is shared.
        ("PIPESTALL_TEST_SLOWNESS", "6"),
        ("RUST_BACKTRACE", "0"),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key, value.to_owned()))
        .collect()
}
