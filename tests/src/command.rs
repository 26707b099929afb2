//! Running a program to its end, with a deadline.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::family::Family;

/// What a program left behind.
#[derive(Debug)]
pub struct Done {
    /// How it exited.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Done {
    /// Asserts the exit code; a failure shows what the program wrote.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        assert_eq!(
            status.code(),
            Some(code),
            "{status}\nstdout: {stdout}\nstderr: {stderr}"
        );
        self
    }

    /// Asserts that stderr is one line that names all of these, and returns the line.
    #[track_caller]
    pub fn expect_one_clear_line(&self, names: &[&str]) -> &str {
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let [line] = lines[..] else {
            panic!("one line was expected, not:\n{}", self.stderr)
        };
        for name in names {
            assert!(line.contains(name), "{name:?} is missing from: {line}");
        }
        line
    }
}

/// Runs a program to its end.
///
/// # Panics
/// If it does not end in time.
#[track_caller]
pub fn run(command: &mut Command, within: Duration) -> Done {
    run_with_input(command.stdin(Stdio::null()), within)
}

/// Runs a program to its end on the input that it has been given.
///
/// # Panics
/// If it does not end in time.
#[track_caller]
pub fn run_with_input(command: &mut Command, within: Duration) -> Done {
    let mut family = Family::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = read_all(family.child().stdout.take().expect("stdout is piped"));
    let stderr = read_all(family.child().stderr.take().expect("stderr is piped"));
    let status = family.exited(within);
    let Some(status) = status else {
        drop(family);
        let (stdout, stderr) = (stdout.join(), stderr.join());
        panic!("{command:?} does not end within {within:?}; stdout: {stdout:?} stderr: {stderr:?}");
    };
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("a reader does not panic");
    Done {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A stream that breaks is as good as one that ends: the exit code tells the rest.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
