//! The metrics, made from the state at each scrape: nothing is kept for them.
//!
//! No label holds a pid or a command: what a process calls itself must not make series.

mod alerts;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::{
    extract::State as Stated,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{exposition::Format, routes::Shared};
use crate::{
    agent::{
        counts::LOOK_BOUNDS,
        state::{STALLED, State},
    },
    core::model::channel_name,
};

/// Slots of the kernel side's histogram that are shown, each with what is below it since the
/// last: from 16 µs to over an hour.
const SLOTS: std::ops::RangeInclusive<usize> = 13..=41;
const EVERY: usize = 2;

/// Metrics of the agent, in the text format, or as `OpenMetrics` if that is asked for
#[utoipa::path(get, path = "/metrics", responses((status = 200, content(
    (String = "text/plain"), (String = "application/openmetrics-text")
))))]
pub(super) async fn serve(Stated(shared): Stated<Arc<Shared>>, headers: HeaderMap) -> Response {
    let format = Format::asked_for(&headers);
    let state = match shared.state().await {
        Ok(state) => state,
        Err(stopped) => return stopped.into_response(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        state,
        connections: shared.usage.connections(),
    }));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => (
            [(header::CONTENT_TYPE, format.content_type())],
            format.render(text),
        )
            .into_response(),
        Err(error) => super::routes::problem(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {error}"),
        ),
    }
}

#[derive(Debug)]
struct Scrape {
    state: Arc<State>,
    connections: usize,
}

/// A metric that is about to be written.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn metric(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("pipestall_{name}");
        let mut encoder = self.0.encode_descriptor(&name, help, unit, kind)?;
        write(&mut encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.metric(name, help, None, MetricType::Gauge, |e| e.encode_gauge(&value))
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.metric(name, help, Some(&Unit::Seconds), MetricType::Gauge, |e| {
            e.encode_gauge(&value)
        })
    }

    /// The name goes without its `_total`, here and below.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, None, MetricType::Counter, |encoder| {
            encoder.encode_counter::<NoLabelSet, _, f64>(&float(value), None)
        })
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.metric(name, help, unit, MetricType::Counter, |encoder| {
            for (labels, value) in values {
                encoder
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
            Ok(())
        })
    }

    fn histogram(&mut self, name: &str, help: &str, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.metric(name, help, Some(&Unit::Seconds), MetricType::Histogram, |e| {
            e.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
        })
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.stalls(&mut writer)?;
        self.kills(&mut writer)?;
        self.alerts(&mut writer)?;
        self.health(&mut writer)
    }
}

impl Scrape {
    fn stalls(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let state = &self.state;
        // Each rule shows even where it has nothing, so that a graph has a zero.
        let mut writers: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        let rules = state.rules.iter().map(|rule| rule.name.as_str());
        for rule in rules.chain([""]) {
            for channel in ["pipe", "fifo", "unix"] {
                writers.insert((rule, channel), 0.0);
            }
        }
        for row in &state.rows {
            if row.stall.age(state.at) >= STALLED {
                let rule = row.rule.as_ref().map_or("", |(name, ..)| name.as_str());
                *writers.entry((rule, channel_name(row.channel()))).or_default() += 1.0;
            }
        }
        writer.metric(
            "stalled_writers",
            "Writers blocked for a second or more on a channel that nobody drains, by the rule that decides about them",
            None,
            MetricType::Gauge,
            |encoder| {
                for ((rule, channel), count) in &writers {
                    encoder
                        .encode_family(&[("rule", *rule), ("channel", *channel)])?
                        .encode_gauge(count)?;
                }
                Ok(())
            },
        )?;
        writer.seconds(
            "oldest_stall",
            "Age of the oldest stall",
            state.status.oldest_seconds,
        )?;
        writer.counter("stalls", "Stalls that were reported", state.counts.stalls)?;
        let (sum, buckets) = blocked(&state.blocked);
        writer.histogram(
            "blocked",
            "How long observed writers were blocked, as the kernel counts; the sum is estimated from the buckets",
            sum,
            &buckets,
        )?;
        self.writes(writer)
    }

    /// By kind: a label for each channel would grow without end.
    fn writes(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let written = &self.state.written;
        if written.is_empty() {
            return Ok(());
        }
        let labels = |to| [("channel", channel_name(to))];
        writer.counters(
            "written",
            "What observed writers wrote (run --trace-writes)",
            Some(&Unit::Bytes),
            written.iter().map(|it| (labels(it.to), float(it.bytes))),
        )?;
        writer.metric(
            "write",
            "How long their writes took, blocked or not; the sum is estimated from the buckets",
            Some(&Unit::Seconds),
            MetricType::Histogram,
            |encoder| {
                for it in written {
                    let (sum, buckets) = blocked(&it.took);
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    encoder
                        .encode_family(&labels(it.to))?
                        .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                }
                Ok(())
            },
        )
    }

