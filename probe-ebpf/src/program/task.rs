//! A task, seen through the verifier's typed pointer, or at an address that is only a number to it.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_task_pt_regs};
use probe_ebpf::{
    fields::ABSENT,
    pattern::COMM_LEN,
    syscall::{Arch, Receiver, Row, Table, WriteSyscall},
};

use aya_ebpf::Global;

use crate::{
    layout::{self, peek, peek_at, typed},
    output::Skip,
};

#[cfg(bpf_target_arch = "aarch64")]
const ARCH: Arch = Arch::Aarch64;
#[cfg(not(bpf_target_arch = "aarch64"))]
const ARCH: Arch = Arch::X86_64;

/// The write-class calls.
static CALLS: Table = Table::new(ARCH);

/// `PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD` (include/linux/sched.h): tasks with no
/// system call of their own.
const NOT_USER: u32 = 0x10 | 0x4000 | 0x0020_0000;

/// `regs->ax` of an x86-64 task for as long as its call has not returned
/// (`PUSH_AND_CLEAR_REGS rax=$-ENOSYS`, arch/x86/entry/entry_64.S).
const ENOSYS: u64 = -38_i64 as u64;

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

    /// What the `task_struct` itself says.
    ///
    /// # Safety
    /// The pointer is one of the program's context, so that the verifier knows its type.
    #[inline(always)]
    pub(crate) unsafe fn of(task: *const u8) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { typed(task, &layout::TASK_STATE) })
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
    row: Row,
    pub(crate) fd: u32,
    fifth_argument: u64,
}

/// A pointer into the kernel, and whether the verifier knows what it points to. Which of the two it is
/// is known when this is compiled, so that no branch remains.
#[derive(Clone, Copy)]
struct Pointer {
    at: *const u8,
    typed: bool,
}

impl Pointer {
    /// Reads a field of an integer or pointer type; a fault reads as zero.
    #[inline(always)]
    fn read<T: Copy>(self, field: &Global<u64>) -> T {
        self.read_past(field, 0)
    }

    /// Reads so many bytes past where a field begins.
    #[inline(always)]
    fn read_past<T: Copy>(self, field: &Global<u64>, past: u64) -> T {
        if self.typed {
            // SAFETY: the pointer came from a program's context, or was itself read so from a field
            // of pointer type; the callers below name fields of what it points to.
            unsafe { typed(self.at.add(past as usize), field) }
        } else {
            // SAFETY: zero is a value of every integer and pointer.
            peek(self.at as u64 + past, field).unwrap_or(unsafe { MaybeUninit::zeroed().assume_init() })
        }
    }

    /// Follows a field that holds a pointer.
    #[inline(always)]
    fn follow(self, field: &Global<u64>) -> Self {
        Self {
            at: self.read(field),
            typed: self.typed,
        }
    }

    /// The first or second eight bytes of the name of the task that this points to.
    #[inline(always)]
    fn comm_half(self, which: usize) -> u64 {
        // `comm` is 16 bytes, and `which` 0 or 1 at every call.
        self.read_past(&layout::TASK_COMM, which as u64 * 8)
    }

    #[inline(always)]
    fn comm(self) -> [u8; COMM_LEN] {
        let (low, high) = (self.comm_half(0), self.comm_half(1));
        let mut comm = [0; COMM_LEN];
        comm[..8].copy_from_slice(&low.to_ne_bytes());
        comm[8..].copy_from_slice(&high.to_ne_bytes());
        comm
    }
}

/// A task, and its process.
///
/// Each pointer is followed once, and kept: for every load of one the verifier looks its type up by
/// name among all that the kernel has (`btf_nested_type_is_trusted`, kernel/bpf/btf.c), which takes longer than all
/// else that it does.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    own: Pointer,
    leader: Pointer,
}

/// A task's open files.
#[derive(Clone, Copy)]
pub(crate) struct Files {
    /// The address of the first of them, of so many.
    table: u64,
    len: u32,
    /// Whether a call that the task is in holds a reference of its own to its file: `fdget()`
    /// (fs/file.c) takes one where other threads could close the descriptor meanwhile.
    pub(crate) are_pinned: bool,
}

impl Task {
    /// The task behind a pointer of the program's context.
    #[inline(always)]
    pub(crate) fn new(at: *const u8) -> Self {
        Self::at(Pointer { at, typed: true })
    }

