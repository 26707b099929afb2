use std::{path::Path, time::Duration};

use super::{DEFAULT_EVENTS, target::DEFAULT_TIMEOUT, timings::DEFAULT_RETRY};
use crate::{
    alert::{
        group::{Grouping, Label},
        webhook::{Address, EventPattern, Limits, Place, Retry, Target},
    },
    config::Config,
};

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
    assert_eq!(webhook.secret, Some(Place::File("/etc/pipestall/ops.key".into())));
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
            address: Address::Secret(Place::Credential("ops-url".into())),
            ca_file: Some("/ca.pem".into()),
            proxy: Some("http://proxy:3128".parse().unwrap()),
            allow_private: vec!["10.0.0.1/32".parse().unwrap(), "fd00::/8".parse().unwrap()],
            timeout: Duration::from_secs(3),
        }
    );
    assert_eq!(webhook.secret, Some(Place::Credential("ops-key".into())));
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
