//! How the webhooks fare, as the API and metrics show it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How alerts fare.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Alerts)]
pub struct Status {
    /// Each webhook, by name.
    pub webhooks: Vec<WebhookStatus>,
    /// The number of the last event that was taken in.
    pub last_event: u64,
    /// Messages in the spool, refused ones too.
    pub spool_entries: usize,
    /// What they take, in bytes.
    pub spool_bytes: u64,
    /// Why the spool is not on disk for now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_error: Option<String>,
    /// Events that did not fit the way from the agent, and were read from the journal instead.
    pub late_events_total: u64,
    /// Events that could not be had from the journal either.
    pub lost_events_total: u64,
}

/// How one webhook fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WebhookStatus {
    /// Its name.
    pub name: String,
    /// Its format; none if it is not configured any more.
    #[serde(skip_deserializing)]
    pub format: Option<&'static str>,
    /// Incidents that go on.
    pub incidents: usize,
    /// Messages that are still to be delivered.
    pub queued: usize,
    /// Messages that the receiver refused, and that are kept.
    pub refused: usize,
    /// The age of the oldest message that is still to be delivered.
    pub oldest_seconds: Option<f64>,
    /// Messages delivered.
    pub delivered_total: u64,
    /// Attempts that failed.
    pub failed_total: u64,
    /// Messages refused.
    pub refused_total: u64,
    /// Messages given up.
    pub dropped_total: u64,
    /// Whether it does nothing but fail.
    pub down: bool,
    /// Why nothing is sent until the configuration is loaded anew, if so.
    pub disabled: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When.
    #[schema(value_type = Option<String>)]
    pub last_error_at: Option<Timestamp>,
}

impl WebhookStatus {
    /// The counts by outcome, as `alerts_total` has them.
    #[must_use]
    pub const fn outcomes(&self) -> [(&'static str, u64); 4] {
        [
            ("delivered", self.delivered_total),
            ("failed", self.failed_total),
            ("refused", self.refused_total),
            ("dropped", self.dropped_total),
        ]
    }
}