    #[inline(always)]
    fn at(own: Pointer) -> Self {
        let leader = own.follow(&layout::TASK_LEADER);
        Self { own, leader }
    }

    /// The task that runs this, on kernels of any age: the helper for a typed one came with 5.11.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self::at(Pointer {
            // SAFETY: the helper has no preconditions.
            at: unsafe { bpf_get_current_task() } as *const u8,
            typed: false,
        })
    }

    /// The address of its `struct task_struct`, which does not leave the kernel side.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.own.at as u64
    }

    #[inline(always)]
    pub(crate) fn state(self) -> TaskState {
        TaskState(self.own.read(&layout::TASK_STATE))
    }

    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        self.own.read(&layout::TASK_PID)
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.own.read(&layout::TASK_TGID)
    }

    /// The process's parent.
    #[inline(always)]
    pub(crate) fn parent(self) -> u32 {
        self.leader.follow(&layout::TASK_PARENT).read(&layout::TASK_TGID)
    }

    /// When the process started, `CLOCK_BOOTTIME` in nanoseconds.
    #[inline(always)]
    pub(crate) fn start(self) -> u64 {
        self.leader.read(&layout::TASK_START)
    }

    /// How often the process has called `exec`.
    #[inline(always)]
    pub(crate) fn exec_id(self) -> u32 {
        self.leader.read(&layout::TASK_EXEC_ID)
    }

    /// How often it went to sleep of its own accord.
    #[inline(always)]
    pub(crate) fn sleeps(self) -> u64 {
        self.own.read(&layout::TASK_SLEEPS)
    }

    /// Whether the process has called `exec` since it was forked.
    #[inline(always)]
    pub(crate) fn has_execed(self) -> bool {
        self.exec_id() != self.leader.read::<u32>(&layout::TASK_PARENT_EXEC_ID)
    }

    #[inline(always)]
    pub(crate) fn uid(self) -> u32 {
        let cred = self.own.follow(&layout::TASK_CRED);
        // Kernels whose types tell of RCU insist on the test.
        if cred.at.is_null() {
            0
        } else {
            cred.read(&layout::CRED_UID)
        }
    }

    /// When it last got a CPU, scheduler clock; 0 where the kernel does not keep it.
    #[inline(always)]
    pub(crate) fn last_arrival(self) -> u64 {
        if layout::TASK_LAST_ARRIVAL.load() == ABSENT {
            return 0;
        }
        self.own.read(&layout::TASK_LAST_ARRIVAL)
    }

    /// The process's name.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        self.leader.comm()
    }

    /// The task's own name.
    #[inline(always)]
    pub(crate) fn thread(self) -> [u8; COMM_LEN] {
        self.own.comm()
    }

    /// Whether the process is one to look at: its leader's command passes the filter.
    #[inline(always)]
    pub(crate) fn is_watched(self) -> bool {
        layout::comm_matches(|which| self.leader.comm_half(which))
    }

    /// Whether the task can be in a system call of its own and is not the tool's, which is this process.
    #[inline(always)]
    pub(crate) fn is_eligible(self, tool: u32) -> bool {
        let flags: u32 = self.own.read(&layout::TASK_FLAGS);
        flags & NOT_USER == 0 && self.tgid() != tool
    }

    /// The write-class call that the task has not returned from, if it is in one.
    #[inline(always)]
    pub(crate) fn write_call(self) -> Option<Call> {
        if self.own.typed && layout::HAS_TASK_PT_REGS.load() != 0 {
            // SAFETY: the pointer is a typed task, which is what the helper takes; it returns
            // a typed pointer to the registers saved at kernel entry.
            let at = unsafe { bpf_task_pt_regs(self.own.at.cast_mut().cast()) } as *const u8;
            Call::of(Pointer { at, typed: true })
        } else {
            // task_pt_regs(), which is what the helper is: they end where the stack does.
            let at = (self.stack() + layout::STACK_SIZE.load()).wrapping_sub(layout::REGS_SIZE.load())
                as *const u8;
            Call::of(Pointer { at, typed: false })
        }
    }

    /// Where its kernel stack begins.
    #[inline(always)]
    fn stack(self) -> u64 {
        self.own.read(&layout::TASK_STACK)
    }

    /// Whether an address is in the first 16 KiB of its kernel stack, of which no kernel's has less.
    #[inline(always)]
    pub(crate) fn has_on_its_stack(self, address: u64) -> bool {
        address.wrapping_sub(self.stack()) < 16 << 10
    }

    #[inline(always)]
    pub(crate) fn files(self) -> Option<Files> {
        let (files, table) = self.descriptors()?;
        let are_shared = files.read::<u32>(&layout::FILES_COUNT) > 1;
        Some(Files {
            table: table.read(&layout::FDT_FD),
            len: table.read(&layout::FDT_MAX),
            are_pinned: are_shared && self.has_threads(),
        })
    }

    /// The task's `files_struct`, and the `fdtable` in it.
    #[inline(always)]
    fn descriptors(self) -> Option<(Pointer, Pointer)> {
        let files = self.own.follow(&layout::TASK_FILES);
        if files.at.is_null() {
            return None;
        }
        let table = files.follow(&layout::FILES_FDT);
        (!table.at.is_null()).then_some((files, table))
    }

    #[inline(always)]
    fn has_threads(self) -> bool {
        if layout::SIGNAL_THREADS.load() == ABSENT {
            return false;
        }
        let signal = self.own.follow(&layout::TASK_SIGNAL);
        !signal.at.is_null() && signal.read::<u32>(&layout::SIGNAL_THREADS) > 1
    }

    /// The address of the bits that say which descriptors an exec closes.
    #[inline(always)]
    pub(crate) fn close_on_exec(self) -> Option<u64> {
        let (_, table) = self.descriptors()?;
        Some(table.read(&layout::FDT_CLOSE_ON_EXEC))
    }
}

