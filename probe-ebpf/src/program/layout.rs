//! The load-time constants, and the two ways to read kernel memory through them.
//!
//! Userspace sets every constant before the object is loaded; the verifier then
//! folds them, so a field access costs what it would in C.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};
use probe_ebpf::{
    pattern::{CommFilter, MAX_PATTERNS},
    with_fields,
};

use crate::output;

macro_rules! declare {
    ($($symbol:ident = $of:literal [$($path:literal),+] $need:ident;)+) => {
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

/// The process to leave out: the tool itself.
#[unsafe(no_mangle)]
pub(crate) static SELF_TGID: Global<u64> = Global::new(0);

/// Non-zero where the tracer runs too, so that the scanner hands it what it finds.
#[unsafe(no_mangle)]
pub(crate) static ADOPT: Global<u64> = Global::new(0);

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

/// Whether a command passes the filter; `half` reads its first or second eight bytes.
///
/// Nearly every task fails at the first half of the first pattern, so that is all that is
/// read of it.
#[inline(always)]
pub(crate) fn comm_matches(half: impl Fn(usize) -> u64) -> bool {
    let filter = (&raw const COMM_FILTER).cast::<CommFilter>();
    // SAFETY: the pointer is that of a static; the read is of one initialised word of it.
    let len = unsafe { word(&raw const (*filter).len) };
    let low = half(0);
    // `len` is known to the verifier, which drops the iterations that it rules out.
    let mut i = 0;
    while i < MAX_PATTERNS {
        if i as u64 >= len {
            return false;
        }
        // SAFETY: as above, and `i` is below the array's length.
        let pattern = unsafe { &raw const (*filter).patterns[i] };
        // SAFETY: as above.
        let matches = |at: usize, half: u64| unsafe {
            half & word(&raw const (*pattern).mask[at]) == word(&raw const (*pattern).value[at])
        };
        if matches(0, low) && matches(1, half(1)) {
            return true;
        }
        i += 1;
    }
    false
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

/// Reads two fields of one type; at once where the second follows the first, which the
/// verifier knows.
#[inline(always)]
pub(crate) fn peek_two<T: Copy>(
    base: u64,
    first: &Global<u64>,
    second: &Global<u64>,
) -> Result<(T, T), output::Skip> {
    if second.load() == first.load() + size_of::<T>() as u64 {
        let [first, second] = peek::<[T; 2]>(base, first)?;
        return Ok((first, second));
    }
    Ok((peek(base, first)?, peek(base, second)?))
}

/// Reads kernel memory at an address.
#[inline(always)]
pub(crate) fn peek_at<T: Copy>(address: u64) -> Result<T, output::Skip> {
    // SAFETY: the helper checks the address; any bytes are a valid `T`, which is an
    // integer, or an array of them, at every call.
    unsafe { bpf_probe_read_kernel(address as *const T) }.map_err(|_| output::Skip::Fault)
}
