//! One guest: boots a kernel in QEMU, reads what it says, and ends it when it hangs. Knows no test.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::machine::Machine;
use crate::interrupt::Interrupt;
use crate::shell;

/// Longest that a kernel may take to its first line, everything emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(90);
/// What a step may take beyond its own limit, which the guest enforces itself.
const SLACK: Duration = Duration::from_secs(30);
/// KVM that works has booted long before.
const TRIAL: Duration = Duration::from_secs(20);

/// How often to see whether all is to end.
const GLANCE: Duration = Duration::from_millis(250);

const MEMORY: &str = "512M";

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
    /// All are.
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
            .args(["-smp", "2", "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-chardev")
            .arg(format!("file,id=console,path={}", console.display()))
            .args(["-chardev", "stdio,id=results,signal=off"])
            .args(machine.serial_lines())
            .arg("-kernel")
            .arg(image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", machine.parameters()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(console.with_extension("qemu"))?);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", qemu.display()))?;
        let stdout = child.stdout.take().context("QEMU has no stdout")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            console: console.to_owned(),
            deadline: shell::now() + BOOT,
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
            match self.lines.recv_timeout(left.min(GLANCE)) {
                Ok(line) => break Line::parse(&line),
                Err(RecvTimeoutError::Timeout) if left > GLANCE => {}
                Err(RecvTimeoutError::Timeout) => bail!("it hangs; the kernel says:\n{}", self.last_words()),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("it ended early; the kernel says:\n{}", self.last_words())
                }
            }
        };
        match &line {
            Line::Boot(_) | Line::Done { .. } => self.deadline = shell::now() + SLACK,
            Line::Step(_, limit) => self.deadline = shell::now() + *limit + SLACK,
            Line::Again(..) | Line::End | Line::Output(_) => {}
        }
        Ok(line)
    }

    fn last_words(&self) -> String {
        let tail = |path: &Path| {
            let mut text = Vec::new();
            // Without it there is one reason less to tell.
            let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut text));
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
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
    let boots = || -> Result<()> {
        let mut guest = boot()?;
        guest.deadline = shell::now() + TRIAL;
        guest.next_line(interrupt).map(drop)
    };
    match boots() {
        Ok(()) => Accelerator::Kvm,
        Err(_) => Accelerator::Emulation,
    }
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
        assert_eq!(Line::parse("@end"), Line::End);
        for other in ["@", "@step", "@done ok x y", "test a ... ok", ""] {
            assert_eq!(Line::parse(other), Line::Output(other.to_owned()));
        }
    }
}
