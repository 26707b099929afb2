//! Turns the kernel's records into the core's terms.

use std::time::Duration;

use compact_str::CompactString;
use probe_ebpf::{
    ABI_VERSION,
    record::{self, DecodeError, ScanHeader, ScanRecord},
};

use super::{Observer, ProbeError, mismatch};
use crate::core::model::{
    Channel, ChannelKind, Counted, Look, Mono, Process, Sighting, Stream, WriteSyscall, WriterId,
};

/// How far the scheduler's clock is behind `CLOCK_MONOTONIC`, as far as looks have shown; below zero
/// where it is ahead. It begins at another moment, and where it is a counter that nobody adjusts
/// (`sched_clock`, arch/x86/kernel/tsc.c) it may run faster as well as slower.
///
/// The kernel tells when the observer itself last got its CPU, and when the look began: that much
/// later at least. What lay between, computing or a hypervisor that took the CPU away, is an error
/// that only ever adds, so the least of all differences is the nearest. The clocks drift apart, for
/// one of them is adjusted: by 500 parts in a million at most (`MAXFREQ`, include/linux/timex.h).
/// They are the machine's: whoever looks next goes on with what is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks(Option<(u64, i64)>);

impl Clocks {
    fn difference(&mut self, header: &ScanHeader) -> Option<i64> {
        const DRIFT: u64 = 2000;
        let shown = (header.arrival != 0).then(|| {
            header
                .now
                .cast_signed()
                .wrapping_sub(header.arrival.cast_signed())
        })?;
        let known = self.0.map_or(shown, |(at, known)| {
            known.saturating_add_unsigned(header.now.saturating_sub(at) / DRIFT)
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
    let mut awake: Option<Mono> = None;
    while !bytes.is_empty() {
        let (record, rest) = ScanRecord::from_bytes(bytes).map_err(mismatch)?;
        match record {
            ScanRecord::Writer(writer) => sightings.push(sighting(difference, &writer)?),
            ScanRecord::Awake(writer) => {
                let since = Mono::from_nanos(writer.since);
                awake = Some(awake.map_or(since, |first| first.min(since)));
            }
            ScanRecord::Header(_) => {}
        }
        bytes = rest;
    }
    Ok((
        Look {
            at: Mono::from_nanos(header.now),
            traced,
            sightings,
            awake,
        },
        Observer { tgid: header.tgid },
    ))
}

fn sighting(difference: Option<i64>, writer: &record::Writer) -> Result<Sighting, ProbeError> {
    let bad = || ProbeError::Mismatch(DecodeError::BadField.as_str());
    let kind: ChannelKind = writer.channel_kind().ok_or_else(bad)?;
    let syscall: WriteSyscall = writer.write_syscall().ok_or_else(bad)?;
    let known = |nanos: u64| (nanos != 0).then(|| Mono::from_nanos(nanos));
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
        last_ran: last_ran(difference, writer.arrival),
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

/// When a thread last got a CPU, by the scheduler's clock and how far that is behind.
fn last_ran(difference: Option<i64>, arrival: u64) -> Option<Mono> {
    let difference = difference.filter(|_| arrival != 0)?;
    Some(Mono::from_nanos(arrival.saturating_add_signed(difference)))
}

/// A name as the kernel keeps it: up to the first NUL.
fn text(comm: &[u8]) -> CompactString {
    let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
    let comm = &comm[..end];
    CompactString::from_utf8(comm).unwrap_or_else(|_| String::from_utf8_lossy(comm).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn header(now: u64, arrival: u64) -> ScanHeader {
        ScanHeader {
            now,
            arrival,
            ..ScanHeader::default()
        }
    }

    #[test]
    fn of_those_awake_the_one_that_got_nowhere_for_longest_counts() {
        let words = |kind: u32, number: u32| [kind.to_ne_bytes(), number.to_ne_bytes()].concat();
        let mut bytes = [words(record::KIND_HEADER, ABI_VERSION), vec![1; 24]].concat();
        let at = |bytes: &[u8]| {
            let (look, _) = decode(bytes, true, &mut Clocks::default()).unwrap();
            look.awake.map(Mono::as_nanos)
        };
        assert_eq!(at(&bytes), None);
        for since in [7_u64, 5, 9] {
            bytes.extend(words(record::KIND_AWAKE, 1));
            bytes.extend(since.to_ne_bytes());
        }
        assert_eq!(at(&bytes), Some(5));
    }

    /// When a writer last ran, as a look tells it.
    fn said(clocks: &mut Clocks, header: &ScanHeader, arrival: u64) -> Option<u64> {
        last_ran(clocks.difference(header), arrival).map(Mono::as_nanos)
    }

    #[test]
    fn the_clocks_lie_as_far_apart_as_the_best_of_all_looks_shows() {
        let mut clocks = Clocks::default();
        let mut look = |now, arrival| clocks.difference(&header(now, arrival));
        assert_eq!(look(10 * SECOND, 0), None, "the kernel keeps no such time");
        assert_eq!(look(10 * SECOND, 7 * SECOND), Some(3_000_000_000));
        assert_eq!(look(11 * SECOND, 9 * SECOND), Some(2_000_000_000), "nearer");
        assert_eq!(
            look(12 * SECOND, 9 * SECOND),
            Some(2_000_500_000),
            "a second on the CPU, or away from it, is no difference, but they may have drifted"
        );
    }

    #[test]
    fn a_scheduler_clock_that_is_ahead_makes_no_stall_younger() {
        let mut clocks = Clocks::default();
        let look = header(10 * SECOND, 12 * SECOND);

        assert_eq!(said(&mut clocks, &look, 5 * SECOND), Some(3 * SECOND));
        assert_eq!(
            said(&mut clocks, &look, SECOND),
            Some(0),
            "nothing ran before the clock began"
        );
        assert_eq!(said(&mut clocks, &look, 0), None, "it is not kept");
    }

    #[test]
    fn clocks_that_drift_apart_are_followed_whichever_is_ahead() {
        const APART: i64 = 2_000_000_000;
        // 500 millionths of a minute.
        const A_MINUTE: i64 = 30_000_000;
        for (ahead, gains) in [
            (-APART, A_MINUTE),
            (-APART, -A_MINUTE),
            (APART, A_MINUTE),
            (APART, -A_MINUTE),
        ] {
            let mut clocks = Clocks::default();
            let worst = (0..60).map(|minute: i64| {
                let now = 100_000 * SECOND + minute.unsigned_abs() * 60 * SECOND;
                let arrival = now.saturating_add_signed(ahead + gains * minute);
                let ran = said(&mut clocks, &header(now, arrival), arrival).unwrap();
                ran.abs_diff(now)
            });
            assert_eq!(worst.max(), Some(0), "ahead by {ahead} ns, gains {gains} ns");
        }
    }

    #[test]
    fn a_kernel_side_that_goes_on_with_the_clocks_of_another_says_the_same_of_a_writer() {
        const SLACK: u64 = 20_000_000;
        let (now, ran) = (100 * SECOND, 40 * SECOND);
        let mut old = Clocks::default();
        let before = said(&mut old, &header(now, now), ran).unwrap();
        // The next side's first look is held up for 30 ms: that is no difference between the clocks.
        let late = header(now + SECOND + 30_000_000, now + SECOND);

        let (mut carried, mut forgotten) = (old, Clocks::default());
        let after = said(&mut carried, &late, ran).unwrap();

        assert!(after - before <= SLACK, "{}", after - before);
        assert!(
            said(&mut forgotten, &late, ran).unwrap() - before > SLACK,
            "without what was known, the writer seems to have run"
        );
    }
}
