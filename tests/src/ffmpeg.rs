//! Real ffmpegs and who starts them: Node with its sockets, a shell with its pipe, a FIFO.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::family::Family;
use crate::proc;
use crate::proc::BlockedWrite;
use crate::scratch::Scratch;

/// Writes without end to stdout, as an ffmpeg behind a download does.
pub const TO_STDOUT: [&str; 12] = [
    "-nostdin",
    "-v",
    "quiet",
    "-f",
    "lavfi",
    "-i",
    "testsrc=size=320x240",
    "-c:v",
    "rawvideo",
    "-f",
    "nut",
    "pipe:1",
];

/// Spawns what its arguments say with stdio `pipe`, and never reads its stdout: what a server
/// does whose client is connected and does not read.
const SPAWNER: &str = "
const { spawn } = require('node:child_process');
const [program, ...args] = process.argv.slice(2);
const child = spawn(program, args, { stdio: 'pipe' });
child.on('error', (error) => { throw error; });
setInterval(() => {}, 1000);
";

/// A stuck ffmpeg, who reads it (not), and who started it.
#[derive(Debug)]
pub struct Stuck {
    /// Ends all of it when dropped.
    pub family: Family,
    /// The ffmpeg.
    pub pid: u32,
    /// The blocked thread, by /proc.
    pub write: BlockedWrite,
    /// When it was first seen blocked, at most some milliseconds late.
    pub since: Duration,
    /// Who holds the reading end.
    pub reader: u32,
    /// Other processes that belong to it.
    _others: Option<Family>,
}

impl Stuck {
    #[track_caller]
    fn await_blocked(family: Family, pid: u32, reader: u32, others: Option<Family>) -> Self {
        let (write, since) = proc::await_blocked_write(pid);
        Self {
            family,
            pid,
            write,
            since,
            reader,
            _others: others,
        }
    }
}

/// Has Node spawn `ffmpeg` with piped stdio. `node` is started by the name it has.
#[track_caller]
pub fn under_node(node: &Path, ffmpeg: &Path, scratch: &Scratch) -> Stuck {
    let script = scratch.write("spawner.js", SPAWNER);
    let mut command = Command::new(node);
    command
        .arg(script)
        .arg(ffmpeg)
        .args(TO_STDOUT)
        .stdin(Stdio::null());
    let family = Family::start(&mut command);
    let pid = proc::await_child(family.pid(), &comm_of(ffmpeg));
    let reader = family.pid();
    Stuck::await_blocked(family, pid, reader, None)
}

/// Has a shell run `ffmpeg | sleep`.
#[track_caller]
pub fn piped_into_sleep(ffmpeg: &Path) -> Stuck {
    piped_into_sleep_by(Path::new("sh"), ffmpeg)
}

/// Has this shell run `ffmpeg | sleep`.
#[track_caller]
pub fn piped_into_sleep_by(shell: &Path, ffmpeg: &Path) -> Stuck {
    let mut command = Command::new(shell);
    // "$0" is the ffmpeg, "$@" its arguments. The second command keeps the shell from becoming sleep.
    command
        .args(["-c", "\"$0\" \"$@\" | sleep 600; exit"])
        .arg(ffmpeg)
        .args(TO_STDOUT);
    let family = Family::start(command.stdin(Stdio::null()));
    let pid = proc::await_child(family.pid(), &comm_of(ffmpeg));
    let reader = proc::await_child(family.pid(), "sleep");
    Stuck::await_blocked(family, pid, reader, None)
}

/// Runs `ffmpeg > FIFO`, with a `sleep < FIFO` at the other end.
#[track_caller]
pub fn into_fifo(ffmpeg: &Path, scratch: &Scratch) -> Stuck {
    fifo(ffmpeg, scratch, true)
}

/// Runs `ffmpeg … FIFO`, which opens the FIFO itself: it is not its stdout.
#[track_caller]
pub fn opening_fifo(ffmpeg: &Path, scratch: &Scratch) -> Stuck {
    fifo(ffmpeg, scratch, false)
}

#[track_caller]
fn fifo(ffmpeg: &Path, scratch: &Scratch, as_stdout: bool) -> Stuck {
    let fifo = scratch.path("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).expect("a FIFO");
    // Without O_NONBLOCK this would wait for a writer.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("O_NONBLOCK is a small number");
    let end = OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(&fifo)
        .expect("the reading end");
    let sleep = Family::start(Command::new("sleep").arg("600").stdin(end));
    let mut command = Command::new(ffmpeg);
    command.stdin(Stdio::null());
    if as_stdout {
        let end = OpenOptions::new()
            .write(true)
            .open(&fifo)
            .expect("the writing end");
        command.args(TO_STDOUT).stdout(end);
    } else {
        let (_, arguments) = TO_STDOUT.split_last().expect("there are arguments");
        command.arg("-y").args(arguments).arg(&fifo).stdout(Stdio::null());
    }
    let family = Family::start(&mut command);
    let (pid, reader) = (family.pid(), sleep.pid());
    Stuck::await_blocked(family, pid, reader, Some(sleep))
}

/// Tells the comm of a program started by this path.
pub fn comm_of(program: &Path) -> String {
    let name = program
        .file_name()
        .and_then(OsStr::to_str)
        .expect("a program's name is text");
    crate::names::as_comm(name).to_owned()
}

/// Tells the file behind a program's path.
pub fn file_of(program: &Path) -> std::path::PathBuf {
    fs::canonicalize(program).expect("the program is there")
}
