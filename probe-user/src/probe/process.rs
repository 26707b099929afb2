//! What `/proc` tells of a process: its command line, its owner, where it belongs.
//!
//! Everything here may be gone by the time it is read, and may change meanwhile;
//! nothing here is trusted for identity.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::Duration,
};

use probe_ebpf::pattern::COMM_LEN;
use procfs::process::Process as ProcProcess;

use crate::{
    clock,
    core::model::{Facts, Group, Mono, Process},
    probe::cgroup,
};

/// A chain of parents longer than this is cut off.
const MAX_ANCESTORS: usize = 64;

/// What was read of an ancestor serves so long: the writers of an incident share theirs.
const KIN_FOR: Duration = Duration::from_millis(250);

/// Reads facts, and remembers users' and groups' names.
#[derive(Debug, Default)]
pub struct Reader {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
    kin: HashMap<i32, Option<Kin>>,
    kin_read: Mono,
}

/// A process, as far as its descendants are concerned.
#[derive(Clone, Debug)]
struct Kin {
    pid: i32,
    ppid: i32,
    comm: String,
}

/// A process that need not be writing anything.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who it is.
    pub process: Process,
    /// Its command.
    pub comm: String,
    /// Its real user.
    pub uid: u32,
    /// What else there is to know.
    pub facts: Facts,
}

/// How much of a command line is kept, in bytes: anyone may give a process megabytes of
/// arguments, and each event carries them.
const COMMAND_LINE: usize = 4096;

/// The arguments of a process; where something was cut off, the last ends in an ellipsis.
fn command_line(tgid: u32) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(COMMAND_LINE + 1).unwrap_or(u64::MAX);
    File::open(format!("/proc/{tgid}/cmdline"))?
        .take(limit)
        .read_to_end(&mut bytes)?;
    let is_cut = bytes.len() > COMMAND_LINE;
    bytes.truncate(COMMAND_LINE);
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut arguments: Vec<_> = bytes
        .split(|b| *b == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    if let Some(last) = arguments.last_mut().filter(|_| is_cut) {
        last.push('…');
    }
    Ok(arguments)
}

impl Reader {
    /// The facts about a process, or `None` if it is gone or its pid is another's by now.
    pub fn facts(&mut self, process: Process) -> Option<Facts> {
        let facts = self.read(process)?;
        // Read last: if the pid is still this process's, so was all that was read before.
        (start_ticks(process.tgid)? == process.start_ticks()).then_some(facts)
    }

    fn read(&mut self, process: Process) -> Option<Facts> {
        let proc = ProcProcess::new(i32::try_from(process.tgid).ok()?).ok()?;
        let uid = proc.uid().ok()?;
        let ancestors = self.ancestors(proc.pid);
        let groups = cgroup::paths(&proc);
        let cgroup = cgroup::path(&groups);
        let all = || {
            cgroup
                .into_iter()
                .chain(groups.iter().map(|group| group.pathname.as_str()))
        };
        Some(Facts {
            cmdline: command_line(process.tgid).unwrap_or_default(),
            exe: proc.exe().ok().map(without_deleted),
            user: self.user(uid),
            groups: self.groups(&proc),
            parent: ancestors.first().cloned(),
            ancestors,
            unit: cgroup.and_then(cgroup::unit).map(str::to_owned),
            container: all().find_map(cgroup::container).map(str::to_owned),
            pod: all().find_map(cgroup::pod),
            cgroup: cgroup.map(str::to_owned),
            born: Some(clock::from_boottime(process.start)),
        })
    }

    /// What is to be known about any process, or `None` if there is none of that pid.
    pub fn know(&mut self, pid: u32) -> Option<Known> {
        let proc = ProcProcess::new(i32::try_from(pid).ok()?).ok()?;
        let stat = proc.stat().ok()?;
        let process = Process::from_ticks(pid, stat.starttime);
        Some(Known {
            process,
            comm: stat.comm,
            uid: proc.status().ok()?.ruid,
            facts: self.facts(process)?,
        })
    }

    /// A user's name.
    pub fn user(&mut self, uid: u32) -> Option<String> {
        self.users
            .entry(uid)
            .or_insert_with(|| {
                uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned())
            })
            .clone()
    }

    fn ancestors(&mut self, pid: i32) -> Vec<String> {
        let now = clock::now();
        if now.since(self.kin_read) > KIN_FOR {
            self.kin.clear();
            self.kin_read = now;
        }
        let read = |pid| self.kin.entry(pid).or_insert_with(|| kin(pid)).clone();
        ancestors(pid, read).into_iter().map(|kin| kin.comm).collect()
    }

    fn groups(&mut self, proc: &ProcProcess) -> Vec<Group> {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", proc.pid)) else {
            return Vec::new();
        };
        gids(&status)
            .into_iter()
            .map(|gid| Group {
                gid,
                name: self.group(gid),
            })
            .collect()
    }

    fn group(&mut self, gid: u32) -> Option<String> {
        self.groups
            .entry(gid)
            .or_insert_with(|| {
                uzers::get_group_by_gid(gid).map(|group| group.name().to_string_lossy().into_owned())
            })
            .clone()
    }
}

