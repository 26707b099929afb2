//! Runs the live tests on other kernels than this one: Debian's, each in a guest of QEMU's. Takes no root.
//!
//! Knows the test programs by name only. The guest's first process is `tests`' program `guest`.

mod archive;
mod guest;
mod initramfs;
mod kernels;
mod matrix;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use self::archive::Archive;
use self::guest::{Accelerator, Guest, Line};
use self::initramfs::Initramfs;
use self::kernels::{Choice, Kernel, LINES};
use self::matrix::Row;
use crate::test::Totals;
use crate::toolchain::on_path;
use crate::{setup, shell};

/// How the programs are built that run in guests: for a target that is named, so that flags of their own do not
/// reach build scripts.
const PROFILE: &str = "guest";
/// The first process, the program, the bundled writer.
const PROGRAMS: [&str; 3] = ["guest", "pipestall", "stuck"];
/// What measures.
const BENCH: &str = "bench";
/// Where a shell and the likes of `sleep` come from.
const BUSYBOX: &str = "busybox-static";
const BUSYBOX_SUITE: &str = "bookworm";
const APPLETS: [&str; 9] = [
    "sh", "sleep", "cat", "true", "false", "env", "head", "ls", "dmesg",
];
/// Longest that one test program may take.
const STEP: Duration = Duration::from_mins(6);
/// The tests that tell what a tracer is worth; the others look at what is the same with each of them.
const TRACER_TESTS: [&str; 2] = ["ages", "watch"];

/// The tests of what meets the kernel: the others would tell the same on each.
const KERNEL_TESTS: [&str; 12] = [
    "ages", "agree", "crawl", "enforce", "find", "matchers", "mutation", "pace", "readers", "record",
    "spared", "watch",
];

/// What `cargo xtask vm` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernels to boot: 5.10, 6.1, 6.12, newest, or all
    #[arg(long, value_name = "KERNEL", value_delimiter = ',', default_value = "all")]
    kernel: Vec<Choice>,
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
    /// Every kernel and every tracer, as the test run has it.
    pub(crate) fn everything(filters: &[String]) -> Self {
        Self {
            kernel: vec![Choice::All],
            tracer: Vec::new(),
            test: Vec::new(),
            jobs: None,
            update: false,
            bench: false,
            write_table: false,
            filters: filters.to_vec(),
        }
    }
}

/// How the program follows writers: its `--tracer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Tracer {
    Sched,
    Fentry,
    Kprobe,
    Scan,
}

const TRACERS: [Tracer; 4] = [Tracer::Sched, Tracer::Fentry, Tracer::Kprobe, Tracer::Scan];

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
struct Step {
    name: String,
    command: Vec<String>,
    env: BTreeMap<&'static str, String>,
    timeout: u64,
}

impl Args {
    /// Whether it is figures that are wanted, and not tests.
    pub(crate) const fn measures(&self) -> bool {
        self.bench
    }
}

/// Boots the kernels, runs the tests, prints the matrix. `Err` is why there is none.
pub(crate) fn run(args: &Args) -> Result<Totals> {
    let qemu = qemu()?;
    let cache = setup::cache_dir()?;
    let mut totals = Totals::default();
    let mut kernels = Vec::new();
    for line in LINES {
        let is_it = |choice: &Choice| *choice == Choice::All || *choice == Choice::One(line);
        if !args.kernel.iter().any(is_it) {
            continue;
        }
        match Kernel::get(line, &cache, args.update) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => {
                println!("skipped: {error:#}");
                totals.skip();
            }
        }
    }
    ensure!(!kernels.is_empty(), "no kernel can be had");
    let programs = if args.bench {
        Programs {
            helpers: helpers(&[BENCH])?,
            ..Programs::default()
        }
    } else {
        build()?
    };
    let busybox = busybox(&cache)?;

    let work = tempfile::Builder::new().prefix("pipestall-vm-").tempdir()?;
    let initramfs = work.path().join("initramfs");
    furnish(&programs, &busybox, &steps(args, &programs)?)?.write(&initramfs)?;
    let accelerator = guest::accelerator(&qemu, &kernels[0], &initramfs, &work.path().join("trial"));
    let jobs = args.jobs.map_or_else(|| jobs(kernels.len()), NonZeroUsize::get);
    let how = match accelerator {
        Accelerator::Kvm => "by KVM",
        Accelerator::Emulation => "emulated",
    };
    eprintln!("vm: {} kernels {how}, {jobs} at once", kernels.len());

    let boot = |kernel: &Kernel| {
        let console = work.path().join(kernel.line.name);
        let row = Guest::boot(&qemu, accelerator, kernel, &initramfs, &console)
            .map_or_else(|error| failed(kernel, &error), |guest| follow(guest, kernel));
        eprintln!("vm: {} is done", kernel.line);
        row
    };
    let start = shell::now();
    let rows = in_parallel(&kernels, jobs, boot);
    totals += report(args, &rows, start.elapsed())?;
    Ok(totals)
}

