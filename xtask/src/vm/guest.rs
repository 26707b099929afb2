//! One guest: boots a kernel in QEMU, reads what it says, and ends it when it hangs. Knows no test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::machine::Machine;
use crate::interrupt::Interrupt;
use crate::shell;

/// Longest that a kernel may take to its first line, and from there to the first step, everything emulated on a
/// busy machine.
const BOOT: Duration = Duration::from_secs(90);
/// What a step may take beyond its own limit, which the guest enforces itself, and what is done between steps.
const SLACK: Duration = Duration::from_secs(30);
/// KVM that works has booted long before.
const TRIAL: Duration = Duration::from_secs(20);

/// How often to see whether all is to end.
const GLANCE: Duration = Duration::from_millis(250);

/// Lines that have come and are not read yet; a guest that says more waits.
const LINES: usize = 1024;
/// A longer line comes in pieces.
const LINE: u64 = 1 << 16;

/// With less than 512 MiB for all but itself a kernel gives no huge pages, as those of users do (`hugepage_init()`
/// in `mm/huge_memory.c`).
pub(super) const MEMORY_MIB: usize = 640;

/// How instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    Emulation,
}

/// What a guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It runs this kernel.
    Boot(String),
    /// A step begins, which may take this long.
    Step(String, Duration),
    /// A step is over: how, its name.
    Done {
        outcome: String,
        took: Duration,
        name: String,
    },
    /// So many tests have failed, and are run again by themselves.
    Again(i32, String),
    /// The kernel has said what no kernel should.
    Complaint(String),
    /// All steps are over.
    End,
    /// What the step wrote.
    Output(String),
}

impl Line {
    fn parse(text: &str) -> Self {
        Self::marker(text).unwrap_or_else(|| Self::Output(text.to_owned()))
    }

    fn marker(text: &str) -> Option<Self> {
        let (kind, rest) = text
            .strip_prefix('@')?
            .split_once(' ')
            .unwrap_or((text.get(1..)?, ""));
        let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let seconds = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
        match kind {
            "boot" => Some(Self::Boot(rest.to_owned())),
            "step" => Some(Self::Step(more.to_owned(), seconds(first)?)),
            "done" => {
                let (took, name) = more.split_once(' ')?;
                Some(Self::Done {
                    outcome: first.to_owned(),
                    took: seconds(took)?,
                    name: name.to_owned(),
                })
            }
            "again" => Some(Self::Again(first.parse().ok()?, more.to_owned())),
            "kernel" => Some(Self::Complaint(rest.to_owned())),
            "end" => Some(Self::End),
            _ => None,
        }
    }
}

/// A running guest; it ends with this.
pub(super) struct Guest {
    child: Child,
    lines: Receiver<String>,
    console: PathBuf,
    deadline: Instant,
}

