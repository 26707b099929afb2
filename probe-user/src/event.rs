//! Events as users see them: one JSON object a line, the same in every output.
//!
//! `core` says what happened; here it gets a name, a number and a time of day.

pub mod cause;
mod counts;
mod stall;
mod stamp;

use std::{borrow::Cow, fmt, ops::Deref, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    counts::{Bucket, HistogramView, WrittenView},
    stall::{StallView, stall_name},
    stamp::Stamp,
};
use crate::{
    clock,
    core::{model::Stall, share::StalledShare},
};

/// Version of the format.
const VERSION: u32 = 1;

/// A name out of a fixed list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Name(Cow<'static, str>);

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// All kinds of events.
pub const KINDS: [&str; 12] = [
    "agent.started",
    "agent.reloaded",
    "agent.degraded",
    "agent.recovered",
    "agent.stopping",
    "stall.detected",
    "stall.ended",
    "kill.planned",
    "kill.sent",
    "kill.confirmed",
    "kill.failed",
    "kill.skipped",
];

/// An event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Version of the format.
    pub v: u32,
    /// Sortable and unique over all nodes (ULID).
    pub id: String,
    /// Counts up within a journal.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The host's name.
    pub node: String,
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub kind: Name,
    /// The stall that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallView>,
    /// The rule that decided; `manual` for a kill that somebody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What the rule does: `alert`, `term` or `kill`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Name>,
    /// Whether it may: `dry-run` or `enforce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Name>,
    /// The age from which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_for_seconds: Option<f64>,
    /// The share of the time from which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_share: Option<ShareView>,
    /// What only some events carry.
    #[serde(flatten)]
    pub what: What,
}

/// A rule's share of the time, and what of it a writer has come to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShareView {
    /// From 0 to 1.
    pub share: f64,
    /// Of a window of this length.
    pub over_seconds: f64,
    /// How much of the time the writer was blocked, at least; null where it is not known.
    pub blocked: Option<f64>,
}

impl ShareView {
    /// Shows a rule's share, and the stall's where it is known.
    #[must_use]
    pub fn new(limit: StalledShare, stall: Option<&Stall>) -> Self {
        let window = |stall: &Stall| {
            stall
                .shares
                .iter()
                .find(|share| share.over == limit.over)
                .copied()
        };
        let blocked = stall.and_then(window);
        let three_digits = |share: f64| (share * 1e3).round() / 1e3;
        Self {
            share: three_digits(limit.share()),
            over_seconds: clock::seconds(limit.over),
            blocked: blocked
                .map(|share| three_digits(share.blocked.as_secs_f64() / share.over.as_secs_f64())),
        }
    }
}

/// What only some events carry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct What {
    /// Why a stall ended, or why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// The same, or more, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The signal that was sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Name>,
    /// From the first signal to the exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// From the moment that the rule's condition was met to the exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_threshold_ms: Option<f64>,
    /// How long writers were blocked, as the kernel counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_seconds: Option<HistogramView>,
    /// What was written to each channel, where that is counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<WrittenView>,
}

impl Event {
    /// The event as one line for people.
    #[must_use]
    pub fn line(&self) -> String {
        use std::fmt::Write as _;
        let mut line = format!("{} {:<14}", &self.time[11..23], self.kind);
        if let Some(stall) = &self.stall {
            let age = crate::cli::text::age(Duration::from_secs_f64(stall.age_seconds.max(0.0)));
            let _ = write!(
                line,
                " {}[{}] {} {} {age}",
                stall.comm,
                stall.pid,
                stall.channel,
                stall.stream.as_deref().unwrap_or("-")
            );
            if let Some(culprit) = stall.cause.culprit() {
                let _ = write!(line, " {culprit}");
            }
        }
        for (name, value) in [
            ("rule", self.rule.as_deref()),
            ("signal", self.what.signal.as_deref()),
            ("reason", self.what.reason.as_deref()),
        ] {
            if let Some(value) = value {
                let _ = write!(line, " {name}={value}");
            }
        }
        if let Some(ShareView {
            blocked: Some(blocked),
            over_seconds,
            ..
        }) = self.stalled_share
        {
            let over = crate::cli::text::age(Duration::from_secs_f64(over_seconds));
            let _ = write!(line, " blocked={:.0}%/{over}", blocked * 100.0);
        }
        if let Some(took) = self.what.took_ms {
            let _ = write!(line, " took={took}ms");
        }
        if let Some(detail) = &self.what.detail {
            let _ = write!(line, " ({detail})");
        }
        if let Some(blocked) = &self.what.blocked_seconds {
            let _ = write!(line, " ({} blocked intervals seen)", blocked.count);
        }
        // A process may call itself anything.
        let mut line = crate::cli::text::one_line(&line);
        for written in &self.what.written {
            let _ = write!(line, "\n  {}", written.line());
        }
        line
    }
}

/// A time of day as events carry it.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn an_event_stays_one_line_whatever_it_quotes() {
        let line = Stamp::after(0)
            .agent("agent.degraded", Some("\u{1b}[2J\nforged".to_owned()))
            .line();
        assert!(line.ends_with("agent.degraded (\\u{1b}[2J\\nforged)"), "{line}");
    }
}
