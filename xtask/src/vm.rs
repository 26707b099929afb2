//! Runs the live tests on other kernels than this one: Debian's, each in a guest of QEMU's. Takes no root.
//!
//! Knows the test programs by name only. The guest's first process is `tests`' program `guest`.

mod archive;
mod guest;
mod initramfs;
mod kernels;
mod machine;
mod matrix;
mod programs;
mod steps;
mod sums;

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use self::guest::{Accelerator, Guest, Line};
use self::initramfs::Initramfs;
use self::kernels::{Choice, Kernel, LINES};
use self::machine::{MACHINES, Machine};
use self::matrix::Row;
use self::programs::{Compiler, Programs, busybox};
use self::steps::{BENCH, Step, TRACERS, Tracer};
use crate::interrupt::Interrupt;
use crate::test::Totals;
use crate::{setup, shell};

const APPLETS: [&str; 9] = [
    "sh", "sleep", "cat", "true", "false", "env", "head", "ls", "dmesg",
];

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
    /// Test programs to run, such as ages; those that concern the tracer unless given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    test: Vec<String>,
    /// Guests to run at once; two for each processor and one for each GiB of free memory unless given, one to measure
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Asks the archive for newer kernels than those in the cache
    #[arg(long)]
    update: bool,
    /// Measures what counting each write costs, instead of running tests
    #[arg(long, conflicts_with_all = ["test", "filters", "write_table"])]
    bench: bool,
    /// Writes the results into README.md
    #[arg(long)]
    write_table: bool,
    /// Runs only the tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

impl Args {
    /// What the test run has: every machine, kernel and tracer.
    pub(crate) fn everything(filters: &[String]) -> Self {
        Self {
            filters: filters.to_vec(),
            ..Self::default()
        }
    }

    /// Whether it is figures that are wanted, and not tests.
    pub(crate) const fn measures(&self) -> bool {
        self.bench
    }

    fn lines(&self, machine: Machine) -> Vec<kernels::Line> {
        if self.kernel.is_empty() {
            return machine.usual_lines().into();
        }
        let is_asked = |line: &kernels::Line| self.kernel.iter().any(|choice| choice.is(*line));
        LINES.into_iter().filter(is_asked).collect()
    }
}

/// What can be booted, and has not been yet: a kernel, and what one tracer is to do on it.
#[derive(Clone)]
struct Candidate {
    machine: Machine,
    qemu: PathBuf,
    accelerator: Accelerator,
    kernel: Kernel,
    tracer: Tracer,
    initramfs: PathBuf,
    console: PathBuf,
}

