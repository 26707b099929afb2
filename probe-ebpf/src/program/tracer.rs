//! Follows blocked writers between scans: by their sleeps, or by the functions that write.
//!
//! For each one it keeps when the stay in the write began and since when the
//! drain token is what it is. An entry lives from the first sleep in a write
//! until the thread sleeps in something else, or exits; wake-ups in between
//! (signals, tracers, spurious ones) change nothing that counts. How long the thread was
//! blocked on the channel in all outlives the entry, where that is asked for.
//!
//! Functions show less than sleeps: nothing is seen of what a reader takes in the middle of a
//! call. Where the token is not what it was when the call began, the scanner says of the writer
//! what it says of one that it has found.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use aya_log_ebpf::debug;
use probe_ebpf::{
    MAX_TRACKED, RESUME_WINDOW_NS, histogram,
    record::{DrainToken, KIND_EXITED, KIND_WOKE, Note},
};

use crate::{
    layout::{self, COUNT_BLOCKED, NOTIFY_AFTER_NS, peek},
    output::{Output, Skip},
    task::{Call, Task, TaskState},
    written,
};

/// Where a followed thread is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Phase {
    /// Asleep in the write.
    Blocked,
    /// Stopped, by job control or a tracer, on its way back into the write.
    Held,
    /// On a CPU, or waiting for one, since `Entry::since`.
    Awake,
}

/// How long a thread has been blocked on a channel, in nanoseconds, since a moment of
/// `CLOCK_MONOTONIC`; whatever it did in between, it is one count.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Count {
    pub(crate) since: u64,
    pub(crate) blocked: u64,
}

impl Count {
    const fn from(now: u64) -> Self {
        Self {
            since: now,
            blocked: 0,
        }
    }
}

/// What is kept of a thread that is not in a write: see [`Entry`] for the fields.
#[derive(Clone, Copy)]
#[repr(C)]
struct Past {
    inode: u64,
    start: u64,
    exec: u64,
    count: Count,
}

/// What is known of a followed thread. Times are `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    /// Address of the channel's inode.
    inode: u64,
    /// When the process started, and how often it has called `exec` since: a thread's number
    /// may come to mean another's, and a process another program.
    start: u64,
    exec: u64,
    /// Start of this stay in the write; 0 for one that was found, not seen.
    pub(crate) entered: u64,
    pub(crate) token: DrainToken,
    /// When the token was first seen with this value.
    pub(crate) token_since: u64,
    /// What the queue weighed at that time: see [`Output::weight`].
    weight: u64,
    /// Start of the phase.
    since: u64,
    /// How often the thread had gone to sleep when its call of a function began.
    sleeps: u64,
    phase: Phase,
    /// Intervals that are over.
    count: Count,
}

#[map]
static TRACKED: HashMap<u32, Entry> = HashMap::with_max_entries(MAX_TRACKED, 0);

/// Threads that may come back to their channel. One that is pushed out is counted anew.
#[map]
static PAST: LruHashMap<u32, Past> = LruHashMap::with_max_entries(MAX_TRACKED, 0);

/// Blocked intervals by [`histogram::slot`].
#[map]
static BLOCKED_NS: PerCpuArray<u64> = PerCpuArray::with_max_entries(histogram::SLOTS, 0);

#[map]
static NOTES: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Things that went wrong, counted: see [`Loss`].
#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// What userspace has to make up for by scanning.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Loss {
    /// The ring buffer was full.
    Note = 0,
    /// The table of followed threads was full.
    Entry = 1,
}

/// Entries in [`TRACKED`]; read on every context switch.
#[unsafe(no_mangle)]
static mut FOLLOWED: u64 = 0;

/// Whether any thread is followed, so that a switch can do without a look-up.
#[inline(always)]
pub(crate) fn follows_any() -> bool {
    // SAFETY: an aligned word, changed only by atomic adds.
    unsafe { (&raw const FOLLOWED).read_volatile() != 0 }
}

/// Whether blocked time is counted across writes.
#[inline(always)]
pub(crate) fn counts_blocked() -> bool {
    COUNT_BLOCKED.load() != 0
}

