//! The steps of CI, in order of their price. Knows what is checked, not how.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::{fuzz, setup, shell, test};

/// For each target.
const FUZZ_SECONDS: u32 = 30;

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Runs every step, even after one has failed, and says how each went.
pub(crate) fn run() -> Result<ExitCode> {
    setup::toolchain()?;
    let mut report = Report::default();
    report.step("fmt", || cargo(&["fmt", "--all", "--check"]));
    report.step("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ])
    });
    report.step("deny", deny);
    let mut totals = test::Totals::default();
    report.step("test", || {
        totals = test::run(&[], test::Demand::Everything)?;
        ensure!(totals.succeeded(), "see above");
        Ok("ok")
    });
    report.step("fuzz", || {
        fuzz::run(FUZZ_SECONDS)?;
        Ok("ok")
    });
    report.print();
    let tests = totals.report();
    Ok(if report.failed { ExitCode::FAILURE } else { tests })
}

fn cargo(args: &[&str]) -> Result<&'static str> {
    shell::run(&mut shell::cargo(args))?;
    Ok("ok")
}

/// Licences, bans and sources; deny.toml says why no more.
fn deny() -> Result<&'static str> {
    let tool = match setup::cargo_tool("cargo-deny", CARGO_DENY_VERSION) {
        Ok(tool) => tool,
        Err(error) => {
            eprintln!("ci: {error:#}");
            return Ok("left out: cargo-deny cannot be installed");
        }
    };
    let mut command = Command::new(tool);
    shell::run(
        command
            .current_dir(shell::root())
            .args(["check", "licenses", "bans", "sources"]),
    )?;
    Ok("ok")
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
    failed: bool,
}

impl Report {
    fn step(&mut self, name: &str, action: impl FnOnce() -> Result<&'static str>) {
        eprintln!("ci: {name}");
        let start = shell::now();
        let outcome = match action() {
            Ok(outcome) => outcome.to_owned(),
            Err(error) => {
                self.failed = true;
                format!("FAILED: {error:#}")
            }
        };
        self.lines.push(format!(
            "ci: {name:<8}{:>7.1} s  {outcome}",
            start.elapsed().as_secs_f64()
        ));
    }

    fn print(&self) {
        self.lines.iter().for_each(|line| eprintln!("{line}"));
    }
}