/// Runs the demo on the newest kernel.
pub(crate) fn demo() -> Result<()> {
    const NAME: &str = "demo";
    const LIMIT: Duration = Duration::from_mins(3);
    let qemu = qemu()?;
    let cache = setup::cache_dir()?;
    let kernel = Kernel::get(LINES[LINES.len() - 1], &cache, false)?;
    let programs = Programs {
        helpers: helpers(&["xtask"])?,
        ..Programs::default()
    };
    let step = Step {
        name: NAME.to_owned(),
        command: ["/bin/xtask", "demo", "--with", "/bin/pipestall"]
            .map(str::to_owned)
            .into(),
        env: environment(Tracer::Sched),
        timeout: LIMIT.as_secs(),
    };
    let work = tempfile::Builder::new().prefix("pipestall-vm-").tempdir()?;
    let initramfs = work.path().join("initramfs");
    let mut files = furnish(&programs, &busybox(&cache)?, &[step])?;
    files.file(
        "bin/xtask",
        programs.helpers.get("xtask").context("cargo built no xtask")?,
    )?;
    files.write(&initramfs)?;
    let console = work.path().join("console");
    let accelerator = guest::accelerator(&qemu, &kernel, &initramfs, &console);
    let mut guest = Guest::boot(&qemu, accelerator, &kernel, &initramfs, &console)?;
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

/// QEMU, installed if that is possible.
fn qemu() -> Result<PathBuf> {
    let (program, package) = match std::env::consts::ARCH {
        "x86_64" => ("qemu-system-x86_64", "qemu-system-x86"),
        other => bail!("guests are not made for {other} yet"),
    };
    if on_path(program).is_none() {
        setup::attempt(setup::apt_install(&[package]));
    }
    on_path(program).with_context(|| format!("there is no {program}: install Debian's {package}"))
}

/// Debian's busybox, from the cache directory or from the archive.
fn busybox(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("vm").join(std::env::consts::ARCH);
    let busybox = home.join("busybox");
    if !busybox.is_file() {
        let unpacked = tempfile::tempdir_in(&home)?;
        let archive = Archive::open(BUSYBOX_SUITE, kernels::debian_architecture(), &home)?;
        archive.unpack(BUSYBOX, unpacked.path())?;
        fs::rename(unpacked.path().join("bin/busybox"), &busybox)?;
    }
    Ok(busybox)
}

/// What is built for guests, by name.
#[derive(Default)]
struct Programs {
    helpers: BTreeMap<String, PathBuf>,
    tests: BTreeMap<String, PathBuf>,
}

/// Builds the programs without libraries of this machine's.
fn build() -> Result<Programs> {
    let tests = ["test", "--no-run", "--package", "tests", "--test", "*"];
    Ok(Programs {
        helpers: helpers(&[])?,
        tests: executables(&tests)?,
    })
}

/// Builds what every guest has, and these too.
fn helpers(more: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    setup::toolchain()?;
    let bins = PROGRAMS.iter().chain(more).flat_map(|name| ["--bin", *name]);
    let build = ["build", "--workspace"];
    executables(&build.into_iter().chain(bins).collect::<Vec<_>>())
}

/// Runs cargo and returns the executables that it names.
fn executables(args: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        target.to_uppercase().replace('-', "_")
    );
    let mut command = shell::cargo(args);
    command
        .args(["--profile", PROFILE, "--target", &target])
        .arg("--message-format=json-render-diagnostics")
        .env(flags, "-C target-feature=+crt-static")
        .stderr(Stdio::inherit());
    let what = shell::describe(&command);
    let done = command.output().with_context(|| format!("cannot run `{what}`"))?;
    ensure!(done.status.success(), "`{what}` failed ({})", done.status);
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let message: Value =
            serde_json::from_str(line).with_context(|| format!("`{what}` speaks no JSON"))?;
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            let kind = &message["target"]["kind"][0];
            if kind == "test" || args[0] == "build" {
                found.insert(name.to_owned(), PathBuf::from(path));
            }
        }
    }
    Ok(found)
}

