//! strace, as a disturbance of a writer and as a witness of the agent's syscalls.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::Signal;

use crate::family::Family;
use crate::wait;

/// strace, attached to a process until this is dropped.
#[derive(Debug)]
pub struct Attached(Family);

impl Attached {
    /// Attaches with these options, and waits until strace says so.
    #[track_caller]
    pub fn to(strace: &Path, pid: u32, options: &[&str]) -> Self {
        let mut command = Command::new(strace);
        command
            .args(options)
            .args(["-o", "/dev/null", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut tracer = Family::start(&mut command);
        let stderr = tracer.child().stderr.take().expect("stderr is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        wait::until("strace attached", wait::PATIENCE, || {
            lines.try_iter().find(|line| line.contains("attached"))
        });
        Self(tracer)
    }

    /// Lets what the process writes to a file fail with an error, as in `EROFS`.
    #[track_caller]
    pub fn failing_writes(strace: &Path, pid: u32, file: &Path, error: &str) -> Self {
        const CALLS: &str = "write,writev,fsync,fdatasync";
        let file = file.to_str().expect("a path of text");
        let (trace, inject) = (format!("trace={CALLS}"), format!("inject={CALLS}:error={error}"));
        Self::to(strace, pid, &["-f", "-P", file, "-e", &trace, "-e", &inject])
    }

    /// Detaches; the process goes on.
    #[track_caller]
    pub fn detach(mut self) {
        self.0.signal(Signal::INT);
        self.0.exited(wait::PATIENCE).expect("strace detaches");
    }
}

/// Attaches to a process, waits until strace says so, and detaches again.
#[track_caller]
pub fn attach_and_detach(strace: &Path, pid: u32) {
    Attached::to(strace, pid, &[]).detach();
}

/// What strace has to record for [`Account`]: files by path, processes by pid.
/// The plans of many writers are one write.
pub const WITNESS: [&str; 5] = [
    "-s",
    "1048576",
    "--decode-fds=path,pidfd",
    "-e",
    "trace=write,writev,pwrite64,fsync,fdatasync,kill,tgkill,tkill,pidfd_send_signal,sched_setscheduler",
];

/// The order of the agent's records and signals, from strace's account.
#[derive(Debug, Default)]
pub struct Account {
    /// Targets of `kill.planned` lines written to the journal, not yet known to be on disk.
    written: HashSet<u32>,
    /// Targets whose `kill.planned` was on disk at this point.
    durable: HashSet<u32>,
    /// The first signal to each target was sent after its plan was on disk: yes or no.
    pub signalled: Vec<(u32, bool)>,
    /// Whether the thread that signals goes ahead of ordinary work at this point.
    ahead: bool,
    /// Who was signalled while it did not, though it may.
    pub late: Vec<u32>,
    /// Whether the system does not let it.
    pub may_not_go_ahead: bool,
    /// Signals by pid, which the protocol forbids.
    pub by_pid: Vec<String>,
}

impl Account {
    /// Reads a trace made with [`WITNESS`]. `journal` is the journal's path.
    pub fn read(trace: &str, journal: &Path) -> Self {
        let journal = format!("<{}>", journal.display());
        let mut account = Self::default();
        // What of the journal each thread is syncing: the plans written before the call began.
        let mut syncing: HashMap<&str, HashSet<u32>> = HashMap::new();
        for line in trace.lines() {
            let Some((thread, call)) = line.split_once(' ') else {
                continue;
            };
            let call = call.trim_start();
            let name = call.split('(').next().unwrap_or_default();
            match name {
                "write" | "writev" | "pwrite64" if of_file(call, &journal) => {
                    account.written.extend(planned_targets(call));
                }
                "fsync" | "fdatasync" if of_file(call, &journal) => {
                    if succeeded(call) {
                        account.durable.extend(account.written.drain());
                    } else if call.ends_with("<unfinished ...>") {
                        syncing.insert(thread, account.written.clone());
                    } else {
                        // What was to be synced may be lost, and the next sync says nothing of it.
                        account.written.clear();
                    }
                }
                "pidfd_send_signal" => account.signal(call),
                "sched_setscheduler" => {
                    // Not every strace knows the flag with it.
                    let goes_ahead = call.contains("SCHED_RR") || call.contains(", 0x40000002");
                    account.ahead = goes_ahead && succeeded(call);
                    account.may_not_go_ahead |= goes_ahead && !succeeded(call);
                }
                "kill" | "tgkill" | "tkill" => account.by_pid.push(call.to_owned()),
                _ if resumed_sync(call) => account.durable.extend(syncing.remove(thread).unwrap_or_default()),
                _ => {}
            }
        }
        account
    }

