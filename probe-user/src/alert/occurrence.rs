//! An event as the alerts see it: the journal's line, understood as far as it matters here.
//!
//! The line itself is kept, so that a receiver gets the same object as every other reader.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::redact::Redaction;

/// What an alert is about. Each kind is an incident of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// The agent speaks of itself, and nothing is wrong.
    Agent,
    /// Writers are stalled, and what is done about it.
    Stall,
    /// A process could not be ended.
    KillFailed,
    /// The agent cannot do all it should.
    Degraded,
}

/// How bad it is; the order is that in which alerts are given up when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    Warning,
    /// To be looked at now.
    Critical,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Class {
    /// The class of a kind of event.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        match kind {
            "kill.failed" => Self::KillFailed,
            "agent.degraded" => Self::Degraded,
            other if other.starts_with("agent.") => Self::Agent,
            _ => Self::Stall,
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Agent => Severity::Info,
            Self::Stall => Severity::Warning,
            Self::KillFailed | Self::Degraded => Severity::Critical,
        }
    }

    /// The alert's name: Alertmanager's `alertname`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "PipestallAgent",
            Self::Stall => "PipestallStalledWriters",
            Self::KillFailed => "PipestallKillFailed",
            Self::Degraded => "PipestallDegraded",
        }
    }

    /// Whether it lasts until it is said to be over; else it is said once.
    #[must_use]
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Stall | Self::KillFailed)
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// Its own name.
    pub id: String,
    /// Its place in the journal.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// On which machine.
    pub node: String,
    /// What kind of event it is.
    pub kind: String,
    /// The rule that it is about.
    pub rule: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The stall that it is about.
    pub stall: Option<Stalled>,
    /// All of it.
    pub event: Value,
}

/// What alerts are grouped by and sorted by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Stalled {
    /// The stall.
    pub id: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The leader's command.
    #[serde(default)]
    pub comm: String,
    /// The kind of channel.
    #[serde(default)]
    pub channel: String,
    /// Its user's name.
    pub user: Option<String>,
    /// Its parent's command.
    pub parent: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container.
    pub container: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    seq: u64,
    time: Timestamp,
    node: String,
    #[serde(rename = "type")]
    kind: String,
    rule: Option<String>,
    reason: Option<String>,
    stall: Option<Stalled>,
}

impl Occurrence {
    /// Understands a line of the journal.
    ///
    /// # Errors
    /// It is no event.
    pub fn parse(line: &str) -> serde_json::Result<Self> {
        let event: Value = serde_json::from_str(line)?;
        let Line {
            id,
            seq,
            time,
            node,
            kind,
            rule,
            reason,
            stall,
        } = Line::deserialize(&event)?;
        Ok(Self {
            id,
            seq,
            time,
            node,
            kind,
            rule,
            reason,
            stall,
            event,
        })
    }

    /// The same without what must not be told.
    #[must_use]
    pub fn redacted(mut self, redaction: &Redaction) -> Self {
        redaction.apply(&mut self.event);
        self
    }

    /// The writer that it is about: its stall's name without the stall's number, so that it is the
    /// same after the agent is started anew. What is about no writer stands for itself.
    #[must_use]
    pub fn subject(&self) -> &str {
        match &self.stall {
            Some(stall) => stall.id.rsplit_once('-').map_or(&stall.id, |(writer, _)| writer),
            None => &self.id,
        }
    }

    /// When what it is about began.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.stall
            .as_ref()
            .and_then(|stall| stall.since)
            .unwrap_or(self.time)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// An event of a stall, as the journal has it.
    pub(crate) fn event(seq: u64, kind: &str, stall: &str, more: &Value) -> Occurrence {
        let mut event = json!({
            "v": 1, "id": format!("01J{seq:023}"), "seq": seq, "time": "2026-11-23T08:00:00.123Z",
            "node": "host", "type": kind, "rule": "orphans", "mode": "enforce",
            "stall": { "id": stall, "pid": seq, "tid": seq, "comm": "ffmpeg", "thread": "mux0:mp4",
                "cmdline": ["ffmpeg", "-i", "https://u:hunter2@h/x", "pipe:1"], "user": "peertube",
                "parent": "node", "unit": "peertube.service", "container": null, "channel": "unix",
                "stream": "stdout", "since": "2026-11-23T07:59:00.000Z", "age_seconds": 60.123 },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            if key == "stall" {
                for (key, value) in value.as_object().into_iter().flatten() {
                    event["stall"][key] = value.clone();
                }
            } else {
                event[key] = value.clone();
            }
        }
        if kind.starts_with("agent.") {
            let fields = event.as_object_mut().unwrap();
            fields.retain(|key, _| !matches!(key.as_str(), "stall" | "rule" | "mode"));
        }
        Occurrence::parse(&event.to_string()).unwrap()
    }

    #[test]
    fn a_writer_keeps_its_name_over_restarts_and_stalls() {
        let one = event(1, "stall.detected", "123-9af3-7", &Value::Null);
        let other = event(2, "stall.ended", "123-9af3-1", &Value::Null);
        assert_eq!(one.subject(), "123-9af3");
        assert_eq!(one.subject(), other.subject());
        let agent = event(3, "agent.degraded", "", &Value::Null);
        assert_eq!(agent.subject(), agent.id);
    }

    #[test]
    fn what_is_known_now_is_enough_of_an_event_to_come() {
        let occurrence = event(
            1,
            "stall.detected",
            "1-2-3",
            &json!({ "later": { "x": 1 }, "stall": { "readers": [] } }),
        );
        assert_eq!(occurrence.event["later"]["x"], 1);
        assert!(Occurrence::parse("{\"id\":1}").is_err());
        assert!(Occurrence::parse("").is_err());
    }

    #[test]
    fn an_agents_own_events_are_understood() {
        let mut stamp = crate::event::Stamp::after(41);
        let line = serde_json::to_string(&stamp.agent("agent.degraded", Some("why".into()))).unwrap();
        let occurrence = Occurrence::parse(&line).unwrap();
        assert_eq!((occurrence.seq, occurrence.kind.as_str()), (42, "agent.degraded"));
        assert_eq!(occurrence.stall, None);
        assert_eq!(Class::of(&occurrence.kind).severity(), Severity::Critical);
    }
}
