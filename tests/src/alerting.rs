//! Webhooks of tests, and the program that is to serve them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::binary;
use crate::command::{self, Done};
use crate::config::webhook;
use crate::dice::Dice;
use crate::receiver::{Answer, Request};
use crate::scratch::Scratch;

/// How long whatever is waited for may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A key that signs.
pub const OLD_KEY: &str = "whsec_b2xkLWtleS1mb3ItdGVzdHMtb25seS0wMTIzNDU=";
/// Another, which replaces it.
pub const NEW_KEY: &str = "whsec_bmV3LWtleS1mb3ItdGVzdHMtb25seS0wMTIzNDU=";

/// Writes a file that nobody else may read.
pub fn secret(scratch: &Scratch, name: &str, text: &str) -> PathBuf {
    let path = scratch.write(name, text);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
    path
}

/// Makes the lines of a webhook that is told of each writer at once.
pub fn signed(scratch: &Scratch, more: &str) -> String {
    let key = secret(scratch, "ops.key", &format!("{NEW_KEY}\n{OLD_KEY}\n"));
    format!(
        "format = \"standard\"\nsecret_file = {:?}\ngroup_by = [\"writer\"]\ngroup_wait = \"0s\"\n\
         group_interval = \"100ms\"\nretry_min = \"20ms\"\nretry_max = \"300ms\"\n{more}",
        key.display().to_string()
    )
}

/// Writes a configuration with a webhook and nothing else.
pub fn only(scratch: &Scratch, url: &str, lines: &str) -> PathBuf {
    let state = scratch.path("state").display().to_string();
    let text = format!("[state]\ndir = {state:?}\n\n{}", webhook("ops", url, lines));
    scratch.write("only.toml", &text)
}

/// Runs a command of the program on a configuration.
#[track_caller]
pub fn pipestall(arguments: &[&str], config: &Path) -> Done {
    let mut command = Command::new(binary::pipestall());
    command.args(arguments).arg("--config").arg(config);
    command::run(&mut command, PATIENCE)
}

/// Gives the command that alerts of what never happened.
pub fn alerter(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::alerter());
    command
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Judges requests so that three in ten fail, in every way that a receiver can.
pub fn faulty(seed: u64) -> impl FnMut(&Request) -> Answer {
    let mut dice = Dice(seed);
    move |_| match dice.roll(1000) {
        0..60 => Answer::Status(500),
        60..110 => Answer::With(429, "retry-after", "0".to_owned()),
        110..150 => Answer::Hang,
        150..200 => Answer::Reset,
        200..240 => Answer::Endless(503),
        240..270 => Answer::With(307, "location", "http://127.0.0.1:1/".to_owned()),
        270..300 => Answer::Cut(502),
        300..310 => Answer::Endless(200),
        _ => Answer::Status(204),
    }
}
