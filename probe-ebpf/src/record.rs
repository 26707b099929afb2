//! The records that cross from the kernel to userspace, byte for byte.
//!
//! A scan is one [`ScanHeader`], one [`Writer`] for each blocked writer, and one [`Awake`] for each that was one a
//! moment ago, has got nowhere, and is just not asleep. The ring buffer carries [`Note`]s. All times are nanoseconds; which clock is said
//! with each field.

mod decode;

use core::mem::{offset_of, size_of};

pub use self::decode::{DecodeError, FileRecord, ScanRecord};
use crate::{pattern::COMM_LEN, syscall::WriteSyscall};

/// Tag of a [`ScanHeader`].
pub const KIND_HEADER: u32 = 0x5049_0001;
/// Tag of a [`Writer`].
pub const KIND_WRITER: u32 = 0x5049_0002;
/// Tag of a [`Note`] that a tracked thread has exited.
pub const KIND_EXITED: u32 = 0x5049_0003;
/// Tag of a [`Note`] that a thread stalled for long is awake.
pub const KIND_WOKE: u32 = 0x5049_0004;

/// Tag of an [`Awake`].
pub const KIND_AWAKE: u32 = 0x5049_0007;

/// Tag of an [`OpenEnd`].
pub const KIND_END: u32 = 0x5049_0005;
/// Tag of a [`FullQueue`].
pub const KIND_QUEUE: u32 = 0x5049_0006;

/// `OpenEnd.flags`: the descriptor is open for reading.
pub const END_READS: u8 = 1 << 0;
/// `OpenEnd.flags`: an exec would close it, so that no exec can have handed it on.
pub const END_CLOSES: u8 = 1 << 1;
/// `OpenEnd.flags`: the process has called exec since it was forked.
pub const END_EXECED: u8 = 1 << 2;

/// `Writer.streams`: the channel is also behind descriptor 0.
pub const STREAM_STDIN: u8 = 1 << 0;
/// `Writer.streams`: the channel is also behind descriptor 1.
pub const STREAM_STDOUT: u8 = 1 << 1;
/// `Writer.streams`: the channel is also behind descriptor 2.
pub const STREAM_STDERR: u8 = 1 << 2;

/// What is written to.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelKind {
    /// An anonymous pipe.
    Pipe = 1,
    /// A named pipe.
    Fifo = 2,
    /// An `AF_UNIX` socket.
    Unix = 3,
}

impl ChannelKind {
    /// Decodes the byte that a record carries.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Pipe),
            2 => Some(Self::Fifo),
            3 => Some(Self::Unix),
            _ => None,
        }
    }
}

/// Changes when the reader takes any byte out of the channel, and at no other
/// time while the writer sleeps.
///
/// Pipes: head and tail, and the tail buffer's offset and length. Unix sockets:
/// the peer's first queued buffer and how much of it is consumed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DrainToken(pub [u64; 2]);

/// Opens each scan.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanHeader {
    /// [`KIND_HEADER`].
    pub kind: u32,
    /// [`crate::ABI_VERSION`] of the kernel object.
    pub abi: u32,
    /// When the scan began, `CLOCK_MONOTONIC`.
    pub now: u64,
    /// When the scanning thread last got its CPU, scheduler clock: ties that
    /// clock to `now`. 0 where the kernel does not keep it.
    pub arrival: u64,
    /// The scanning process as the kernel numbers it, not as its pid namespace does.
    pub tgid: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// One blocked writer, as one look found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// [`KIND_WRITER`].
    pub kind: u32,
    /// The thread that writes.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// When the process started, `CLOCK_BOOTTIME`.
    pub start: u64,
    /// When this record was made, `CLOCK_MONOTONIC`.
    pub now: u64,
    /// When the thread last got a CPU, scheduler clock; 0 where the kernel does not keep it.
    pub arrival: u64,
    /// When the thread entered this stay in the write, `CLOCK_MONOTONIC`; 0 where
    /// the tracer did not see it.
    pub entered: u64,
    /// Since when the tracer knows `token`, `CLOCK_MONOTONIC`; 0 where it does not.
    pub token_since: u64,
    /// The channel's drain token at this look.
    pub token: DrainToken,
    /// The channel's inode number.
    pub inode: u64,
    /// What is queued: bytes for pipes; for sockets the memory that it takes, bytes.
    pub queued: u64,
    /// Since when the tracer has counted how long the thread is blocked on this channel,
    /// `CLOCK_MONOTONIC`; 0 where it does not.
    pub counted_since: u64,
    /// How long it has been blocked since then, nanoseconds, up to `now`.
    pub blocked_ns: u64,
    /// Device of the file system that holds the inode, as the kernel packs it.
    pub dev: u32,
    /// Real user of the thread.
    pub uid: u32,
    /// The descriptor that is written to.
    pub fd: u32,
    /// [`ChannelKind`] as a byte.
    pub channel: u8,
    /// [`WriteSyscall`] as a byte.
    pub syscall: u8,
    /// Which of the process's first three descriptors lead to the same channel: `STREAM_*`.
    pub streams: u8,
    /// Not 0 where `entered` is, and the channel itself shows that nothing was taken since the writer
    /// went to sleep: see the scanner.
    pub untouched: u8,
    /// How often the process has called `exec`.
    pub exec: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    /// The group leader's command.
    pub comm: [u8; COMM_LEN],
    /// The thread's own name.
    pub thread: [u8; COMM_LEN],
}

