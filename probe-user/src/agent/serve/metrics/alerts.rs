//! How alerts fare, by webhook.

use std::fmt;

use prometheus_client::{encoding::EncodeLabelSet, metrics::MetricType, registry::Unit};

use super::{Scrape, Writer, float, size};
use crate::alert::status::WebhookStatus;

impl Scrape {
    pub(super) fn alerts(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Some(alerts) = &self.state.status.alerts else {
            return Ok(());
        };
        let webhooks = &alerts.webhooks;
        let outcomes = webhooks.iter().flat_map(|webhook| {
            let name = webhook.name.as_str();
            webhook
                .outcomes()
                .map(|(outcome, count)| ([("webhook", name), ("outcome", outcome)], float(count)))
        });
        writer.counters(
            "alerts",
            "Messages to webhooks, by what came of them",
            None,
            outcomes,
        )?;
        let entries = webhooks.iter().flat_map(|webhook| {
            let name = webhook.name.as_str();
            [("queued", webhook.queued), ("refused", webhook.refused)]
                .map(|(state, count)| ([("webhook", name), ("state", state)], size(count)))
        });
        gauges(
            writer,
            ("alert_spool_entries", None),
            "Messages to webhooks that are kept on disk: to be delivered, or refused",
            entries,
        )?;
        let of_each = |value: fn(&WebhookStatus) -> f64| {
            let webhooks = webhooks.iter();
            webhooks.map(move |webhook| ([("webhook", webhook.name.as_str())], value(webhook)))
        };
        gauges(
            writer,
            ("alert_oldest", Some(&Unit::Seconds)),
            "Age of the oldest message that is still to be delivered; 0 if there is none",
            of_each(|webhook| webhook.oldest_seconds.unwrap_or_default()),
        )?;
        gauges(
            writer,
            ("alert_webhook_failing", None),
            "1 while a webhook does nothing but fail, or gets nothing",
            of_each(|webhook| f64::from(u8::from(webhook.down || webhook.disabled.is_some()))),
        )
    }
}

fn gauges<L: EncodeLabelSet>(
    writer: &mut Writer<'_>,
    (name, unit): (&str, Option<&Unit>),
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> fmt::Result {
    writer.metric(name, help, unit, MetricType::Gauge, |encoder| {
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    })
}
