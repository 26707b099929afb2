//! The terms of the trade: time, writers, channels, looks and stalls.

use std::{fmt, ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use compact_str::CompactString;
use jiff::SignedDuration;

use super::chain::Cause;
pub use probe_ebpf::{
    record::{ChannelKind, DrainToken},
    syscall::WriteSyscall,
};

use super::share::Share;

/// A moment on the kernel's `CLOCK_MONOTONIC`, which stands still in suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment that is this many nanoseconds on the clock.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds on the clock.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This much earlier; the beginning of time if that is before it.
    #[must_use]
    pub fn before(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This much later; the end of time if that is beyond it.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A process, told apart from later users of its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Its pid, as the kernel's initial namespace counts.
    pub tgid: u32,
    /// When it started, `CLOCK_BOOTTIME` in nanoseconds.
    pub start: u64,
}

impl Process {
    /// When it started, in the ticks of `/proc/PID/stat` (`USER_HZ`, include/asm-generic/param.h).
    #[must_use]
    pub const fn start_ticks(self) -> u64 {
        self.start / TICK_NS
    }

    /// The process that `/proc` shows: its start is known to the tick only.
    #[must_use]
    pub const fn from_ticks(tgid: u32, ticks: u64) -> Self {
        Self {
            tgid,
            start: ticks * TICK_NS,
        }
    }
}

/// Nanoseconds in a tick of `/proc`.
const TICK_NS: u64 = 10_000_000;

/// A thread that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId {
    /// Its process: first, so that the threads of one stand together.
    pub process: Process,
    /// The thread.
    pub tid: u32,
}

impl WriterId {
    /// From the first to the last that a process can have.
    #[must_use]
    pub const fn all_of(process: Process) -> RangeInclusive<Self> {
        Self { process, tid: 0 }..=Self {
            process,
            tid: u32::MAX,
        }
    }
}

/// What is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// Pipe, fifo or unix socket.
    pub kind: ChannelKind,
    /// Device of the file system that holds the inode.
    pub dev: u32,
    /// The inode's number.
    pub inode: u64,
}

/// A standard stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The channel behind descriptor 0
    Stdin,
    /// The channel behind descriptor 1
    Stdout,
    /// The channel behind descriptor 2
    Stderr,
}

impl Stream {
    /// The stream that a record's `STREAM_*` bits name. Where several lead to the same
    /// channel, stdout counts before stderr and stdin.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        use probe_ebpf::record::{STREAM_STDERR, STREAM_STDIN, STREAM_STDOUT};
        if bits & STREAM_STDOUT != 0 {
            Some(Self::Stdout)
        } else if bits & STREAM_STDERR != 0 {
            Some(Self::Stderr)
        } else if bits & STREAM_STDIN != 0 {
            Some(Self::Stdin)
        } else {
            None
        }
    }

    /// The stream's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The name of a kind of channel.
#[must_use]
pub const fn channel_name(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Pipe => "pipe",
        ChannelKind::Fifo => "fifo",
        ChannelKind::Unix => "unix",
    }
}

/// A duration as a configuration would have it: `60s`, `250ms`, `1h 30m`.
#[must_use]
pub fn human(duration: Duration) -> String {
    match SignedDuration::try_from(duration) {
        Ok(signed) if duration >= Duration::from_mins(2) => format!("{signed:#}"),
        Ok(_) | Err(_) => format!("{duration:?}"),
    }
}

/// How long a writer was not blocked, counted by the tracer over all its writes to a channel. What
/// the tracer does not know of counts as not blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Since when.
    pub since: Mono,
    /// Of the time from then to the sighting, how long it was not blocked.
    pub awake: Duration,
}

/// A blocked writer, as one look found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who.
    pub writer: WriterId,
    /// When this writer was looked at.
    pub at: Mono,
    /// On what.
    pub channel: Channel,
    /// Where its reader stood.
    pub token: DrainToken,
    /// When it entered this stay in the write, if the tracer saw that.
    pub entered: Option<Mono>,
    /// Since when the tracer knows the token to be what it is.
    pub token_since: Option<Mono>,
    /// When the thread was last on a CPU, where the kernel tells.
    pub last_ran: Option<Mono>,
    /// Whether the channel shows by itself that nothing was taken since then.
    pub untouched: bool,
    /// How often the process has called `exec`.
    pub exec: u32,
    /// The process's parent.
    pub ppid: u32,
    /// The thread's real user.
    pub uid: u32,
    /// The descriptor that it writes to.
    pub fd: u32,
    /// The call that it is in.
    pub syscall: WriteSyscall,
    /// Which standard stream of the process leads to the same channel.
    pub stream: Option<Stream>,
    /// What is queued: bytes for pipes, memory in bytes for sockets; `None` where it cannot be read.
    pub queued: Option<u64>,
    /// How long it was not blocked, if the tracer counts.
    pub counted: Option<Counted>,
    /// The group leader's command. It fits in place, as all that the kernel keeps do, so that a look at
    /// thousands asks for no memory for each, and a copy for none.
    pub comm: CompactString,
    /// The thread's own name.
    pub thread: CompactString,
}

