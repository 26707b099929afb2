//! Starts writers whose readers never read, and ends whatever it started. Knows nothing of pipestall.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::interrupt::Interrupt;
use crate::toolchain::on_path;

/// Raw video: a pipe is full at once.
const FFMPEG_ARGS: [&str; 10] = [
    "-nostdin",
    "-v",
    "error",
    "-f",
    "lavfi",
    "-i",
    "testsrc=size=640x360:rate=30",
    "-f",
    "rawvideo",
    "pipe:1",
];
/// Spawns its arguments as a server would, and reads nothing. Ends by itself if nobody is left to end it.
const NODE_SCRIPT: &str = "
const { spawn } = require('node:child_process');
const [program, ...args] = process.argv.slice(2);
spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] });
setTimeout(() => process.exit(), 90000);
";
const SHELL_SCRIPT: &str = r#""$0" "$@" | sleep 90; exit"#;

/// One stuck writer.
pub(super) struct Writer {
    pub(super) pid: u32,
    /// The comm of the process that started it.
    pub(super) parent: String,
    /// Who does not read what it writes, for people.
    pub(super) setting: &'static str,
}

/// All the processes of the demo but the agent; they are ended with it.
pub(super) struct Writers {
    comm: String,
    list: Vec<Writer>,
    started: Vec<Child>,
    /// The reading end of a writer that has no process for its reader.
    unread: Option<UnixStream>,
    dir: TempDir,
}

impl Writers {
    /// Starts the writers, under a name that nothing else on the machine has.
    pub(super) fn start(interrupt: &Interrupt) -> Result<Self> {
        let comm = format!("ffmpeg-d{}", std::process::id());
        let dir = tempfile::Builder::new().prefix("pipestall-demo-").tempdir()?;
        let mut this = Self {
            comm,
            list: Vec::new(),
            started: Vec::new(),
            unread: None,
            dir,
        };
        let (program, args) = this.program()?;

        if let Some(node) = on_path("node") {
            let script = this.dir.path().join("spawn.js");
            fs::write(&script, NODE_SCRIPT)?;
            this.add(Command::new(node).arg(script).arg(&program).args(&args))?;
            this.find_child(
                "under node, which never reads its stdout (a unix socket)",
                interrupt,
            )?;
        } else {
            println!("   node is not on PATH: this process takes its place");
            let (ours, theirs) = UnixStream::pair()?;
            this.unread = Some(ours);
            let stdout = Stdio::from(OwnedFd::from(theirs));
            let pid = this.add(Command::new(&program).args(&args).stdout(stdout))?;
            let parent = comm_of(std::process::id()).unwrap_or_default();
            let setting = "under xtask, which never reads its stdout (a unix socket)";
            this.list.push(Writer { pid, parent, setting });
        }

        let mut shell = Command::new("sh");
        // Else it reports how its pipeline was killed.
        shell.stderr(Stdio::null());
        this.add(shell.args(["-c", SHELL_SCRIPT]).arg(&program).args(&args))?;
        this.find_child(
            "in `ffmpeg | sleep`, which never reads its stdin (a pipe)",
            interrupt,
        )?;
        Ok(this)
    }

    pub(super) fn list(&self) -> &[Writer] {
        &self.list
    }

    /// The name that the writers, and only they, go by.
    pub(super) fn comm(&self) -> &str {
        &self.comm
    }

    /// A folder that goes away with the writers.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// ffmpeg, or what stands in for it, by its unique name, and the arguments that make it write.
    fn program(&self) -> Result<(PathBuf, Vec<&'static str>)> {
        let link = self.dir.path().join(&self.comm);
        let (target, args) = if let Some(ffmpeg) = on_path("ffmpeg") {
            (ffmpeg, FFMPEG_ARGS.to_vec())
        } else {
            println!("   ffmpeg is not on PATH: a bundled writer takes its place");
            (std::env::current_exe()?, vec!["write-forever"])
        };
        symlink(target, &link)?;
        Ok((link, args))
    }

    fn add(&mut self, command: &mut Command) -> Result<u32> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a writer")?;
        let pid = child.id();
        self.started.push(child);
        Ok(pid)
    }

    /// Waits for the last process started to have started a writer in turn.
    fn find_child(&mut self, setting: &'static str, interrupt: &Interrupt) -> Result<()> {
        let parent = self.started.last().map(Child::id).unwrap_or_default();
        let pid = interrupt.wait_for("a writer does not start", || {
            Ok(children(parent)
                .into_iter()
                .find(|pid| comm_of(*pid).as_deref() == Some(&self.comm)))
        })?;
        let parent = comm_of(parent).context("a writer's parent is gone")?;
        self.list.push(Writer { pid, parent, setting });
        Ok(())
    }
}

impl Writer {
    /// Whether it is there, and not only as a zombie.
    pub(super) fn is_running(&self) -> bool {
        stat(self.pid).is_some_and(|(state, _)| state != "Z")
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        drop(self.unread.take());
        for child in &mut self.started {
            // What fails here has ended already.
            for pid in children(child.id()) {
                let _ = kill_child(child.id(), pid);
            }
            // They are their parent's to reap.
            for _ in 0..100 {
                if children(child.id()).is_empty() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn kill_child(parent: u32, pid: u32) -> Option<()> {
    let handle = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    // Still this parent's: so the handle is of the process that was listed, not of another with its pid.
    let (_, its_parent) = stat(pid)?;
    (its_parent == parent).then(|| pidfd_send_signal(handle, Signal::KILL).ok())?
}

/// Writes to stdout until there is no reader left.
pub(crate) fn write_forever() {
    let chunk = [0; 8 * 1024];
    let mut stdout = std::io::stdout().lock();
    while stdout.write_all(&chunk).is_ok() {}
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, ppid)| ppid == parent))
        .collect()
}

/// A process's state and its parent.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The comm before it may itself contain spaces and parentheses.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn comm_of(pid: u32) -> Option<String> {
    Some(
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .ok()?
            .trim_end()
            .to_owned(),
    )
}