    fn signal(&mut self, call: &str) {
        // Signal 0 only asks whether the process is there.
        let sends = call
            .split(", ")
            .nth(1)
            .is_some_and(|signal| signal.starts_with("SIG"));
        let target = call
            .split_once("<pid:")
            .and_then(|(_, rest)| rest.split_once('>')?.0.parse().ok());
        if let (true, Some(pid)) = (sends, target)
            && !self.signalled.iter().any(|(known, _)| *known == pid)
        {
            self.signalled.push((pid, self.durable.contains(&pid)));
            if !self.ahead {
                self.late.push(pid);
            }
        }
    }
}

/// Says whether the call's first argument is this file.
fn of_file(call: &str, journal: &str) -> bool {
    call.split_once('(').is_some_and(|(_, arguments)| {
        arguments
            .trim_start_matches(|digit: char| digit.is_ascii_digit())
            .starts_with(journal)
    })
}

fn resumed_sync(call: &str) -> bool {
    let name = call.strip_prefix("<... ").and_then(|rest| rest.split(' ').next());
    matches!(name, Some("fsync" | "fdatasync")) && succeeded(call)
}

/// Says whether a call returned 0. strace pads what is before the equals sign.
fn succeeded(call: &str) -> bool {
    call.rsplit_once(')')
        .is_some_and(|(_, result)| result.trim_start() == "= 0")
}

/// Finds the targets of the `kill.planned` events among the lines in a call's text.
fn planned_targets(call: &str) -> Vec<u32> {
    // strace writes the bytes as a C string: a quote is \", the end of a line \n.
    let text = call.replace("\\\"", "\"");
    let plans = text
        .split("\\n")
        .filter(|line| line.contains("\"type\":\"kill.planned\""));
    plans
        .filter_map(|line| {
            line.split_once("\"pid\":")?
                .1
                .split([',', '}'])
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Account;

    const PLAN: &str = r#"7 write(5</s/journal.ndjson>, "{\"type\":\"kill.planned\",\"stall\":{\"pid\":42,\"tid\":43}}\n", 60) = 60"#;
    const SYNC: &str = "7 fdatasync(5</s/journal.ndjson>) = 0";
    const KILL: &str = "7 pidfd_send_signal(9<pid:42>, SIGTERM, NULL, 0) = 0";

    fn signalled(lines: &[&str]) -> Vec<(u32, bool)> {
        Account::read(&lines.join("\n"), Path::new("/s/journal.ndjson")).signalled
    }

    #[test]
    fn a_signal_after_the_sync_is_in_order() {
        assert_eq!(signalled(&[PLAN, SYNC, KILL]), [(42, true)]);
    }

    #[test]
    fn a_signal_before_the_sync_or_without_a_plan_is_not() {
        assert_eq!(signalled(&[PLAN, KILL, SYNC]), [(42, false)]);
        assert_eq!(signalled(&[SYNC, KILL]), [(42, false)]);
    }

    #[test]
    fn a_sync_of_another_file_or_a_failed_one_does_not_count() {
        assert_eq!(
            signalled(&[PLAN, "7 fsync(6</s/other>) = 0", KILL]),
            [(42, false)]
        );
        let failed = "7 fsync(5</s/journal.ndjson>) = -1 ENOSPC (No space left on device)";
        assert_eq!(signalled(&[PLAN, failed, KILL]), [(42, false)]);
        assert_eq!(signalled(&[PLAN, failed, SYNC, KILL]), [(42, false)]);
        assert_eq!(signalled(&[PLAN, failed, PLAN, SYNC, KILL]), [(42, true)]);
    }

    #[test]
    fn a_sync_counts_when_it_returns_and_for_what_was_written_before_it_began() {
        let begun = "7 fsync(5</s/journal.ndjson> <unfinished ...>";
        let done = "7 <... fsync resumed>)              = 0";
        assert_eq!(signalled(&[PLAN, begun, done, KILL]), [(42, true)]);
        assert_eq!(signalled(&[PLAN, begun, KILL, done]), [(42, false)]);
        assert_eq!(signalled(&[begun, PLAN, done, KILL]), [(42, false)]);
    }

    #[test]
    fn a_signal_is_late_unless_it_is_sent_ahead_of_ordinary_work() {
        let late = |lines: &[&str]| Account::read(&lines.join("\n"), Path::new("/s/journal.ndjson")).late;
        let on = "7 sched_setscheduler(0, SCHED_RR|SCHED_RESET_ON_FORK, [1]) = 0";
        let off = "7 sched_setscheduler(0, SCHED_OTHER|SCHED_RESET_ON_FORK, [0]) = 0";
        let refused = "7 sched_setscheduler(0, SCHED_RR|SCHED_RESET_ON_FORK, [1]) = -1 EPERM (not permitted)";
        let raw = "7 sched_setscheduler(0, 0x40000002 /* SCHED_??? */, [1]) = 0";
        assert_eq!(late(&[on, KILL]), [0; 0]);
        assert_eq!(late(&[raw, KILL]), [0; 0]);
        for lines in [&[KILL][..], &[on, off, KILL], &[refused, KILL]] {
            assert_eq!(late(lines), [42]);
        }
    }

    #[test]
    fn asking_with_signal_zero_is_no_signal() {
        assert_eq!(signalled(&["7 pidfd_send_signal(9<pid:42>, 0, NULL, 0) = 0"]), []);
    }
}
