//! Control groups that freeze a process.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{names, proc, wait};

/// A way to freeze a process.
#[derive(Debug)]
pub struct Freezer {
    root: &'static str,
    file: &'static str,
    freeze: &'static str,
    thaw: &'static str,
}

/// A control group that is frozen until this is dropped.
#[derive(Debug)]
pub struct Frozen {
    freezer: Freezer,
    group: PathBuf,
    pid: u32,
}

impl Freezer {
    /// Those of this machine and of others.
    #[must_use]
    pub fn all() -> [Self; 3] {
        let unified = |root| Self {
            root,
            file: "cgroup.freeze",
            freeze: "1",
            thaw: "0",
        };
        let old = Self {
            root: "/sys/fs/cgroup/freezer",
            file: "freezer.state",
            freeze: "FROZEN",
            thaw: "THAWED",
        };
        [unified("/sys/fs/cgroup"), unified("/sys/fs/cgroup/unified"), old]
    }

    /// Moves a process into a group of its own and freezes that, where that can be done.
    #[must_use]
    pub fn freeze(self, pid: u32) -> Option<Frozen> {
        let group = Path::new(self.root).join(names::unique("pst"));
        fs::create_dir(&group).ok()?;
        let frozen = Frozen {
            freezer: self,
            group,
            pid,
        };
        let Freezer { file, freeze, .. } = frozen.freezer;
        fs::write(frozen.group.join("cgroup.procs"), pid.to_string()).ok()?;
        fs::write(frozen.group.join(file), freeze).ok()?;
        let is_frozen = || {
            let read = |name| fs::read_to_string(frozen.group.join(name)).unwrap_or_default();
            (read("cgroup.events").contains("frozen 1") || read("freezer.state").trim() == "FROZEN")
                .then_some(())
        };
        wait::until_or_none(wait::PATIENCE, is_frozen)?;
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.group.join(self.freezer.file), self.freezer.thaw);
        let root = Path::new(self.freezer.root);
        let _ = fs::write(root.join("cgroup.procs"), self.pid.to_string());
        proc::await_state(self.pid, 'S');
        let _ = fs::remove_dir(&self.group);
    }
}
