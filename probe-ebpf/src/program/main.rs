//! The kernel programs: entry points, and nothing else.
//!
//! - the tracer, on every context switch and on exits, keeps for each blocked
//!   writer how long its stay in the write has lasted (`tracer`);
//! - the scanner walks all tasks when userspace reads it, and emits the writers
//!   that are blocked at that moment (`scanner`);
//! - a walk over all open files, for whoever asks who reads (`files`).
//!
//! The first two ask `output` the one question that matters: is this sleeping task in a
//! write to a channel, and where does the channel's reader stand? Nothing here
//! hooks the write path, waits, or allocates.
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

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};

use crate::{
    layout::SWITCH_HAS_PREV_STATE,
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
        Task::new(ctx.arg(1)).state()
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

/// Loaded only by `pipestall doctor`, to learn whether this kernel takes such a program.
#[fentry]
fn try_fentry(_ctx: FEntryContext) -> u32 {
    0
}

/// Loaded only by `pipestall doctor`, to learn whether this kernel takes such a program.
#[kprobe]
fn try_kprobe(_ctx: ProbeContext) -> u32 {
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
