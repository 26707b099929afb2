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
use self::steps::{BENCH, Step, TRACERS, Tracer, steps};
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
    /// Guests to run at once; two for each processor and one for each GiB of free memory unless given
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

/// What can be booted, and has not been yet.
struct Candidate {
    machine: Machine,
    qemu: PathBuf,
    accelerator: Accelerator,
    kernel: Kernel,
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

    /// Boots it, shows what it says, and keeps the results.
    fn follow(&self) -> Row {
        let row = match self.boot() {
            Ok(guest) => follow(guest, &self.kernel),
            Err(error) => Row {
                release: self.kernel.release.clone(),
                failure: Some(format!("{error:#}")),
                ..Row::default()
            },
        };
        eprintln!("vm: {} is done", self.kernel);
        row
    }
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

    /// A guest of each kernel, with these programs in it, to do these steps.
    fn furnish(self, programs: &Programs, steps: &[Step], work: &TempDir) -> Result<Vec<Candidate>> {
        let place = work.path().join(self.machine.name());
        fs::create_dir_all(&place)?;
        let initramfs = place.join("initramfs");
        furnish(programs, &self.busybox, steps)?.write(&initramfs)?;
        let candidate = |kernel: Kernel, accelerator| Candidate {
            machine: self.machine,
            qemu: self.qemu.clone(),
            accelerator,
            console: place.join(kernel.line.name),
            initramfs: initramfs.clone(),
            kernel,
        };
        let accelerator = guest::accelerator(self.machine, || {
            candidate(self.kernels[0].clone(), Accelerator::Kvm).boot()
        });
        let how = match accelerator {
            Accelerator::Kvm => "by KVM",
            Accelerator::Emulation => "emulated",
        };
        eprintln!("vm: {} kernels on {}, {how}", self.kernels.len(), self.machine);
        Ok(self
            .kernels
            .iter()
            .map(|kernel| candidate(kernel.clone(), accelerator))
            .collect())
    }
}

/// Boots the kernels, runs the tests, prints the matrix. What cannot be had is skipped, and said.
pub(crate) fn run(args: &Args) -> Result<Totals> {
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
            equipment.compiler.everything()?
        };
        candidates.extend(equipment.furnish(&programs, &steps(args, &programs)?, &work)?);
    }
    let jobs = args
        .jobs
        .map_or_else(|| jobs(candidates.len()), NonZeroUsize::get);
    let start = shell::now();
    let rows = in_parallel(&candidates, jobs, Candidate::follow);
    totals += report(args, &rows, start.elapsed())?;
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
    let work = work_folder()?;
    let candidates = equipment.furnish(&programs, &[step], &work)?;
    let mut guest = candidates.first().context("no kernel can be had")?.boot()?;
    loop {
        match guest.next_line()? {
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

/// Shows what a guest says, and keeps the results.
fn follow(mut guest: Guest, kernel: &Kernel) -> Row {
    let mut row = Row {
        release: kernel.release.clone(),
        ..Row::default()
    };
    let mut current: Option<Tracer> = None;
    loop {
        let line = match guest.next_line() {
            Ok(line) => line,
            Err(error) => {
                say(kernel, &format!("{error:#}"));
                row.failure = Some(format!("{error:#}").lines().next().unwrap_or_default().to_owned());
                if let Some(tracer) = current {
                    row.cells.entry(tracer).or_default().breaks();
                }
                return row;
            }
        };
        match line {
            Line::Boot(release) => row.release = release,
            Line::Step(name, _) => {
                current = Tracer::of_step(&name);
                say(kernel, &format!("--- {name}"));
            }
            Line::Done { outcome, took, name } => {
                say(
                    kernel,
                    &format!("--- {name}: {outcome} after {:.1} s", took.as_secs_f64()),
                );
                if let Some(tracer) = current.take().filter(|_| outcome != "ok") {
                    row.cells.entry(tracer).or_default().breaks();
                }
            }
            Line::Again(count, tests) => {
                if let Some(tracer) = current {
                    row.cells.entry(tracer).or_default().run_again(count);
                }
                say(kernel, &format!("--- by themselves, once more: {tests}"));
            }
            Line::Output(text) => {
                if let Some(tracer) = current {
                    row.cells.entry(tracer).or_default().read(&text);
                }
                say(kernel, &text);
            }
            Line::End => return row,
        }
    }
}

/// Prints a line of a guest's, whose kernel it names.
fn say(kernel: &Kernel, text: &str) {
    // A closed stdout leaves nobody to tell.
    let _ = writeln!(std::io::stdout().lock(), "{kernel:>14} | {text}");
}

fn report(args: &Args, rows: &[Row], took: Duration) -> Result<Totals> {
    let table = matrix::table(rows, &TRACERS);
    if !args.bench {
        println!("\n{table}");
    }
    println!("{} kernels in {:.0} s", rows.len(), took.as_secs_f64());
    let mut totals = Totals::default();
    for row in rows {
        for cell in row.cells.values() {
            totals += *cell;
        }
        if let Some(failure) = &row.failure {
            eprintln!("error: {}: {failure}", row.release);
            totals.breaks();
        }
    }
    if args.write_table {
        matrix::write(&shell::root().join("README.md"), &table)?;
    }
    Ok(totals)
}

/// How many guests to run at once: each has two processors and half a GiB, and waits most of the time.
fn jobs(kernels: usize) -> usize {
    /// A guest keeps a third of a processor busy, emulated as it is.
    const PER_PROCESSOR: usize = 2;
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    let fitting = free.map_or(1, |kib| kib >> 20);
    kernels.min(processors * PER_PROCESSOR).min(fitting).max(1)
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
