//! One look at all tasks: emits each writer that is blocked at that moment, and each that was a moment ago.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_seq_write};
use probe_ebpf::{
    ABI_VERSION,
    record::{Awake, KIND_AWAKE, KIND_HEADER, KIND_WRITER, ScanHeader, Writer},
};

use crate::{
    layout::{self, typed},
    output::{Output, Skip, Target},
    task::Task,
    tracer,
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
    if !task.state().is_interruptible() {
        if let Some(since) = tracer::awake(task) {
            let awake = Awake {
                kind: KIND_AWAKE,
                pid: task.pid(),
                since,
            };
            emit(meta, &awake);
        }
    } else if task.is_watched()
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

/// The record of a writer that is blocked.
///
/// It is gathered from many distant places of memory. What there is to read of the task itself comes first, with
/// nothing in between, so that the processor waits for those places together. What only means something
/// beside the token is read after it, and has been read once before then, so that it is near.
#[inline(always)]
fn describe(task: Task) -> Result<Writer, Skip> {
    let call = task.write_call().ok_or(Skip::NotWriting)?;
    let mut writer = Writer {
        kind: KIND_WRITER,
        pid: task.pid(),
        tgid: task.tgid(),
        ppid: task.parent(),
        start: task.start(),
        arrival: task.last_arrival(),
        uid: task.uid(),
        fd: call.fd,
        syscall: call.syscall(),
        exec: task.exec_id(),
        comm: task.comm(),
        thread: task.thread(),
        ..Writer::default()
    };
    let target = Target::of_sleeper(task, call)?;
    target.approach_holders();
    let output = Output::awaited_by(task, target)?;
    writer.token = output.token()?;
    writer.arrival = task.last_arrival();
    // SAFETY: the helper has no preconditions.
    writer.now = unsafe { bpf_ktime_get_ns() };
    if layout::ADOPT.load() != 0 {
        match tracer::known(task, &output, writer.token, writer.now) {
            Some(known) => {
                (writer.entered, writer.token_since) = known;
                if tracer::counts_blocked() {
                    let count = tracer::blocked_time(writer.pid, writer.now).unwrap_or_default();
                    (writer.counted_since, writer.blocked_ns) = (count.since, count.blocked);
                }
            }
            None => tracer::adopt(task, &output, writer.token, writer.now),
        }
    }
    writer.inode = output.number;
    writer.queued = output.queued(writer.token)?;
    writer.dev = output.dev;
    writer.channel = output.kind as u8;
    writer.streams = output.streams();
    // Where the tracer saw it block, nobody asks.
    writer.untouched =
        u8::from(writer.entered == 0 && target.is_of_one() && output.is_untouched(writer.token));
    Ok(writer)
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
