//! What `/proc` tells of a process: its command line, its owner, where it belongs.
//!
//! Everything here may be gone by the time it is read, and may change meanwhile;
//! nothing here is trusted for identity.

use std::collections::HashMap;

use procfs::process::Process as ProcProcess;

use crate::core::model::{Facts, Process};

/// Reads facts, and remembers users' names.
#[derive(Debug, Default)]
pub struct Reader {
    users: HashMap<u32, Option<String>>,
}

impl Reader {
    /// The facts about a process, or `None` if it is gone.
    pub fn facts(&mut self, process: Process) -> Option<Facts> {
        let proc = ProcProcess::new(i32::try_from(process.tgid).ok()?).ok()?;
        let uid = proc.uid().ok()?;
        let cgroup = cgroup_path(&proc);
        let parent = proc.stat().ok().and_then(|stat| comm_of(stat.ppid));
        Some(Facts {
            cmdline: proc.cmdline().unwrap_or_default(),
            exe: proc.exe().ok(),
            user: self.user(uid),
            parent,
            unit: cgroup.as_deref().and_then(unit_of).map(str::to_owned),
            cgroup,
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
}

/// When a process started, in ticks of the clock since boot, as `/proc` counts.
#[must_use]
pub fn start_ticks(tgid: u32) -> Option<u64> {
    Some(
        ProcProcess::new(i32::try_from(tgid).ok()?)
            .ok()?
            .stat()
            .ok()?
            .starttime,
    )
}

/// The pids of this process and of everything that it descends from.
#[must_use]
pub fn ancestry() -> Vec<u32> {
    let mut pids = vec![std::process::id()];
    let mut next = i32::try_from(std::process::id()).unwrap_or(0);
    while pids.len() < 64 {
        let Some(parent) = ProcProcess::new(next)
            .ok()
            .and_then(|p| p.stat().ok())
            .map(|s| s.ppid)
        else {
            break;
        };
        match u32::try_from(parent) {
            Ok(pid) if pid > 0 => pids.push(pid),
            _ => break,
        }
        next = parent;
    }
    pids
}

fn comm_of(pid: i32) -> Option<String> {
    ProcProcess::new(pid).ok()?.stat().ok().map(|stat| stat.comm)
}

/// The path in the unified hierarchy, or where there is none the longest of the old ones'.
fn cgroup_path(proc: &ProcProcess) -> Option<String> {
    let groups = proc.cgroups().ok()?.0;
    let unified = groups.iter().find(|g| g.hierarchy == 0 && g.pathname != "/");
    let named = groups
        .iter()
        .find(|g| g.controllers.iter().any(|c| c == "name=systemd") && g.pathname != "/");
    let longest = groups.iter().max_by_key(|g| g.pathname.len());
    unified.or(named).or(longest).map(|g| g.pathname.clone())
}

/// The systemd unit that a control group belongs to: the last part that is named as one.
fn unit_of(cgroup: &str) -> Option<&str> {
    cgroup
        .rsplit('/')
        .find(|part| matches!(part.rsplit_once('.'), Some((_, "service" | "scope"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost_service_or_scope() {
        for (cgroup, unit) in [
            ("/system.slice/peertube.service", Some("peertube.service")),
            ("/system.slice/peertube.service/worker", Some("peertube.service")),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            ("/", None),
            ("/docker/0123", None),
        ] {
            assert_eq!(unit_of(cgroup), unit, "{cgroup}");
        }
    }

    #[test]
    fn this_process_has_facts_and_ancestors() {
        let facts = Reader::default()
            .facts(Process {
                tgid: std::process::id(),
                start: 0,
            })
            .unwrap();
        assert!(!facts.cmdline.is_empty());
        assert!(facts.parent.is_some());
        assert!(ancestry().len() > 1);
    }
}
