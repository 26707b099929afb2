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
        ALL.into_iter().find(|call| call.number(arch) == number)
    }

    /// Which argument, counted from 0, is the descriptor that is written to.
    #[inline]
    #[must_use]
    pub const fn output_argument(self) -> u8 {
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

/// All that the kernel programs ask of a write-class call, as a row of a table.
///
/// The verifier takes what comes from a table for numbers that it does not know. Told apart by comparisons the
/// calls would be ten cases to it, each of which it would follow through all the rest of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// [`WriteSyscall`] as a byte; 0 for other calls.
    pub syscall: u8,
    /// See [`WriteSyscall::output_argument`].
    pub output_argument: u8,
    /// Non-zero for [`WriteSyscall::may_wait_for_input`].
    pub waits_for_input: u8,
    /// Where a datagram's receiver is named, if one is: a byte of [`Receiver`].
    pub receiver: u8,
}

/// Where a call that may send datagrams has their receiver.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Nowhere: they go to the socket's peer.
    Peer = 0,
    /// In the fifth argument, unless that is null.
    Argument = 1,
    /// In the caller's memory.
    Memory = 2,
}

impl Row {
    const NONE: Self = Self {
        syscall: 0,
        output_argument: 0,
        waits_for_input: 0,
        receiver: 0,
    };

    /// What is known of a call.
    #[must_use]
    pub const fn new(call: WriteSyscall) -> Self {
        let receiver = match call {
            WriteSyscall::Sendto => Receiver::Argument,
            WriteSyscall::Sendmsg | WriteSyscall::Sendmmsg => Receiver::Memory,
            WriteSyscall::Write
            | WriteSyscall::Writev
            | WriteSyscall::Pwritev2
            | WriteSyscall::Splice
            | WriteSyscall::Tee
            | WriteSyscall::Vmsplice
            | WriteSyscall::Sendfile => Receiver::Peer,
        };
        Self {
            syscall: call as u8,
            output_argument: call.output_argument(),
            waits_for_input: call.may_wait_for_input() as u8,
            receiver: receiver as u8,
        }
    }
}

/// The write-class calls of a machine, by number.
pub struct Table([Row; Self::LEN]);

impl Table {
    const LEN: usize = 329;

    /// That of a machine.
    #[must_use]
    pub const fn new(arch: Arch) -> Self {
        let mut table = [Row::NONE; Self::LEN];
        let mut i = 0;
        while i < ALL.len() {
            table[ALL[i].number(arch) as usize] = Row::new(ALL[i]);
            i += 1;
        }
        Self(table)
    }

    /// The write-class call that has this number, if one has.
    #[inline]
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Row> {
        let row = self.0.get(number as usize)?;
        (row.syscall != 0).then_some(*row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_each_call_once_and_nothing_else() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let table = Table::new(arch);
            let found = (0..1000).filter(|number| table.get(*number).is_some()).count();
            assert_eq!(found, ALL.len());
            assert_eq!(table.get(u32::MAX), None);
            for call in ALL {
                let row = table.get(call.number(arch)).unwrap();
                assert_eq!(row, Row::new(call));
                assert_eq!(WriteSyscall::from_u8(row.syscall), Some(call));
            }
        }
    }

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
