//! Runs the tests and adds up their results. Knows libtest's output, not what is tested.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::AddAssign;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::{setup, shell, skips, vm};

/// What of all that is tested has to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Demand {
    /// What this machine has; the rest is skipped, and said.
    #[default]
    WhatIsThere,
    /// All: CI would not be told of what it left out.
    Everything,
}

/// What a number of test runs came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: i32,
    failed: i32,
    skipped: i32,
    /// Failures that did not count, as the test was run again.
    again: i32,
    /// Why tests were skipped, each with its name.
    reasons: Vec<String>,
    /// Whether a run ended badly, for whatever reason: a test, a test program that would not compile or that died.
    broken: bool,
}

/// Runs all tests whose names contain one of `filters`, or simply all of them.
pub(crate) fn run(filters: &[String], demand: Demand) -> Result<Totals> {
    setup::test_tools();
    let pipestall = build::everything(Profile::Dev)?;
    let cache = setup::cache_dir()?;
    let test = |what: &[&str], options: &[&str], tracer: Option<&str>| {
        let mut command = shell::cargo(&["test", "--no-fail-fast"]);
        command.args(what).arg("--").args(options).args(filters);
        command
            .env("PIPESTALL_BIN", &pipestall)
            .env("PIPESTALL_CACHE", &cache)
            .envs(tracer.map(|tracer| ("PIPESTALL_TEST_TRACER", tracer)));
        tally(command)
    };
    let mut totals = test(&["--workspace", "--exclude", "tests"], &[], None)?;
    // The live tests measure time, and each keeps more than one process busy.
    let live = ["--test-threads=2"];
    totals += test(&["--package", "tests"], &live, None)?;
    // As in guests: what a tracer is worth is told of each that every kernel has.
    let of_tracer = vm::TRACER_TESTS.iter().flat_map(|name| ["--test", name]);
    let of_tracer: Vec<_> = ["--package", "tests"].into_iter().chain(of_tracer).collect();
    totals += test(&of_tracer, &live, Some("scan"))?;
    if demand == Demand::Everything && skips::can_load_programs() {
        for reason in skips::unexpected(&totals.reasons) {
            eprintln!("error: a test was skipped that can be run here: {reason}");
            totals.broken = true;
        }
    }
    if !filters.is_empty() && !vm::has_test(filters)? {
        eprintln!("vm: no test of guests has such a name");
        return Ok(totals);
    }
    totals += vm::run(&vm::Args::everything(filters, demand)).unwrap_or_else(|error| {
        eprintln!("error: no results of guests: {error:#}");
        let mut none = Totals::default();
        none.breaks();
        none
    });
    Ok(totals)
}

impl Totals {
    /// Whether all went well. That no test ran at all is not well.
    pub(crate) fn succeeded(&self) -> bool {
        self.is_well() && self.passed > 0
    }

    /// Prints the sum as the last line.
    pub(crate) fn report(&self) -> ExitCode {
        let Self {
            passed,
            failed,
            skipped,
            again,
            reasons: _,
            broken,
        } = self;
        if passed + failed == 0 {
            eprintln!("error: no test ran");
        } else if *broken && *failed == 0 {
            eprintln!("error: not all went well, see above");
        }
        if *again > 0 {
            println!("{again} run again by themselves in guests, where they had failed");
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if self.succeeded() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// How many tests passed.
    pub(crate) fn passed(&self) -> i32 {
        self.passed
    }

    /// Whether nothing failed; that nothing ran is not said by this.
    pub(crate) fn is_well(&self) -> bool {
        !self.broken && self.failed == 0
    }

    /// A whole run could not be had.
    pub(crate) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Whether anything was skipped.
    pub(crate) fn has_skipped(&self) -> bool {
        self.skipped > 0
    }

    /// So many failures do not count, as the tests are run again.
    pub(crate) fn run_again(&mut self, count: i32) {
        self.failed -= count;
        self.again += count;
    }

    /// A run ended badly.
    pub(crate) fn breaks(&mut self) {
        self.broken = true;
    }

    /// Takes a line of a test program's output into account.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(reason) = line.strip_prefix("skipped: ") {
            self.skipped += 1;
            self.reasons.push(reason.to_owned());
            // libtest knows no skipping at run time: it will have counted this test as passed.
            self.passed -= 1;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let before = result.split(what).next().unwrap_or_default().trim_end();
                before
                    .rsplit(' ')
                    .next()
                    .and_then(|number| number.parse().ok())
                    .unwrap_or(0)
            };
            self.passed += count("passed");
            self.failed += count("failed;");
            self.skipped += count("ignored");
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.again += other.again;
        self.reasons.extend(other.reasons);
        self.broken |= other.broken;
    }
}

/// Runs the command, shows its output as it comes, and reads it.
fn tally(mut command: Command) -> Result<Totals> {
    let what = shell::describe(&command);
    let (reader, writer) = std::io::pipe().context("cannot create a pipe")?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run `{what}`"))?;
    // It holds the pipe's writing end, and with that open the output does not end.
    drop(command);

    let mut totals = Totals::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .with_context(|| format!("cannot read from `{what}`"))?
        > 0
    {
        std::io::stdout().write_all(&line)?;
        totals.read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    totals.broken = !child.wait()?.success();
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Totals {
        let mut totals = Totals::default();
        output.lines().for_each(|line| totals.read(line));
        totals
    }

    #[test]
    fn results_of_several_programs_are_added_up() {
        let totals = read(
            "running 4 tests\n\
             test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s\n\
             test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n",
        );
        assert_eq!(
            totals,
            Totals {
                passed: 13,
                failed: 2,
                skipped: 1,
                ..Totals::default()
            }
        );
        assert!(!totals.succeeded());
    }

    #[test]
    fn a_test_that_says_it_is_skipped_has_not_passed() {
        let totals = read(
            "skipped: needs root (finds_a_stall)\n\
             test finds_a_stall ... ok\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            totals,
            Totals {
                passed: 1,
                skipped: 1,
                reasons: vec!["needs root (finds_a_stall)".to_owned()],
                ..Totals::default()
            }
        );
        assert!(totals.succeeded());
    }

    #[test]
    fn a_test_that_passes_when_run_again_has_not_failed_and_is_counted() {
        let mut totals = read("test result: FAILED. 5 passed; 1 failed; 0 ignored");
        totals.run_again(1);
        totals += read("test result: ok. 1 passed; 0 failed; 0 ignored");
        assert_eq!((totals.passed, totals.failed, totals.again), (6, 0, 1));
        assert!(totals.succeeded());
    }

    #[test]
    fn a_run_without_tests_does_not_succeed() {
        let totals = read(
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n",
        );
        assert!(!totals.succeeded());
    }

    #[test]
    fn a_program_that_dies_without_a_result_breaks_the_run() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -9 $$"]);
        assert!(tally(command).is_ok_and(|totals| totals.broken));
    }
}
