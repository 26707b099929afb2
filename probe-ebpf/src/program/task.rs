//! A task, seen through the verifier's typed pointer.

use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use probe_ebpf::{
    fields::ABSENT,
    pattern::COMM_LEN,
    syscall::{Arch, WriteSyscall},
};

use crate::layout::{self, typed};

#[cfg(bpf_target_arch = "aarch64")]
const ARCH: Arch = Arch::Aarch64;
#[cfg(not(bpf_target_arch = "aarch64"))]
const ARCH: Arch = Arch::X86_64;

/// `PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD` (include/linux/sched.h): tasks with no
/// system call of their own.
const NOT_USER: u32 = 0x10 | 0x4000 | 0x0020_0000;

/// `regs->ax` of an x86-64 task for as long as its call has not returned
/// (arch/x86/entry/entry_64.S).
const ENOSYS: i64 = -38;

/// `task_struct.__state`'s bits (include/linux/sched.h).
#[derive(Clone, Copy)]
pub(crate) struct TaskState(u32);

impl TaskState {
    const INTERRUPTIBLE: u32 = 1;
    /// `__TASK_STOPPED | __TASK_TRACED`
    const STOPPED: u32 = 4 | 8;

    pub(crate) const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// Any of the below.
    pub(crate) const fn may_matter(self) -> bool {
        self.0 & (Self::INTERRUPTIBLE | Self::STOPPED) != 0
    }

    /// Asleep until woken or signalled.
    pub(crate) const fn is_interruptible(self) -> bool {
        self.0 & Self::INTERRUPTIBLE != 0
    }

    /// Held by a job-control stop or a tracer.
    pub(crate) const fn is_stopped(self) -> bool {
        self.0 & Self::STOPPED != 0
    }
}

/// The write-class call that a task is in.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) syscall: WriteSyscall,
    pub(crate) fd: u32,
    /// Whether a datagram may go elsewhere than to the socket's peer.
    pub(crate) names_receiver: bool,
}

/// A task.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const u8);

// Every `typed` read below: `self.0` came from a program's context (a tracepoint's
// argument or the iterator's task), and pointers read from it keep their types.
impl Task {
    pub(crate) const fn new(task: *const u8) -> Self {
        Self(task)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> TaskState {
        // SAFETY: see above the impl.
        TaskState(unsafe { typed(self.0, &layout::TASK_STATE) })
    }

    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        // SAFETY: see above the impl.
        unsafe { typed(self.0, &layout::TASK_PID) }
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        // SAFETY: see above the impl.
        unsafe { typed(self.0, &layout::TASK_TGID) }
    }

    #[inline(always)]
    pub(crate) fn leader(self) -> Task {
        // SAFETY: see above the impl.
        Self(unsafe { typed(self.0, &layout::TASK_LEADER) })
    }

    #[inline(always)]
    pub(crate) fn parent(self) -> Task {
        // SAFETY: see above the impl.
        Self(unsafe { typed(self.0, &layout::TASK_PARENT) })
    }

    /// When the process started, `CLOCK_BOOTTIME` in nanoseconds; ask the leader.
    #[inline(always)]
    pub(crate) fn start(self) -> u64 {
        // SAFETY: see above the impl.
        unsafe { typed(self.0, &layout::TASK_START) }
    }

    /// How often the process has called `exec`; ask the leader.
    #[inline(always)]
    pub(crate) fn exec_id(self) -> u32 {
        // SAFETY: see above the impl.
        unsafe { typed(self.0, &layout::TASK_EXEC_ID) }
    }

    /// Whether the process has called `exec` since it was forked; ask the leader.
    #[inline(always)]
    pub(crate) fn has_execed(self) -> bool {
        // SAFETY: see above the impl.
        let at_fork: u32 = unsafe { typed(self.0, &layout::TASK_PARENT_EXEC_ID) };
        self.exec_id() != at_fork
    }

    #[inline(always)]
    pub(crate) fn uid(self) -> u32 {
        // SAFETY: see above the impl.
        unsafe {
            let cred: *const u8 = typed(self.0, &layout::TASK_CRED);
            // Kernels whose types tell of RCU insist on the test.
            if cred.is_null() {
                0
            } else {
                typed(cred, &layout::CRED_UID)
            }
        }
    }

