//! One guest that can be booted, followed from its first line to its last. Knows its steps by name and tracer only.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::guest::{Accelerator, Guest, Line};
use super::kernels::Kernel;
use super::ledger::Ledger;
use super::machine::Machine;
use super::steps::Tracer;
use crate::interrupt::Interrupt;
use crate::shell;
use crate::test::Totals;

/// What can be booted, and has not been yet: a kernel, and what is to be done on it.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) machine: Machine,
    pub(super) qemu: PathBuf,
    pub(super) accelerator: Accelerator,
    pub(super) kernel: Kernel,
    /// What it is to do: by which tracer, and the step's name.
    pub(super) steps: Vec<(Tracer, String)>,
    /// Whether each of them is a test program.
    pub(super) tests: bool,
    pub(super) initramfs: PathBuf,
    pub(super) console: PathBuf,
}

impl Candidate {
    pub(super) fn boot(&self) -> Result<Guest> {
        Guest::boot(
            &self.qemu,
            self.machine,
            self.accelerator,
            &self.kernel.image,
            &self.initramfs,
            &self.console,
        )
    }

    /// The tracers that have steps, in their order.
    pub(super) fn tracers(&self) -> Vec<Tracer> {
        let mut tracers: Vec<_> = self.steps.iter().map(|(tracer, _)| *tracer).collect();
        tracers.dedup();
        tracers
    }

    /// Boots it, shows what it says, and adds up the results of each tracer.
    pub(super) fn follow(&self, interrupt: &Interrupt) -> BTreeMap<Tracer, Totals> {
        let mut results: BTreeMap<_, _> = self
            .tracers()
            .into_iter()
            .map(|tracer| (tracer, Totals::default()))
            .collect();
        if interrupt.check().is_err() {
            return results;
        }
        let start = shell::now();
        let mut processor = None;
        let mut ledger = Ledger::new(&self.steps, self.tests);
        let followed = self.boot().and_then(|mut guest| {
            let read = self.read(&mut guest, &mut ledger, &mut results, interrupt);
            processor = guest.processor_time();
            read
        });
        if let Err(error) = followed {
            self.say(self.steps[0].0, &format!("{error:#}"));
            eprintln!("error: {self}: {}", first_line(&error));
            for tracer in ledger.blamed() {
                results.entry(tracer).or_default().breaks();
            }
        }
        eprintln!("vm: {self} is done: {}", Spent(start.elapsed(), processor));
        results
    }

    /// # Errors
    /// The guest came to no end, or has left out something.
    fn read(
        &self,
        guest: &mut Guest,
        ledger: &mut Ledger,
        results: &mut BTreeMap<Tracer, Totals>,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut processor = None;
        // Whose step it is.
        let mut tracer = self.steps[0].0;
        loop {
            let line = guest.next_line(interrupt)?;
            if let Line::Step(name, _) = &line {
                tracer = ledger.begins(name)?;
            }
            let totals = results.entry(tracer).or_default();
            match line {
                Line::Boot(_) => {}
                Line::Step(name, _) => {
                    processor = guest.processor_time();
                    self.say(tracer, &format!("--- {name}"));
                }
                Line::Done { outcome, took, name } => {
                    let of_it = guest.processor_time().zip(processor);
                    let of_it = of_it.map(|(now, then)| now.saturating_sub(then));
                    let spent = Spent(took, of_it);
                    self.say(tracer, &format!("--- {name}: {outcome} after {spent}"));
                    if outcome != "ok" {
                        totals.breaks();
                    }
                    ledger.done(&name, outcome == "ok")?;
                }
                Line::Again(count, tests) => {
                    totals.run_again(count);
                    self.say(tracer, &format!("--- by themselves, once more: {tests}"));
                }
                Line::Complaint(text) => {
                    self.say(tracer, &format!("--- the kernel complains: {text}"));
                    totals.breaks();
                }
                Line::Output(text) => {
                    totals.read(&text);
                    ledger.read(&text);
                    self.say(tracer, &text);
                }
                Line::End => return ledger.close(),
            }
        }
    }

    /// Prints a line of the guest's, after the machine, the kernel and the tracer, as `aarch64 6.1 sched`.
    fn say(&self, tracer: Tracer, text: &str) {
        let whose = format!("{} {tracer}", self.kernel);
        // A closed stdout leaves nobody to tell.
        let _ = writeln!(std::io::stdout().lock(), "{whose:>21} | {text}");
    }
}

/// The machine, the kernel and the tracers, as `aarch64 6.1 fentry, kprobe, scan`.
impl Display for Candidate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tracers: Vec<_> = self.tracers().iter().map(ToString::to_string).collect();
        write!(f, "{} {}", self.kernel, tracers.join(", "))
    }
}

/// How long something took, and how much of it on a processor, if that is known.
struct Spent(Duration, Option<Duration>);

impl Display for Spent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} s", self.0.as_secs_f64())?;
        match self.1 {
            Some(processor) => write!(f, ", {:.0} s of them on a processor", processor.as_secs_f64()),
            None => Ok(()),
        }
    }
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}
