//! Records out of bytes: lengths, tags and codes are checked, and nothing is cast.

use core::mem::{offset_of, size_of};

use super::{
    Awake, ChannelKind, DrainToken, FullQueue, KIND_AWAKE, KIND_END, KIND_EXITED, KIND_HEADER, KIND_QUEUE,
    KIND_WOKE, KIND_WRITER, Note, OpenEnd, ScanHeader, Writer,
};

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the record takes.
    Truncated,
    /// The tag is not one of this crate's.
    UnknownKind(u32),
    /// A byte that should name a channel or a system call does not.
    BadField,
}

impl DecodeError {
    /// Says what is wrong.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "record cut short",
            Self::UnknownKind(_) => "record of an unknown kind",
            Self::BadField => "record with a field out of range",
        }
    }
}

/// A record of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanRecord {
    /// The scan begins.
    Header(ScanHeader),
    /// A blocked writer.
    Writer(Writer),
    /// A writer that was blocked a moment ago.
    Awake(Awake),
}

impl ScanRecord {
    /// Decodes the record at the start of `bytes`; returns it and what follows.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        match u32_at(bytes, 0)? {
            KIND_HEADER => {
                let (record, rest) = split::<ScanHeader>(bytes)?;
                Ok((Self::Header(ScanHeader::decode(record)?), rest))
            }
            KIND_WRITER => {
                let (record, rest) = split::<Writer>(bytes)?;
                Ok((Self::Writer(Writer::decode(record)?), rest))
            }
            KIND_AWAKE => {
                let (record, rest) = split::<Awake>(bytes)?;
                Ok((Self::Awake(Awake::decode(record)?), rest))
            }
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

impl ScanHeader {
    fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: u32_at(b, offset_of!(Self, kind))?,
            abi: u32_at(b, offset_of!(Self, abi))?,
            now: u64_at(b, offset_of!(Self, now))?,
            arrival: u64_at(b, offset_of!(Self, arrival))?,
            tgid: u32_at(b, offset_of!(Self, tgid))?,
            reserved: 0,
        })
    }
}

impl Writer {
    fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        let token = offset_of!(Self, token);
        let writer = Self {
            kind: u32_at(b, offset_of!(Self, kind))?,
            pid: u32_at(b, offset_of!(Self, pid))?,
            tgid: u32_at(b, offset_of!(Self, tgid))?,
            ppid: u32_at(b, offset_of!(Self, ppid))?,
            start: u64_at(b, offset_of!(Self, start))?,
            now: u64_at(b, offset_of!(Self, now))?,
            arrival: u64_at(b, offset_of!(Self, arrival))?,
            entered: u64_at(b, offset_of!(Self, entered))?,
            token_since: u64_at(b, offset_of!(Self, token_since))?,
            token: DrainToken([u64_at(b, token)?, u64_at(b, token + 8)?]),
            inode: u64_at(b, offset_of!(Self, inode))?,
            queued: u64_at(b, offset_of!(Self, queued))?,
            counted_since: u64_at(b, offset_of!(Self, counted_since))?,
            blocked_ns: u64_at(b, offset_of!(Self, blocked_ns))?,
            dev: u32_at(b, offset_of!(Self, dev))?,
            uid: u32_at(b, offset_of!(Self, uid))?,
            fd: u32_at(b, offset_of!(Self, fd))?,
            channel: u8_at(b, offset_of!(Self, channel))?,
            syscall: u8_at(b, offset_of!(Self, syscall))?,
            streams: u8_at(b, offset_of!(Self, streams))?,
            untouched: u8_at(b, offset_of!(Self, untouched))?,
            exec: u32_at(b, offset_of!(Self, exec))?,
            reserved: 0,
            comm: array_at(b, offset_of!(Self, comm))?,
            thread: array_at(b, offset_of!(Self, thread))?,
        };
        if writer.channel_kind().is_none() || writer.write_syscall().is_none() {
            return Err(DecodeError::BadField);
        }
        Ok(writer)
    }
}

impl Awake {
    fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: u32_at(b, offset_of!(Self, kind))?,
            pid: u32_at(b, offset_of!(Self, pid))?,
            since: u64_at(b, offset_of!(Self, since))?,
        })
    }
}

/// A record of the walk over all open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRecord {
    /// The walk begins.
    Header(ScanHeader),
    /// A channel's end.
    End(OpenEnd),
    /// A connection whose other side does not read.
    Queue(FullQueue),
}

impl FileRecord {
    /// Decodes the record at the start of `bytes`; returns it and what follows.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        match u32_at(bytes, 0)? {
            KIND_HEADER => {
                let (record, rest) = split::<ScanHeader>(bytes)?;
                Ok((Self::Header(ScanHeader::decode(record)?), rest))
            }
            KIND_END => {
                let (record, rest) = split::<OpenEnd>(bytes)?;
                Ok((Self::End(OpenEnd::decode(record)?), rest))
            }
            KIND_QUEUE => {
                let (record, rest) = split::<FullQueue>(bytes)?;
                Ok((Self::Queue(FullQueue::decode(record)?), rest))
            }
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

impl OpenEnd {
    fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        let end = Self {
            kind: u32_at(b, offset_of!(Self, kind))?,
            tgid: u32_at(b, offset_of!(Self, tgid))?,
            start: u64_at(b, offset_of!(Self, start))?,
            inode: u64_at(b, offset_of!(Self, inode))?,
            peer: u64_at(b, offset_of!(Self, peer))?,
            dev: u32_at(b, offset_of!(Self, dev))?,
            fd: u32_at(b, offset_of!(Self, fd))?,
            ppid: u32_at(b, offset_of!(Self, ppid))?,
            channel: u8_at(b, offset_of!(Self, channel))?,
            flags: u8_at(b, offset_of!(Self, flags))?,
            reserved: 0,
        };
        match ChannelKind::from_u8(end.channel) {
            Some(_) => Ok(end),
            None => Err(DecodeError::BadField),
        }
    }
}