    /// When it last got a CPU, scheduler clock; 0 where the kernel does not keep it.
    #[inline(always)]
    pub(crate) fn last_arrival(self) -> u64 {
        if layout::TASK_LAST_ARRIVAL.load() == ABSENT {
            return 0;
        }
        // SAFETY: see above the impl.
        unsafe { typed(self.0, &layout::TASK_LAST_ARRIVAL) }
    }

    /// The first or second eight bytes of the task's own name.
    #[inline(always)]
    fn comm_half(self, which: usize) -> u64 {
        // SAFETY: see above the impl; `comm` is 16 bytes, and `which` 0 or 1 at every call.
        unsafe {
            self.0
                .add(layout::TASK_COMM.load() as usize + which * 8)
                .cast::<u64>()
                .read_volatile()
        }
    }

    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        let (low, high) = (self.comm_half(0), self.comm_half(1));
        let mut comm = [0; COMM_LEN];
        comm[..8].copy_from_slice(&low.to_ne_bytes());
        comm[8..].copy_from_slice(&high.to_ne_bytes());
        comm
    }

    /// Whether the process is one to look at: its leader's command passes the filter.
    #[inline(always)]
    pub(crate) fn is_watched(self) -> bool {
        let leader = self.leader();
        layout::comm_matches(|which| leader.comm_half(which))
    }

    /// Whether the task can be in a system call of its own and is not the tool's.
    #[inline(always)]
    pub(crate) fn is_eligible(self) -> bool {
        // SAFETY: see above the impl.
        let flags: u32 = unsafe { typed(self.0, &layout::TASK_FLAGS) };
        flags & NOT_USER == 0 && u64::from(self.tgid()) != layout::SELF_TGID.load()
    }

    /// The write-class call that the task has not returned from, if it is in one.
    #[inline(always)]
    pub(crate) fn write_call(self) -> Option<Call> {
        // SAFETY: `self.0` is a typed task, which is what the helper takes; it returns
        // a typed pointer to the registers saved at kernel entry.
        unsafe {
            let regs = bpf_task_pt_regs(self.0.cast_mut().cast()) as *const u8;
            let syscall = WriteSyscall::from_number(ARCH, typed(regs, &layout::REGS_SYSCALL))?;
            if layout::REGS_RESULT.load() != ABSENT && typed::<i64>(regs, &layout::REGS_RESULT) != ENOSYS {
                // On its way out: frozen, stopped or about to handle a signal.
                return None;
            }
            let fd = match syscall.output_argument() {
                0 => typed(regs, &layout::REGS_ARG0),
                1 => typed(regs, &layout::REGS_ARG1),
                _ => typed(regs, &layout::REGS_ARG2),
            };
            let names_receiver = match syscall {
                WriteSyscall::Sendto => typed::<u64>(regs, &layout::REGS_ARG4) != 0,
                // Their receiver, if any, is in the caller's memory.
                WriteSyscall::Sendmsg | WriteSyscall::Sendmmsg => true,
                _ => false,
            };
            Some(Call {
                syscall,
                fd,
                names_receiver,
            })
        }
    }

    /// The task's descriptor table: (`struct file **`, its length).
    #[inline(always)]
    pub(crate) fn descriptors(self) -> Option<(u64, u32)> {
        // SAFETY: see above the impl; null pointers are tested before they are followed.
        unsafe {
            let files: *const u8 = typed(self.0, &layout::TASK_FILES);
            if files.is_null() {
                return None;
            }
            let table: *const u8 = typed(files, &layout::FILES_FDT);
            if table.is_null() {
                return None;
            }
            Some((typed(table, &layout::FDT_FD), typed(table, &layout::FDT_MAX)))
        }
    }

    /// The address of the bits that say which descriptors an exec closes.
    #[inline(always)]
    pub(crate) fn close_on_exec(self) -> Option<u64> {
        // SAFETY: see above the impl; null pointers are tested before they are followed.
        unsafe {
            let files: *const u8 = typed(self.0, &layout::TASK_FILES);
            if files.is_null() {
                return None;
            }
            let table: *const u8 = typed(files, &layout::FILES_FDT);
            if table.is_null() {
                return None;
            }
            Some(typed(table, &layout::FDT_CLOSE_ON_EXEC))
        }
    }
}
