//! What `cargo xtask setup` takes of several toolchains, and what it says where there is none: with a
//! `rustup`, a `cargo` and a bpf-linker that are scripts.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine: what is on its PATH, and its home.
struct Machine(TempDir);

impl Machine {
    /// One on which rustup has these toolchains, with or without the library's sources.
    fn with_toolchains(toolchains: &[(&str, bool)]) -> Self {
        let machine = Self(tempfile::tempdir().expect("a folder"));
        let mut answers = String::new();
        for (name, has_sources) in toolchains {
            let sysroot = machine.path(&format!("toolchains/{name}"));
            if *has_sources {
                let core = sysroot.join("lib/rustlib/src/rust/library/core/src");
                fs::create_dir_all(&core).expect("a folder");
                fs::write(core.join("lib.rs"), "").expect("a file");
            }
            let sysroot = sysroot.display();
            for (arguments, answer) in [
                ("-vV", "release: 1.97.0-nightly".to_owned()),
                ("--print sysroot", sysroot.to_string()),
            ] {
                let _ = writeln!(answers, "'run {name} rustc {arguments}') echo '{answer}';;");
            }
        }
        machine.program(
            "bin/rustup",
            &format!("case \"$*\" in\n{answers}*) exit 1;;\nesac\n"),
        );
        machine.program("bin/cargo", "exit 1\n");
        machine
    }

    fn with_linker(self, at: &str) -> Self {
        self.program(at, "exit 0\n");
        self
    }

    fn program(&self, at: &str, script: &str) {
        let path = self.path(at);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be run");
    }

    fn path(&self, at: &str) -> PathBuf {
        self.0.path().join(at)
    }

    fn setup(&self, environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("setup")
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            .envs(environment.iter().copied())
            .output()
            .expect("it runs")
    }

    #[track_caller]
    fn assert_takes(&self, environment: &[(&str, &str)], toolchain: &str, linker: &Path) {
        let output = self.setup(environment);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let expected = format!("setup: kernel programs by {toolchain}, {}", linker.display());
        assert_eq!(said.trim_end(), expected);
    }
}

const ALL: [(&str, bool); 3] = [("chosen", true), ("nightly", true), ("pipestall-bpf", true)];
const CHOICE: (&str, &str) = ("PIPESTALL_BPF_TOOLCHAIN", "chosen");

#[test]
fn the_toolchain_is_the_one_that_is_asked_for_else_nightly_else_debians_each_with_sources() {
    let machine = |toolchains| Machine::with_toolchains(toolchains).with_linker("bin/bpf-linker");
    let takes = |toolchains, environment: &[_], toolchain| {
        let machine = machine(toolchains);
        machine.assert_takes(environment, toolchain, &machine.path("bin/bpf-linker"));
    };
    takes(&ALL, &[CHOICE], "rustup's chosen (1.97.0-nightly)");
    takes(&ALL, &[], "rustup's nightly (1.97.0-nightly)");
    let debians = "Debian's rustc 1.97.0-nightly (as pipestall-bpf)";
    takes(&ALL[2..], &[], debians);
    takes(&[("nightly", false), ("pipestall-bpf", true)], &[], debians);
}

#[test]
fn the_linker_is_the_one_on_the_path_else_that_of_the_cache_directory() {
    let name = "rustup's nightly (1.97.0-nightly)";
    let place = |at: &str| {
        let machine = Machine::with_toolchains(&ALL).with_linker(at);
        let linker = machine.path(at);
        (machine, linker)
    };
    let (machine, linker) = place("home/.cache/pipestall/bin/bpf-linker");
    machine.assert_takes(&[], name, &linker);
    let (machine, linker) = place("xdg/pipestall/bin/bpf-linker");
    let xdg = machine.path("xdg").display().to_string();
    machine.assert_takes(&[("XDG_CACHE_HOME", &xdg)], name, &linker);
    let (machine, linker) = place("own/bin/bpf-linker");
    let own = machine.path("own").display().to_string();
    machine.assert_takes(
        &[("XDG_CACHE_HOME", &xdg), ("PIPESTALL_CACHE", &own)],
        name,
        &linker,
    );
    let machine = machine.with_linker("bin/bpf-linker");
    machine.assert_takes(
        &[("PIPESTALL_CACHE", &own)],
        name,
        &machine.path("bin/bpf-linker"),
    );
}

#[test]
fn what_cannot_be_had_is_one_message_with_the_commands_that_get_it() {
    let machine = Machine::with_toolchains(&[("nightly", false)]);
    let output = machine.setup(&[("PIPESTALL_CACHE", "/no/such/cache")]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, message) = said.split_once("error: ").expect("a message");
    assert_eq!(
        message,
        "building pipestall's kernel programs needs what this machine lacks:
  - a Rust toolchain with library sources (nightly (1.97.0-nightly) has no rust-src; pipestall-bpf is not installed)
  - bpf-linker (not on PATH, nor in the cache directory)
to install it, run
    cargo xtask setup
or by hand
    rustup toolchain install nightly --component rust-src
  or, as root on Debian,
    apt-get install rustc-web cargo-web rust-web-src
    rustup toolchain link pipestall-bpf /usr
    cargo install bpf-linker --version 0.10.3 --locked --root /no/such/cache
"
    );
}

#[test]
fn a_choice_that_cannot_be_had_is_named_and_nothing_is_installed_in_its_place() {
    let machine = Machine::with_toolchains(&ALL[1..]).with_linker("bin/bpf-linker");
    let output = machine.setup(&[CHOICE]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "(chosen is not installed)",
        "rustup toolchain install chosen --component rust-src",
        "or unset PIPESTALL_BPF_TOOLCHAIN, which asks for chosen, and run setup",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
}
