//! The limits on speed and memory. One place, so that none is quietly moved.

/// Non-blocking write and read on a pipe, with the tracer to without.
pub(crate) const PIPE_RATIO: f64 = 1.01;
/// Context-switch ping-pong between two CPUs, with the tracer to without.
pub(crate) const SWITCH_RATIO: f64 = 1.04;
/// The same on one CPU, to an empty program on the same tracepoint: what is ours of it.
pub(crate) const OVER_EMPTY_RATIO: f64 = 1.02;
/// One scan of [`SCANNED_THREADS`], milliseconds.
pub(crate) const SCAN_MS: f64 = 15.0;
/// How many threads a scan has to look at.
pub(crate) const SCANNED_THREADS: u32 = 10_000;
/// Stuck writers of the incident (`PeerTube` issue 6950).
pub(crate) const STUCK_WRITERS: u32 = 534;
/// From the threshold to the last confirmed exit, milliseconds.
pub(crate) const LAST_EXIT_MS: f64 = 2_000.0;
/// From the threshold to the first signal, 99 of 100 writers, milliseconds.
pub(crate) const SIGNAL_P99_MS: f64 = 100.0;
/// 1,000 alerts from their events to a local receiver's answers, each on disk in between,
/// milliseconds: 500 a second.
pub(crate) const ALERTS_MS: f64 = 2_000.0;
/// What a receiver is asked while [`STUCK_WRITERS`] come and go.
pub(crate) const INCIDENT_REQUESTS: f64 = 3.0;
/// Resident memory of `run` with [`STUCK_WRITERS`] stalls, MiB.
pub(crate) const RESIDENT_MIB: f64 = 25.0;
/// How many stalls the dashboard has to stay fluid with.
pub(crate) const DASHBOARD_ROWS: u32 = 10_000;
/// One frame of them, milliseconds.
pub(crate) const FRAME_MS: f64 = 16.0;
/// Stalls that `top` is left running with.
pub(crate) const TOP_STALLS: u32 = 1_000;
/// CPU time that it takes then, percent of a core.
pub(crate) const TOP_PERCENT: f64 = 5.0;
/// Resident memory of `run` with [`SCANNED_THREADS`] stalls, MiB.
pub(crate) const LOADED_MIB: f64 = 64.0;
/// CPU time of `run` with as many, percent of a core, while nothing else happens.
pub(crate) const QUIET_PERCENT: f64 = 1.0;
/// The same in a storm of [`STORM_BLOCKS`].
pub(crate) const STORM_PERCENT: f64 = 15.0;
/// Blocks a second of the storm.
pub(crate) const STORM_BLOCKS: u32 = 50_000;
/// How late a decision may be in it, milliseconds.
pub(crate) const STORM_LATE_MS: f64 = 1_000.0;
/// CPU time of an idle `run`, percent of a core.
pub(crate) const IDLE_PERCENT: f64 = 0.1;
/// How much resident memory may grow at work, MiB an hour: a tenth of what it takes.
pub(crate) const SOAK_MIB_AN_HOUR: f64 = 3.0;

/// Stuck writers whose readers are looked for at once.
pub(crate) const READER_WRITERS: usize = 1000;
/// Stuck writers that each have a reader of their own.
pub(crate) const READER_PAIRS: usize = 500;
/// One pass for all of them.
pub(crate) const READERS_MS: f64 = 250.0;
