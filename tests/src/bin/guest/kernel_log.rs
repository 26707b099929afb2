//! What the kernel complains of while steps run. Knows no step.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

const PATH: &str = "/dev/kmsg";
/// The longest record (`PRINTK_MESSAGE_MAX`, kernel/printk/internal.h).
const RECORD: usize = 2048 + 48;

/// How a slow machine looks to a kernel: one that is emulated, and whose host is busy.
const SLOW: [&str; 7] = [
    "soft lockup",
    "hard lockup",
    "workqueue lockup",
    "detected stall",
    "detected expedited stall",
    "blocked for more than",
    "kthread starved",
];
/// What begins a complaint of the kernel's about itself.
const WRONG: [&str; 12] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG at ",
    "Oops",
    "Internal error: ",
    "Unable to handle kernel ",
    "general protection fault",
    "UBSAN: ",
    "refcount_t: ",
    "list_add corruption",
    "list_del corruption",
    "INFO: suspicious ",
];

/// A complaint, in the kernel's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// Something is wrong in the kernel.
    Wrong(String),
    /// Something took long, which may be no fault of anyone's here.
    Slow(String),
}

/// The kernel's log, from where it was opened.
pub(crate) struct KernelLog(File);

impl KernelLog {
    /// Opens it at its end: what was said before is nobody's here.
    pub(crate) fn open() -> Result<Self> {
        let opened = || -> std::io::Result<File> {
            let mut file = File::from(open(PATH, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        opened().map(Self).with_context(|| format!("cannot open {PATH}"))
    }

    /// What was complained of since this was asked last.
    ///
    /// # Errors
    /// That cannot be told.
    pub(crate) fn complaints(&mut self) -> Result<Vec<Complaint>> {
        let mut all = Vec::new();
        let mut record = [0; RECORD];
        loop {
            // A record at a time (devkmsg_read(), kernel/printk/printk.c).
            match self.0.read(&mut record) {
                Ok(length) => all.extend(judge(&String::from_utf8_lossy(&record[..length]))),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(all),
                    // Newer ones have taken the place of some that were not read.
                    Some(Errno::PIPE) => {}
                    _ => return Err(error).with_context(|| format!("cannot read {PATH}")),
                },
            }
        }
    }
}

/// What a record, as `4,1234,5678,-;text` and lines that say more, complains of.
fn judge(record: &str) -> Option<Complaint> {
    let (prefix, rest) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    // Programs may write there, too, but not as the kernel.
    let is_kernels = priority >> 3 == 0;
    let text = rest.lines().next()?.trim();
    if !is_kernels {
        None
    } else if SLOW.iter().any(|word| text.contains(word)) {
        Some(Complaint::Slow(text.to_owned()))
    } else if WRONG.iter().any(|word| text.starts_with(word)) {
        Some(Complaint::Wrong(text.to_owned()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_warnings_and_bugs_are_wrong() {
        for text in [
            "WARNING: CPU: 1 PID: 76 at kernel/bpf/trampoline.c:1 f+0x1/0x2",
            "WARNING: kernel/bpf/trampoline.c:1 at f+0x1/0x2, CPU#0: ages/76",
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "BUG: sleeping function called from invalid context at a.c:1",
            "Internal error: Oops: 0000000096000004 [#1] SMP",
        ] {
            let record = format!("4,1,2,-;{text}\n SUBSYSTEM=cpu\n");
            assert_eq!(judge(&record), Some(Complaint::Wrong(text.to_owned())));
        }
    }

    #[test]
    fn what_comes_of_slowness_is_told_apart() {
        for text in [
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [ages:76]",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
            "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!",
            "INFO: task stuck:76 blocked for more than 120 seconds.",
        ] {
            assert_eq!(
                judge(&format!("3,1,2,-;{text}\n")),
                Some(Complaint::Slow(text.to_owned()))
            );
        }
    }

    #[test]
    fn other_words_and_other_peoples_are_no_complaint() {
        assert_eq!(judge("6,1,2,-;random: crng init done\n"), None);
        assert_eq!(
            judge("6,1,2,-;traps: ages[76] general protection fault ip:1\n"),
            None
        );
        assert_eq!(judge("12,1,2,-;WARNING: says a program\n"), None);
        assert_eq!(judge("\n"), None);
    }
}
