//! Follows blocked writers between scans: by their sleeps, or by the functions that write.
//!
//! For each one it keeps when the stay in the write began and since when the
//! drain token is what it is. An entry lives from the first sleep in a write
//! until the thread sleeps in something else, or exits; wake-ups in between
//! (signals, tracers, spurious ones) change nothing that counts. How long the thread was
//! blocked on the channel in all outlives the entry, where that is asked for.

mod count;
mod functions;
mod notes;
mod table;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use probe_ebpf::{
    RESUME_WINDOW_NS,
    record::{DrainToken, KIND_EXITED, KIND_WOKE},
};

pub(crate) use self::{
    count::{blocked_time, counts_blocked},
    functions::{enters, exits, returns},
    notes::{atomic_add, now},
    table::follows_any,
};
use self::{
    count::{drop_past, recall, remember},
    notes::{count_interval, note},
    table::{EMPTY, Entry, Phase, TRACKED, forget, insert},
};
use crate::{
    layout::{self, NOTIFY_AFTER_NS},
    output::{Output, Skip, Target},
    task::{Task, TaskState},
    written,
};

/// A watched task goes to sleep of its own accord, or is stopped.
#[inline(always)]
pub(crate) fn switch_out<C: EbpfContext>(ctx: &C, task: Task, state: TaskState) {
    if !state.is_interruptible() {
        if state.is_stopped() && follows_any() {
            held(task);
        }
        return;
    }
    if !task.is_eligible(layout::SELF_TGID.load()) {
        return;
    }
    let call = task.write_call().ok_or(Skip::NotWriting);
    let target = call.and_then(|call| Target::of_sleeper(task, call));
    match sample(target.and_then(|target| Output::awaited_by(task, target))) {
        Ok(sample) => {
            let Output { inode, target, .. } = sample.output;
            blocked(ctx, task, inode, target.file, sample.token, sample.weight);
        }
        // The reader has just made room.
        Err(Skip::NotFull) => progressed(task.pid()),
        Err(Skip::Fault) => {}
        Err(skip) => {
            if follows_any() && leave(task.pid()) {
                debug!(ctx, "{} left its write: {}", task.pid(), skip.as_str());
            }
        }
    }
}

/// A channel, and where its reader stands.
struct Sample {
    output: Output,
    token: DrainToken,
    weight: u64,
}

#[inline(always)]
fn sample(output: Result<Output, Skip>) -> Result<Sample, Skip> {
    let output = output?;
    Ok(Sample {
        output,
        token: output.token()?,
        weight: output.weight(),
    })
}

/// A task gets a CPU.
#[inline(always)]
pub(crate) fn switch_in<C: EbpfContext>(ctx: &C, task: Task) {
    if !task.is_watched() {
        return;
    }
    let Some(entry) = TRACKED.get_ptr_mut(task.pid()) else {
        return;
    };
    // SAFETY: a non-null map value; only the CPU that runs or switches the task writes to it.
    let entry = unsafe { &mut *entry };
    let now = now();
    let was = entry.phase;
    if was == Phase::Awake {
        return;
    }
    entry.set_phase(Phase::Awake);
    if was == Phase::Blocked {
        let interval = now.saturating_sub(entry.since);
        count_interval(interval);
        entry.add(interval);
    }
    entry.since = now;
    if now.saturating_sub(entry.token_since) >= NOTIFY_AFTER_NS.load() {
        note(KIND_WOKE, task, now);
        debug!(ctx, "{} woke", task.pid());
    }
    // Before the writer can queue more: a socket's token holds an address, and a freed buffer's
    // address is the first to be handed out again.
    let call = task.write_call().ok_or(Skip::NotWriting);
    let target = call.and_then(|call| Target::of(task, call));
    match sample(target.and_then(Output::in_call)) {
        Ok(sample) if sample.output.inode == entry.inode => entry.look(sample.token, sample.weight, now),
        Ok(_) | Err(Skip::NotFull) => entry.look(EMPTY, 0, now),
        Err(_) => {}
    }
}

/// A thread exits.
#[inline(always)]
pub(crate) fn exit<C: EbpfContext>(ctx: &C, task: Task) {
    let pid = task.pid();
    if counts_blocked() {
        drop_past(pid);
    }
    if forget(pid) {
        if layout::TRACE_WRITES.load() != 0 {
            written::forget(pid);
        }
        note(KIND_EXITED, task, now());
        debug!(ctx, "{} exited", task.pid());
    }
}

/// What is known of a thread on a channel: when it entered the write, and since when the token is what
/// it is; 0 for what is not.
#[inline(always)]
pub(crate) fn known(task: Task, output: &Output, token: DrainToken, now: u64) -> Option<(u64, u64)> {
    let entry = TRACKED.get_ptr_mut(task.pid())?;
    // SAFETY: a non-null map value. It may be changed by its thread's CPU meanwhile; each field is a
    // word, and userspace compares the token that goes with them.
    let entry = unsafe { &mut *entry };
    if !entry.is_of(task, output.inode) {
        return None;
    }
    if entry.token != token {
        // The reader has taken something, and nobody was woken; or, where only functions are seen, the
        // writer has filled the channel, or gone on, since its call began. What the token is from now on
        // this look has seen.
        if layout::BY_FUNCTION.load() != 0 {
            entry.entered = 0;
        }
        entry.token = token;
        entry.token_since = now;
        entry.weight = output.weight();
        return Some((entry.entered, 0));
    }
    if layout::BY_FUNCTION.load() == 0 {
        return Some((entry.entered, entry.token_since));
    }
    // A second sleep in the same call: what came between them nobody saw.
    let slept = task.sleeps().wrapping_sub(entry.sleeps);
    Some(if slept > 1 {
        (0, 0)
    } else {
        (entry.entered, entry.token_since)
    })
}