impl FullQueue {
    fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        let queue = Self {
            kind: u32_at(b, offset_of!(Self, kind))?,
            tgid: u32_at(b, offset_of!(Self, tgid))?,
            start: u64_at(b, offset_of!(Self, start))?,
            address: array_at(b, offset_of!(Self, address))?,
            fd: u32_at(b, offset_of!(Self, fd))?,
            queued: u32_at(b, offset_of!(Self, queued))?,
            window: u32_at(b, offset_of!(Self, window))?,
            port: u16::from_ne_bytes(array_at(b, offset_of!(Self, port))?),
            family: u16::from_ne_bytes(array_at(b, offset_of!(Self, family))?),
        };
        match queue.family {
            crate::AF_INET | crate::AF_INET6 => Ok(queue),
            _ => Err(DecodeError::BadField),
        }
    }
}

impl Note {
    /// Decodes a record of the ring buffer.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn from_bytes(b: &[u8]) -> Result<Self, DecodeError> {
        match u32_at(b, 0)? {
            KIND_EXITED | KIND_WOKE => Ok(Self {
                kind: u32_at(b, offset_of!(Self, kind))?,
                pid: u32_at(b, offset_of!(Self, pid))?,
                tgid: u32_at(b, offset_of!(Self, tgid))?,
                reserved: 0,
                start: u64_at(b, offset_of!(Self, start))?,
                now: u64_at(b, offset_of!(Self, now))?,
            }),
            other => Err(DecodeError::UnknownKind(other)),
        }
    }
}

fn split<T>(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    bytes
        .split_at_checked(size_of::<T>())
        .ok_or(DecodeError::Truncated)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DecodeError> {
    let slice = bytes.get(at..at + N).ok_or(DecodeError::Truncated)?;
    slice.try_into().map_err(|_| DecodeError::Truncated)
}

fn u8_at(bytes: &[u8], at: usize) -> Result<u8, DecodeError> {
    bytes.get(at).copied().ok_or(DecodeError::Truncated)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    Ok(u32::from_ne_bytes(array_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, DecodeError> {
    Ok(u64::from_ne_bytes(array_at(bytes, at)?))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::syscall::WriteSyscall;
    use std::vec::Vec;

    /// A writer record with every byte distinct enough to show a wrong offset.
    fn writer_bytes() -> Vec<u8> {
        let mut b: Vec<u8> = (0..u8::try_from(size_of::<Writer>()).unwrap()).collect();
        b[..4].copy_from_slice(&KIND_WRITER.to_ne_bytes());
        b[offset_of!(Writer, channel)] = 3;
        b[offset_of!(Writer, syscall)] = 1;
        b
    }

    #[test]
    fn a_writer_is_decoded_field_by_field() {
        let bytes = writer_bytes();
        let (record, rest) = ScanRecord::from_bytes(&bytes).unwrap();
        let ScanRecord::Writer(w) = record else {
            panic!("not a writer: {record:?}")
        };
        assert!(rest.is_empty());
        assert_eq!(w.pid.to_ne_bytes(), [4, 5, 6, 7]);
        assert_eq!(w.start.to_ne_bytes(), [16, 17, 18, 19, 20, 21, 22, 23]);
        assert_eq!(w.channel_kind(), Some(ChannelKind::Unix));
        assert_eq!(w.write_syscall(), Some(WriteSyscall::Write));
        assert_eq!((w.comm[0], w.thread[15]), (128, 159));
    }

    #[test]
    fn a_record_cut_at_any_byte_is_refused() {
        let bytes = writer_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(
                ScanRecord::from_bytes(&bytes[..cut]),
                Err(DecodeError::Truncated),
                "at {cut}"
            );
        }
        let note = [&KIND_EXITED.to_ne_bytes()[..], &[7; 28]].concat();
        assert!(Note::from_bytes(&note).is_ok());
        for cut in 0..note.len() {
            assert_eq!(
                Note::from_bytes(&note[..cut]),
                Err(DecodeError::Truncated),
                "at {cut}"
            );
        }
    }

    #[test]
    fn records_follow_each_other() {
        let header = [&KIND_HEADER.to_ne_bytes()[..], &[1; 28]].concat();
        let awake = [&KIND_AWAKE.to_ne_bytes()[..], &[2; 12]].concat();
        let stream = [header, writer_bytes(), awake, writer_bytes()].concat();
        let mut rest = &stream[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (record, others) = ScanRecord::from_bytes(rest).unwrap();
            seen.push(record);
            rest = others;
        }
        assert!(matches!(
            seen[..],
            [
                ScanRecord::Header(_),
                ScanRecord::Writer(_),
                ScanRecord::Awake(Awake {
                    since: 0x0202_0202_0202_0202,
                    ..
                }),
                ScanRecord::Writer(_)
            ]
        ));
    }

    #[test]
    fn unknown_kinds_and_fields_out_of_range_are_refused() {
        assert_eq!(
            ScanRecord::from_bytes(&[9, 0, 0, 0]),
            Err(DecodeError::UnknownKind(9))
        );
        assert_eq!(Note::from_bytes(&[9, 0, 0, 0]), Err(DecodeError::UnknownKind(9)));
        let mut bytes = writer_bytes();
        bytes[offset_of!(Writer, channel)] = 0;
        assert_eq!(ScanRecord::from_bytes(&bytes), Err(DecodeError::BadField));
    }
}
