//! Runs the live tests on other kernels than this one: Debian's, each in a guest of QEMU's. Takes no root.
//!
//! Knows the test programs by name only. The guest's first process is `tests`' program `guest`.

mod archive;
mod candidate;
mod equipment;
mod guest;
mod initramfs;
mod kernels;
mod ledger;
mod machine;
mod matrix;
mod programs;
mod promise;
mod schedule;
mod steps;
mod sums;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use self::candidate::Candidate;
use self::equipment::Equipment;
use self::guest::Line;
use self::kernels::{Choice, LINES};
use self::machine::{MACHINES, Machine};
use self::matrix::{Cell, Row};
pub(crate) use self::steps::TRACER_TESTS;
use self::steps::{BENCH, Step, Tracer};
use crate::interrupt::Interrupt;
use crate::shell;
use crate::test::{Demand, Totals};

/// What `cargo xtask vm` takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Kernels to boot: 5.10, 6.1, 6.12, newest, or all; all, but on aarch64 6.1,newest unless given
    #[arg(long, value_name = "KERNEL", value_delimiter = ',')]
    kernel: Vec<Choice>,
    /// Machines to boot them on; both unless given
    #[arg(long, value_enum, value_delimiter = ',')]
    machine: Vec<Machine>,
    /// Tracers to try: sched, fentry, kprobe, scan; all unless given
    #[arg(long, value_enum, value_delimiter = ',')]
    tracer: Vec<Tracer>,
    /// Test programs to run, such as ages; those that tell something of the kernel and the tracer unless given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    test: Vec<String>,
    /// Guests to run at once; three for two processors, as far as memory goes, unless given, one to measure
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Asks the archive for newer kernels than those in the cache
    #[arg(long)]
    update: bool,
    /// Measures what counting each write costs, instead of running tests
    #[arg(long, conflicts_with_all = ["test", "filters", "write_table"])]
    bench: bool,
    /// Writes the results into README.md, as what later runs have to keep; needs all tests of a kernel
    #[arg(long, conflicts_with_all = ["test", "tracer", "filters"])]
    write_table: bool,
    /// Runs only the tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Whether every kernel of the README has to be there
    #[arg(skip)]
    demand: Demand,
}

impl Args {
    /// What the test run has: every machine, kernel and tracer.
    pub(crate) fn everything(filters: &[String], demand: Demand) -> Self {
        Self {
            filters: filters.to_vec(),
            demand,
            ..Self::default()
        }
    }

    /// Whether it is figures that are wanted, and not tests.
    pub(crate) const fn measures(&self) -> bool {
        self.bench
    }

    /// Whether each guest runs all the tests that there are for it.
    const fn is_whole(&self) -> bool {
        !self.bench && self.test.is_empty() && self.filters.is_empty()
    }

    fn lines(&self, machine: Machine) -> Vec<kernels::Line> {
        if self.kernel.is_empty() {
            return machine.usual_lines().into();
        }
        let is_asked = |line: &kernels::Line| self.kernel.iter().any(|choice| choice.is(*line));
        LINES.into_iter().filter(is_asked).collect()
    }
}

/// Boots the kernels, runs the tests, prints the matrix. What cannot be had is skipped, and said.
pub(crate) fn run(args: &Args) -> Result<Totals> {
    let interrupt = Interrupt::on_signals()?;
    let work = work_folder()?;
    let mut totals = Totals::default();
    let machines = if args.machine.is_empty() {
        &MACHINES[..]
    } else {
        &args.machine[..]
    };
    let mut candidates = Vec::new();
    for machine in machines {
        candidates.push(furnish(*machine, args, &work, &mut totals, &interrupt)?);
    }
    let mut rows = Vec::new();
    let mut pace = String::new();
    let mut measured = 0;
    // One machine after the other, so that it can be told how long each takes.
    for (machine, candidates) in machines.iter().zip(candidates) {
        let start = shell::now();
        let jobs = match args.jobs {
            Some(jobs) => jobs.get(),
            None if args.bench => 1,
            None => schedule::jobs(candidates.len()),
        };
        let results = schedule::in_parallel(&candidates, jobs, |candidate| candidate.follow(&interrupt));
        interrupt.check()?;
        let kernels = add_rows(&mut rows, &candidates, &results);
        for (_, result) in results.into_iter().flatten() {
            measured += usize::from(!result.has_skipped());
            totals += result;
        }
        let seconds = start.elapsed().as_secs_f64();
        let _ = writeln!(pace, "{machine}: {kernels} kernels in {seconds:.0} s");
    }
    if args.bench {
        ensure!(measured > 0, "nothing has been measured: each guest was skipped");
    } else {
        println!("\n{}", matrix::table(&rows));
    }
    print!("{pace}");
    if args.is_whole() && !judge(args, &rows, totals.is_well())? {
        totals.breaks();
    }
    Ok(totals)
}