/// A watched task goes to sleep of its own accord, or is stopped.
#[inline(always)]
pub(crate) fn switch_out<C: EbpfContext>(ctx: &C, task: Task, state: TaskState) {
    if !state.is_interruptible() {
        if state.is_stopped() && follows_any() {
            held(task);
        }
        return;
    }
    if !task.is_eligible() {
        return;
    }
    match sample(task) {
        Ok(sample) => blocked(ctx, task, sample.output.inode, sample.token, sample.weight),
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
fn sample(task: Task) -> Result<Sample, Skip> {
    let output = Output::of(task)?;
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
    match sample(task) {
        Ok(sample) if sample.output.inode == entry.inode => entry.look(sample.token, sample.weight, now),
        Ok(_) | Err(Skip::NotFull) => entry.look(EMPTY, 0, now),
        Err(_) => {}
    }
}

/// The token of a queue that has been emptied, which no blocked writer's is.
const EMPTY: DrainToken = DrainToken([0; 2]);

impl Entry {
    #[inline(always)]
    fn new(task: Task, inode: u64, token: DrainToken, weight: u64, entered: u64, now: u64) -> Self {
        let leader = task.leader();
        Self {
            inode,
            start: leader.start(),
            exec: u64::from(leader.exec_id()),
            entered,
            token,
            token_since: now,
            weight,
            since: now,
            sleeps: 0,
            phase: Phase::Blocked,
            count: Count::from(now),
        }
    }

    /// In this order for [`blocked_time`]: an interval that is over is never counted twice.
    #[inline(always)]
    fn set_phase(&mut self, phase: Phase) {
        // SAFETY: a field of a live value.
        unsafe { (&raw mut self.phase).write_volatile(phase) };
    }

    #[inline(always)]
    fn add(&mut self, interval: u64) {
        let blocked = &raw mut self.count.blocked;
        // SAFETY: a field of a live value.
        unsafe { blocked.write_volatile(blocked.read_volatile().wrapping_add(interval)) };
    }

    /// Whether the entry is about this thread of this program on this channel.
    #[inline(always)]
    fn is_of(&self, task: Task, inode: u64) -> bool {
        let leader = task.leader();
        self.inode == inode && self.start == leader.start() && self.exec == u64::from(leader.exec_id())
    }

    /// Takes in where the reader stands now.
    #[inline(always)]
    fn look(&mut self, token: DrainToken, weight: u64, now: u64) {
        if self.token != token || weight < self.weight {
            self.token = token;
            self.token_since = now;
        }
        self.weight = weight;
    }
}

/// A thread exits.
#[inline(always)]
pub(crate) fn exit<C: EbpfContext>(ctx: &C, task: Task) {
    let pid = task.pid();
    if counts_blocked() {
        let _ = PAST.remove(pid);
    }
    if forget(pid) {
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
    let is_same = entry.token == token;
    if layout::BY_FUNCTION.load() == 0 {
        return Some((entry.entered, if is_same { entry.token_since } else { 0 }));
    }
    if !is_same {
        // It has filled the channel, or gone on, since its call began; what the token is from
        // now on this look has seen.
        entry.entered = 0;
        entry.token = token;
        entry.token_since = now;
        entry.weight = output.weight();
        return Some((0, 0));
    }
    // A second sleep in the same call: what came between them nobody saw.
    let slept = task.sleeps().wrapping_sub(entry.sleeps);
    Some(if slept > 1 {
        (0, 0)
    } else {
        (entry.entered, entry.token_since)
    })
}

/// How long a thread that is blocked has been so; nothing if it is about to wake up.
#[inline(always)]
pub(crate) fn blocked_time(pid: u32, now: u64) -> Option<Count> {
    let entry = TRACKED.get_ptr(pid)?;
    // SAFETY: a non-null map value, of which its thread's CPU may change fields meanwhile; each
    // is an aligned word, and the phase is compared as a number.
    let (before, phase, since, start, after) = unsafe {
        let blocked = &raw const (*entry).count.blocked;
        (
            blocked.read_volatile(),
            (&raw const (*entry).phase).cast::<u64>().read_volatile(),
            (&raw const (*entry).since).read_volatile(),
            (&raw const (*entry).count.since).read_volatile(),
            blocked.read_volatile(),
        )
    };
    (phase == Phase::Blocked as u64 && before == after).then(|| Count {
        since: start,
        blocked: before.wrapping_add(now.saturating_sub(since)),
    })
}

/// What was counted before of a thread that is back on its channel.
#[inline(always)]
fn recall(task: Task, inode: u64, now: u64) -> Count {
    if counts_blocked() {
        // SAFETY: only the thread's own switches, and its exit, write to its value.
        if let Some(past) = unsafe { PAST.get(task.pid()) } {
            let leader = task.leader();
            let is_same = past.inode == inode
                && past.start == leader.start()
                && past.exec == u64::from(leader.exec_id());
            if is_same {
                return past.count;
            }
        }
    }
    Count::from(now)
}

/// A thread sleeps in something else than its write.
#[inline(always)]
fn leave(pid: u32) -> bool {
    if counts_blocked()
        && let Some(entry) = TRACKED.get_ptr(pid)
    {
        // SAFETY: a non-null map value; only the CPU that runs or switches the task writes to it.
        let entry = unsafe { &*entry };
        let past = Past {
            inode: entry.inode,
            start: entry.start,
            exec: entry.exec,
            count: entry.count,
        };
        // Without it, the thread is counted anew when it comes back.
        let _ = PAST.insert(pid, past, 0);
    }
    forget(pid)
}

/// Follows a writer that a scan found asleep since before the tracer could see it.
#[inline(always)]
pub(crate) fn adopt(task: Task, output: &Output, token: DrainToken, now: u64) {
    insert(
        task.pid(),
        &Entry::new(task, output.inode, token, output.weight(), 0, now),
    );
}

/// A watched thread calls a function that writes to a file.
#[inline(always)]
pub(crate) fn enters<C: EbpfContext>(ctx: &C, file: u64) {
    let task = Task::current();
    if !task.is_watched() || !task.is_eligible() {
        return;
    }
    let Ok(inode) = peek(file, &layout::FILE_INODE) else {
        return;
    };
    if layout::TRACE_WRITES.load() != 0 {
        written::begins(task.pid(), file);
    }
    let (token, weight) = match behind(file) {
        Ok(sample) => (sample.token, sample.weight),
        Err(Skip::NotFull) => (EMPTY, 0),
        Err(_) => return,
    };
    blocked(ctx, task, inode, token, weight);
    if let Some(entry) = TRACKED.get_ptr_mut(task.pid()) {
        // SAFETY: as in `blocked`.
        unsafe { (*entry).sleeps = task.sleeps() };
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
    let output = Output::behind(file, Call::UNKNOWN)?;
    Ok(Sample {
        output,
        token: output.token()?,
        weight: output.weight(),
    })
}

#[inline(always)]
fn blocked<C: EbpfContext>(ctx: &C, task: Task, inode: u64, token: DrainToken, weight: u64) {
    let (now, pid) = (now(), task.pid());
    let Some(entry) = TRACKED.get_ptr_mut(pid) else {
        let new = Entry::new(task, inode, token, weight, now, now);
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
        let new = Entry::new(task, inode, token, weight, now, now);
        let count = if is_same { entry.count } else { new.count };
        *entry = Entry { count, ..new };
        debug!(ctx, "{} blocked anew", pid);
        return;
    }
    entry.look(token, weight, now);
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

#[inline(always)]
fn insert(pid: u32, entry: &Entry) {
    match TRACKED.insert(pid, entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => add_followed(1),
        // -EEXIST: the thread's own switch and a scan met, and the first has it right.
        Err(-17) => {}
        Err(_) => count_loss(Loss::Entry),
    }
}

#[inline(always)]
fn forget(pid: u32) -> bool {
    // A look-up takes no lock, and most who come here are not in the table.
    let was_there = TRACKED.get_ptr(pid).is_some() && TRACKED.remove(pid).is_ok();
    if was_there {
        add_followed(-1);
    }
    was_there
}

#[inline(always)]
fn note(kind: u32, task: Task, now: u64) {
    let Some(mut slot) = NOTES.reserve::<Note>(0) else {
        count_loss(Loss::Note);
        return;
    };
    slot.write(Note {
        kind,
        pid: task.pid(),
        tgid: task.tgid(),
        reserved: 0,
        start: task.leader().start(),
        now,
    });
    slot.submit(0);
}

#[inline(always)]
fn count_interval(ns: u64) {
    count(&BLOCKED_NS, histogram::slot(ns));
}

#[inline(always)]
fn count_loss(loss: Loss) {
    count(&LOSSES, loss as u32);
}

#[inline(always)]
fn count(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: a non-null value of this CPU alone, and the programs cannot be preempted
        // by each other on it.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
fn add_followed(n: i64) {
    // SAFETY: an aligned word that lives as long as the object.
    unsafe { atomic_add(&raw mut FOLLOWED, n) };
}

/// # Safety
/// `at` is an aligned word of a map or of the object.
#[inline(always)]
pub(crate) unsafe fn atomic_add(at: *mut u64, n: i64) {
    // SAFETY: the caller's promise; one add, and nothing else is touched.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({at} + 0) += {n}",
            at = in(reg) at,
            n = in(reg) n,
        );
    }
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
