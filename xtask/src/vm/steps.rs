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

/// On which kernels a test tells something that it does not tell elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// It meets the kernel.
    Each,
    /// It is about how far kernels differ: the oldest and the newest show that.
    Ends,
    /// It is about rules, which see no kernel: they are run on this machine's own, and on one more.
    One,
}

/// The tests of what meets the kernel: the others would tell the same on each.
const SUITES: [(&str, Extent); 15] = [
    ("ages", Extent::Each),
    ("agree", Extent::Each),
    ("causes", Extent::One),
    ("crawl", Extent::One),
    ("enforce", Extent::Each),
    ("find", Extent::Each),
    ("matchers", Extent::One),
    ("mutation", Extent::Ends),
    ("pace", Extent::One),
    ("proofs", Extent::Each),
    ("readers", Extent::Each),
    ("record", Extent::One),
    ("spared", Extent::One),
    ("tracers", Extent::Ends),
    ("watch", Extent::Each),
];
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
    #[serde(skip)]
    pub(super) tracer: Tracer,
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
            tracer,
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

/// The names of all test programs that guests may be given.
pub(super) fn suites() -> impl Iterator<Item = &'static str> {
    SUITES.into_iter().map(|(name, _)| name)
}

/// The test programs that are run with one tracer or another.
pub(super) fn tests(args: &Args) -> Vec<&str> {
    if args.test.is_empty() {
        suites().collect()
    } else {
        args.test.iter().map(String::as_str).collect()
    }
}

/// What is asked for of a kernel, by guest: what takes longest has one of its own, as it is what is waited for. The
/// rest shares one, since a boot takes as long as a few tests.
pub(super) fn all(args: &Args, machine: Machine, line: Line) -> Vec<Vec<Step>> {
    let is_asked = |tracer: &Tracer| args.tracer.is_empty() || args.tracer.contains(tracer);
    let steps = TRACERS.into_iter().filter(is_asked);
    let steps = steps.flat_map(|tracer| of_tracer(tracer, args, machine, line));
    let (sched, others): (Vec<_>, Vec<_>) = steps.partition(|step| step.tracer == Tracer::Sched);
    [sched, others]
        .into_iter()
        .filter(|steps| !steps.is_empty())
        .collect()
}

/// Whether a test is run there unless it is named.
fn concerns(test: &str, tracer: Tracer, machine: Machine, line: Line) -> bool {
    let [oldest, .., newest] = LINES;
    let is_end = line == oldest || line == newest;
    if tracer != Tracer::Sched {
        // Between the ends `watch` holds it against what is so, and `agree`, which sched is given, against the others.
        return test == "watch" || is_end && TRACER_TESTS.contains(&test);
    }
    let extent = SUITES.into_iter().find(|(name, _)| *name == test);
    match extent.map(|(_, extent)| extent) {
        Some(Extent::One) => line == newest && Machine::host() == Some(machine),
        Some(Extent::Ends) => is_end,
        Some(Extent::Each) | None => true,
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
    use std::collections::BTreeSet;

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
        let of = |wanted: &[Extent]| -> Vec<_> {
            let suites = SUITES.into_iter().filter(|(_, extent)| wanted.contains(extent));
            suites.map(|(name, _)| format!("sched {name}")).collect()
        };
        for machine in [Machine::X86, Machine::Arm] {
            let rules = (Machine::host() == Some(machine)).then_some(Extent::One);
            let newest: Vec<_> = [Extent::Each, Extent::Ends].into_iter().chain(rules).collect();
            assert_eq!(names(Tracer::Sched, machine, 3), of(&newest));
            assert_eq!(names(Tracer::Sched, machine, 1), of(&[Extent::Each]));
            assert_eq!(
                names(Tracer::Sched, machine, 0),
                of(&[Extent::Each, Extent::Ends])
            );
            assert_eq!(names(Tracer::Scan, machine, 3), ["scan ages", "scan watch"]);
            assert_eq!(names(Tracer::Scan, machine, 2), ["scan watch"]);
        }
    }

    #[test]
    fn what_takes_longest_has_a_guest_of_its_own_and_the_rest_shares_one() {
        let guests = all(&Args::default(), Machine::X86, LINES[1]);
        let tracers = |steps: &[Step]| steps.iter().map(|step| step.tracer).collect::<BTreeSet<_>>();
        let [sched, others] = &guests[..] else {
            panic!("{} guests", guests.len());
        };
        assert_eq!(tracers(sched), [Tracer::Sched].into());
        assert_eq!(tracers(others), TRACERS[1..].iter().copied().collect());
        let one = Args {
            tracer: vec![Tracer::Scan, Tracer::Scan],
            ..Args::default()
        };
        let guests = all(&one, Machine::X86, LINES[1]);
        assert_eq!(guests.iter().map(Vec::len).collect::<Vec<_>>(), [1]);
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
