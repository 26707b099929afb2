//! The kernel programs: entry points, and nothing else.
//!
//! - the tracer, on every context switch and on exits, keeps for each blocked
//!   writer how long its stay in the write has lasted (`tracer`);
//! - the scanner walks all tasks when userspace reads it, and emits the writers
//!   that are blocked at that moment, and those that were a moment ago (`scanner`);
//! - a walk over all open files, for whoever asks who reads (`files`).
//!
//! The first two ask `output` the one question that matters: is this sleeping task in a
//! write to a channel, and where does the channel's reader stand? Nothing here
//! waits or allocates.
//!
//! The tracer has two more forms, which are loaded instead where a user or a
//! kernel wants it: at the entry and exit of the functions that write, by fentry
//! or by kprobes. By default nothing hooks the write path.
#![no_std]
#![no_main]
#![allow(internal_features, reason = "BPF's atomic add has no stable spelling")]
#![feature(asm_experimental_arch)]

mod files;
mod layout;
mod output;
mod scanner;
mod task;
mod tracer;
mod written;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    layout::{SWITCH_HAS_PREV_STATE, peek},
    output::Skip,
    task::{Task, TaskState},
};

/// `sched_switch(preempt, prev, next[, prev_state])` (include/trace/events/sched.h).
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    if !preempted && prev_state(&ctx).may_matter() && Task::new(ctx.arg(1)).is_watched() {
        leaves(ctx.as_ptr());
    }
    if tracer::follows_any() {
        arrives(ctx.as_ptr());
    }
    0
}

/// What a watched task's sleep means. A function of its own, as is [`arrives`], so that what every
/// switch runs stays small: few instructions in a row, and no register to save.
#[inline(never)]
fn leaves(ctx: *mut c_void) -> u64 {
    let ctx = BtfTracePointContext::new(ctx);
    tracer::switch_out(&ctx, Task::new(ctx.arg(1)), prev_state(&ctx));
    0
}

/// What it means that a task gets a CPU while any is followed.
#[inline(never)]
fn arrives(ctx: *mut c_void) -> u64 {
    let ctx = BtfTracePointContext::new(ctx);
    tracer::switch_in(&ctx, Task::new(ctx.arg(2)));
    0
}

#[inline(always)]
fn prev_state(ctx: &BtfTracePointContext) -> TaskState {
    // The argument is the state as it was at the decision; kernels before 5.18 have
    // only the field, which a wake-up on another CPU may already have changed.
    if SWITCH_HAS_PREV_STATE.load() != 0 {
        TaskState::new(ctx.arg::<u64>(3) as u32)
    } else {
        // SAFETY: the context's second argument is a typed task.
        unsafe { TaskState::of(ctx.arg(1)) }
    }
}

/// `sched_process_exit(task, …)` (include/trace/events/sched.h): every thread passes here.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    if tracer::follows_any() || tracer::counts_blocked() {
        tracer::exit(&ctx, Task::new(ctx.arg(0)));
    }
    0
}

/// The task iterator (kernel/bpf/task_iter.c); aya-ebpf 0.2 has no attribute for it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn scan(ctx: *mut scanner::IterTask) -> i32 {
    scanner::visit(ctx);
    0
}

/// The iterator over open files (kernel/bpf/task_iter.c), which visits threads that share theirs once.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn walk_files(ctx: *mut files::IterFile) -> i32 {
    files::visit(ctx);
    0
}

// The functions at the end of a write, by what they are given first. Each program is attached to one
// function, so those of one kind that a kernel can have two of are there twice. The number is that of the
// argument after the last, which is where an exit finds what the function returns.
macro_rules! at_function {
    ($($file:ident $returns:literal $entry:ident $exit:ident $probe:ident $return_probe:ident;)+) => {
        $(
            #[fentry]
            fn $entry(ctx: FEntryContext) -> u32 {
                enters(&ctx, $file(ctx.arg(0)));
                0
            }

            #[fexit]
            fn $exit(ctx: FExitContext) -> u32 {
                tracer::returns(&ctx, result(ctx.arg($returns)));
                0
            }

            #[kprobe]
            fn $probe(ctx: ProbeContext) -> u32 {
                if let Some(argument) = ctx.arg(0) {
                    enters(&ctx, $file(argument));
                }
                0
            }

            #[kretprobe]
            fn $return_probe(ctx: RetProbeContext) -> u32 {
                tracer::returns(&ctx, result(ctx.ret()));
                0
            }
        )+
    };
}

at_function! {
    // fs/pipe.c: pipe_write(struct kiocb *, struct iov_iter *), which is called anon_pipe_write
    // since 6.15; it is also what fifo_pipe_write calls.
    of_kiocb 2 pipe_entry pipe_exit pipe_probe pipe_return;
    of_kiocb 2 fifo_entry fifo_exit fifo_probe fifo_return;
    // net/unix/af_unix.c: unix_stream_sendmsg(struct socket *, struct msghdr *, size_t)
    of_socket 3 unix_entry unix_exit unix_probe unix_return;
}

#[inline(always)]
fn enters<C: EbpfContext>(ctx: &C, file: Result<u64, Skip>) {
    if let Ok(file) = file {
        tracer::enters(ctx, file);
    }
}

#[inline(always)]
fn of_kiocb(kiocb: u64) -> Result<u64, Skip> {
    peek(kiocb, &layout::KIOCB_FILE)
}

#[inline(always)]
fn of_socket(socket: u64) -> Result<u64, Skip> {
    peek(socket, &layout::SOCKET_FILE)
}

/// A count of bytes, or an error: no write is of 2 GiB or more (`MAX_RW_COUNT`), and some
/// functions return no more than 32 bits.
#[inline(always)]
fn result(raw: u64) -> i64 {
    i64::from(raw as u32 as i32)
}

/// `do_exit` (kernel/exit.c): every thread passes here.
#[kprobe]
fn thread_exit(ctx: ProbeContext) -> u32 {
    tracer::exits(&ctx);
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the verifier refuses an object in which a panic can be reached.
    unsafe { core::hint::unreachable_unchecked() }
}
