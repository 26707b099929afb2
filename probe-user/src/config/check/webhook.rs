//! Checks webhooks, and what is kept for them.
//!
//! Secrets are only named here; that they can be read shows when they are used.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use jiff::Timestamp;
use regex::Regex;
use toml::Spanned;

use super::{
    Check, Table,
    value::{self, duration, one_of},
};
use crate::{
    alert::{
        group::{Grouping, Label},
        notification::Notification,
        redact::Redaction,
        target,
        template::{Templates, Which},
        webhook::{Address, EventPattern, Format, Limits, Place as SecretPlace, Retry, Target, Webhook},
    },
    config::{
        problem::{Problem, instead, list},
        raw::{File, RawSpool, RawWebhook, Text},
        source::Place,
    },
    event::KINDS,
};

const DEFAULT_EVENTS: [&str; 3] = ["stall.detected", "kill.*", "agent.degraded"];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RETRY: Retry = Retry {
    min: Duration::from_secs(1),
    max: Duration::from_mins(5),
};

const DAY: Duration = Duration::from_hours(24);
const WAIT: value::Limits = (Duration::ZERO, DAY);
/// Repeating more often than this is no alert but a stream.
const INTERVAL: value::Limits = (Duration::from_millis(100), DAY);
const REPEAT: value::Limits = (Duration::from_secs(1), Duration::from_hours(24 * 30));
const TIMEOUT: value::Limits = (Duration::from_millis(100), Duration::from_mins(5));
const RETRY_MIN: value::Limits = (Duration::from_millis(10), Duration::from_hours(1));
const RETRY_MAX: value::Limits = (Duration::from_millis(10), DAY);
const AGE: value::Limits = (Duration::from_mins(1), Duration::from_hours(24 * 90));
/// The longest name; it is part of each message's.
const NAME: usize = 64;

/// As Alertmanager has them; an Alertmanager groups by itself, and has to be told again before it
/// takes an alert to be over (`resolve_timeout`, 5 minutes unless set).
const fn default_grouping(format: Format) -> [Duration; 3] {
    match format {
        Format::Standard | Format::Slack => [
            Duration::from_secs(30),
            Duration::from_mins(5),
            Duration::from_hours(4),
        ],
        Format::Alertmanager => [
            Duration::from_secs(1),
            Duration::from_secs(10),
            Duration::from_mins(1),
        ],
    }
}

impl<'a> Check<'a> {
    /// The webhooks of all files.
    pub(super) fn webhooks(&mut self, files: &'a [File]) -> Vec<Webhook> {
        let mut names = HashMap::new();
        let mut webhooks = Vec::new();
        for file in files {
            for (i, webhook) in file.raw.webhook.iter().enumerate() {
                let table = Table {
                    source: &file.source,
                    key: format!("webhook[{i}]"),
                    span: webhook.span(),
                };
                webhooks.extend(self.webhook(&table, webhook.get_ref(), &mut names));
            }
        }
        webhooks
    }

    /// What is kept for receivers; defaults, which nobody gets to see, for what is wrong.
    pub(super) fn spool(&mut self, table: &Table<'a>, raw: &'a RawSpool) -> Limits {
        let mut limits = Limits::default();
        if let Some(given) = &raw.max_mib {
            if *given.get_ref() == 0 {
                let message = "is 0, which would keep nothing; use 1 or more";
                self.problems.push(table.value("max_mib", given).problem(message));
            }
            limits.size = u64::from(*given.get_ref()) << 20;
        }
        limits.age = self.time(table, "max_age", raw.max_age.as_ref(), AGE, limits.age);
        limits
    }