/// What guests do: each test program with each tracer that it concerns.
fn steps(args: &Args, programs: &Programs) -> Result<Vec<Step>> {
    let tracers = if args.tracer.is_empty() {
        &TRACERS[..]
    } else {
        &args.tracer[..]
    };
    if let Some(unknown) = args.test.iter().find(|name| !programs.tests.contains_key(*name)) {
        let known: Vec<_> = programs.tests.keys().map(String::as_str).collect();
        bail!("there is no test program {unknown}, but {}", known.join(", "));
    }
    let mut steps = Vec::new();
    for tracer in tracers {
        if args.bench {
            if !matches!(tracer, Tracer::Fentry | Tracer::Kprobe) {
                continue;
            }
            let command = [&format!("/bin/{BENCH}"), "--only", "writes"].map(str::to_owned);
            steps.push(Step {
                name: format!("{tracer} {BENCH}"),
                command: command.into(),
                env: environment(*tracer),
                timeout: STEP.as_secs(),
            });
            continue;
        }
        for test in programs.tests.keys() {
            let wanted = if args.test.is_empty() {
                (*tracer == Tracer::Sched && KERNEL_TESTS.contains(&&**test))
                    || TRACER_TESTS.contains(&&**test)
            } else {
                args.test.contains(test)
            };
            if !wanted {
                continue;
            }
            // When a program is attached to a function, the exits of those asleep in it are lost to the others
            // (bpf_tramp_image_put(), kernel/bpf/trampoline.c), and `watch` counts them.
            let threads = if (*tracer, &**test) == (Tracer::Fentry, "watch") {
                1
            } else {
                2
            };
            let mut command = vec![format!("/tests/{test}"), format!("--test-threads={threads}")];
            command.extend(args.filters.iter().cloned());
            steps.push(Step {
                name: format!("{tracer} {test}"),
                command,
                env: environment(*tracer),
                timeout: STEP.as_secs(),
            });
        }
    }
    Ok(steps)
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
    pairs
        .into_iter()
        .map(|(key, value)| (key, value.to_owned()))
        .collect()
}

fn furnish(programs: &Programs, busybox: &Path, steps: &[Step]) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    let helper = |name: &str| {
        programs
            .helpers
            .get(name)
            .with_context(|| format!("cargo built no {name}"))
    };
    initramfs.file("init", helper("guest")?)?;
    for (name, path) in programs.helpers.iter().filter(|(name, _)| *name != "guest") {
        initramfs.file(&format!("bin/{name}"), path)?;
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
                current = TRACERS
                    .into_iter()
                    .find(|tracer| name.split(' ').next() == Some(tracer.name()));
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

fn failed(kernel: &Kernel, error: &anyhow::Error) -> Row {
    Row {
        release: kernel.release.clone(),
        failure: Some(format!("{error:#}")),
        ..Row::default()
    }
}

/// Prints a line of a guest's, whose kernel it names.
fn say(kernel: &Kernel, text: &str) {
    // A closed stdout leaves nobody to tell.
    let _ = writeln!(std::io::stdout().lock(), "{:>6} | {text}", kernel.line.name);
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
