//! One look at all tasks: emits each writer that is blocked at that moment.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_seq_write};
use probe_ebpf::{
    ABI_VERSION,
    record::{KIND_HEADER, KIND_WRITER, ScanHeader, Writer},
};

use crate::{
    layout::{self, typed},
    output::{Output, Skip},
    task::Task,
    tracer::{self, Count},
};

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c): two pointers on every kernel.
#[repr(C)]
pub(crate) struct IterTask {
    meta: *const u8,
    task: *const u8,
}

/// The iterator calls this for each task, and once more with no task at the end.
#[inline(always)]
pub(crate) fn visit(ctx: *const IterTask) {
    // SAFETY: the context's fields are read once each, before the null check, because the
    // verifier does not carry the check over to a second read.
    let (meta, task) = unsafe {
        (
            (&raw const (*ctx).meta).read_volatile(),
            (&raw const (*ctx).task).read_volatile(),
        )
    };
    // SAFETY: `meta` is the context's, typed and never null.
    let first = unsafe { typed::<u64>(meta, &layout::ITER_SEQ_NUM) } == 0;
    if first {
        emit(meta, &header());
    }
    if task.is_null() {
        return;
    }
    let task = Task::new(task);
    if task.state().is_interruptible()
        && task.is_watched()
        && task.is_eligible(reader())
        && let Ok(writer) = describe(task)
    {
        emit(meta, &writer);
    }
}

/// The process that reads what an iterator emits: the tool.
#[inline(always)]
pub(crate) fn reader() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// What opens each walk.
#[inline(always)]
pub(crate) fn header() -> ScanHeader {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    ScanHeader {
        kind: KIND_HEADER,
        abi: ABI_VERSION,
        now,
        arrival: Task::current().last_arrival(),
        tgid: reader(),
        reserved: 0,
    }
}

#[inline(always)]
fn describe(task: Task) -> Result<Writer, Skip> {
    let call = task.write_call().ok_or(Skip::NotWriting)?;
    let output = Output::awaited_by(task, call)?;
    let token = output.token()?;
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let pid = task.pid();
    let (mut entered, mut token_since) = (0, 0);
    let mut count = Count::default();
    if layout::ADOPT.load() != 0 {
        match tracer::known(task, &output, token, now) {
            Some(known) => {
                (entered, token_since) = known;
                if tracer::counts_blocked() {
                    count = tracer::blocked_time(pid, now).unwrap_or_default();
                }
            }
            None => tracer::adopt(task, &output, token, now),
        }
    }
    Ok(Writer {
        kind: KIND_WRITER,
        pid,
        tgid: task.tgid(),
        ppid: task.parent(),
        start: task.start(),
        now,
        arrival: task.last_arrival(),
        entered,
        token_since,
        token,
        inode: output.number,
        queued: output.queued(token)?,
        counted_since: count.since,
        blocked_ns: count.blocked,
        dev: output.dev,
        uid: task.uid(),
        fd: output.call.fd,
        channel: output.kind as u8,
        syscall: output.call.syscall(),
        streams: output.streams(),
        // Where the tracer saw it block, nobody asks.
        untouched: u8::from(entered == 0 && output.is_untouched(token)),
        exec: task.exec_id(),
        reserved: 0,
        comm: task.comm(),
        thread: task.thread(),
    })
}

/// Appends a record. On a full buffer the kernel shows the same task again at the next read.
#[inline(always)]
pub(crate) fn emit<T>(meta: *const u8, record: &T) {
    // SAFETY: `meta` is the context's, whose first field is the typed `seq_file`; the record
    // is plain bytes without padding, as the ABI's size assertions show.
    unsafe {
        let seq: *mut u8 = typed(meta, &layout::ITER_SEQ);
        bpf_seq_write(
            seq.cast(),
            (&raw const *record).cast_mut().cast(),
            size_of::<T>() as u32,
        );
    }
}