    fn webhook(
        &mut self,
        table: &Table<'a>,
        raw: &'a RawWebhook,
        names: &mut HashMap<&'a str, Place<'a>>,
    ) -> Option<Webhook> {
        let before = self.problems.len();
        let name = self.webhook_name(table, raw.name.as_ref(), names);
        let format = self.format(table, raw.format.as_ref());
        let target = self.target(table, raw);
        let secret = self.secret(table, raw, format);
        let events = self.events(table, raw.events.as_ref());
        let grouping = self.grouping(table, raw, format.unwrap_or(Format::Standard));
        let redaction = self.redaction(table, raw);
        let templates = self.templates(table, raw, &events);
        let min = self.time(
            table,
            "retry_min",
            raw.retry_min.as_ref(),
            RETRY_MIN,
            DEFAULT_RETRY.min,
        );
        let max = self.time(
            table,
            "retry_max",
            raw.retry_max.as_ref(),
            RETRY_MAX,
            DEFAULT_RETRY.max.max(min),
        );
        if let (Some(given), true) = (&raw.retry_max, max < min) {
            let message = "is less than retry_min; make it greater";
            self.problems
                .push(table.value("retry_max", given).problem(message));
        }
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
            retry: Retry { min, max },
        })
    }

    fn webhook_name(
        &mut self,
        table: &Table<'a>,
        given: Option<&'a Text>,
        names: &mut HashMap<&'a str, Place<'a>>,
    ) -> Option<String> {
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
        match names.entry(name) {
            Entry::Occupied(first) => {
                let message = format!(
                    "`{name}` is the name of the webhook at {}; give each webhook its own",
                    first.get().location()
                );
                self.problems.push(place.problem(message));
                None
            }
            Entry::Vacant(free) => {
                free.insert(place);
                Some(name.to_owned())
            }
        }
    }

    fn format(&mut self, table: &Table<'a>, given: Option<&'a Text>) -> Option<Format> {
        let Some(text) = given else {
            let known = list(&Format::ALL.map(Format::as_str));
            let message = format!("is missing; name one of {known}");
            self.problems.push(table.absent("format").problem(message));
            return None;
        };
        let place = table.value("format", text);
        let format = one_of(
            &place,
            text.get_ref(),
            ("format", "formats"),
            &Format::ALL,
            Format::as_str,
        );
        self.keep(format)
    }

    fn target(&mut self, table: &Table<'a>, raw: &'a RawWebhook) -> Option<Target> {
        let ca_file = raw
            .ca_file
            .as_ref()
            .and_then(|text| self.file(table, "ca_file", text));
        let proxy = raw.proxy.as_ref().and_then(|text| {
            let place = table.value("proxy", text);
            let proxy = match url::Url::parse(text.get_ref()) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
                _ => Err(place.problem("is no proxy; write \"http://host:port\"")),
            };
            self.keep(proxy)
        });
        let mut allow_private = Vec::new();
        for (i, text) in raw.allow_private.iter().enumerate() {
            let place = table.value(&format!("allow_private[{i}]"), text);
            allow_private.extend(self.keep(network(&place, text.get_ref())));
        }
        let timeout = self.time(table, "timeout", raw.timeout.as_ref(), TIMEOUT, DEFAULT_TIMEOUT);
        let places = [
            ("url_file", raw.url_file.as_ref()),
            ("url_credential", raw.url_credential.as_ref()),
        ];
        let secret = self.one_place(table, raw.url.as_ref().map(|text| ("url", text)), places);
        let with = |address| Target {
            address,
            ca_file,
            proxy,
            allow_private,
            timeout,
        };
        let Some(text) = &raw.url else {
            if secret.is_none() && places.iter().all(|(_, text)| text.is_none()) {
                let message = "is missing; say where to, such as url = \"https://example.com/hook\", \
                               or name a file that holds it: url_file = \"/etc/pipestall/ops.url\"";
                self.problems.push(table.absent("url").problem(message));
            }
            return Some(with(Address::Secret(secret?)));
        };
        let place = table.value("url", text);
        // The rest of the target is needed to judge the URL.
        let Ok(parsed) = url::Url::parse(text.get_ref()) else {
            let message = "is no URL; write it in full, such as \"https://example.com/hook\"";
            self.problems.push(place.problem(message));
            return None;
        };
        let target = with(Address::Url(parsed.clone()));
        if let Err(why) = target::check(&parsed, &target) {
            self.problems
                .push(place.problem(format!("cannot be used: {why}")));
            return None;
        }
        let is_named = !target.allow_private.is_empty();
        if parsed.scheme() == "http" && !is_named {
            let message = "is not encrypted, so that anybody on the way can read alerts; use https";
            self.warnings.push(place.problem(message).to_string());
        }
        Some(target)
    }

    /// Where a secret is: in one place at the most.
    fn one_place(
        &mut self,
        table: &Table<'a>,
        plain: Option<(&'static str, &'a Text)>,
        places: [(&'static str, Option<&'a Text>); 2],
    ) -> Option<SecretPlace> {
        let given: Vec<_> = plain
            .into_iter()
            .chain(places.into_iter().filter_map(|(key, text)| Some((key, text?))))
            .collect();
        if let [(first, _), (second, text), ..] = given[..] {
            let message = format!("stands beside {first}; keep one of the two");
            self.problems.push(table.value(second, text).problem(message));
            return None;
        }
        let (key, text) = *given.first().filter(|_| plain.is_none())?;
        if !key.ends_with("_credential") {
            return Some(SecretPlace::File(self.file(table, key, text)?));
        }
        let name = text.get_ref();
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            let message = format!(
                "`{name}` is no credential's name; write what stands before the colon in the unit's LoadCredential="
            );
            self.problems.push(table.value(key, text).problem(message));
            return None;
        }
        Some(SecretPlace::Credential(name.clone()))
    }

    fn file(&mut self, table: &Table<'a>, key: &str, text: &'a Text) -> Option<PathBuf> {
        let path = PathBuf::from(text.get_ref());
        if path.is_absolute() {
            return Some(path);
        }
        let message = format!("`{}` is no full path; write \"/etc/pipestall/…\"", text.get_ref());
        self.problems.push(table.value(key, text).problem(message));
        None
    }

    fn secret(
        &mut self,
        table: &Table<'a>,
        raw: &'a RawWebhook,
        format: Option<Format>,
    ) -> Option<SecretPlace> {
        let places = [
            ("secret_file", raw.secret_file.as_ref()),
            ("secret_credential", raw.secret_credential.as_ref()),
        ];
        let given = places.iter().find_map(|(key, text)| Some((*key, (*text)?)));
        match (format?, given) {
            (Format::Standard, None) => {
                let message = "is missing; the format `standard` is signed: name a file with a line such as \
                               `echo whsec_$(openssl rand -base64 32)` makes";
                self.problems.push(table.absent("secret_file").problem(message));
                None
            }
            (Format::Standard, Some(_)) => self.one_place(table, None, places),
            (format @ (Format::Alertmanager | Format::Slack), Some((key, text))) => {
                let message = format!(
                    "signs nothing: the format `{}` has no signature; leave it out",
                    format.as_str()
                );
                self.problems.push(table.value(key, text).problem(message));
                None
            }
            (Format::Alertmanager | Format::Slack, None) => None,
        }
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
        let mut events = Vec::new();
        for (i, text) in given.get_ref().iter().enumerate() {
            let place = table.value(&format!("events[{i}]"), text);
            events.extend(self.keep(event(&place, text.get_ref())));
        }
        events
    }

    fn grouping(&mut self, table: &Table<'a>, raw: &'a RawWebhook, format: Format) -> Grouping {
        let mut by = vec![Label::Rule, Label::Unit];
        if let Some(given) = &raw.group_by {
            by.clear();
            for (i, text) in given.get_ref().iter().enumerate() {
                let place = table.value(&format!("group_by[{i}]"), text);
                let label = one_of(
                    &place,
                    text.get_ref(),
                    ("label", "labels"),
                    &Label::ALL,
                    Label::as_str,
                );
                if let Some(label) = self.keep(label)
                    && !by.contains(&label)
                {
                    by.push(label);
                }
            }
        }
        let [wait, interval, repeat] = default_grouping(format);
        Grouping {
            by,
            wait: self.time(table, "group_wait", raw.group_wait.as_ref(), WAIT, wait),
            interval: self.time(
                table,
                "group_interval",
                raw.group_interval.as_ref(),
                INTERVAL,
                interval,
            ),
            repeat: self.time(
                table,
                "repeat_interval",
                raw.repeat_interval.as_ref(),
                REPEAT,
                repeat,
            ),
            send_resolved: raw.send_resolved.unwrap_or(true),
        }
    }

    fn redaction(&mut self, table: &Table<'a>, raw: &'a RawWebhook) -> Redaction {
        let mut patterns = Vec::new();
        for (i, text) in raw.redact.iter().enumerate() {
            let place = table.value(&format!("redact[{i}]"), text);
            let pattern = match Regex::new(text.get_ref()) {
                _ if text.get_ref().is_empty() => Err(place.problem("is empty; leave it out")),
                Ok(pattern) => Ok(pattern),
                Err(error) => {
                    // The last line of what the parser says is the reason; the rest draws the place.
                    let said = error.to_string();
                    let reason = said.lines().last().unwrap_or_default().replace("error: ", "");
                    Err(place.problem(format!(
                        "`{}` is no regular expression: {reason}; what matches is left out of command lines, \
                         or only its group `(?<secret>…)`",
                        text.get_ref()
                    )))
                }
            };
            patterns.extend(self.keep(pattern));
        }
        Redaction {
            usual: raw.redact_defaults.unwrap_or(true),
            patterns,
        }
    }

    fn templates(&mut self, table: &Table<'a>, raw: &'a RawWebhook, events: &[EventPattern]) -> Templates {
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

    fn time(
        &mut self,
        table: &Table<'a>,
        key: &str,
        given: Option<&Text>,
        limits: value::Limits,
        default: Duration,
    ) -> Duration {
        given
            .and_then(|text| self.keep(duration(&table.value(key, text), text.get_ref(), limits)))
            .unwrap_or(default)
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

fn network(place: &Place<'_>, text: &str) -> Result<IpNet, Problem> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| {
            place.problem(format!(
                "`{text}` is no address or network; write \"10.0.0.5\" or \"10.0.0.0/8\""
            ))
        })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const GOOD: [(&str, &str); 4] = [
        ("name", "name = 'ops'"),
        ("url", "url = 'https://example.com/hook'"),
        ("format", "format = 'standard'"),
        ("secret_file", "secret_file = '/etc/pipestall/ops.key'"),
    ];

    /// A good webhook, in which some lines are replaced, added or, if empty, left out.
    fn parse(changes: &[(&str, &str)]) -> Result<Config, String> {
        let mut lines = GOOD.to_vec();
        for (key, line) in changes {
            match lines.iter_mut().find(|(known, _)| known == key) {
                Some(known) => known.1 = line,
                None => lines.push((key, line)),
            }
        }
        let lines: Vec<_> = lines
            .iter()
            .map(|(_, line)| *line)
            .filter(|line| !line.is_empty())
            .collect();
        let text = format!("[[webhook]]\n{}\n", lines.join("\n"));
        Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_webhook_that_says_little_is_told_as_alertmanagers_users_know_it() {
        let webhook = parse(&[]).unwrap().webhooks.remove(0);
        let events: Vec<_> = webhook.events.iter().map(EventPattern::as_str).collect();
        assert_eq!(events, DEFAULT_EVENTS);
        let expected = Grouping {
            by: vec![Label::Rule, Label::Unit],
            wait: Duration::from_secs(30),
            interval: Duration::from_mins(5),
            repeat: Duration::from_hours(4),
            send_resolved: true,
        };
        assert_eq!(webhook.grouping, expected);
        assert_eq!(webhook.retry, DEFAULT_RETRY);
        assert_eq!(webhook.target.timeout, DEFAULT_TIMEOUT);
        assert!(webhook.redaction.usual && webhook.redaction.patterns.is_empty());
        assert_eq!(
            webhook.secret,
            Some(SecretPlace::File("/etc/pipestall/ops.key".into()))
        );
    }

    #[test]
    fn an_alertmanager_is_told_again_before_it_takes_an_alert_to_be_over() {
        let webhook = parse(&[("format", "format = 'alertmanager'"), ("secret_file", "")])
            .unwrap()
            .webhooks
            .remove(0);
        assert!(webhook.grouping.repeat <= Duration::from_mins(2));
    }

    #[test]
    fn what_is_set_replaces_every_default() {
        let config = parse(&[
            ("url", "url_credential = 'ops-url'"),
            ("secret_file", "secret_credential = 'ops-key'"),
            (
                "rest",
                "events = ['kill.*']\ngroup_by = ['writer', 'user', 'user']\ngroup_wait = '0s'\n\
                 group_interval = '1s'\nrepeat_interval = '2s'\nsend_resolved = false\ntitle = '{{ count }}'\n\
                 text = 'x'\nredact = ['a+']\nredact_defaults = false\ntimeout = '3s'\nretry_min = '4s'\n\
                 retry_max = '5s'\nca_file = '/ca.pem'\nproxy = 'http://proxy:3128'\n\
                 allow_private = ['10.0.0.1', 'fd00::/8']\n[spool]\nmax_mib = 2\nmax_age = '1h'",
            ),
        ])
        .unwrap();
        let webhook = &config.webhooks[0];
        assert_eq!(
            webhook.target,
            Target {
                address: Address::Secret(SecretPlace::Credential("ops-url".into())),
                ca_file: Some("/ca.pem".into()),
                proxy: Some("http://proxy:3128".parse().unwrap()),
                allow_private: vec!["10.0.0.1/32".parse().unwrap(), "fd00::/8".parse().unwrap()],
                timeout: Duration::from_secs(3),
            }
        );
        assert_eq!(webhook.secret, Some(SecretPlace::Credential("ops-key".into())));
        assert!(webhook.wants("kill.sent") && !webhook.wants("stall.detected"));
        let expected = Grouping {
            by: vec![Label::Writer, Label::User],
            wait: Duration::ZERO,
            interval: Duration::from_secs(1),
            repeat: Duration::from_secs(2),
            send_resolved: false,
        };
        assert_eq!(webhook.grouping, expected);
        assert_eq!(webhook.redaction.text("baab"), "b[redacted]b");
        let retry = Retry {
            min: Duration::from_secs(4),
            max: Duration::from_secs(5),
        };
        assert_eq!(webhook.retry, retry);
        let limits = Limits {
            size: 2 << 20,
            age: Duration::from_hours(1),
        };
        assert_eq!(config.spool, limits);
    }

    /// What is changed in a good webhook, and what is said then.
    type Wrong = &'static [(&'static [(&'static str, &'static str)], &'static str)];

    #[track_caller]
    fn assert_said(table: Wrong) {
        for (changes, expected) in table {
            let error = parse(changes).map(|config| config.summary()).unwrap_err();
            assert_eq!(error, format!("a.toml:{expected}"), "{changes:?}");
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn each_wrong_receiver_is_told_with_what_would_be_right() {
        assert_said(&[
            (
                &[("name", "")],
                "1:1: webhook[0].name: is missing; name the webhook, such as name = \"ops\"",
            ),
            (
                &[("name", "name = 'a b'")],
                "2:8: webhook[0].name: `a b` is no name; use up to 64 letters, digits, `-` and `_`",
            ),
            (
                &[("format", "format = 'slak'")],
                "4:10: webhook[0].format: there is no format `slak`; did you mean `slack`?",
            ),
            (
                &[("format", "")],
                "1:1: webhook[0].format: is missing; name one of `standard`, `alertmanager`, `slack`",
            ),
            (
                &[("url", "url = 'example.com'")],
                "3:7: webhook[0].url: is no URL; write it in full, such as \"https://example.com/hook\"",
            ),
            (
                &[("url", "url = 'ftp://example.com'")],
                "3:7: webhook[0].url: cannot be used: its scheme is `ftp`; use https (or http)",
            ),
            (
                &[("url", "url = 'https://10.0.0.5/'")],
                "3:7: webhook[0].url: cannot be used: 10.0.0.5 is a private address; if that is meant, add \
                 allow_private = [\"10.0.0.5\"]",
            ),
            (
                &[("url", "url = 'https://u:hunter2@example.com/'")],
                "3:7: webhook[0].url: cannot be used: it has a user or a password in it, which nothing here uses; \
                 leave them out",
            ),
            (
                &[("url_file", "url_file = '/x'")],
                "6:12: webhook[0].url_file: stands beside url; keep one of the two",
            ),
            (
                &[("secret_credential", "secret_credential = 'x'")],
                "6:21: webhook[0].secret_credential: stands beside secret_file; keep one of the two",
            ),
            (
                &[("secret_file", "secret_file = 'ops.key'")],
                "5:15: webhook[0].secret_file: `ops.key` is no full path; write \"/etc/pipestall/…\"",
            ),
            (
                &[("format", "format = 'slack'")],
                "5:15: webhook[0].secret_file: signs nothing: the format `slack` has no signature; leave it out",
            ),
        ]);
    }

    #[test]
    fn each_wrong_value_about_what_is_told_is_told_with_what_would_be_right() {
        assert_said(&[
            (
                &[("events", "events = ['stall.*', 'kil.sent']")],
                "6:22: webhook[0].events[1]: `kil.sent` matches no event; did you mean `kill.sent`?",
            ),
            (
                &[("events", "events = ['stall.ended']")],
                "6:11: webhook[0].events[0]: `stall.ended` begins no alert; an alert's end is told by itself \
                 unless send_resolved = false",
            ),
            (
                &[("events", "events = []")],
                "6:10: webhook[0].events: is empty, so nothing is ever told; name events, such as \
                 [\"stall.detected\", \"kill.*\"]",
            ),
            (
                &[("group_by", "group_by = ['units']")],
                "6:13: webhook[0].group_by[0]: there is no label `units`; did you mean `unit`?",
            ),
            (
                &[("group_interval", "group_interval = '0s'")],
                "6:18: webhook[0].group_interval: `0s` is too short; use 100ms or more",
            ),
            (
                &[("title", "title = '{{ cuont }}'")],
                "6:9: webhook[0].title: does not work as a template: undefined value",
            ),
            (
                &[("text", "text = '{{ worst[0].event.stall.pid }}'")],
                "6:8: webhook[0].text: does not work for agent.degraded, which is about no stall: undefined value; \
                 put what is about a stall between {% if worst[0].event.stall %} and {% endif %}",
            ),
            (
                &[("redact", "redact = ['(']")],
                "6:11: webhook[0].redact[0]: `(` is no regular expression: unclosed group; what matches is left \
                 out of command lines, or only its group `(?<secret>…)`",
            ),
            (
                &[("retry", "retry_min = '10m'\nretry_max = '5m'")],
                "7:13: webhook[0].retry_max: is less than retry_min; make it greater",
            ),
            (
                &[("allow_private", "allow_private = ['localhost']")],
                "6:18: webhook[0].allow_private[0]: `localhost` is no address or network; write \"10.0.0.5\" or \
                 \"10.0.0.0/8\"",
            ),
            (
                &[("proxy", "proxy = 'proxy'")],
                "6:9: webhook[0].proxy: is no proxy; write \"http://host:port\"",
            ),
            (
                &[("spool", "[spool]\nmax_mib = 0")],
                "7:11: spool.max_mib: is 0, which would keep nothing; use 1 or more",
            ),
        ]);
    }

    #[test]
    fn two_webhooks_cannot_share_a_name() {
        let text = format!("[[webhook]]\n{}\n", GOOD.map(|(_, line)| line).join("\n")).repeat(2);
        let error = Config::parse(&text, Path::new("a.toml")).unwrap_err().to_string();
        assert_eq!(
            error,
            "a.toml:7:8: webhook[1].name: `ops` is the name of the webhook at a.toml:2:8; give each webhook its own"
        );
    }

    #[test]
    fn what_travels_unencrypted_is_a_warning_unless_it_stays_at_home() {
        let warnings = |changes: &[_]| parse(changes).unwrap().warnings;
        assert_eq!(
            warnings(&[("url", "url = 'http://example.com/'")]),
            [
                "a.toml:3:7: webhook[0].url: is not encrypted, so that anybody on the way can read alerts; use https"
            ]
        );
        let home = [
            ("url", "url = 'http://10.0.0.5/'"),
            ("allow", "allow_private = ['10.0.0.5']"),
        ];
        assert!(warnings(&home).is_empty());
    }

    #[test]
    fn a_summary_shows_nothing_of_a_url_but_its_host() {
        let summary = parse(&[("url", "url = 'https://example.com/SECRET?x=SECRET'")])
            .unwrap()
            .summary();
        assert!(
            summary.contains(
                "webhook ops: standard to https://example.com, of stall.detected, kill.*, agent.degraded, \
                 grouped by rule, unit for 30s"
            ),
            "{summary}"
        );
        assert!(!summary.contains("SECRET"));
    }
}
