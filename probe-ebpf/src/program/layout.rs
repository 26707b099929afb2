//! The load-time constants, and the two ways to read kernel memory through them.
//!
//! Userspace sets every constant before the object is loaded. The verifier then knows
//! them: it drops the branches that they rule out, and checks typed reads against the
//! kernel's own BTF. The load of the constant itself remains.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel, generated},
};
use probe_ebpf::{
    pattern::{CommFilter, MAX_PATTERNS},
    with_fields,
};

use crate::output;

macro_rules! declare {
    ($($symbol:ident = $of:literal [$($path:literal),+] $($user:ident)+;)+) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $symbol: Global<u64> = Global::new(0);
        )+
    };
}

with_fields!(declare);

/// Non-zero where `sched_switch` passes the previous task's state (5.18 on).
#[unsafe(no_mangle)]
pub(crate) static SWITCH_HAS_PREV_STATE: Global<u64> = Global::new(0);

/// Non-zero where there is a helper that finds a task's saved registers (5.15 on).
#[unsafe(no_mangle)]
pub(crate) static HAS_TASK_PT_REGS: Global<u64> = Global::new(0);

/// Bytes of a task's kernel stack.
#[unsafe(no_mangle)]
pub(crate) static STACK_SIZE: Global<u64> = Global::new(0);

/// Non-zero where the tracer sees calls of functions begin and end, and not each sleep.
#[unsafe(no_mangle)]
pub(crate) static BY_FUNCTION: Global<u64> = Global::new(0);

/// Non-zero where each call of a function that writes is counted.
#[unsafe(no_mangle)]
pub(crate) static TRACE_WRITES: Global<u64> = Global::new(0);

/// The process that tracers leave out, as the kernel numbers it: the tool itself.
#[unsafe(no_mangle)]
pub(crate) static SELF_TGID: Global<u32> = Global::new(0);

/// Non-zero where the tracer runs too, so that the scanner hands it what it finds.
#[unsafe(no_mangle)]
pub(crate) static ADOPT: Global<u64> = Global::new(0);

/// Non-zero where blocked time is counted across writes.
#[unsafe(no_mangle)]
pub(crate) static COUNT_BLOCKED: Global<u64> = Global::new(0);

/// A stall that lasted this long, in nanoseconds, is reported when its writer wakes.
#[unsafe(no_mangle)]
pub(crate) static NOTIFY_AFTER_NS: Global<u64> = Global::new(u64::MAX);

/// Which commands to look at.
#[unsafe(no_mangle)]
static COMM_FILTER: Global<CommFilter> = Global::new(CommFilter {
    patterns: [probe_ebpf::pattern::CommPattern {
        value: [0; 2],
        mask: [0; 2],
    }; MAX_PATTERNS],
    len: 0,
});

/// Whether a command, whose two halves are read as they are needed, passes the filter.
#[inline(always)]
pub(crate) fn comm_matches(half: impl Fn(usize) -> u64) -> bool {
    let filter = (&raw const COMM_FILTER).cast::<CommFilter>();
    // SAFETY: the pointer is that of a static; the read is of one initialised word of it.
    let len = unsafe { word(&raw const (*filter).len) };
    // Written out: the verifier, which knows `len` and the masks, drops what they rule out here,
    // and could drop nothing of a loop.
    macro_rules! any_of {
        ($($i:literal)+) => {
            $(
                if len <= $i {
                    return false;
                }
                if pattern_matches::<$i>(&half) {
                    return true;
                }
            )+
        };
    }
    any_of!(0 1 2 3 4 5 6 7);
    false
}

const _: () = assert!(MAX_PATTERNS == 8);

