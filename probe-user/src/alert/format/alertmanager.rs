//! Alertmanager's `POST /api/v2/alerts`.
//!
//! An incident is one alert: its labels are what Alertmanager tells alerts apart by, so
//! they stay the same while it lasts, and what changes is in the annotations. An alert
//! that goes on carries no end: Alertmanager takes it to be over when it has not been
//! told again for its own `resolve_timeout`.

use serde_json::{Map, Value, json};

use crate::alert::{
    notification::{Notification, Status},
    template::Words,
};

/// Where alerts are posted, below the address of an Alertmanager.
pub const PATH: &str = "/api/v2/alerts";

pub(super) fn body(notification: &Notification, words: &Words) -> Value {
    let mut labels = Map::new();
    labels.insert("alertname".into(), notification.alert.into());
    labels.insert("node".into(), notification.node.as_str().into());
    labels.insert("severity".into(), notification.severity.as_str().into());
    for (name, value) in &notification.labels {
        // Alertmanager takes an empty label for an error or for none.
        if !value.is_empty() {
            labels.insert((*name).into(), value.as_str().into());
        }
    }
    let pids: Vec<_> = notification
        .worst
        .iter()
        .filter_map(|worst| worst.event["stall"]["pid"].as_u64())
        .map(|pid| pid.to_string())
        .collect();
    let mut annotations = json!({
        "summary": words.title,
        "description": words.text,
        "count": notification.count.to_string(),
        "firing": notification.firing.to_string(),
        "incident": notification.incident,
    });
    if !pids.is_empty() {
        annotations["pid"] = pids.join(" ").into();
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": format!("{:.3}", notification.since),
    });
    if notification.status == Status::Resolved {
        alert["endsAt"] = format!("{:.3}", notification.time.max(notification.since)).into();
    }
    json!([alert])
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn words() -> Words {
        Words {
            title: "t".into(),
            text: "x".into(),
        }
    }

    #[test]
    fn an_alert_goes_on_until_it_is_resolved_under_the_same_labels() {
        let mut sample = Notification::sample("host", Timestamp::UNIX_EPOCH);
        let firing = body(&sample, &words());
        sample.status = Status::Resolved;
        (sample.firing, sample.count) = (0, 9);
        let resolved = body(&sample, &words());
        assert_eq!(firing[0]["endsAt"], Value::Null);
        assert_eq!(resolved[0]["endsAt"], "1970-01-01T00:00:00.000Z");
        assert_eq!(firing[0]["labels"], resolved[0]["labels"]);
        assert_eq!(
            firing[0]["labels"],
            json!({ "alertname": "PipestallStalledWriters", "node": "host", "severity": "warning",
                "rule": "sample", "unit": "sample.service" })
        );
        assert_eq!(resolved[0]["annotations"]["count"], "9");
        assert_eq!(firing[0]["annotations"]["pid"], "1");
    }

    #[test]
    fn what_is_unknown_is_no_label() {
        let agent = Notification::sample_of_agent("host", Timestamp::UNIX_EPOCH);
        let alert = body(&agent, &words());
        assert_eq!(
            alert[0]["labels"],
            json!({ "alertname": "PipestallDegraded", "node": "host", "severity": "critical" })
        );
        assert_eq!(alert[0]["annotations"]["pid"], Value::Null);
    }
}
