//! Whether a guest has done all that it was given: its steps, each to its end, and each with results.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// What a guest still owes.
#[derive(Debug)]
pub(super) struct Ledger {
    open: BTreeSet<String>,
    /// Whether each step is a test program, which tells its results.
    tells: bool,
    /// How many results there have been since the last step's end.
    results: u32,
}

impl Ledger {
    pub(super) fn new<'a>(steps: impl IntoIterator<Item = &'a String>, tells: bool) -> Self {
        Self {
            open: steps.into_iter().cloned().collect(),
            tells,
            results: 0,
        }
    }

    /// Takes a line of a step's into account.
    pub(super) fn read(&mut self, line: &str) {
        self.results += u32::from(line.starts_with("test result: "));
    }

    /// A step is over.
    ///
    /// # Errors
    /// It was not to be done, or has gone well without a result.
    pub(super) fn done(&mut self, step: &str, well: bool) -> Result<()> {
        let results = std::mem::take(&mut self.results);
        ensure!(
            self.open.remove(step),
            "`{step}` was not to be done, or not again"
        );
        ensure!(
            !well || !self.tells || results > 0,
            "`{step}` has gone well and has no results"
        );
        Ok(())
    }

    /// Whether a step has not been done.
    pub(super) fn owes(&self, step: &str) -> bool {
        self.open.contains(step)
    }

    /// The guest says that it has done all.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn close(&self) -> Result<()> {
        let open: Vec<_> = self.open.iter().map(String::as_str).collect();
        ensure!(open.is_empty(), "it has left out {}", open.join(", "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 1 passed; 0 failed";

    fn of(tells: bool) -> Ledger {
        Ledger::new(&["sched ages", "sched watch"].map(str::to_owned), tells)
    }

    #[test]
    fn a_guest_that_has_done_each_step_owes_nothing() {
        let mut ledger = of(true);
        for step in ["sched ages", "sched watch"] {
            ledger.read(RESULT);
            ledger.done(step, true).expect("it has a result");
        }
        ledger.close().expect("all is done");
    }

    #[test]
    fn a_guest_that_ends_without_a_step_owes_it() {
        let mut ledger = of(true);
        ledger.read(RESULT);
        ledger.done("sched watch", true).expect("it has a result");
        let error = ledger.close().expect_err("one is left");
        assert_eq!(error.to_string(), "it has left out sched ages");
    }

    #[test]
    fn a_test_program_without_a_result_has_not_gone_well() {
        let mut ledger = of(true);
        ledger.read(RESULT);
        ledger.done("sched ages", true).expect("it has a result");
        // The one before is the other's.
        ledger.done("sched watch", true).expect_err("no result");
        // One that has failed need not have come to any; what is no test has none.
        of(true)
            .done("sched ages", false)
            .expect("it is known to have failed");
        of(false).done("sched ages", true).expect("it is no test");
    }

    #[test]
    fn a_step_that_was_not_given_is_told() {
        of(true).done("sched pace", false).expect_err("it is unknown");
    }
}
