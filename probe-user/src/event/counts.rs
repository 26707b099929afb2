//! What the kernel side counted, as users see it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Name;
use crate::{
    core::model::{channel_name, human},
    probe::kernel::written::Written,
};

/// A histogram of durations: how many were at most so long, cumulative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistogramView {
    /// All of them.
    pub count: u64,
    /// By rising bounds; those that nothing was added to are left out.
    pub buckets: Vec<Bucket>,
}

/// How many were at most so long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Seconds.
    pub le: f64,
    /// How many.
    pub count: u64,
}

/// What was written to a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WrittenView {
    /// `pipe`, `fifo` or `unix`.
    pub channel: Name,
    /// The channel's inode.
    pub inode: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long the writes took.
    pub write_seconds: HistogramView,
}

impl WrittenView {
    pub(super) fn new(written: &Written) -> Self {
        Self {
            channel: channel_name(written.to.kind).into(),
            inode: written.to.inode,
            bytes: written.bytes,
            write_seconds: HistogramView::new(&written.took),
        }
    }

    /// For people: what half of the writes took at most, and all of them.
    pub(super) fn line(&self) -> String {
        let time = |part: u64| human(Duration::from_secs_f64(self.write_seconds.within(part, 100)));
        format!(
            "{} {}: {} writes, {}; half within {}, 99 % within {}, all within {}",
            self.channel,
            self.inode,
            self.write_seconds.count,
            crate::cli::text::size(self.bytes),
            time(50),
            time(99),
            time(100)
        )
    }
}

impl HistogramView {
    /// The bound, in seconds, within which this part of all lie.
    fn within(&self, part: u64, of: u64) -> f64 {
        let enough = |bucket: &&Bucket| bucket.count * of >= self.count * part;
        self.buckets.iter().find(enough).map_or(0.0, |bucket| bucket.le)
    }

    /// From the kernel's counts, one for each power of two of nanoseconds.
    #[must_use]
    pub fn new(counts: &[u64]) -> Self {
        let mut total = 0;
        let mut buckets = Vec::new();
        for (slot, count) in (0..).zip(counts) {
            total += count;
            if *count > 0 {
                let bound = Duration::from_nanos(probe_ebpf::histogram::upper_bound(slot).saturating_add(1));
                buckets.push(Bucket {
                    le: bound.as_secs_f64(),
                    count: total,
                });
            }
        }
        Self {
            count: total,
            buckets,
        }
    }
}
