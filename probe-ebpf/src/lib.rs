//! What pipestall's kernel programs and its userspace agree on: the records, the
//! kernel fields whose offsets are filled in at load time, the write-class
//! system calls, the patterns that commands are matched by, and the histogram's
//! scale.
//!
//! It compiles for the BPF target and for the host alike, so it knows neither
//! BPF helpers nor `std`.
#![no_std]
#![forbid(unsafe_code)]

pub mod fields;
pub mod histogram;
pub mod pattern;
pub mod record;
pub mod syscall;

/// Version of everything in this crate that both sides must agree on.
///
/// The scanner stamps it on each scan's [`record::ScanHeader`]; userspace
/// refuses an object that carries another.
pub const ABI_VERSION: u32 = 3;

/// How long, in nanoseconds, a writer may be awake between two sleeps in the
/// same write and still count as never having left it.
///
/// A signal handler with `SA_RESTART`, a tracer that attaches, or a spurious
/// wake-up takes microseconds and drains nothing. A writer that is back on the
/// same channel within this time, with its drain token unchanged, is in the
/// same stall; one that stayed away longer begins a new one.
pub const RESUME_WINDOW_NS: u64 = 1_000_000_000;

/// Writers that the tracer can follow at once; more are still found by scans.
pub const MAX_TRACKED: u32 = 32_768;

/// Channels of which it is kept what was written to them; the least used make room for others.
pub const MAX_WRITTEN: u32 = 4096;

/// Length of the table of what was written by kind of channel: the kinds count from 1.
pub const WRITTEN_KINDS: u32 = 4;

/// Address family of `AF_UNIX` sockets (include/linux/socket.h).
pub const AF_UNIX: u16 = 1;

/// Address families of TCP's sockets (include/linux/socket.h).
pub const AF_INET: u16 = 2;
/// See [`AF_INET`].
pub const AF_INET6: u16 = 10;

/// Protocol of TCP's sockets, which those of MPTCP do not have (include/uapi/linux/in.h).
pub const IPPROTO_TCP: u16 = 6;

/// Type of stream sockets (include/linux/net.h).
pub const SOCK_STREAM: u16 = 1;

/// Type of datagram sockets.
pub const SOCK_DGRAM: u16 = 2;

/// `s_magic` of the file system that anonymous pipes live on (include/uapi/linux/magic.h).
pub const PIPEFS_MAGIC: u64 = 0x5049_5045;