/// Since when a thread that does not sleep has got nowhere, if it was asleep in a write until a moment ago and is on
/// its way back into it for all that is known.
#[inline(always)]
pub(crate) fn awake(task: Task) -> Option<u64> {
    if layout::ADOPT.load() == 0 || !follows_any() || !task.is_watched() {
        return None;
    }
    let entry = TRACKED.get_ptr(task.pid())?;
    // SAFETY: a non-null map value, of which its thread's CPU may change fields meanwhile; each is an aligned
    // word, and what is made of them only says when to look again.
    let (token, phase, since, entered, token_since) = unsafe {
        (
            (&raw const (*entry).token).read_volatile(),
            (&raw const (*entry).phase).cast::<u64>().read_volatile(),
            (&raw const (*entry).since).read_volatile(),
            (&raw const (*entry).entered).read_volatile(),
            (&raw const (*entry).token_since).read_volatile(),
        )
    };
    // SAFETY: as above.
    let is_it = unsafe { (*entry).is_by(task) };
    // Its channel had room when that was last asked.
    if token == EMPTY || !is_it {
        return None;
    }
    // It has been woken, and has not got a CPU yet; or nothing was taken when it got one, not long ago.
    let is_moment = token_since < since && now().saturating_sub(since) <= RESUME_WINDOW_NS;
    let may_resume = phase == Phase::Blocked as u64 || is_moment;
    may_resume.then_some(if entered > token_since {
        entered
    } else {
        token_since
    })
}

/// The open file of the call in which a thread is blocked, if that was seen.
#[inline(always)]
pub(crate) fn file_of(task: Task) -> Option<u64> {
    if layout::ADOPT.load() == 0 {
        return None;
    }
    let entry = TRACKED.get_ptr(task.pid())?;
    // SAFETY: a non-null map value, of which its thread's CPU may change fields meanwhile; each
    // is an aligned word, and the phase is compared as a number.
    let (phase, file) = unsafe {
        (
            (&raw const (*entry).phase).cast::<u64>().read_volatile(),
            (&raw const (*entry).file).read_volatile(),
        )
    };
    // SAFETY: as above.
    let is_it = phase == Phase::Blocked as u64 && unsafe { (*entry).is_by(task) };
    is_it.then_some(file)
}

/// A thread sleeps in something else than its write.
#[inline(always)]
fn leave(pid: u32) -> bool {
    if counts_blocked()
        && let Some(entry) = TRACKED.get_ptr(pid)
    {
        // SAFETY: a non-null map value; only the CPU that runs or switches the task writes to it.
        remember(pid, unsafe { &*entry });
    }
    forget(pid)
}

/// Follows a writer that a scan found asleep since before the tracer could see it.
#[inline(always)]
pub(crate) fn adopt(task: Task, output: &Output, token: DrainToken, now: u64) {
    insert(
        task.pid(),
        &Entry::new(
            task,
            output.inode,
            output.target.file,
            token,
            output.weight(),
            0,
            now,
        ),
    );
}

#[inline(always)]
fn blocked<C: EbpfContext>(ctx: &C, task: Task, inode: u64, file: u64, token: DrainToken, weight: u64) {
    let (now, pid) = (now(), task.pid());
    let Some(entry) = TRACKED.get_ptr_mut(pid) else {
        let new = Entry::new(task, inode, file, token, weight, now, now);
        let count = recall(task, inode, now);
        insert(pid, &Entry { count, ..new });
        debug!(ctx, "{} blocked", pid);
        return;
    };
    // SAFETY: a non-null map value; only the CPU that runs or switches the task writes to it, and
    // the scanner, to a task that sleeps.
    let entry = unsafe { &mut *entry };
    let away = entry.phase == Phase::Awake && now.saturating_sub(entry.since) > RESUME_WINDOW_NS;
    let is_same = entry.is_of(task, inode);
    if away || !is_same {
        let new = Entry::new(task, inode, file, token, weight, now, now);
        let count = if is_same { entry.count } else { new.count };
        *entry = Entry { count, ..new };
        debug!(ctx, "{} blocked anew", pid);
        return;
    }
    entry.look(token, weight, now);
    entry.file = file;
    entry.since = now;
    entry.set_phase(Phase::Blocked);
}

/// The channel of a followed thread has room.
#[inline(always)]
fn progressed(pid: u32) {
    if let Some(entry) = TRACKED.get_ptr_mut(pid) {
        // SAFETY: as in `blocked`.
        unsafe { (*entry).look(EMPTY, 0, now()) };
    }
}

/// A stop does not count as time away from the write.
#[inline(always)]
fn held(task: Task) {
    if let Some(entry) = TRACKED.get_ptr_mut(task.pid()) {
        // SAFETY: as in `blocked`.
        unsafe { (*entry).phase = Phase::Held };
    }
}