/// The guests of a machine; none, if something that they take cannot be had.
fn furnish(
    machine: Machine,
    args: &Args,
    place: &TempDir,
    totals: &mut Totals,
    interrupt: &Interrupt,
) -> Result<Vec<Candidate>> {
    let equipment = match Equipment::get(machine, args, totals) {
        Ok(equipment) => equipment,
        Err(error) => {
            println!("skipped: guests of {machine}: {error:#}");
            totals.skip();
            return Ok(Vec::new());
        }
    };
    let programs = if args.bench {
        equipment.compiler.helpers(&[BENCH])?
    } else {
        equipment.compiler.with_tests(&steps::tests(args))?
    };
    equipment.furnish(
        &programs,
        |line| steps::all(args, machine, line),
        place,
        interrupt,
    )
}

/// Holds the results against the README, or writes them into it. Says whether all is as it was promised.
fn judge(args: &Args, rows: &[Row], is_well: bool) -> Result<bool> {
    const ADVICE: &str = "mend it, or, if it is meant, `cargo xtask vm --write-table`";
    let readme = shell::root().join("README.md");
    if args.write_table {
        ensure!(
            is_well,
            "README.md stays as it is: what fails is nothing to be promised"
        );
        matrix::write(&readme, rows)?;
        return Ok(true);
    }
    let promised = matrix::read(&readme)?;
    let comparison = promise::compare(&promised, rows);
    for better in &comparison.better {
        println!("README.md is behind: {better}: `cargo xtask vm --write-table`");
    }
    for broken in &comparison.broken {
        eprintln!("error: README.md is not kept: {broken}: {ADVICE}");
    }
    let mut kept = comparison.broken.is_empty();
    if args.demand == Demand::Everything {
        for name in promise::untried(&promised, rows) {
            eprintln!(
                "error: README.md is not kept: {name} has not been tried, see `skipped:` above for why"
            );
            kept = false;
        }
    }
    Ok(kept)
}

/// Whether a test that guests would run has one of these in its name; asks the test programs of this machine.
pub(crate) fn has_test(filters: &[String]) -> Result<bool> {
    let programs = steps::suites().flat_map(|name| ["--test", name]);
    let mut command = shell::cargo(&["test", "--quiet", "--package", "tests"]);
    command.args(programs).args(["--", "--list"]).args(filters);
    let what = shell::describe(&command);
    let done = command.output().with_context(|| format!("cannot run `{what}`"))?;
    ensure!(done.status.success(), "`{what}` failed ({})", done.status);
    let names = String::from_utf8_lossy(&done.stdout);
    Ok(names.lines().any(|line| line.ends_with(": test")))
}

/// Runs the demo on the newest kernel.
pub(crate) fn demo() -> Result<()> {
    const NAME: &str = "demo";
    const LIMIT: Duration = Duration::from_mins(3);
    let machine =
        Machine::host().with_context(|| format!("guests are not made for {} yet", std::env::consts::ARCH))?;
    let args = Args {
        kernel: vec![Choice::One(LINES[LINES.len() - 1])],
        ..Args::default()
    };
    let equipment = Equipment::get(machine, &args, &mut Totals::default())?;
    let programs = equipment.compiler.helpers(&["xtask"])?;
    let command = ["/bin/xtask", "demo", "--with", "/bin/pipestall"].map(str::to_owned);
    let step = || Step::new(NAME.to_owned(), command.clone().into(), Tracer::Sched, LIMIT);
    let interrupt = Interrupt::on_signals()?;
    let work = work_folder()?;
    let candidates = equipment.furnish(&programs, |_| vec![vec![step()]], &work, &interrupt)?;
    let mut guest = candidates.first().context("no kernel can be had")?.boot()?;
    loop {
        match guest.next_line(&interrupt)? {
            Line::Boot(release) => println!("in a guest, Linux {release}"),
            Line::Output(text) => println!("{text}"),
            Line::Done { outcome, .. } => {
                ensure!(outcome == "ok", "the demo in the guest {outcome}");
                return Ok(());
            }
            Line::Complaint(text) => eprintln!("the guest's kernel complains: {text}"),
            Line::Step(..) | Line::Again(..) => {}
            Line::End => bail!("the guest has shown nothing"),
        }
    }
}

fn work_folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("pipestall-vm-").tempdir()?)
}

/// The results of a machine's guests, a row for each kernel. Returns how many kernels there were.
fn add_rows(rows: &mut Vec<Row>, candidates: &[Candidate], results: &[BTreeMap<Tracer, Totals>]) -> usize {
    let before = rows.len();
    for (candidate, results) in candidates.iter().zip(results) {
        let (line, machine) = (candidate.kernel.line, candidate.machine);
        let known = rows.iter().position(|row| row.is_of(line, machine));
        let at = known.unwrap_or_else(|| {
            rows.push(Row::new(line, machine, &candidate.kernel.release));
            rows.len() - 1
        });
        for (tracer, totals) in results {
            rows[at].set(*tracer, Cell::of(totals));
        }
    }
    // They were run in another order than people look for them.
    rows[before..].sort_by_key(|row| LINES.iter().position(|line| *line == row.line));
    rows.len() - before
}