/// When a process started, in ticks of the clock since boot, as `/proc` counts.
///
/// By itself and not by way of the crate, and in one read, because it is asked of each of
/// hundreds of processes between a verdict and its signal.
#[must_use]
pub fn start_ticks(tgid: u32) -> Option<u64> {
    // The kernel gives out all of it at once. It has 52 numbers and a command of 64 bytes at most.
    let mut stat = [0; 2048];
    let len = File::open(format!("/proc/{tgid}/stat"))
        .ok()?
        .read(&mut stat)
        .ok()?;
    let stat = stat.get(..len)?;
    // The command, in parentheses, may hold anything; the fields after it are numbers, and
    // the start is the 22nd of all (Documentation/filesystems/proc.rst).
    let after = stat.iter().rposition(|b| *b == b')')? + 2;
    let field = stat.get(after..)?.split(|b| *b == b' ').nth(19)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The pids of this process and of everything that it descends from.
#[must_use]
pub fn ancestry() -> Vec<u32> {
    let own = std::process::id();
    let ancestors = i32::try_from(own).map_or_else(|_| Vec::new(), |pid| ancestors(pid, kin));
    std::iter::once(own)
        .chain(ancestors.iter().filter_map(|kin| u32::try_from(kin.pid).ok()))
        .collect()
}

/// The effective group in a `/proc/PID/status`, and then the supplementary ones. Of all its lines
/// only these two are understood: this is read for each writer of an incident.
fn gids(status: &str) -> Vec<u32> {
    let numbers = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.into_iter()
            .flat_map(str::split_ascii_whitespace)
            .filter_map(|number| number.parse::<u32>().ok())
    };
    // Real, effective, saved, and that of the file system.
    let effective = numbers("Gid:").nth(1);
    let others = numbers("Groups:").filter(|gid| Some(*gid) != effective);
    effective.into_iter().chain(others).collect()
}

/// A command as the kernel keeps it.
#[must_use]
pub fn comm_bytes(comm: &str) -> [u8; COMM_LEN] {
    let mut bytes = [0; COMM_LEN];
    for (to, from) in bytes.iter_mut().zip(comm.bytes().take(COMM_LEN - 1)) {
        *to = from;
    }
    bytes
}

/// The parent of a process, its parent, and so on.
fn ancestors(pid: i32, mut read: impl FnMut(i32) -> Option<Kin>) -> Vec<Kin> {
    // Its own entry is read afresh: it tells who the parent is now.
    std::iter::successors(
        kin(pid),
        |child| if child.ppid > 0 { read(child.ppid) } else { None },
    )
    .skip(1)
    .take(MAX_ANCESTORS)
    .collect()
}

fn kin(pid: i32) -> Option<Kin> {
    let stat = ProcProcess::new(pid).ok()?.stat().ok()?;
    Some(Kin {
        pid,
        ppid: stat.ppid,
        comm: stat.comm,
    })
}

/// An executable's path without what the kernel adds once its file is replaced, as an upgrade
/// does (`d_path` in `fs/d_path.c`): rules are about where it was.
fn without_deleted(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(name) => PathBuf::from(std::ffi::OsStr::from_bytes(name)),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;

    fn this_process() -> Known {
        Reader::default().know(std::process::id()).unwrap()
    }

    #[test]
    fn the_start_is_the_one_that_the_crate_reads() {
        let known = ProcProcess::myself().unwrap().stat().unwrap().starttime;
        assert_eq!(start_ticks(std::process::id()), Some(known));
    }

    #[test]
    fn this_process_has_facts_and_ancestors() {
        let Known { facts, .. } = this_process();

        assert!(!facts.cmdline.is_empty());
        assert_eq!(facts.exe, std::env::current_exe().ok());
        assert_eq!(facts.parent.as_ref(), facts.ancestors.first());
        assert_eq!(facts.ancestors.len() + 1, ancestry().len());
    }

    #[test]
    fn the_effective_group_comes_first_and_once() {
        let gids: Vec<_> = this_process()
            .facts
            .groups
            .iter()
            .map(|group| group.gid)
            .collect();

        let own = rustix::process::getegid().as_raw();
        assert_eq!(gids.iter().position(|gid| *gid == own), Some(0));
        assert_eq!(gids.iter().filter(|gid| **gid == own).count(), 1);
    }

    #[test]
    fn groups_are_read_from_the_lines_of_a_status() {
        for (status, expected) in [
            (
                "Name:\tx\nGid:\t1\t2\t3\t4\nGroups:\t4 2 24 \nNStgid:\t7\n",
                vec![2, 4, 24],
            ),
            ("Gid:\t0\t0\t0\t0\nGroups:\t\n", vec![0]),
            ("", vec![]),
        ] {
            assert_eq!(gids(status), expected, "{status:?}");
        }
    }

    #[test]
    fn a_process_is_born_when_it_is_started() {
        let before = clock::now();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let after = clock::now();

        let born = Reader::default()
            .know(child.id())
            .and_then(|known| known.facts.born)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        // `/proc` counts in ticks of 10 ms.
        let tick = Duration::from_millis(10);
        assert!(
            born.after(tick * 2) >= before && born <= after.after(tick),
            "{before:?} {born:?} {after:?}"
        );
    }

    #[test]
    fn a_replaced_executable_keeps_its_path() {
        for (link, path) in [
            ("/usr/bin/ffmpeg", "/usr/bin/ffmpeg"),
            ("/usr/bin/ffmpeg (deleted)", "/usr/bin/ffmpeg"),
        ] {
            assert_eq!(without_deleted(PathBuf::from(link)), Path::new(path));
        }
    }
}