impl Files {
    /// Of a task that nobody asks for its files.
    pub(crate) const UNKNOWN: Self = Self {
        table: 0,
        len: 0,
        are_pinned: false,
    };

    /// The address of the `struct file` behind a descriptor.
    #[inline(always)]
    pub(crate) fn at(&self, fd: u32) -> Result<u64, Skip> {
        if fd >= self.len {
            return Err(Skip::NoFile);
        }
        match peek_at(self.table + u64::from(fd) * 8)? {
            0 => Err(Skip::NoFile),
            file => Ok(file),
        }
    }

    /// What the first three descriptors stand for; no table is shorter (`NR_OPEN_DEFAULT`, include/linux/fdtable.h).
    #[inline(always)]
    pub(crate) fn first(&self) -> Result<[u64; 3], Skip> {
        peek_at(self.table)
    }
}

impl Call {
    /// A call of which only the function at its end is known.
    pub(crate) const UNKNOWN: Self = Self {
        row: Row::new(WriteSyscall::Write),
        fd: 0,
        fifth_argument: 0,
    };

    /// The call that a task's saved registers tell of.
    #[inline(always)]
    fn of(regs: Pointer) -> Option<Self> {
        let row = CALLS.get(regs.read(&layout::REGS_SYSCALL))?;
        let until_returned = match ARCH {
            Arch::X86_64 => ENOSYS,
            // syscall_set_return_value(), arch/arm64/include/asm/syscall.h; a result of the same number only
            // hides that it is on its way out, and do_signal() forgets the call before it stops or freezes.
            Arch::Aarch64 => regs.read(&layout::REGS_ORIG_ARG0),
        };
        if regs.read::<u64>(&layout::REGS_RESULT) != until_returned {
            // On its way out: frozen, stopped or about to handle a signal.
            return None;
        }
        let fd = match row.output_argument {
            0 => regs.read(&layout::REGS_ARG0),
            1 => regs.read(&layout::REGS_ARG1),
            _ => regs.read(&layout::REGS_ARG2),
        };
        Some(Self {
            row,
            fd,
            fifth_argument: regs.read(&layout::REGS_ARG4),
        })
    }

    /// Whether a datagram may go elsewhere than to the socket's peer.
    #[inline(always)]
    pub(crate) fn names_receiver(self) -> bool {
        self.row.receiver == Receiver::Memory as u8
            || self.row.receiver == Receiver::Argument as u8 && self.fifth_argument != 0
    }

    /// [`WriteSyscall`] as a byte.
    #[inline(always)]
    pub(crate) fn syscall(self) -> u8 {
        self.row.syscall
    }

    /// Whether it may sleep on its input.
    #[inline(always)]
    pub(crate) fn may_wait_for_input(self) -> bool {
        self.row.waits_for_input != 0
    }
}