/// A thread that is not asleep at this look, and was a moment ago, in a write: a signal or a tracer has woken it, or
/// its reader just now. If nothing was taken it goes back to sleep there. It is the same stall then, and no younger for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awake {
    /// [`KIND_AWAKE`].
    pub kind: u32,
    /// The thread, for who looks at records.
    pub pid: u32,
    /// Since when, as far as the tracer knows, it has got nowhere, `CLOCK_MONOTONIC`.
    pub since: u64,
}

/// Names a channel in the table of what was written.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenKey {
    /// The channel's inode number.
    pub inode: u64,
    /// Device of the file system that holds the inode, as the kernel packs it.
    pub dev: u32,
    /// [`ChannelKind`].
    pub channel: u32,
}

/// What was written to a channel, call by call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes that calls returned.
    pub bytes: u64,
    /// How many calls took how long, by [`crate::histogram::slot`].
    pub took: [u64; crate::histogram::SLOTS as usize],
}

/// What the tracer reports between scans.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// [`KIND_EXITED`] or [`KIND_WOKE`].
    pub kind: u32,
    /// The thread.
    pub pid: u32,
    /// Its process.
    pub tgid: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    /// When the process started, `CLOCK_BOOTTIME`.
    pub start: u64,
    /// When it happened, `CLOCK_MONOTONIC`.
    pub now: u64,
}

/// A descriptor that leads to a channel, as the walk over all open files finds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenEnd {
    /// [`KIND_END`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// When it started, `CLOCK_BOOTTIME`.
    pub start: u64,
    /// The inode's number.
    pub inode: u64,
    /// Of a unix socket the inode of the one that what is written to it goes to; 0 if there is none.
    pub peer: u64,
    /// Device of the file system that holds the inode, as the kernel packs it.
    pub dev: u32,
    /// The descriptor.
    pub fd: u32,
    /// The process's parent.
    pub ppid: u32,
    /// [`ChannelKind`] as a byte.
    pub channel: u8,
    /// `END_*`
    pub flags: u8,
    /// Keeps the size a multiple of 8.
    pub reserved: u16,
}

/// A TCP socket whose send queue is full because the other side does not take what is in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FullQueue {
    /// [`KIND_QUEUE`].
    pub kind: u32,
    /// The process that sends.
    pub tgid: u32,
    /// When it started, `CLOCK_BOOTTIME`.
    pub start: u64,
    /// The other side's address: 16 bytes for IPv6, else the first 4.
    pub address: [u8; 16],
    /// The descriptor.
    pub fd: u32,
    /// Bytes that are not acknowledged, sent or not.
    pub queued: u32,
    /// The window that the other side last announced, in bytes.
    pub window: u32,
    /// The other side's port.
    pub port: u16,
    /// [`crate::AF_INET`] or [`crate::AF_INET6`]
    pub family: u16,
}

impl Writer {
    /// The channel's kind; `None` only in a record that was not decoded.
    #[must_use]
    pub const fn channel_kind(&self) -> Option<ChannelKind> {
        ChannelKind::from_u8(self.channel)
    }

    /// The system call; `None` only in a record that was not decoded.
    #[must_use]
    pub fn write_syscall(&self) -> Option<WriteSyscall> {
        WriteSyscall::from_u8(self.syscall)
    }
}

const _: () = assert!(size_of::<OpenEnd>() == 48);
const _: () = assert!(size_of::<FullQueue>() == 48);
const _: () = assert!(size_of::<WrittenKey>() == 16);
const _: () = assert!(size_of::<Written>() == 520);
const _: () = assert!(size_of::<ScanHeader>() == 32);
const _: () = assert!(size_of::<Writer>() == 160);
const _: () = assert!(offset_of!(Writer, token) == 56);
const _: () = assert!(offset_of!(Writer, comm) == 128);
const _: () = assert!(size_of::<Note>() == 32);
const _: () = assert!(size_of::<Awake>() == 16);
