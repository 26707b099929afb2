use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    alert::{
        occurrence::{Severity, tests::event},
        spool::Spool,
    },
    config::Config,
};

fn at(seconds: u64) -> Timestamp {
    later(
        "2026-11-23T08:00:00Z".parse().unwrap(),
        Duration::from_secs(seconds),
    )
}

/// Webhooks as a configuration has them; `{}` of them says more.
fn webhooks(more: &[&str]) -> Vec<Webhook> {
    let tables: Vec<_> = (0..)
        .zip(more)
        .map(|(i, more)| {
            let grouping = if more.contains("group_by") {
                ""
            } else {
                "group_by = ['writer']\ngroup_wait = '0s'\n"
            };
            format!(
                "[[webhook]]\nname = 'hook{i}'\nformat = 'slack'\nurl = 'https://example.com'\n\
                 group_interval = '1s'\n{grouping}{more}\n"
            )
        })
        .collect();
    Config::parse(&tables.concat(), Path::new("a.toml"))
        .unwrap()
        .webhooks
}

fn desk(more: &[&str]) -> Desk {
    Desk::new(webhooks(more), Limits::default(), Left::default(), 0, at(0))
}

fn take(desk: &mut Desk, seq: u64, kind: &str, time: u64) -> Taken {
    let stall = format!("{seq}-abc-{seq}");
    let line = event(seq, kind, &stall, &Value::Null).event.to_string();
    desk.take(seq, &line, at(time))
}

fn start_all(desk: &mut Desk, time: u64) -> Vec<Entry> {
    std::iter::from_fn(|| desk.start(at(time))).collect()
}

#[test]
fn events_are_taken_in_once_and_in_their_order() {
    let mut desk = desk(&[""]);
    assert_eq!(take(&mut desk, 1, "stall.detected", 0), Taken::Yes);
    assert_eq!(take(&mut desk, 1, "stall.detected", 0), Taken::Known);
    assert_eq!(take(&mut desk, 3, "stall.detected", 0), Taken::Gap);
    assert_eq!(take(&mut desk, 2, "stall.detected", 0), Taken::Yes);
    assert_eq!(desk.take(3, "{\"seq\":3}", at(0)), Taken::Unreadable);
    assert_eq!(desk.cursor(), 3);
    desk.tick(at(0));
    assert_eq!(desk.messages().len(), 2);
}

#[test]
fn each_webhook_gets_what_it_asks_for_without_secrets() {
    let mut desk = desk(&["events = ['kill.*']", "redact_defaults = false", ""]);
    take(&mut desk, 1, "stall.detected", 0);
    desk.tick(at(0));
    let messages = start_all(&mut desk, 0);
    let of: Vec<_> = messages.iter().map(|entry| entry.webhook.as_str()).collect();
    assert_eq!(of, ["hook1", "hook2"]);
    let image = format!("{:?}", desk.posts["hook2"].groups);
    assert!(!image.contains("hunter2"), "{image}");
    assert!(format!("{:?}", desk.posts["hook1"].groups).contains("hunter2"));
}

#[test]
fn a_receiver_that_fails_holds_up_no_other() {
    let mut desk = desk(&["", ""]);
    take(&mut desk, 1, "stall.detected", 0);
    desk.tick(at(0));
    for entry in start_all(&mut desk, 0) {
        let outcome = match entry.webhook.as_str() {
            "hook0" => Outcome::failed("x".into()),
            _ => Outcome::Delivered,
        };
        desk.finish(&entry.webhook, entry.number, outcome, at(0));
    }
    let status = desk.status(at(9));
    let of = |name: &str| status.webhooks.iter().find(|one| one.name == name).unwrap();
    assert_eq!((of("hook0").queued, of("hook0").failed_total), (1, 1));
    assert_eq!(of("hook0").oldest_seconds, Some(9.0));
    assert_eq!(of("hook0").last_error.as_deref(), Some("x"));
    assert_eq!((of("hook1").queued, of("hook1").delivered_total), (0, 1));
}

#[test]
fn what_does_not_fit_costs_the_oldest_of_the_least_bad() {
    let mut desk = desk(&["retry_min = '1h'\nretry_max = '2h'"]);
    take(&mut desk, 1, "kill.failed", 0);
    for seq in 2..=60 {
        take(&mut desk, seq, "stall.detected", seq);
    }
    desk.tick(at(60));
    let size = desk.status(at(60)).spool_bytes;
    desk.limits.size = size / 2;
    desk.tick(at(60));
    let left = desk.messages();
    assert!(desk.status(at(60)).spool_bytes <= size / 2);
    let (critical, warnings): (Vec<_>, Vec<_>) = left
        .iter()
        .partition(|message| message.severity == Severity::Critical);
    assert_eq!(critical.len(), 1);
    let numbers: Vec<_> = warnings.iter().map(|message| message.number).collect();
    assert_eq!(numbers, (60 - numbers.len() as u64..60).collect::<Vec<_>>());
    let dropped = desk.status(at(60)).webhooks[0].dropped_total;
    assert_eq!(dropped, 60 - left.len() as u64);
    assert_eq!(desk.complaints().len(), 1);
    desk.limits.size = size / 3;
    desk.tick(at(60));
    assert!(desk.complaints().is_empty(), "it is said once");
}

#[test]
fn what_is_too_old_is_dropped_and_said() {
    let mut desk = desk(&[""]);
    take(&mut desk, 1, "stall.detected", 0);
    desk.tick(at(0));
    desk.limits.age = Duration::from_mins(5);
    desk.tick(at(299));
    assert_eq!(desk.messages().len(), 1);
    desk.tick(at(301));
    assert_eq!(desk.messages().len(), 0);
    assert!(desk.complaints()[0].contains("max_age"));
}

