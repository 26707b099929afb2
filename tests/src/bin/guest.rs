//! The first process of a guest: mounts what programs expect, runs the steps it was given, and turns the machine off.
//!
//! What it prints goes to a serial line of its own, for `cargo xtask vm`; what a line may say is known there as well.

#[path = "guest/kernel_log.rs"]
mod kernel_log;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, setsid, wait};
use rustix::system::{RebootCommand, reboot, uname};
use serde::Deserialize;
use serde_json::Value;
use tests::{clock, need};

use self::kernel_log::{Complaint, KernelLog};

/// The steps, one JSON object a line.
const STEPS: &str = "/etc/steps";
/// How a program ended that did so by itself, and not well.
const FAILED: &str = "failed";
/// Names the program under test.
const PROGRAM: &str = "PIPESTALL_BIN";
/// Names the serial line that results go to. The kernel hands on what it does not know of its own command line.
const RESULTS: &str = "RESULTS";

/// File systems: what it is, where it goes. A kernel may lack those of the second kind.
const NEEDED: [(&str, &str); 4] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("tmpfs", "/tmp"),
];
const WELCOME: [(&str, &str); 6] = [
    ("tmpfs", "/run"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
];

#[derive(Deserialize)]
struct Step {
    name: String,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    /// Seconds.
    timeout: u64,
    /// Whether tests that fail are run once more by themselves.
    again: bool,
}

fn main() -> Result<()> {
    // It ends every process that it sees, and the machine.
    ensure!(
        getpid() == Pid::INIT,
        "this is the first process of a guest, and of nothing else"
    );
    let outcome = prepare().and_then(|mut results| run(&mut results));
    if let Err(error) = outcome {
        eprintln!("guest: {error:#}");
    }
    rustix::fs::sync();
    // The machine is one that does not start again.
    reboot(RebootCommand::Restart).context("cannot turn the machine off")
}

fn prepare() -> Result<File> {
    for (kind, at) in NEEDED {
        attach(kind, at)?;
    }
    for (kind, at) in WELCOME {
        if let Err(error) = attach(kind, at) {
            eprintln!("guest: {error:#}");
        }
    }
    let results = env::var_os(RESULTS).with_context(|| format!("{RESULTS} is not set"))?;
    let opened = OpenOptions::new().write(true).open(&results);
    opened.with_context(|| format!("cannot open {}", results.display()))
}

fn attach(kind: &str, at: &str) -> Result<()> {
    let mount = || -> io::Result<()> {
        fs::create_dir_all(at)?;
        match mount(kind, at, kind, MountFlags::empty(), None) {
            // The kernel may have done so itself.
            Err(rustix::io::Errno::BUSY) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    mount().with_context(|| format!("cannot mount {kind} on {at}"))
}

fn run(results: &mut File) -> Result<()> {
    writeln!(results, "@boot {}", uname().release().to_string_lossy())?;
    let steps = fs::read_to_string(STEPS).with_context(|| format!("cannot read {STEPS}"))?;
    let mut kernel = KernelLog::open()?;
    for line in steps.lines() {
        let mut step: Step = serde_json::from_str(line).context("a step that cannot be read")?;
        ask_doctor(&mut step);
        writeln!(results, "@step {} {}", step.timeout, step.name)?;
        let begin = clock::mono();
        let outcome = match perform(&step, results) {
            Ok(outcome) => outcome,
            Err(error) => {
                writeln!(results, "{error:#}")?;
                FAILED.to_owned()
            }
        };
        for complaint in kernel.complaints()? {
            match complaint {
                Complaint::Wrong(text) => writeln!(results, "@kernel {text}")?,
                Complaint::Slow(text) => writeln!(results, "the kernel finds this slow: {text}")?,
            }
        }
        let took = clock::lapse(begin, clock::mono()).as_secs_f64();
        writeln!(results, "@done {outcome} {took:.1} {}", step.name)?;
    }
    writeln!(results, "@end")?;
    Ok(())
}

/// Asks once for all the steps what their program can observe here: each would ask for itself, and everything
/// is emulated. If it has no answer, they find out themselves.
fn ask_doctor(step: &mut Step) {
    static REPORT: OnceLock<Option<String>> = OnceLock::new();
    let Some(program) = step.env.get(PROGRAM) else {
        return;
    };
    let ask = || {
        let mut doctor = Command::new(program);
        doctor
            .args(need::DOCTOR)
            .env_clear()
            .envs(&step.env)
            .stdin(Stdio::null());
        let report: Value = serde_json::from_slice(&doctor.output().ok()?.stdout).ok()?;
        Some(report.to_string())
    };
    if let Some(report) = REPORT.get_or_init(ask) {
        step.env.insert(need::REPORT.to_owned(), report.clone());
    }
}

/// Runs a step to its end, or to its time's. Tests of it that fail are run once more, by themselves:
/// an emulated machine shares its processor with others, and a test that only then fails says so.
fn perform(step: &Step, results: &mut File) -> Result<String> {
    let deadline = clock::mono() + Duration::from_secs(step.timeout);
    let (outcome, failed) = attempt(&step.command, step, deadline, results)?;
    if outcome != FAILED || failed.is_empty() || !step.again {
        return Ok(outcome);
    }
    writeln!(results, "@again {} {}", failed.len(), failed.join(" "))?;
    let alone = [
        &step.command[..1],
        &["--test-threads=1", "--exact"].map(str::to_owned),
        &failed,
    ]
    .concat();
    let (outcome, _) = attempt(&alone, step, deadline, results)?;
    Ok(outcome)
}

/// Runs a program, passes on what it writes, and ends what it leaves behind. Returns how it ended, and the
/// tests that it says have failed.
fn attempt(
    command: &[String],
    step: &Step,
    deadline: Duration,
    results: &File,
) -> Result<(String, Vec<String>)> {
    let [program, arguments @ ..] = command else {
        anyhow::bail!("a step without a command");
    };
    let (said, stdout) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&step.env)
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stdout);
    // A session of its own: in this one's, a group that has a stopped member is hung up on when a
    // child of the first process exits (`kill_orphaned_pgrp`, kernel/exit.c).
    // SAFETY: setsid is a system call and nothing else.
    unsafe {
        command.pre_exec(|| Ok(setsid().map(drop)?));
    }
    let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    // It holds the writing end of what is read below.
    drop(command);
    let pid = Pid::from_child(&child);
    let reading = thread::spawn({
        let mut results = results.try_clone()?;
        move || pass_on(said, &mut results)
    });
    let ended = await_exit(pid);
    let outcome = match ended.recv_timeout(clock::lapse(clock::mono(), deadline)) {
        Ok(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => "ok".to_owned(),
            (_, Some(signal)) => format!("signal-{signal}"),
            (Some(_) | None, None) => FAILED.to_owned(),
        },
        Err(_) => "hung".to_owned(),
    };
    end_the_rest();
    let failed = reading.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    Ok((outcome, failed))
}

/// Passes lines on to the end, and returns the tests that they say have failed.
fn pass_on(from: impl io::Read, to: &mut File) -> io::Result<Vec<String>> {
    let mut failed = Vec::new();
    for line in BufReader::new(from).split(b'\n') {
        let mut line = line?;
        let said = String::from_utf8_lossy(&line);
        let name = said
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"));
        failed.extend(name.map(str::to_owned));
        line.push(b'\n');
        to.write_all(&line)?;
    }
    Ok(failed)
}

/// Ends every process but this one: all of them come from the step. The kernel's own take no signal.
fn end_the_rest() {
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    let pids = processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    for pid in pids.filter(|pid| *pid != Pid::INIT) {
        // What fails here has ended already.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Reaps whatever ends, this process's adopted children too, until `pid` has.
fn await_exit(pid: Pid) -> mpsc::Receiver<WaitStatus> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(Some((ended, status))) = wait(WaitOptions::empty()) {
            if ended == pid {
                // A step that took too long is not waited for any more.
                let _ = sender.send(status);
                return;
            }
        }
    });
    receiver
}
