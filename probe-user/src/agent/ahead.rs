//! Goes ahead of all ordinary work while processes are being ended.
//!
//! A signal wakes its process, and to die takes CPU time. Where hundreds are signalled one after the
//! other, the loop would wait for most of the deaths before it comes to the last, and what its
//! last look showed of that one would be as old.

/// Above all ordinary work, below everybody else's real-time work.
const LOWEST: libc::c_int = 1;

/// This thread goes ahead of ordinary work until this is dropped. It must not wait meanwhile for
/// a thread that does not.
#[derive(Debug)]
pub(super) struct Ahead(());

impl Ahead {
    /// `None` if the system does not allow it, or if whoever started this has chosen otherwise.
    #[must_use]
    pub(super) fn of_ordinary_work() -> Option<Self> {
        (policy() == Some(libc::SCHED_OTHER) && set(libc::SCHED_RR, LOWEST)).then(|| Self(()))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        set(libc::SCHED_OTHER, 0);
    }
}

/// How the kernel schedules this thread.
fn policy() -> Option<libc::c_int> {
    // SAFETY: the call takes no pointers. By number, as not all C libraries make it.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    let policy = libc::c_int::try_from(policy).ok().filter(|policy| *policy >= 0)?;
    Some(policy & !libc::SCHED_RESET_ON_FORK)
}

/// Has the kernel schedule this thread so, and whom it starts as ever. Says whether it does.
fn set(policy: libc::c_int, priority: libc::c_int) -> bool {
    // SAFETY: plain integers.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads the parameters before the call returns. By number, as above.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) == 0 }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn this_thread_goes_ahead_and_whom_it_starts_does_not() {
        let Some(ahead) = Ahead::of_ordinary_work() else {
            println!("skipped: this process may not go ahead of ordinary work");
            return;
        };
        assert_eq!(policy(), Some(libc::SCHED_RR));
        assert!(Ahead::of_ordinary_work().is_none(), "it does already");
        let child = Command::new("cat").arg("/proc/self/stat").output().unwrap();
        let stat = String::from_utf8(child.stdout).unwrap();
        // proc_pid_stat(5): rt_priority and policy, behind a name without blanks.
        let fields: Vec<_> = stat.split(' ').collect();
        assert_eq!(fields[39..41], ["0", "0"], "{stat}");
        drop(ahead);
        assert_eq!(policy(), Some(libc::SCHED_OTHER));
        assert!(Ahead::of_ordinary_work().is_some(), "and again");
    }
}
