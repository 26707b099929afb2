//! The write-class system calls: those that can sleep because their output has no room.
//!
//! Numbers are from `arch/x86/entry/syscalls/syscall_64.tbl` and
//! `include/uapi/asm-generic/unistd.h` (aarch64).

/// A system call that writes to a file descriptor.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteSyscall {
    /// `write(fd, …)`
    Write = 1,
    /// `writev(fd, …)`
    Writev = 2,
    /// `pwritev2(fd, …)`, which accepts pipes when its offset is -1
    Pwritev2 = 3,
    /// `sendto(fd, …)`, also behind `send`
    Sendto = 4,
    /// `sendmsg(fd, …)`
    Sendmsg = 5,
    /// `sendmmsg(fd, …)`
    Sendmmsg = 6,
    /// `splice(in, off, out, …)`
    Splice = 7,
    /// `tee(in, out, …)`
    Tee = 8,
    /// `vmsplice(fd, …)`, which reads or writes by the end that `fd` is
    Vmsplice = 9,
    /// `sendfile(out, in, …)`
    Sendfile = 10,
}

/// The machine whose system-call numbers and registers are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64
    X86_64,
    /// aarch64
    Aarch64,
}

/// Every write-class system call.
pub const ALL: [WriteSyscall; 10] = [
    WriteSyscall::Write,
    WriteSyscall::Writev,
    WriteSyscall::Pwritev2,
    WriteSyscall::Sendto,
    WriteSyscall::Sendmsg,
    WriteSyscall::Sendmmsg,
    WriteSyscall::Splice,
    WriteSyscall::Tee,
    WriteSyscall::Vmsplice,
    WriteSyscall::Sendfile,
];

impl WriteSyscall {
    /// The call's number on a machine.
    #[inline]
    #[must_use]
    pub const fn number(self, arch: Arch) -> u32 {
        let (x86_64, aarch64) = match self {
            Self::Write => (1, 64),
            Self::Writev => (20, 66),
            Self::Pwritev2 => (328, 287),
            Self::Sendto => (44, 206),
            Self::Sendmsg => (46, 211),
            Self::Sendmmsg => (307, 269),
            Self::Splice => (275, 76),
            Self::Tee => (276, 77),
            Self::Vmsplice => (278, 75),
            Self::Sendfile => (40, 71),
        };
        match arch {
            Arch::X86_64 => x86_64,
            Arch::Aarch64 => aarch64,
        }
    }

    /// The write-class call that has this number, if one has.
    #[inline]
    #[must_use]
    pub fn from_number(arch: Arch, number: u32) -> Option<Self> {
        // Compares in order of frequency, not a table: BPF cannot jump through one.
        let mut i = 0;
        while i < ALL.len() {
            if ALL[i].number(arch) == number {
                return Some(ALL[i]);
            }
            i += 1;
        }
        None
    }

    /// Which argument, counted from 0, is the descriptor that is written to.
    #[inline]
    #[must_use]
    pub const fn output_argument(self) -> usize {
        match self {
            Self::Splice => 2,
            Self::Tee => 1,
            Self::Write
            | Self::Writev
            | Self::Pwritev2
            | Self::Sendto
            | Self::Sendmsg
            | Self::Sendmmsg
            | Self::Vmsplice
            | Self::Sendfile => 0,
        }
    }

    /// Whether the call can also sleep on its input, so that a sleep in it proves
    /// nothing unless the output is full.
    #[inline]
    #[must_use]
    pub const fn may_wait_for_input(self) -> bool {
        match self {
            Self::Splice | Self::Tee | Self::Sendfile | Self::Vmsplice => true,
            Self::Write | Self::Writev | Self::Pwritev2 | Self::Sendto | Self::Sendmsg | Self::Sendmmsg => {
                false
            }
        }
    }

    /// The call's name, as strace prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Writev => "writev",
            Self::Pwritev2 => "pwritev2",
            Self::Sendto => "sendto",
            Self::Sendmsg => "sendmsg",
            Self::Sendmmsg => "sendmmsg",
            Self::Splice => "splice",
            Self::Tee => "tee",
            Self::Vmsplice => "vmsplice",
            Self::Sendfile => "sendfile",
        }
    }

    /// Decodes the byte that a record carries.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        ALL.into_iter().find(|s| *s as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_by_its_number_and_no_number_is_shared() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for call in ALL {
                assert_eq!(WriteSyscall::from_number(arch, call.number(arch)), Some(call));
            }
        }
    }

    #[test]
    fn reads_are_not_writes() {
        // read, recvfrom on x86-64; read on aarch64; none (-1), as in an exception.
        for number in [0, 45, u32::MAX] {
            assert_eq!(WriteSyscall::from_number(Arch::X86_64, number), None);
        }
        assert_eq!(WriteSyscall::from_number(Arch::Aarch64, 63), None);
    }

    #[test]
    fn bytes_round_trip() {
        for call in ALL {
            assert_eq!(WriteSyscall::from_u8(call as u8), Some(call));
        }
        assert_eq!(WriteSyscall::from_u8(0), None);
    }
}
