//! One guest that can be booted, followed from its first line to its last. Knows its steps by name only.

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

/// What can be booted, and has not been yet: a kernel, and what one tracer is to do on it.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) machine: Machine,
    pub(super) qemu: PathBuf,
    pub(super) accelerator: Accelerator,
    pub(super) kernel: Kernel,
    pub(super) tracer: Tracer,
    /// The names of what it is to do.
    pub(super) steps: Vec<String>,
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

    /// Boots it, shows what it says, and adds up the results.
    pub(super) fn follow(&self, interrupt: &Interrupt) -> Totals {
        let mut totals = Totals::default();
        if interrupt.check().is_err() {
            return totals;
        }
        let start = shell::now();
        let mut processor = None;
        let followed = self.boot().and_then(|mut guest| {
            let read = self.read(&mut guest, &mut totals, interrupt);
            processor = guest.processor_time();
            read
        });
        if let Err(error) = followed {
            self.say(&format!("{error:#}"));
            eprintln!("error: {self}: {}", first_line(&error));
            totals.breaks();
        }
        eprintln!("vm: {self} is done: {}", Spent(start.elapsed(), processor));
        totals
    }

    /// # Errors
    /// The guest came to no end, or has left out something.
    fn read(&self, guest: &mut Guest, totals: &mut Totals, interrupt: &Interrupt) -> Result<()> {
        let mut ledger = Ledger::new(&self.steps, self.tests);
        let mut processor = None;
        loop {
            match guest.next_line(interrupt)? {
                Line::Boot(_) => {}
                Line::Step(name, _) => {
                    processor = guest.processor_time();
                    self.say(&format!("--- {name}"));
                }
                Line::Done { outcome, took, name } => {
                    let of_it = guest.processor_time().zip(processor);
                    let of_it = of_it.map(|(now, then)| now.saturating_sub(then));
                    self.say(&format!("--- {name}: {outcome} after {}", Spent(took, of_it)));
                    if outcome != "ok" {
                        totals.breaks();
                    }
                    ledger.done(&name, outcome == "ok")?;
                }
                Line::Again(count, tests) => {
                    totals.run_again(count);
                    self.say(&format!("--- by themselves, once more: {tests}"));
                }
                Line::Complaint(text) => {
                    self.say(&format!("--- the kernel complains: {text}"));
                    totals.breaks();
                }
                Line::Output(text) => {
                    totals.read(&text);
                    ledger.read(&text);
                    self.say(&text);
                }
                Line::End => return ledger.close(),
            }
        }
    }

    /// Prints a line of the guest's.
    fn say(&self, text: &str) {
        // A closed stdout leaves nobody to tell.
        let _ = writeln!(std::io::stdout().lock(), "{self:>21} | {text}");
    }
}

/// The machine, the kernel and the tracer, as `aarch64 6.1 sched`.
impl Display for Candidate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.kernel, self.tracer))
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
