//! Whether a guest has done all that it was given: its steps, each to its end, and each with results. If not, whose
//! results are in doubt.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use super::steps::Tracer;

/// What a guest still owes.
#[derive(Debug)]
pub(super) struct Ledger {
    open: BTreeMap<String, Tracer>,
    /// Whose step is, or was, the last one.
    at: Option<Tracer>,
    /// Whether each step is a test program, which tells its results.
    tells: bool,
    /// How many results there have been since the last step's end.
    results: u32,
}

impl Ledger {
    pub(super) fn new(steps: &[(Tracer, String)], tells: bool) -> Self {
        Self {
            open: steps
                .iter()
                .map(|(tracer, name)| (name.clone(), *tracer))
                .collect(),
            at: None,
            tells,
            results: 0,
        }
    }

    /// A step begins.
    ///
    /// # Errors
    /// It is not to be done.
    pub(super) fn begins(&mut self, step: &str) -> Result<Tracer> {
        let tracer = self.open.get(step);
        let tracer = *tracer.with_context(|| format!("`{step}` is not to be done, or not again"))?;
        self.at = Some(tracer);
        Ok(tracer)
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
            self.open.remove(step).is_some(),
            "`{step}` was not to be done, or not again"
        );
        ensure!(
            !well || !self.tells || results > 0,
            "`{step}` has gone well and has no results"
        );
        Ok(())
    }

    /// Whose results are in doubt if it came to a bad end just now: those of whom something is left, and of the last.
    pub(super) fn blamed(&self) -> BTreeSet<Tracer> {
        self.open.values().copied().chain(self.at).collect()
    }

    /// The guest says that it has done all.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn close(&self) -> Result<()> {
        let open: Vec<_> = self.open.keys().map(String::as_str).collect();
        ensure!(open.is_empty(), "it has left out {}", open.join(", "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 1 passed; 0 failed";

    fn of(tells: bool) -> Ledger {
        let steps = ["sched ages", "sched watch"].map(|name| (Tracer::Sched, name.to_owned()));
        Ledger::new(&steps, tells)
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
        of(true).begins("sched pace").expect_err("it is unknown");
        of(true).done("sched pace", false).expect_err("it is unknown");
    }

    #[test]
    fn a_bad_end_is_blamed_on_the_last_step_and_on_what_did_not_come_to_its_turn() {
        use Tracer::{Fentry, Kprobe, Scan};
        let steps = [
            (Fentry, "fentry watch"),
            (Kprobe, "kprobe watch"),
            (Scan, "scan watch"),
        ];
        let mut ledger = Ledger::new(&steps.map(|(tracer, name)| (tracer, name.to_owned())), true);
        assert_eq!(
            ledger.blamed(),
            [Fentry, Kprobe, Scan].into(),
            "it has not booted"
        );
        ledger.begins("fentry watch").expect("it is to be done");
        ledger.read(RESULT);
        ledger.done("fentry watch", true).expect("it has a result");
        assert_eq!(ledger.begins("kprobe watch").expect("it is to be done"), Kprobe);
        assert_eq!(ledger.blamed(), [Kprobe, Scan].into(), "it hangs");
        ledger.done("kprobe watch", true).expect_err("no result");
        assert_eq!(ledger.blamed(), [Kprobe, Scan].into());
        ledger.begins("scan watch").expect("it is to be done");
        ledger.done("scan watch", false).expect("it has failed");
        assert_eq!(ledger.blamed(), [Scan].into(), "it does not turn itself off");
    }
}
