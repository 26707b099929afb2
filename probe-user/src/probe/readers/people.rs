//! What `/proc` tells of those who hold reading ends: what they do instead of reading.

use std::{collections::HashMap, fs, path::Path};

use procfs::{ProcError, process::Process as ProcProcess};

use crate::{
    clock,
    core::{
        model::Process,
        reader::{Person, State},
    },
    probe::{cgroup, fallback::write_call},
};

/// Where control groups are mounted: the unified hierarchy, alone or beside the old ones.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// A chain of parents longer than this is cut off.
const MAX_ANCESTORS: usize = 64;

/// Looks at processes; remembers for one search what they share.
#[derive(Debug, Default)]
pub struct People {
    /// Whether each control group is frozen.
    frozen: HashMap<String, bool>,
    parents: HashMap<u32, Option<u32>>,
    command_lines: HashMap<Process, Vec<u8>>,
}

impl People {
    /// What each of these does now.
    pub fn see_all(mut self, processes: &[Process]) -> Vec<(Process, Person)> {
        let see = |process: &Process| (*process, self.see(*process));
        processes.iter().map(see).collect()
    }

    /// What a process does now. One that cannot be read is of unknown state.
    pub fn see(&mut self, process: Process) -> Person {
        let at = clock::now();
        let nobody = |state| Person {
            comm: "?".to_owned(),
            state,
            sleeps_in: None,
            at,
        };
        let pid = i32::try_from(process.tgid).unwrap_or(i32::MAX);
        let seen = ProcProcess::new(pid).and_then(|proc| Ok((proc.stat()?, proc)));
        let (stat, proc) = match seen {
            Ok(seen) => seen,
            Err(ProcError::NotFound(_)) => return nobody(State::Gone),
            // Out of descriptors, or not for us.
            Err(_) => return nobody(State::Unknown),
        };
        if stat.starttime != process.start_ticks() {
            return nobody(State::Gone);
        }
        let mut state = State::from_letter(stat.state);
        if matches!(state, State::Sleeping | State::Uninterruptible) && self.is_frozen(&proc) {
            state = State::Frozen;
        }
        Person {
            comm: stat.comm,
            state,
            sleeps_in: sleeps_in(process.tgid),
            at,
        }
    }

    fn is_frozen(&mut self, proc: &ProcProcess) -> bool {
        cgroup::paths(proc).into_iter().any(|group| {
            let is_old = group.hierarchy != 0;
            if is_old && !group.controllers.iter().any(|controller| controller == "freezer") {
                return false;
            }
            let key = format!("{}:{}", group.hierarchy, group.pathname);
            *self.frozen.entry(key).or_insert_with(|| {
                if is_old {
                    is_frozen_by_the_old(&group.pathname)
                } else {
                    is_frozen(&group.pathname)
                }
            })
        })
    }

    /// Whether a process's command line names a descriptor by its number.
    pub(super) fn names(&mut self, process: Process, fd: u32) -> bool {
        let read = || fs::read(format!("/proc/{}/cmdline", process.tgid)).unwrap_or_default();
        let line = self.command_lines.entry(process).or_insert_with(read);
        let is_digit = |byte: &u8| byte.is_ascii_digit();
        line.split(|byte| !is_digit(byte))
            .any(|number| std::str::from_utf8(number).is_ok_and(|number| number.parse() == Ok(fd)))
    }

    /// Whether a process descends from another.
    pub(super) fn descends(&mut self, mut pid: u32, from: u32) -> bool {
        for _ in 0..MAX_ANCESTORS {
            match *self.parents.entry(pid).or_insert_with(|| parent(pid)) {
                Some(parent) if parent == from => return true,
                Some(parent) if parent > 1 => pid = parent,
                _ => return false,
            }
        }
        false
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = ProcProcess::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    u32::try_from(stat.ppid).ok()
}

/// The kernel function that a process's first thread sleeps in.
fn sleeps_in(tgid: u32) -> Option<String> {
    let place = fs::read_to_string(format!("/proc/{tgid}/wchan")).ok()?;
    (place != "0" && !place.is_empty()).then_some(place)
}

/// `cgroup.events` of a group also tells that one above it is frozen
/// (Documentation/admin-guide/cgroup-v2.rst).
fn is_frozen(group: &str) -> bool {
    UNIFIED.into_iter().any(|root| {
        let events = fs::read_to_string(format!("{root}{group}/cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    })
}

/// `freezer.state` too (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
fn is_frozen_by_the_old(group: &str) -> bool {
    let state = fs::read_to_string(format!("{FREEZER}{group}/freezer.state"));
    state.is_ok_and(|state| state.trim() != "THAWED")
}

/// The descriptors that the threads of a process are asleep in a write to.
pub(super) fn blocked_writes(tgid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{tgid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| blocked_write(&thread.path()))
        .collect()
}

fn blocked_write(thread: &Path) -> Option<u32> {
    let (_, fd) = write_call(thread)?;
    // One that was stopped on its way out of a write still shows the call.
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    let (_, after) = stat.rsplit_once(") ")?;
    after.starts_with('S').then_some(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::process::start_ticks;

    fn this_process() -> Process {
        let pid = std::process::id();
        Process::from_ticks(pid, start_ticks(pid).unwrap())
    }

    #[test]
    fn a_process_is_seen_and_one_that_had_its_pid_is_gone() {
        let own = this_process();
        let mut people = People::default();

        let seen = people.see(own);
        let former = people.see(Process {
            start: own.start - 10_000_000,
            ..own
        });

        assert_eq!(seen.comm, ProcProcess::myself().unwrap().stat().unwrap().comm);
        assert!(matches!(seen.state, State::Running | State::Sleeping), "{seen:?}");
        assert_eq!(former.state, State::Gone);
    }

    #[test]
    fn descent_is_followed_and_ends() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        let mut people = People::default();
        assert!(people.descends(own, parent));
        assert!(!people.descends(parent, own));
        assert!(!people.descends(own, own));
    }

    #[test]
    fn a_command_line_names_numbers_as_a_whole() {
        let own = this_process();
        let mut people = People::default();
        people
            .command_lines
            .insert(own, b"cat\0/dev/fd/63\0pipe:5\0-n12".to_vec());
        for (fd, named) in [
            (63, true),
            (5, true),
            (12, true),
            (6, false),
            (3, false),
            (1, false),
        ] {
            assert_eq!(people.names(own, fd), named, "{fd}");
        }
    }
}