#[inline(always)]
fn pattern_matches<const I: usize>(half: &impl Fn(usize) -> u64) -> bool {
    let filter = (&raw const COMM_FILTER).cast::<CommFilter>();
    // SAFETY: the pointer is that of a static, and `I` is below the array's length; each read is of
    // one initialised word of it.
    unsafe {
        let pattern = &raw const (*filter).patterns[I];
        if half(0) & word(&raw const (*pattern).mask[0]) != word(&raw const (*pattern).value[0]) {
            return false;
        }
        let mask = word(&raw const (*pattern).mask[1]);
        // A prefix of up to 8 bytes leaves nothing to compare.
        mask == 0 || half(1) & mask == word(&raw const (*pattern).value[1])
    }
}

/// # Safety
/// `at` points to an initialised word.
#[inline(always)]
unsafe fn word(at: *const u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { at.read_volatile() }
}

/// Reads a field through a pointer whose type the verifier knows: a plain load.
///
/// # Safety
/// `base` came from a program's context, or was itself read by `typed` from a field
/// of pointer type, and `offset` is that struct's. A fault reads as zero.
#[inline(always)]
pub(crate) unsafe fn typed<T: Copy>(base: *const u8, offset: &Global<u64>) -> T {
    // SAFETY: the caller's promise; the kernel handles a fault in such a load.
    unsafe { base.add(offset.load() as usize).cast::<T>().read_volatile() }
}

/// Reads a field at an address that is only a number to the verifier.
#[inline(always)]
pub(crate) fn peek<T: Copy>(base: u64, offset: &Global<u64>) -> Result<T, output::Skip> {
    peek_at(base + offset.load())
}

/// Reads fields of one struct, with one call where they lie within `WORDS` times 8 bytes: on machines
/// with costly returns a call costs more than the bytes do. Each is given as 8 bytes from its offset
/// on; of a smaller field the caller takes the lower part.
#[inline(always)]
pub(crate) fn peek_fields<const WORDS: usize, const N: usize>(
    base: u64,
    fields: [&Global<u64>; N],
) -> Result<[u64; N], output::Skip> {
    let mut values = [0; N];
    let (mut first, mut end) = (u64::MAX, 0);
    let mut i = 0;
    while i < N {
        let offset = fields[i].load();
        first = if offset < first { offset } else { first };
        end = if offset + 8 > end { offset + 8 } else { end };
        i += 1;
    }
    // The verifier wants aligned reads of the stack.
    first &= !7;
    if end - first > WORDS as u64 * 8 {
        let mut i = 0;
        while i < N {
            values[i] = peek(base, fields[i])?;
            i += 1;
        }
        return Ok(values);
    }
    let mut copy = MaybeUninit::<[u64; WORDS]>::uninit();
    // SAFETY: the copy ends within the array.
    unsafe { copy_to(copy.as_mut_ptr().cast(), (end - first) as u32, base + first)? };
    let mut i = 0;
    while i < N {
        // SAFETY: within the copy; both halves are aligned, as every field is to 4 bytes.
        values[i] = unsafe {
            let at = copy
                .as_ptr()
                .cast::<u8>()
                .add((fields[i].load() - first) as usize)
                .cast::<u32>();
            u64::from(at.read_volatile()) | u64::from(at.add(1).read_volatile()) << 32
        };
        i += 1;
    }
    Ok(values)
}

/// Copies kernel memory at an address.
///
/// # Safety
/// There is room for `len` bytes at `to`.
#[inline(always)]
pub(crate) unsafe fn copy_to(to: *mut u8, len: u32, address: u64) -> Result<(), output::Skip> {
    // SAFETY: the caller's promise; the helper checks the address.
    let failed = unsafe { generated::bpf_probe_read_kernel(to.cast(), len, address as *const c_void) };
    if failed == 0 {
        Ok(())
    } else {
        Err(output::Skip::Fault)
    }
}

/// Reads kernel memory at an address.
#[inline(always)]
pub(crate) fn peek_at<T: Copy>(address: u64) -> Result<T, output::Skip> {
    // SAFETY: the helper checks the address; any bytes are a valid `T`, which is an
    // integer, or an array of them, at every call.
    unsafe { bpf_probe_read_kernel(address as *const T) }.map_err(|_| output::Skip::Fault)
}
