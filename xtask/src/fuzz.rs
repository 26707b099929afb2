//! Feeds what people hand to the program, configurations and recordings, to libFuzzer for a
//! bounded time. Knows the fuzz package's targets and where their first inputs are.
//!
//! The coverage counters that guide it are an LLVM pass, which any rustc takes; only a sanitizer
//! would need a nightly one. The targets hold no unsafe code, so there is nothing for it to find.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{setup, shell};

/// What cargo-fuzz passes, but for the sanitizer.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// No input is longer.
const MAX_LEN: usize = 64 << 10;

/// A target, and the folders and kinds of files that it begins with.
struct Target {
    name: &'static str,
    seeds: &'static [&'static str],
    extension: &'static str,
}

const TARGETS: [Target; 2] = [
    Target {
        name: "config",
        seeds: &["tests/fixtures/config/valid", "tests/fixtures/config/invalid"],
        extension: "toml",
    },
    Target {
        name: "recording",
        seeds: &["tests/fixtures/recordings"],
        extension: "pst",
    },
];

/// Runs each target for so many seconds, on what is in its corpus and its crashes first.
pub(crate) fn run(seconds: u32) -> Result<()> {
    setup::toolchain()?;
    let target_dir = shell::target_dir()?.join("fuzz");
    // With a target named, build scripts and macros are built without the flags.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = shell::cargo(&[
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        "fuzz/Cargo.toml",
    ]);
    build
        .args(["--target", &triple])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTFLAGS", COVERAGE);
    shell::run(&mut build)?;
    for target in &TARGETS {
        let program = target_dir.join(&triple).join("release").join(target.name);
        fuzz(
            target,
            &program,
            &target_dir.join("corpus").join(target.name),
            seconds,
        )?;
    }
    Ok(())
}

fn fuzz(target: &Target, program: &Path, corpus: &Path, seconds: u32) -> Result<()> {
    let crashes = shell::root().join("fuzz/crashes").join(target.name);
    fs::create_dir_all(corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    for seed in seeds(target)? {
        let name = seed.file_name().unwrap_or_default();
        fs::copy(&seed, corpus.join(name)).with_context(|| format!("cannot copy {}", seed.display()))?;
    }
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_LEN}"))
        .args(["-timeout=10", "-verbosity=0", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args([corpus, &crashes]);
    eprintln!("fuzz: {} for {seconds} s", target.name);
    shell::run(&mut command).with_context(|| {
        format!(
            "the input is in fuzz/crashes/{}: mend what it shows, and commit it, for it is tried first from then on",
            target.name
        )
    })
}

fn seeds(target: &Target) -> Result<Vec<PathBuf>> {
    let mut seeds = Vec::new();
    for folder in target.seeds {
        let folder = shell::root().join(folder);
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let is_one = path
                .extension()
                .is_some_and(|extension| extension == target.extension);
            if is_one && path.metadata()?.len() <= MAX_LEN as u64 {
                seeds.push(path);
            }
        }
    }
    ensure!(!seeds.is_empty(), "there are no first inputs for {}", target.name);
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_begins_with_what_is_known() {
        for target in &TARGETS {
            assert!(seeds(target).unwrap().len() >= 3, "{}", target.name);
        }
    }
}
