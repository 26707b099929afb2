//! What guests are given to do: each test program with each tracer that it concerns. Knows them by name only.

use std::collections::BTreeMap;
use std::env;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::Serialize;

use super::Args;
use super::kernels::{LINES, Line};
use super::machine::Machine;

/// What measures.
pub(super) const BENCH: &str = "bench";
/// Where test programs are in a guest.
pub(super) const TESTS: &str = "/tests/";
/// Longest that one test program may take.
const STEP: Duration = Duration::from_mins(6);
/// The tests that tell what a tracer is worth; the others look at what is the same with each of them.
pub(crate) const TRACER_TESTS: [&str; 2] = ["ages", "watch"];

/// The tests of what meets the kernel: the others would tell the same on each.
pub(super) const KERNEL_TESTS: [&str; 15] = [
    "ages", "agree", "causes", "crawl", "enforce", "find", "matchers", "mutation", "pace", "proofs",
    "readers", "record", "spared", "tracers", "watch",
];
/// Of these, what is about how far kernels differ: the oldest and the newest tell.
const AT_THE_ENDS: [&str; 2] = ["mutation", "tracers"];
/// And what is about rules, which see no kernel: the newest, of one machine, shows that they meet it as they should.
const OF_RULES: [&str; 6] = ["causes", "crawl", "matchers", "pace", "record", "spared"];
/// Tests of ages that are about looks, which are the same beside any tracer of functions, and take long.
const OF_LOOKS: [&str; 3] = [
    "now_and_then",
    "watches_for_all_of_its_time",
    "older_than_the_agent",
];

/// Those that hold one view of the same against another: a difference is one too many, and the next run, which draws
/// anew, need not show it.
const COMPARING: [&str; 2] = ["agree", "mutation"];
/// What they draw from, for who wants to see it again.
const SEED: &str = "PIPESTALL_SEED";

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
}

impl Display for Tracer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One program that a guest runs, as `tests`' program `guest` reads it.
#[derive(Serialize)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    env: BTreeMap<&'static str, String>,
    /// Seconds.
    timeout: u64,
    /// Whether tests that fail are run once more by themselves.
    again: bool,
}

impl Step {
    pub(super) fn new(name: String, command: Vec<String>, tracer: Tracer, limit: Duration) -> Self {
        Self {
            name,
            command,
            env: environment(tracer),
            timeout: limit.as_secs(),
            again: true,
        }
    }

    /// Whether it is a test program.
    pub(super) fn is_test(&self) -> bool {
        self.command[0].starts_with(TESTS)
    }
}

/// The test programs that are run with one tracer or another.
pub(super) fn tests(args: &Args) -> Vec<&str> {
    if args.test.is_empty() {
        KERNEL_TESTS.to_vec()
    } else {
        args.test.iter().map(String::as_str).collect()
    }
}

/// What is asked for of a kernel, by tracer.
pub(super) fn all(args: &Args, machine: Machine, line: Line) -> Vec<(Tracer, Vec<Step>)> {
    let tracers = if args.tracer.is_empty() {
        &TRACERS[..]
    } else {
        &args.tracer[..]
    };
    let steps = |tracer: &Tracer| (*tracer, of_tracer(*tracer, args, machine, line));
    tracers
        .iter()
        .map(steps)
        .filter(|(_, steps)| !steps.is_empty())
        .collect()
}

/// Whether a test tells anything there that it does not tell elsewhere.
fn concerns(test: &str, tracer: Tracer, machine: Machine, line: Line) -> bool {
    let is_newest = line == LINES[LINES.len() - 1];
    let is_end = is_newest || line == LINES[0];
    if tracer != Tracer::Sched {
        // Between the ends `agree` holds them against each other, and this against what is so.
        return if is_end {
            TRACER_TESTS.contains(&test)
        } else {
            test == "watch"
        };
    }
    if AT_THE_ENDS.contains(&test) {
        is_end
    } else if OF_RULES.contains(&test) {
        is_newest && machine == Machine::X86
    } else {
        true
    }
}