impl Candidate {
    fn boot(&self) -> Result<Guest> {
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
    fn follow(&self, interrupt: &Interrupt) -> Totals {
        let mut totals = Totals::default();
        if interrupt.check().is_err() {
            return totals;
        }
        if let Err(error) = self
            .boot()
            .and_then(|guest| self.read(guest, &mut totals, interrupt))
        {
            self.say(&format!("{error:#}"));
            eprintln!("error: {self}: {}", first_line(&error));
            totals.breaks();
        }
        eprintln!("vm: {self} is done");
        totals
    }

    /// # Errors
    /// The guest came to no end.
    fn read(&self, mut guest: Guest, totals: &mut Totals, interrupt: &Interrupt) -> Result<()> {
        loop {
            match guest.next_line(interrupt)? {
                Line::Boot(_) => {}
                Line::Step(name, _) => self.say(&format!("--- {name}")),
                Line::Done { outcome, took, name } => {
                    self.say(&format!(
                        "--- {name}: {outcome} after {:.1} s",
                        took.as_secs_f64()
                    ));
                    if outcome != "ok" {
                        totals.breaks();
                    }
                }
                Line::Again(count, tests) => {
                    totals.run_again(count);
                    self.say(&format!("--- by themselves, once more: {tests}"));
                }
                Line::Output(text) => {
                    totals.read(&text);
                    self.say(&text);
                }
                Line::End => return Ok(()),
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

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

/// What a machine's guests are made with.
struct Equipment {
    machine: Machine,
    qemu: PathBuf,
    compiler: Compiler,
    kernels: Vec<Kernel>,
    busybox: PathBuf,
}

impl Equipment {
    /// Gets all of it. `Err` is why there can be no guest of this kind.
    fn get(machine: Machine, args: &Args, totals: &mut Totals) -> Result<Self> {
        let qemu = machine.qemu()?;
        let compiler = Compiler::find(machine)?;
        let cache = setup::cache_dir()?;
        let mut kernels = Vec::new();
        for line in args.lines(machine) {
            match Kernel::get(line, machine, &cache, args.update) {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => {
                    println!("skipped: {error:#}");
                    totals.skip();
                }
            }
        }
        ensure!(!kernels.is_empty(), "no kernel can be had");
        let busybox = busybox(machine, &cache)?;
        Ok(Self {
            machine,
            qemu,
            compiler,
            kernels,
            busybox,
        })
    }

    /// A guest of each kernel for each tracer that has steps, with these programs in it.
    fn furnish(
        self,
        programs: &Programs,
        work: &[(Tracer, Vec<Step>)],
        place: &TempDir,
        interrupt: &Interrupt,
    ) -> Result<Vec<Candidate>> {
        let place = place.path().join(self.machine.name());
        fs::create_dir_all(&place)?;
        let mut candidates = Vec::new();
        for (tracer, steps) in work {
            let initramfs = place.join(tracer.to_string());
            furnish(programs, &self.busybox, steps)?.write(&initramfs)?;
            candidates.extend(self.kernels.iter().map(|kernel| Candidate {
                machine: self.machine,
                qemu: self.qemu.clone(),
                accelerator: Accelerator::Kvm,
                kernel: kernel.clone(),
                tracer: *tracer,
                initramfs: initramfs.clone(),
                console: place.join(format!("{}-{tracer}.console", kernel.line)),
            }));
        }
        let accelerator = guest::accelerator(self.machine, interrupt, || {
            candidates.first().context("no guest to try")?.boot()
        });
        for candidate in &mut candidates {
            candidate.accelerator = accelerator;
        }
        let how = match accelerator {
            Accelerator::Kvm => "by KVM",
            Accelerator::Emulation => "emulated",
        };
        eprintln!("vm: {} kernels on {}, {how}", self.kernels.len(), self.machine);
        Ok(candidates)
    }
}

/// Boots the kernels, runs the tests, prints the matrix. What cannot be had is skipped, and said.
pub(crate) fn run(args: &Args) -> Result<Totals> {
    let interrupt = Interrupt::on_signals()?;
    let work = work_folder()?;
    let mut totals = Totals::default();
    let mut candidates = Vec::new();
    let machines = if args.machine.is_empty() {
        &MACHINES[..]
    } else {
        &args.machine[..]
    };
    for machine in machines {
        let equipment = match Equipment::get(*machine, args, &mut totals) {
            Ok(equipment) => equipment,
            Err(error) => {
                println!("skipped: guests of {machine}: {error:#}");
                totals.skip();
                continue;
            }
        };
        let programs = if args.bench {
            equipment.compiler.helpers(&[BENCH])?
        } else {
            equipment.compiler.with_tests(&steps::tests(args))?
        };
        candidates.extend(equipment.furnish(&programs, &steps::all(args), &work, &interrupt)?);
    }
    // The longest first, so that at the end none runs alone.
    candidates.sort_by_key(|candidate| candidate.tracer);
    let jobs = match args.jobs {
        Some(jobs) => jobs.get(),
        None if args.bench => 1,
        None => jobs(candidates.len()),
    };
    let start = shell::now();
    let results = in_parallel(&candidates, jobs, |candidate| candidate.follow(&interrupt));
    interrupt.check()?;
    for result in &results {
        totals += *result;
    }
    let rows = rows(&candidates, &results);
    let table = matrix::table(&rows, &TRACERS);
    if !args.bench {
        println!("\n{table}");
    }
    println!("{} kernels in {:.0} s", rows.len(), start.elapsed().as_secs_f64());
    if args.write_table {
        matrix::write(&shell::root().join("README.md"), &table)?;
    }
    Ok(totals)
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
    let step = Step::new(NAME.to_owned(), command.into(), Tracer::Sched, LIMIT);
    let interrupt = Interrupt::on_signals()?;
    let work = work_folder()?;
    let candidates = equipment.furnish(&programs, &[(Tracer::Sched, vec![step])], &work, &interrupt)?;
    let mut guest = candidates.first().context("no kernel can be had")?.boot()?;
    loop {
        match guest.next_line(&interrupt)? {
            Line::Boot(release) => println!("in a guest, Linux {release}"),
            Line::Output(text) => println!("{text}"),
            Line::Done { outcome, .. } => {
                ensure!(outcome == "ok", "the demo in the guest {outcome}");
                return Ok(());
            }
            Line::Step(..) | Line::Again(..) => {}
            Line::End => bail!("the guest has shown nothing"),
        }
    }
}

fn work_folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("pipestall-vm-").tempdir()?)
}

fn furnish(programs: &Programs, busybox: &Path, steps: &[Step]) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    for (name, path) in &programs.helpers {
        let at = if name == "guest" {
            "init".to_owned()
        } else {
            format!("bin/{name}")
        };
        initramfs.file(&at, path)?;
    }
    for (name, path) in &programs.tests {
        let at = format!("tests/{name}");
        if steps.iter().any(|step| step.command[0] == format!("/{at}")) {
            initramfs.file(&at, path)?;
        }
    }
    initramfs.file("bin/busybox", busybox)?;
    for applet in APPLETS {
        initramfs.link(&format!("bin/{applet}"), "busybox");
    }
    initramfs.text(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/tmp:/bin/false\nnobody:x:65534:65534::/tmp:/bin/false\n",
    );
    initramfs.text("etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n");
    let mut lines = String::new();
    for step in steps {
        lines.push_str(&serde_json::to_string(step)?);
        lines.push('\n');
    }
    initramfs.text("etc/steps", &lines);
    Ok(initramfs)
}

/// The results of a kernel's guests, a row for each kernel.
fn rows(candidates: &[Candidate], results: &[Totals]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (candidate, totals) in candidates.iter().zip(results) {
        let release = &candidate.kernel.release;
        let known = rows.iter().position(|row| row.release == *release);
        let at = known.unwrap_or_else(|| {
            rows.push(Row::new(release));
            rows.len() - 1
        });
        rows[at].cells.insert(candidate.tracer, *totals);
    }
    rows
}

/// How many guests to run at once: each has two processors and half a GiB, and waits most of the time.
fn jobs(guests: usize) -> usize {
    /// A guest keeps a third of a processor busy, emulated as it is.
    const PER_PROCESSOR: usize = 2;
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    let fitting = free.map_or(1, |kib| kib >> 20);
    guests.min(processors * PER_PROCESSOR).min(fitting).max(1)
}

fn in_parallel<T: Sync, R: Send>(items: &[T], jobs: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = work(item);
                    done.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((i, result));
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
