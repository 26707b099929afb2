//! Checks webhooks, and what is kept for them.
//!
//! Secrets are only named here; that they can be read shows when they are used.

mod secret;
mod target;
mod timings;
mod words;

use toml::Spanned;

use super::{Check, Table, tables};
use crate::{
    alert::webhook::{EventPattern, Format, Webhook},
    config::{
        problem::{Problem, instead, list},
        raw::{File, RawWebhook, Text},
        source::Place,
    },
    event::KINDS,
};

const DEFAULT_EVENTS: [&str; 3] = ["stall.detected", "kill.*", "agent.degraded"];
/// The longest name; it is part of each message's.
const NAME: usize = 64;

impl<'a> Check<'a> {
    /// The webhooks of all files.
    pub(super) fn webhooks(&mut self, files: &'a [File]) -> Vec<Webhook> {
        tables(files, "webhook", |raw| &raw.webhook)
            .filter_map(|(table, raw)| self.webhook(&table, raw))
            .collect()
    }

    fn webhook(&mut self, table: &Table<'a>, raw: &'a RawWebhook) -> Option<Webhook> {
        let before = self.problems.len();
        let name = self.webhook_name(table, raw.name.as_ref());
        let format = self.format(table, raw.format.as_ref());
        let target = self.target(table, raw);
        let secret = self.secret(table, raw, format);
        let events = self.events(table, raw.events.as_ref());
        let grouping = self.grouping(table, raw, format.unwrap_or(Format::Standard));
        let redaction = self.redaction(table, raw);
        let templates = self.templates(table, raw, &events);
        let retry = self.retry(table, raw);
        if self.problems.len() > before {
            return None;
        }
        Some(Webhook {
            name: name?,
            format: format?,
            target: target?,
            secret,
            events,
            grouping,
            redaction,
            templates,
            retry,
        })
    }

    fn webhook_name(&mut self, table: &Table<'a>, given: Option<&'a Text>) -> Option<String> {
        let Some(text) = given else {
            let message = "is missing; name the webhook, such as name = \"ops\"";
            self.problems.push(table.absent("name").problem(message));
            return None;
        };
        let place = table.value("name", text);
        let name = text.get_ref().as_str();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > NAME || !name.chars().all(is_plain) {
            let message = format!("`{name}` is no name; use up to {NAME} letters, digits, `-` and `_`");
            self.problems.push(place.problem(message));
            return None;
        }
        self.own_name("webhook", place, name)
    }

    fn format(&mut self, table: &Table<'a>, given: Option<&'a Text>) -> Option<Format> {
        if given.is_none() {
            let known = list(&Format::ALL.map(Format::as_str));
            let message = format!("is missing; name one of {known}");
            self.problems.push(table.absent("format").problem(message));
        }
        let words = ("format", "formats");
        self.choice(table, "format", given, words, &Format::ALL, Format::as_str)
    }

    fn events(&mut self, table: &Table<'a>, given: Option<&'a Spanned<Vec<Text>>>) -> Vec<EventPattern> {
        let Some(given) = given else {
            return DEFAULT_EVENTS
                .iter()
                .filter_map(|text| EventPattern::parse(text).ok())
                .collect();
        };
        if given.get_ref().is_empty() {
            let message =
                "is empty, so nothing is ever told; name events, such as [\"stall.detected\", \"kill.*\"]";
            self.problems.push(table.value("events", given).problem(message));
        }
        self.each(table, "events", given.get_ref(), event)
    }
}

fn event(place: &Place<'_>, text: &str) -> Result<EventPattern, Problem> {
    let pattern = EventPattern::parse(text)
        .map_err(|error| place.problem(format!("`{text}` is no pattern: {}; use `*`", error.kind())))?;
    let matched: Vec<_> = KINDS.iter().filter(|kind| pattern.is_match(kind)).collect();
    match matched[..] {
        [] => Err(place.problem(format!(
            "`{text}` matches no event; {}",
            instead(text, "events", &KINDS)
        ))),
        [&"stall.ended"] => Err(place.problem(
            "`stall.ended` begins no alert; an alert's end is told by itself unless send_resolved = false",
        )),
        _ => Ok(pattern),
    }
}

#[cfg(test)]
mod tests;