#[test]
fn a_refusal_is_said_once_until_something_is_taken() {
    let mut desk = desk(&[""]);
    let send = |desk: &mut Desk, seq, outcome: Outcome| {
        take(desk, seq, "stall.detected", seq);
        desk.tick(at(seq));
        for entry in start_all(desk, seq) {
            desk.finish(&entry.webhook, entry.number, outcome.clone(), at(seq));
        }
        desk.complaints().len()
    };
    assert_eq!(send(&mut desk, 1, Outcome::Refused("400".into())), 1);
    assert_eq!(send(&mut desk, 2, Outcome::Refused("400".into())), 0);
    assert_eq!(send(&mut desk, 3, Outcome::Delivered), 0);
    assert_eq!(send(&mut desk, 4, Outcome::Refused("400".into())), 1);
    assert_eq!(desk.messages().len(), 3);
}

#[test]
fn one_that_is_gone_is_tried_again_when_the_configuration_is_loaded_anew() {
    let mut desk = desk(&[""]);
    take(&mut desk, 1, "stall.detected", 0);
    desk.tick(at(0));
    let entry = start_all(&mut desk, 0).remove(0);
    desk.finish("hook0", entry.number, Outcome::Gone("410".into()), at(0));
    assert!(start_all(&mut desk, 100_000).is_empty());
    desk.configure(webhooks(&[""]), Limits::default());
    assert_eq!(start_all(&mut desk, 100_000).len(), 1);
}

#[test]
fn messages_to_a_webhook_that_is_configured_no_more_are_kept_and_not_sent() {
    let mut desk = desk(&["", ""]);
    take(&mut desk, 1, "stall.detected", 0);
    desk.tick(at(0));
    desk.configure(webhooks(&[""]), Limits::default());
    let sent: Vec<_> = start_all(&mut desk, 0)
        .into_iter()
        .map(|entry| entry.webhook)
        .collect();
    assert_eq!(sent, ["hook0"]);
    assert_eq!(desk.messages().len(), 2);
    assert!(
        desk.changes()
            .iter()
            .any(|change| matches!(change, Change::Incident(name, _, None) if name == "hook1"))
    );
}

#[test]
fn a_journal_that_lost_its_end_is_followed_from_where_it_is() {
    let left = Left {
        cursor: Some(100),
        ..Left::default()
    };
    let desk = Desk::new(webhooks(&[""]), Limits::default(), left, 90, at(0));
    assert_eq!(desk.cursor(), 90);
    let first = Desk::new(webhooks(&[""]), Limits::default(), Left::default(), 90, at(0));
    assert_eq!(first.cursor(), 90, "what was before the first start is history");
}

/// Ends a run at every point of a long story, goes on from the spool, and compares what is sent with
/// a run that is never ended.
#[test]
fn a_run_that_is_ended_anywhere_goes_on_where_it_was() {
    let whole = story(None);
    assert!(whole.len() > 30, "{}", whole.len());
    for end in (1..40).step_by(4) {
        let resumed = story(Some(end));
        let differs = |one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>| {
            let only = one
                .iter()
                .filter(|(message, count)| other.get(*message) != Some(count));
            only.map(|(message, count)| format!("{count} {message}\n"))
                .collect::<Vec<_>>()
                .concat()
        };
        let (more, less) = (differs(&resumed, &whole), differs(&whole, &resumed));
        assert!(resumed == whole, "ended at {end}\nnow:\n{more}before:\n{less}");
    }
}

/// The messages that are delivered, with their bodies but without the times of day in them.
fn story(end: Option<u64>) -> BTreeMap<String, usize> {
    let more = [
        "events = ['stall.*', 'kill.*', 'agent.*']",
        "group_by = ['rule']\ngroup_wait = '7s'",
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path()).unwrap();
    let mut desk = desk(&more);
    let mut delivered = BTreeMap::new();
    for step in 1..=120_u64 {
        let writer = step % 5;
        let stall = format!("{writer}-abc-{step}");
        let (kind, details) = match step % 7 {
            0 | 1 => ("stall.detected", json!({})),
            2 => ("kill.planned", json!({})),
            3 => ("kill.failed", json!({})),
            4 => ("kill.confirmed", json!({ "rule": "other" })),
            5 => ("stall.ended", json!({ "reason": "drained" })),
            _ => ("agent.degraded", json!({})),
        };
        if step <= 40 {
            let line = event(step, kind, &stall, &details).event.to_string();
            assert_eq!(desk.take(step, &line, at(step)), Taken::Yes);
        }
        desk.tick(at(step));
        spool.commit(&desk.changes()).unwrap();
        if end == Some(step) {
            // What is on its way is lost with the process; what came back was not kept yet.
            drop(start_all(&mut desk, step));
            drop(spool);
            spool = Spool::open(dir.path()).unwrap();
            desk = Desk::new(
                webhooks(&more),
                Limits::default(),
                spool.load().unwrap(),
                40,
                at(step),
            );
        }
        for entry in start_all(&mut desk, step) {
            if entry.number % 3 == 0 && entry.attempts == 0 {
                desk.finish(
                    &entry.webhook,
                    entry.number,
                    Outcome::failed("x".into()),
                    at(step),
                );
            } else {
                *delivered
                    .entry(format!(
                        "{} {}",
                        entry.message,
                        String::from_utf8_lossy(&entry.body)
                    ))
                    .or_default() += 1;
                desk.finish(&entry.webhook, entry.number, Outcome::Delivered, at(step));
            }
        }
        spool.commit(&desk.changes()).unwrap();
    }
    delivered
}
