//! What people read of a webhook's alerts, and what is left out of it.

use jiff::Timestamp;
use regex::Regex;

use crate::{
    alert::{
        notification::Notification,
        redact::Redaction,
        template::{Templates, Which},
        webhook::EventPattern,
    },
    config::{
        check::{Check, Table},
        problem::Problem,
        raw::{RawWebhook, Text},
        source::Place,
    },
};

impl<'a> Check<'a> {
    pub(super) fn redaction(&mut self, table: &Table<'a>, raw: &'a RawWebhook) -> Redaction {
        let patterns = self.each(table, "redact", &raw.redact, redacted);
        Redaction {
            usual: raw.redact_defaults.unwrap_or(true),
            patterns,
        }
    }

    /// Templates that work for all that they are to be about.
    pub(super) fn templates(
        &mut self,
        table: &Table<'a>,
        raw: &'a RawWebhook,
        events: &[EventPattern],
    ) -> Templates {
        let text = |given: &'a Option<Text>| given.as_ref().map(|text| text.get_ref().as_str());
        let stall = Notification::sample("host", Timestamp::UNIX_EPOCH);
        let agent = Notification::sample_of_agent("host", Timestamp::UNIX_EPOCH);
        let speaks_of_agent = events.iter().any(|pattern| pattern.is_match("agent.degraded"));
        let why_not = |(which, why)| (which, format!("does not work as a template: {why}"));
        let why_not_for_agent = |(which, why)| {
            let hint = "put what is about a stall between {% if worst[0].event.stall %} and {% endif %}";
            (
                which,
                format!("does not work for agent.degraded, which is about no stall: {why}; {hint}"),
            )
        };
        let templates = Templates::new(text(&raw.title), text(&raw.text)).map_err(why_not);
        let templates = templates.and_then(|templates| {
            templates.check(&stall).map_err(why_not)?;
            if speaks_of_agent {
                templates.check(&agent).map_err(why_not_for_agent)?;
            }
            Ok(templates)
        });
        templates.unwrap_or_else(|(which, why)| {
            let given = match which {
                Which::Title => raw.title.as_ref(),
                Which::Text => raw.text.as_ref(),
            };
            let place = given.map_or_else(
                || table.absent(which.as_str()),
                |text| table.value(which.as_str(), text),
            );
            self.problems.push(place.problem(why));
            Templates::default()
        })
    }
}

fn redacted(place: &Place<'_>, text: &str) -> Result<Regex, Problem> {
    if text.is_empty() {
        return Err(place.problem("is empty; leave it out"));
    }
    Regex::new(text).map_err(|error| {
        // The last line of what the parser says is the reason; the rest draws the place.
        let said = error.to_string();
        let reason = said.lines().last().unwrap_or_default().replace("error: ", "");
        place.problem(format!(
            "`{text}` is no regular expression: {reason}; what matches is left out of command lines, \
             or only its group `(?<secret>…)`"
        ))
    })
}
