//! Follows writers by the functions that write, where their sleeps are not traced.
//!
//! Functions show less than sleeps: nothing is seen of what a reader takes in the middle of a
//! call. Where the token is not what it was when the call began, the scanner says of the writer
//! what it says of one that it has found.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use probe_ebpf::record::KIND_WOKE;

use super::{
    Sample, blocked, exit,
    notes::{count_interval, note, now},
    table::{EMPTY, Phase, TRACKED, follows_any},
};
use crate::{
    layout::{self, NOTIFY_AFTER_NS, peek},
    output::{Output, Skip, Target},
    task::Task,
    written,
};

/// A watched thread calls a function that writes to a file.
#[inline(always)]
pub(crate) fn enters<C: EbpfContext>(ctx: &C, file: u64) {
    let task = Task::current();
    if !task.is_watched() || !task.is_eligible(layout::SELF_TGID.load()) {
        return;
    }
    let Ok(inode) = peek(file, &layout::FILE_INODE) else {
        return;
    };
    let (token, weight) = match behind(file) {
        Ok(sample) => (sample.token, sample.weight),
        // What cannot be read has just been taken.
        Err(Skip::NotFull | Skip::Fault) => (EMPTY, 0),
        Err(_) => return,
    };
    blocked(ctx, task, inode, file, token, weight);
    // Where the table is full, that has been counted as a loss.
    let Some(entry) = TRACKED.get_ptr_mut(task.pid()) else {
        return;
    };
    // SAFETY: as in `blocked`.
    unsafe { (*entry).sleeps = task.sleeps() };
    if layout::TRACE_WRITES.load() != 0 {
        written::begins(task.pid(), file);
    }
}

/// A thread returns from such a function; `written` is what the function returns.
#[inline(always)]
pub(crate) fn returns<C: EbpfContext>(ctx: &C, written: i64) {
    if !follows_any() {
        return;
    }
    let task = Task::current();
    let Some(entry) = TRACKED.get_ptr_mut(task.pid()) else {
        return;
    };
    // SAFETY: as in `blocked`.
    let entry = unsafe { &mut *entry };
    // One such function may have called the other: the inner one has said it all.
    if entry.phase == Phase::Awake {
        return;
    }
    let now = now();
    if layout::TRACE_WRITES.load() != 0 {
        written::ends(task.pid(), written, now);
    }
    let took = now.saturating_sub(entry.since);
    if task.sleeps() != entry.sleeps {
        count_interval(took);
    }
    if took >= NOTIFY_AFTER_NS.load() {
        note(KIND_WOKE, task, now);
        debug!(ctx, "{} woke", task.pid());
    }
    if written > 0 {
        // There was room. A call that a signal ends returns an error, unless it got on before.
        entry.look(EMPTY, 0, now);
    }
    entry.set_phase(Phase::Awake);
    entry.since = now;
}

/// A thread that may be followed exits, and says so itself.
#[inline(always)]
pub(crate) fn exits<C: EbpfContext>(ctx: &C) {
    if follows_any() {
        exit(ctx, Task::current());
    }
}

#[inline(always)]
fn behind(file: u64) -> Result<Sample, Skip> {
    let output = Output::behind(Target::behind(file))?;
    Ok(Sample {
        output,
        token: output.token()?,
        weight: output.weight(),
    })
}
