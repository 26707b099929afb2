//! What runs in guests, built for their machine and without libraries of this one's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::archive::Archive;
use super::machine::Machine;
use super::sums;
use crate::toolchain::{self, LINKED_TOOLCHAIN, on_path};
use crate::{setup, shell};

/// How they are built: for a target that is named, so that flags of their own do not reach build scripts.
const PROFILE: &str = "guest";
/// The first process, the program, the bundled writer.
const ALWAYS: [&str; 3] = ["guest", "pipestall", "stuck"];
/// Where a shell and the likes of `sleep` come from.
const BUSYBOX: &str = "busybox-static";
const BUSYBOX_SUITE: &str = "bookworm";
/// Debian's compiler and C library for another machine than this.
const CROSS_PACKAGES: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
/// Rust's library for it, to go with Debian's rustc.
const CROSS_LIBRARY: &str = "libstd-rust-web-dev";

/// What is built for guests, by name.
#[derive(Default)]
pub(super) struct Programs {
    pub(super) helpers: BTreeMap<String, PathBuf>,
    pub(super) tests: BTreeMap<String, PathBuf>,
}

/// What compiles for a machine.
pub(super) struct Compiler {
    machine: Machine,
    toolchain: Toolchain,
}

/// A toolchain that may have the library for another machine.
#[derive(Clone, Copy)]
enum Toolchain {
    /// The one that has built this.
    Running,
    /// Debian's, in rustup.
    Linked,
}

impl Toolchain {
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Running => None,
            Self::Linked => Some(LINKED_TOOLCHAIN),
        }
    }

    fn has_library(self, machine: Machine) -> bool {
        toolchain::ask_rustc(self.name(), &["--print", "sysroot"]).is_some_and(|sysroot| {
            Path::new(sysroot.trim_end())
                .join("lib/rustlib")
                .join(machine.triple())
                .join("lib")
                .is_dir()
        })
    }

    fn with_library(machine: Machine) -> Option<Self> {
        [Self::Running, Self::Linked]
            .into_iter()
            .find(|toolchain| toolchain.has_library(machine))
    }
}

impl Compiler {
    /// Finds one, and installs what it lacks if that is possible.
    pub(super) fn find(machine: Machine) -> Result<Self> {
        setup::toolchain()?;
        if Machine::host() == Some(machine) {
            let toolchain = Toolchain::Running;
            return Ok(Self { machine, toolchain });
        }
        ensure!(
            machine.can_be_had(),
            "programs for {machine} are built on {machine} only"
        );
        if on_path(cross_linker()).is_none() {
            setup::attempt(setup::apt_install(&CROSS_PACKAGES));
        }
        ensure!(
            on_path(cross_linker()).is_some(),
            "there is no {}: install Debian's {}",
            cross_linker(),
            CROSS_PACKAGES.join(" ")
        );
        if Toolchain::with_library(machine).is_none() {
            install_library(machine);
        }
        let toolchain = Toolchain::with_library(machine).with_context(|| {
            let triple = machine.triple();
            format!("no Rust toolchain here has the library for {triple}: run `rustup target add {triple}`")
        })?;
        Ok(Self { machine, toolchain })
    }

    /// Builds what every guest has, and these test programs.
    pub(super) fn with_tests(&self, tests: &[&str]) -> Result<Programs> {
        let build = ["test", "--no-run", "--package", "tests"];
        let tests = tests.iter().flat_map(|name| ["--test", name]);
        Ok(Programs {
            helpers: self.executables(&with_helpers(&[]))?,
            tests: self.executables(&build.into_iter().chain(tests).collect::<Vec<_>>())?,
        })
    }

    /// Builds what every guest has, and these too.
    pub(super) fn helpers(&self, more: &[&str]) -> Result<Programs> {
        Ok(Programs {
            helpers: self.executables(&with_helpers(more))?,
            ..Programs::default()
        })
    }

    fn cargo(&self, args: &[&str]) -> Command {
        match self.toolchain.name() {
            None => shell::cargo(args),
            Some(name) => {
                let mut command = Command::new("rustup");
                command
                    .current_dir(shell::root())
                    .args(["run", name, "cargo"])
                    .args(args);
                command
            }
        }
    }

    /// Runs cargo and returns the executables that it names.
    fn executables(&self, args: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
        let triple = self.machine.triple();
        let of_target = |what: &str| {
            let target = triple.to_uppercase().replace('-', "_");
            format!("CARGO_TARGET_{target}_{what}")
        };
        let mut command = self.cargo(args);
        command
            .args(["--profile", PROFILE, "--target", &triple])
            .arg("--message-format=json-render-diagnostics")
            .env(of_target("RUSTFLAGS"), "-C target-feature=+crt-static")
            .stderr(Stdio::inherit());
        if Machine::host() != Some(self.machine) {
            command
                .env(of_target("LINKER"), cross_linker())
                .env(format!("CC_{}", triple.replace('-', "_")), cross_linker());
        }
        let what = shell::describe(&command);
        let done = command.output().with_context(|| format!("cannot run `{what}`"))?;
        ensure!(done.status.success(), "`{what}` failed ({})", done.status);
        let mut found = BTreeMap::new();
        for line in String::from_utf8_lossy(&done.stdout).lines() {
            let message: Value =
                serde_json::from_str(line).with_context(|| format!("`{what}` speaks no JSON"))?;
            if let (Some(path), Some(name)) =
                (message["executable"].as_str(), message["target"]["name"].as_str())
            {
                let kind = &message["target"]["kind"][0];
                if kind == "test" || args[0] == "build" {
                    found.insert(name.to_owned(), PathBuf::from(path));
                }
            }
        }
        Ok(found)
    }
}

fn with_helpers<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let bins = ALWAYS
        .into_iter()
        .chain(more.iter().copied())
        .flat_map(|name| ["--bin", name]);
    ["build", "--workspace"].into_iter().chain(bins).collect()
}

const fn cross_linker() -> &'static str {
    "aarch64-linux-gnu-gcc"
}

/// Tries each way to Rust's library for another machine.
fn install_library(machine: Machine) {
    if on_path("rustup").is_none() {
        return;
    }
    let linked = toolchain::ask_rustc(Some(LINKED_TOOLCHAIN), &["--version"]).is_some();
    let step = if linked {
        setup::apt_install_foreign(machine.debian(), CROSS_LIBRARY)
    } else {
        let mut rustup = Command::new("rustup");
        shell::run(rustup.args(["target", "add", &machine.triple()]))
    };
    setup::attempt(step);
}

/// Debian's busybox, from the cache directory or from the archive.
pub(super) fn busybox(machine: Machine, cache: &Path) -> Result<PathBuf> {
    let home = machine.home(cache);
    let busybox = home.join("busybox");
    if sums::check(&busybox).is_err() {
        let unpacked = tempfile::tempdir_in(&home)?;
        let archive = Archive::open(BUSYBOX_SUITE, machine.debian(), &home)?;
        archive.unpack(BUSYBOX, unpacked.path())?;
        sums::keep(&unpacked.path().join("bin/busybox"), &busybox)?;
    }
    Ok(busybox)
}
