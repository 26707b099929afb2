//! `pipestall ps`: one look.

use std::process::Command;
use std::time::Duration;

use crate::command::{self, Done};
use crate::message::Stall;
use crate::{binary, clock};

const PATIENCE: Duration = Duration::from_secs(20);

/// One look, and when it was.
#[derive(Debug)]
pub struct Look {
    /// What was seen.
    pub stalls: Vec<Stall>,
    /// What was said beside it.
    pub stderr: String,
    /// When the program was started, on the monotonic clock.
    pub started: Duration,
    /// When it had ended.
    pub ended: Duration,
}

/// Runs `pipestall ps --json` with further arguments.
#[track_caller]
pub fn ps(arguments: &[&str]) -> Look {
    ps_by(
        Command::new(binary::pipestall())
            .args(["ps", "--json"])
            .args(arguments),
    )
}

/// Runs a command that ends in `pipestall ps --json`.
#[track_caller]
pub fn ps_by(command: &mut Command) -> Look {
    let started = clock::mono();
    let done = command::run(command, PATIENCE);
    let ended = clock::mono();
    let Done { stdout, stderr, .. } = done.expect_code(0);
    let stalls = serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    Look {
        stalls,
        stderr: stderr.clone(),
        started,
        ended,
    }
}

/// What the program prints for people, which fits 80 columns.
#[track_caller]
pub fn text(arguments: &[&str]) -> String {
    let mut command = Command::new(binary::pipestall());
    let done = command::run(command.args(arguments), PATIENCE);
    let text = done.expect_code(0).stdout.clone();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    text
}

impl Look {
    /// Gives the only stall of a process.
    #[track_caller]
    pub fn of(&self, pid: u32) -> &Stall {
        let mut stalls = self.stalls.iter().filter(|stall| stall.pid == pid);
        match (stalls.next(), stalls.next()) {
            (Some(stall), None) => stall,
            (None, _) => panic!("{pid} is not reported: {:#?}", self.stalls),
            (Some(_), Some(_)) => panic!("{pid} is reported more than once: {:#?}", self.stalls),
        }
    }

    /// Says whether a process is reported.
    pub fn has(&self, pid: u32) -> bool {
        self.stalls.iter().any(|stall| stall.pid == pid)
    }
}