fn of_tracer(tracer: Tracer, args: &Args, machine: Machine, line: Line) -> Vec<Step> {
    if args.bench {
        let counts = matches!(tracer, Tracer::Fentry | Tracer::Kprobe);
        let command = [&format!("/bin/{BENCH}"), "--only", "writes"].map(str::to_owned);
        let step = || Step::new(format!("{tracer} {BENCH}"), command.into(), tracer, STEP);
        return counts.then(step).into_iter().collect();
    }
    let is_asked = |test: &&str| !args.test.is_empty() || concerns(test, tracer, machine, line);
    let step = |test: &str| {
        // When a program is attached to a function, the exits of those asleep in it are lost to the others
        // (bpf_tramp_image_put(), kernel/bpf/trampoline.c), and `watch` counts them.
        let threads = if (tracer, test) == (Tracer::Fentry, "watch") {
            1
        } else {
            2
        };
        let mut command = vec![format!("{TESTS}{test}"), format!("--test-threads={threads}")];
        if matches!(tracer, Tracer::Fentry | Tracer::Kprobe) {
            command.extend(
                OF_LOOKS
                    .iter()
                    .flat_map(|name| ["--skip".to_owned(), (*name).to_owned()]),
            );
        }
        if COMPARING.contains(&test) {
            // What was drawn, and how much was compared.
            command.push("--show-output".to_owned());
        }
        command.extend(args.filters.iter().cloned());
        Step {
            again: !COMPARING.contains(&test),
            ..Step::new(format!("{tracer} {test}"), command, tracer, STEP)
        }
    };
    tests(args).into_iter().filter(is_asked).map(step).collect()
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
    let seed = env::var(SEED).ok().map(|seed| (SEED, seed));
    let pairs = pairs.into_iter().map(|(key, value)| (key, value.to_owned()));
    pairs.chain(seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compares_is_not_run_again_and_shows_what_it_has_compared() {
        for step in of_tracer(Tracer::Sched, &Args::default(), Machine::X86, LINES[3]) {
            let compares = ["sched agree", "sched mutation"].contains(&&*step.name);
            assert_eq!(step.again, !compares, "{}", step.name);
            let shows = step.command.iter().any(|word| word == "--show-output");
            assert_eq!(shows, compares, "{}", step.name);
            assert!(step.is_test());
        }
    }

    #[test]
    fn each_kernel_is_given_the_tests_that_tell_something_there() {
        let names = |tracer, machine, line: usize| {
            let steps = of_tracer(tracer, &Args::default(), machine, LINES[line]);
            steps.into_iter().map(|step| step.name).collect::<Vec<_>>()
        };
        assert_eq!(names(Tracer::Sched, Machine::X86, 3).len(), KERNEL_TESTS.len());
        let between = names(Tracer::Sched, Machine::X86, 1);
        assert_eq!(
            between.len(),
            KERNEL_TESTS.len() - AT_THE_ENDS.len() - OF_RULES.len()
        );
        let oldest = names(Tracer::Sched, Machine::X86, 0);
        assert_eq!(oldest.len(), KERNEL_TESTS.len() - OF_RULES.len());
        assert_eq!(names(Tracer::Sched, Machine::Arm, 3), oldest);
        assert_eq!(names(Tracer::Scan, Machine::Arm, 3), ["scan ages", "scan watch"]);
        assert_eq!(names(Tracer::Scan, Machine::X86, 2), ["scan watch"]);
    }

    #[test]
    fn a_test_that_is_named_is_run_everywhere() {
        let args = Args {
            test: vec!["pace".to_owned()],
            ..Args::default()
        };
        assert_eq!(of_tracer(Tracer::Scan, &args, Machine::Arm, LINES[1]).len(), 1);
    }
}
