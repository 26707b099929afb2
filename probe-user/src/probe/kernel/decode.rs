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

/// How far the scheduler's clock is behind `CLOCK_MONOTONIC`, as far as looks have shown.
///
/// The kernel tells when the observer itself last got its CPU, and when the look began: that much
/// later at least. What lay between, computing or a hypervisor that took the CPU away, is an error
/// that only ever adds, so the least of all differences is the nearest. The clocks drift apart, for
/// one of them is adjusted: by 500 parts in a million at most (`MAXFREQ`, include/linux/timex.h).
#[derive(Debug, Default)]
pub(super) struct Clocks(Option<(u64, u64)>);

impl Clocks {
    fn difference(&mut self, header: &ScanHeader) -> Option<u64> {
        const DRIFT: u64 = 2000;
        let shown = (header.arrival != 0).then(|| header.now.saturating_sub(header.arrival))?;
        let known = self.0.map_or(shown, |(at, known)| {
            known.saturating_add(header.now.saturating_sub(at) / DRIFT)
        });
        let difference = shown.min(known);
        self.0 = Some((header.now, difference));
        Some(difference)
    }
}

/// Turns the bytes of one walk into a look.
pub(super) fn decode(
    mut bytes: &[u8],
    traced: bool,
    clocks: &mut Clocks,
) -> Result<(Look, Observer), ProbeError> {
    let (first, rest) = ScanRecord::from_bytes(bytes).map_err(mismatch)?;
    let ScanRecord::Header(header) = first else {
        return Err(ProbeError::Mismatch("a scan without its header"));
    };
    if header.abi != ABI_VERSION {
        return Err(ProbeError::Mismatch("it is of another version"));
    }
    bytes = rest;
    let difference = clocks.difference(&header);
    let mut sightings = Vec::with_capacity(bytes.len() / size_of::<record::Writer>());
    while !bytes.is_empty() {
        let (record, rest) = ScanRecord::from_bytes(bytes).map_err(mismatch)?;
        if let ScanRecord::Writer(writer) = record {
            sightings.push(sighting(difference, &writer)?);
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

fn sighting(difference: Option<u64>, writer: &record::Writer) -> Result<Sighting, ProbeError> {
    let bad = || ProbeError::Mismatch(DecodeError::BadField.as_str());
    let kind: ChannelKind = writer.channel_kind().ok_or_else(bad)?;
    let syscall: WriteSyscall = writer.write_syscall().ok_or_else(bad)?;
    let known = |nanos: u64| (nanos != 0).then(|| Mono::from_nanos(nanos));
    let last_ran = difference
        .filter(|_| writer.arrival != 0)
        .map(|difference| Mono::from_nanos(writer.arrival.saturating_add(difference)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_lie_as_far_apart_as_the_best_of_all_looks_shows() {
        const SECOND: u64 = 1_000_000_000;
        let mut clocks = Clocks::default();
        let mut look = |now: u64, arrival: u64| {
            clocks.difference(&ScanHeader {
                now,
                arrival,
                ..ScanHeader::default()
            })
        };
        assert_eq!(look(10 * SECOND, 0), None, "the kernel keeps no such time");
        assert_eq!(look(10 * SECOND, 7 * SECOND), Some(3 * SECOND));
        assert_eq!(look(11 * SECOND, 9 * SECOND), Some(2 * SECOND), "nearer");
        let lost = look(12 * SECOND, 9 * SECOND).unwrap();
        assert_eq!(
            lost - 2 * SECOND,
            SECOND / 2000,
            "a second on the CPU, or away from it, is no difference"
        );
    }
}