/// One walk over all tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When the walk began: what it does not show was not blocked at some moment after.
    pub at: Mono,
    /// Whether the tracer runs, so that what it did not note did not happen.
    pub traced: bool,
    /// Everyone that was blocked.
    pub sightings: Vec<Sighting>,
    /// Since when the first of those has got nowhere who were awake just then, woken by a signal or a tracer: who
    /// goes back to its write is in the same stall. No recording has it: from there, what came before a sighting is told by
    /// the sighting itself.
    pub awake: Option<Mono>,
}

/// What rules ask about a process beyond a sighting. Read once for each stall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The command line.
    pub cmdline: Vec<String>,
    /// The executable.
    pub exe: Option<PathBuf>,
    /// The user's name.
    pub user: Option<String>,
    /// The groups: first the effective one, then the supplementary ones.
    pub groups: Vec<Group>,
    /// The parent's command.
    pub parent: Option<String>,
    /// The commands of the parent, its parent, and so on up to pid 1 or some bound.
    pub ancestors: Vec<String>,
    /// The control group's path.
    pub cgroup: Option<String>,
    /// The systemd unit that the control group belongs to.
    pub unit: Option<String>,
    /// The id of the container that it runs in.
    pub container: Option<String>,
    /// The UID of the Kubernetes pod that it runs in.
    pub pod: Option<String>,
    /// When the process started; time in suspend after that counts as time before it.
    pub born: Option<Mono>,
}

/// A group of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// Its name, if it has one here.
    pub name: Option<String>,
}

/// Names a stall for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StallId(pub u64);

impl fmt::Display for StallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// How an age relates to the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// It is the age.
    #[default]
    Exact,
    /// The stall may be older: it began before the observer could know.
    AtLeast,
    /// The stall may be younger: the reader may have taken something in that time, so that
    /// only what the observer watched counts for acting.
    AtMost,
}

/// A writer blocked with an unchanged drain token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Its name.
    pub id: StallId,
    /// The writer as last seen.
    pub last: Sighting,
    /// The later of the time that the writer blocked and the last seen change of the token.
    pub since: Mono,
    /// What the time from `since` on says of its age.
    pub bound: Bound,
    /// Whether it began before the observer did.
    pub preexisting: bool,
    /// Whether the last look saw the reader take something.
    pub draining: bool,
    /// Since when the observer itself, or its tracer, has known the token unchanged.
    pub watched: Mono,
    /// The number of the look that last showed the writer.
    pub look: u64,
    /// When a look first did not show the writer, if the last one did not.
    pub missing: Option<Mono>,
    /// How much of each window that rules ask about the writer was blocked, where the last
    /// look tells.
    pub shares: Vec<Share>,
    /// The writer crawls, so that it is one stall however often its reader takes something; how
    /// long it may be missing for that.
    pub crawls: Option<Duration>,
    /// What rules ask about, once it has been read.
    pub facts: Option<Arc<Facts>>,
    /// Who should read and does not, once that was asked for.
    pub cause: Option<Arc<Cause>>,
}

impl Stall {
    /// How long the stall has lasted.
    #[must_use]
    pub const fn age(&self, now: Mono) -> Duration {
        now.since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_behind_stdout_and_stderr_is_stdout() {
        assert_eq!(Stream::from_bits(0b110), Some(Stream::Stdout));
        assert_eq!(Stream::from_bits(0b101), Some(Stream::Stderr));
        assert_eq!(Stream::from_bits(0b001), Some(Stream::Stdin));
        assert_eq!(Stream::from_bits(0), None);
    }

    #[test]
    fn time_neither_runs_backwards_nor_overflows() {
        let (early, late) = (Mono::from_nanos(5), Mono::from_nanos(9));
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.after(Duration::MAX), Mono::from_nanos(u64::MAX));
    }

    #[test]
    fn durations_read_as_they_are_written() {
        for (millis, expected) in [
            (1, "1ms"),
            (250, "250ms"),
            (60_000, "60s"),
            (119_500, "119.5s"),
            (120_000, "2m"),
            (3_661_000, "1h 1m 1s"),
        ] {
            assert_eq!(human(Duration::from_millis(millis)), expected);
        }
    }
}
