//! `cargo xtask`: what a clone of this repository needs done, each as one command.
//!
//! Links to no other package of the workspace; it knows the program only as a command to run.

mod bench;
mod build;
mod ci;
mod deb;
mod demo;
mod fuzz;
mod interrupt;
mod screenshot;
mod setup;
mod shell;
mod skips;
mod test;
#[expect(dead_code, reason = "what only probe-user's build script uses")]
mod toolchain;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Sets up, builds, shows, tests and measures pipestall.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", after_help = OVERVIEW)]
enum Task {
    /// Finds or installs what the kernel programs are built with
    #[command(after_help = ABOUT_SETUP)]
    Setup {
        /// Also what only the tests use: ffmpeg, node, strace, prometheus, Python packages
        #[arg(long)]
        tests: bool,
    },
    /// Builds the program, the kernel programs inside it
    Build {
        /// With optimizations
        #[arg(long)]
        release: bool,
    },
    /// Builds the program for release and runs it, through sudo unless root
    #[command(after_help = "Example: cargo xtask run -- ps --all")]
    Run {
        /// The program's arguments
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Starts real stuck writers, shows them, and has an agent end them
    #[command(after_help = ABOUT_DEMO)]
    Demo {
        /// Takes this program instead of building it
        #[arg(long, hide = true, value_name = "PIPESTALL")]
        with: Option<PathBuf>,
        /// In a guest of QEMU's: takes no root, nor a kernel that allows BPF
        #[arg(long, conflicts_with = "with")]
        vm: bool,
    },
    /// Runs all tests: unit, documentation, and live on this kernel
    #[command(after_help = ABOUT_TEST)]
    Test {
        /// Runs only the tests whose name contains one of these
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Runs the live tests on other kernels, in guests of QEMU's
    #[command(after_help = ABOUT_VM)]
    Vm(vm::Args),
    /// Measures what pipestall costs, against the same run without it
    Bench {
        /// The benchmark's arguments; `-- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Takes the README's picture of `pipestall top` anew, from the running program
    Screenshot,
    /// Has the agent work for ten minutes, and sees that what it occupies does not grow
    Soak {
        /// For one minute
        #[arg(long)]
        quick: bool,
    },
    /// Builds the Debian package: the program, its unit, a configuration in dry-run, the manual
    Deb,
    /// Fuzzes configurations and recordings, guided by coverage, for a bounded time
    #[command(after_help = ABOUT_FUZZ)]
    Fuzz {
        /// How long for each of the two, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Does what CI does: format, lints, licences, tests, fuzzing
    #[command(after_help = ABOUT_CI)]
    Ci,
    /// Writes to stdout for ever: the demo's stand-in for ffmpeg
    #[command(hide = true)]
    WriteForever,
}

const OVERVIEW: &str = "\
On a fresh machine, two commands do everything, set-up included:
  cargo xtask demo    real stuck writers, found and ended
  cargo xtask test    all tests";

const ABOUT_SETUP: &str = "\
Taken is the first Rust toolchain with library sources among
  1. the rustup toolchain that PIPESTALL_BPF_TOOLCHAIN names, if set;
  2. rustup's nightly with the component rust-src;
  3. Debian's rustc-web, cargo-web and rust-web-src, linked into rustup
     as pipestall-bpf;
or, without rustup, the rustc on PATH. And bpf-linker from PATH, or from the
cache directory: PIPESTALL_CACHE, else $XDG_CACHE_HOME/pipestall, else
~/.cache/pipestall.

What is missing is installed by apt-get (as root on Debian), rustup and cargo.
Where that fails, the commands to do it by hand are listed. With nothing
missing it takes no time, and every other task does it first.";

const ABOUT_DEMO: &str = "\
One ffmpeg runs under Node, which never reads it (a unix socket), one in a
shell pipe. Where ffmpeg or node is missing, a stand-in takes its place. The
agent's rules can match only these two. Needs root, or sudo, and less than a
minute after the build.";

const ABOUT_TEST: &str = "\
The last line is the sum: N passed, N failed, N skipped. Live tests that
cannot run here (no root, no ffmpeg) say why and count as skipped, and so do
kernels that cannot be had. In guests, a test that fails is run once more by
itself; how many were is said before the sum.";

const ABOUT_VM: &str = "\
Kernels are the newest of Debian's for the cloud, from the mirror that apt's
sources name; apt checks them, and the cache directory keeps them. Programs
are built without shared libraries and put into an initramfs. Takes QEMU, and
no root. KVM is used if a guest boots with it, else everything is emulated.
Programs for aarch64 are cross-built; what that takes is installed if it can be.

README.md's table is what a run of all tests has to keep: it fails where a tracer
that worked on a kernel is refused or fails. --write-table writes the
table anew. A kernel that cannot be had is skipped, but in `cargo xtask ci` fails.

Example: cargo xtask vm --kernel 6.1 --machine x86_64 --tracer sched --test ages";

const ABOUT_CI: &str = "\
Stricter than `cargo xtask test`: it fails where a kernel of README.md's table
cannot be had, or, as root on a kernel that takes BPF programs, a live test is
skipped for another reason than that this kernel has no such tracer.";

const ABOUT_FUZZ: &str = "\
libFuzzer, on the stable toolchain and without a sanitizer; takes a C++ compiler.
It begins with the test fixtures, and keeps what it finds in target/fuzz/corpus.
An input that fails is left in fuzz/crashes, to be committed with what mends it.";

fn main() -> ExitCode {
    match perform(Task::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { tests } => {
            setup::toolchain()?;
            if tests {
                setup::test_tools();
            }
        }
        Task::Build { release } => {
            build::pipestall(if release {
                build::Profile::Release
            } else {
                build::Profile::Dev
            })?;
        }
        Task::Run { args } => return Err(build::run(&args)),
        Task::Demo { vm: true, .. } => vm::demo()?,
        Task::Demo { with, .. } => demo::run(with)?,
        Task::Test { filters } => return Ok(test::run(&filters, test::Demand::WhatIsThere)?.report()),
        Task::Vm(args) => {
            let totals = vm::run(&args)?;
            if !args.measures() {
                return Ok(totals.report());
            }
            anyhow::ensure!(totals.is_well(), "a guest could not measure");
        }
        Task::Bench { args } => bench::run(&args)?,
        Task::Fuzz { seconds } => fuzz::run(seconds)?,
        Task::Screenshot => screenshot::run()?,
        Task::Soak { quick } => {
            let quick = quick.then(|| "--quick".to_owned());
            let soak = ["--only", "soak"].map(str::to_owned);
            bench::run(&soak.into_iter().chain(quick).collect::<Vec<_>>())?;
        }
        Task::Deb => deb::run()?,
        Task::Ci => return ci::run(),
        Task::WriteForever => demo::write_forever(),
    }
    Ok(ExitCode::SUCCESS)
}
