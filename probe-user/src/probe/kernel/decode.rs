//! Turns the kernel's records into the core's terms.

use std::time::Duration;

use probe_ebpf::{
    ABI_VERSION,
    record::{self, DecodeError, ScanHeader, ScanRecord},
};

use super::{Observer, ProbeError, mismatch};
use crate::core::model::{
    Channel, ChannelKind, Counted, Look, Mono, Process, Sighting, Stream, WriteSyscall, WriterId,
};

/// Turns the bytes of one walk into a look.
pub(super) fn decode(mut bytes: &[u8], traced: bool) -> Result<(Look, Observer), ProbeError> {
    let (first, rest) = ScanRecord::from_bytes(bytes).map_err(mismatch)?;
    let ScanRecord::Header(header) = first else {
        return Err(ProbeError::Mismatch("a scan without its header"));
    };
    if header.abi != ABI_VERSION {
        return Err(ProbeError::Mismatch("it is of another version"));
    }
    bytes = rest;
    let mut sightings = Vec::with_capacity(bytes.len() / size_of::<record::Writer>());
    while !bytes.is_empty() {
        let (record, rest) = ScanRecord::from_bytes(bytes).map_err(mismatch)?;
        if let ScanRecord::Writer(writer) = record {
            sightings.push(sighting(&header, &writer)?);
        }
        bytes = rest;
    }
    Ok((
        Look {
            at: Mono::from_nanos(header.now),
            traced,
            sightings,
        },
        Observer { tgid: header.tgid },
    ))
}

fn sighting(header: &ScanHeader, writer: &record::Writer) -> Result<Sighting, ProbeError> {
    let bad = || ProbeError::Mismatch(DecodeError::BadField.as_str());
    let kind: ChannelKind = writer.channel_kind().ok_or_else(bad)?;
    let syscall: WriteSyscall = writer.write_syscall().ok_or_else(bad)?;
    let known = |nanos: u64| (nanos != 0).then(|| Mono::from_nanos(nanos));
    // The scheduler's clock is not adjusted as CLOCK_MONOTONIC is, so they drift apart over
    // weeks. The observer's own last arrival, moments before the scan, ties the two together.
    let last_ran = (writer.arrival != 0 && header.arrival != 0).then(|| {
        Mono::from_nanos(
            header
                .now
                .saturating_sub(header.arrival.saturating_sub(writer.arrival)),
        )
    });
    let counted = known(writer.counted_since).map(|since| Counted {
        since,
        awake: Mono::from_nanos(writer.now)
            .since(since)
            .saturating_sub(Duration::from_nanos(writer.blocked_ns)),
    });
    Ok(Sighting {
        writer: WriterId {
            tid: writer.pid,
            process: Process {
                tgid: writer.tgid,
                start: writer.start,
            },
        },
        at: Mono::from_nanos(writer.now),
        channel: Channel {
            kind,
            dev: writer.dev,
            inode: writer.inode,
        },
        token: writer.token,
        entered: known(writer.entered),
        token_since: known(writer.token_since),
        last_ran,
        untouched: writer.untouched != 0,
        exec: writer.exec,
        ppid: writer.ppid,
        uid: writer.uid,
        fd: writer.fd,
        syscall,
        stream: Stream::from_bits(writer.streams),
        queued: Some(writer.queued),
        counted,
        comm: text(&writer.comm),
        thread: text(&writer.thread),
    })
}

/// A name as the kernel keeps it: up to the first NUL.
fn text(comm: &[u8]) -> String {
    let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}