impl Guest {
    /// Boots a kernel. What the kernel itself says goes to the file `console`.
    pub(super) fn boot(
        qemu: &Path,
        machine: Machine,
        accelerator: Accelerator,
        image: &Path,
        initramfs: &Path,
        console: &Path,
    ) -> Result<Self> {
        let mut command = Command::new(qemu);
        command
            .args(machine.board(accelerator))
            .args(["-smp", "2", "-m", &format!("{MEMORY_MIB}M")])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-chardev")
            .arg(format!("file,id=console,path={}", console.display()))
            .args(["-chardev", "stdio,id=results,signal=off"])
            .args(machine.serial_lines())
            .arg("-kernel")
            .arg(image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", machine.parameters()]);
        Self::start(command, console, BOOT)
    }

    /// Starts what is to be a guest, and say something within this time.
    fn start(mut command: Command, console: &Path, within: Duration) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(console.with_extension("qemu"))?);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", shell::describe(&command)))?;
        let stdout = child.stdout.take().context("QEMU has no stdout")?;
        let (sender, lines) = mpsc::sync_channel(LINES);
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            while let Some(line) = read_line(&mut stdout) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            console: console.to_owned(),
            deadline: shell::now() + within,
        })
    }

    /// The next thing it says.
    ///
    /// # Errors
    /// It has ended, or says nothing for longer than it may, or all is to end; it is ended then.
    pub(super) fn next_line(&mut self, interrupt: &Interrupt) -> Result<Line> {
        let line = loop {
            interrupt.check()?;
            let left = self.deadline.saturating_duration_since(shell::now());
            // Before what has come is looked at: who never stops talking hangs, too.
            if left.is_zero() {
                bail!("it hangs; the kernel says:\n{}", self.last_words());
            }
            match self.lines.recv_timeout(left.min(GLANCE)) {
                Ok(line) => break Line::parse(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("it ended early; the kernel says:\n{}", self.last_words())
                }
            }
        };
        match &line {
            Line::Boot(_) => self.deadline = shell::now() + BOOT,
            Line::Done { .. } => self.deadline = shell::now() + SLACK,
            Line::Step(_, limit) => self.deadline = shell::now() + *limit + SLACK,
            Line::Again(..) | Line::Complaint(_) | Line::End | Line::Output(_) => {}
        }
        Ok(line)
    }

    /// How long its emulator has been on a processor, if that can be told.
    pub(super) fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name before may hold anything: what follows it begins with the third field.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks
            .map(|ticks| ticks.parse::<u64>().ok())
            .sum::<Option<u64>>()?;
        Some(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    fn last_words(&self) -> String {
        let tail = |path: &Path| {
            let mut text = Vec::new();
            // Without it there is one reason less to tell.
            let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut text));
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        format!(
            "{}\n{}",
            tail(&self.console),
            tail(&self.console.with_extension("qemu"))
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // What fails here has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KVM where it works: there are machines on which it answers and guests hang. `boot` tries it.
pub(super) fn accelerator(
    machine: Machine,
    interrupt: &Interrupt,
    boot: impl FnOnce() -> Result<Guest>,
) -> Accelerator {
    let may_open = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if Machine::host() != Some(machine) || !may_open() {
        return Accelerator::Emulation;
    }
    tried(TRIAL, interrupt, boot)
}

/// KVM if a guest boots `within` that time.
fn tried(within: Duration, interrupt: &Interrupt, boot: impl FnOnce() -> Result<Guest>) -> Accelerator {
    let first_line = || {
        let mut guest = boot()?;
        guest.deadline = shell::now() + within;
        guest.next_line(interrupt)
    };
    match first_line() {
        Ok(Line::Boot(_)) => Accelerator::Kvm,
        _ => Accelerator::Emulation,
    }
}

/// The next line, without its end; `None` after the last.
fn read_line(from: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = from.take(LINE).read_until(b'\n', &mut line);
    if read.ok()? == 0 {
        return None;
    }
    let line = String::from_utf8_lossy(&line);
    Some(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_output() {
        assert_eq!(Line::parse("@boot 6.1.0-9"), Line::Boot("6.1.0-9".to_owned()));
        assert_eq!(
            Line::parse("@step 60 sched ages"),
            Line::Step("sched ages".to_owned(), Duration::from_mins(1))
        );
        assert_eq!(
            Line::parse("@done hung 60.5 sched ages"),
            Line::Done {
                outcome: "hung".to_owned(),
                took: Duration::from_millis(60_500),
                name: "sched ages".to_owned()
            }
        );
        assert_eq!(Line::parse("@again 2 a b"), Line::Again(2, "a b".to_owned()));
        assert_eq!(
            Line::parse("@kernel WARNING: at a"),
            Line::Complaint("WARNING: at a".to_owned())
        );
        assert_eq!(Line::parse("@end"), Line::End);
        for other in ["@", "@step", "@done ok x y", "test a ... ok", ""] {
            assert_eq!(Line::parse(other), Line::Output(other.to_owned()));
        }
    }
    const SHORT: Duration = Duration::from_millis(300);

    /// What a guest that is this program says within a short time, and the error that it ends with.
    fn said(program: &str, argument: &str) -> (Vec<Line>, String) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program);
        command.arg(argument);
        let mut guest = Guest::start(command, &dir.path().join("console"), SHORT).expect("it starts");
        let mut lines = Vec::new();
        loop {
            match guest.next_line(&Interrupt::default()) {
                Ok(line) => lines.push(line),
                Err(error) => return (lines, error.to_string()),
            }
        }
    }

    #[test]
    fn a_guest_that_says_nothing_hangs() {
        let (lines, error) = said("sleep", "100");
        assert_eq!(lines, []);
        assert!(error.contains("it hangs"), "{error}");
    }

    #[test]
    fn a_guest_that_never_stops_talking_hangs_too() {
        let (lines, error) = said("yes", "a");
        assert_eq!(lines.first(), Some(&Line::Output("a".to_owned())));
        assert!(error.contains("it hangs"), "{error}");
    }

    #[test]
    fn a_guest_whose_line_never_ends_hangs_too() {
        let (lines, error) = said("cat", "/dev/zero");
        assert!(!lines.is_empty());
        assert!(error.contains("it hangs"), "{error}");
    }

    #[test]
    fn a_guest_that_ends_without_a_word_has_ended_early() {
        let (lines, error) = said("true", "");
        assert_eq!(lines, []);
        assert!(error.contains("it ended early"), "{error}");
    }

    #[test]
    fn what_never_boots_is_emulated() {
        let dir = tempfile::tempdir().expect("a folder");
        let with = |program: &str, argument: &str| {
            let mut command = Command::new(program);
            command.arg(argument);
            let console = dir.path().join("console");
            tried(SHORT, &Interrupt::default(), || {
                Guest::start(command, &console, BOOT)
            })
        };
        assert_eq!(with("sleep", "100"), Accelerator::Emulation);
        assert_eq!(with("false", ""), Accelerator::Emulation);
        assert_eq!(with("no such emulator", ""), Accelerator::Emulation);
        assert_eq!(with("echo", "it does not work"), Accelerator::Emulation);
        assert_eq!(with("echo", "@boot 6.1.0"), Accelerator::Kvm);
    }

    #[test]
    fn the_time_that_a_guest_takes_of_a_processor_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("yes");
        command.arg("a");
        let guest = Guest::start(command, &dir.path().join("console"), BOOT).expect("it starts");
        assert!(guest.processor_time().is_some_and(|time| time < BOOT));
    }
}