    fn kills(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let state = &self.state;
        let names = state.rules.iter().map(|rule| rule.name.as_str());
        let counted = state.counts.rules.keys().map(String::as_str);
        let names: std::collections::BTreeSet<&str> = names.chain(counted).collect();
        let mut outcomes = Vec::new();
        for name in names {
            let kills = state
                .counts
                .rules
                .get(name)
                .map(|counts| counts.kills)
                .unwrap_or_default();
            for (outcome, count) in [("confirmed", kills.confirmed), ("failed", kills.failed)] {
                outcomes.push(([("rule", name), ("outcome", outcome)], float(count)));
            }
        }
        writer.counters(
            "kills",
            "Processes that rules have ended, or failed to",
            None,
            outcomes,
        )?;
        let skipped = state.counts.rules.iter().flat_map(|(name, counts)| {
            counts
                .skipped
                .iter()
                .map(move |(reason, count)| ([("rule", name.as_str()), ("reason", *reason)], float(*count)))
        });
        writer.counters(
            "kills_skipped",
            "Processes that a rule points at and that were left alone",
            None,
            skipped,
        )?;
        writer.gauge(
            "kills_under_way",
            "Processes that are being ended",
            float(state.status.kills_under_way),
        )?;
        writer.gauge(
            "enforcement_paused",
            "1 while nothing is enforced, whatever the rules say",
            f64::from(u8::from(state.status.paused.is_some())),
        )
    }

    fn health(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let state = &self.state;
        let status = &state.status;
        let counts = &state.counts;
        let looks: Vec<_> = LOOK_BOUNDS
            .into_iter()
            .chain([f64::INFINITY])
            .zip(counts.looks)
            .collect();
        writer.histogram(
            "scan",
            "How long walks over all tasks took",
            counts.looking.as_secs_f64(),
            &looks,
        )?;
        writer.counter("scans", "Walks over all tasks", counts.look_count())?;
        writer.seconds(
            "last_scan_age",
            "Time since the last walk over all tasks",
            status.looks.age_seconds,
        )?;
        writer.gauge(
            "tracked_entries",
            "Writers in the tracer's table",
            float(status.looks.tracked),
        )?;
        writer.gauge(
            "tracked_capacity",
            "What the tracer's table holds",
            float(status.looks.capacity),
        )?;
        let lost = &status.lost;
        let lost = [
            ("tracer_notes", lost.notes),
            ("tracer_entries", lost.writers),
            ("stdout", lost.printed),
            ("subscribers", lost.streamed),
            ("journal", lost.recorded),
            (
                "alerts",
                status
                    .alerts
                    .as_ref()
                    .map_or(0, |alerts| alerts.lost_events_total),
            ),
        ];
        writer.counters(
            "events_lost",
            "What was lost on the way to a consumer; decisions do not depend on any of it",
            None,
            lost.map(|(consumer, count)| ([("consumer", consumer)], float(count))),
        )?;
        writer.counter("events", "Events", status.last_event)?;
        writer.gauge(
            "event_subscribers",
            "Who is subscribed to events",
            size(state.queued.0),
        )?;
        writer.gauge(
            "event_queue_entries",
            "Events that wait for subscribers",
            size(state.queued.1),
        )?;
        writer.metric(
            "journal_pending",
            "Events that wait to be written to the journal",
            Some(&Unit::Bytes),
            MetricType::Gauge,
            |e| e.encode_gauge(&size(state.unwritten)),
        )?;
        writer.gauge(
            "degraded",
            "How many things do not work as they should",
            size(status.degraded.len()),
        )?;
        writer.gauge(
            "api_connections",
            "Connections to the API and the metrics",
            size(self.connections),
        )?;
        let runs = || state.programs.iter().map(|run| [("program", run.name.as_str())]);
        writer.counters(
            "probe_runs",
            "Runs of kernel programs, where the kernel counts them (kernel.bpf_stats_enabled)",
            None,
            runs().zip(state.programs.iter().map(|run| float(run.count))),
        )?;
        writer.counters(
            "probe_run",
            "Time in kernel programs, where the kernel counts it (kernel.bpf_stats_enabled)",
            Some(&Unit::Seconds),
            runs().zip(state.programs.iter().map(|run| run.time.as_secs_f64())),
        )?;
        writer.metric("build", "The agent", None, MetricType::Info, |e| {
            e.encode_info(&[
                ("version", env!("CARGO_PKG_VERSION")),
                ("tracer", &*status.tracer),
                ("mode", &*status.mode),
            ])
        })
    }
}

/// The kernel's counts as buckets, and a sum that supposes each interval in the middle of its slot.
fn blocked(counts: &[u64]) -> (f64, Vec<(f64, u64)>) {
    let upper = |slot: usize| {
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        Duration::from_nanos(probe_ebpf::histogram::upper_bound(slot).saturating_add(1)).as_secs_f64()
    };
    let sum = counts
        .iter()
        .enumerate()
        .map(|(slot, count)| float(*count) * upper(slot) * 0.75)
        .sum();
    let mut buckets = Vec::new();
    let mut begin = 0;
    for slot in SLOTS.step_by(EVERY) {
        buckets.push((
            upper(slot),
            counts.get(begin..=slot).unwrap_or_default().iter().sum(),
        ));
        begin = slot + 1;
    }
    buckets.push((
        f64::INFINITY,
        counts.get(begin..).unwrap_or_default().iter().sum(),
    ));
    (sum, buckets)
}

#[expect(clippy::cast_precision_loss, reason = "counts are exact up to 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are exact up to 2^53")]
const fn size(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interval_is_in_one_bucket() {
        let counts: Vec<u64> = (0..64).collect();
        let (_, buckets) = blocked(&counts);
        assert_eq!(
            buckets.iter().map(|(_, count)| count).sum::<u64>(),
            counts.iter().sum::<u64>()
        );
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(buckets[0].0 < 20e-6 && buckets[buckets.len() - 2].0 > 3600.0);
    }
}
