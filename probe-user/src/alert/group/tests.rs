use serde_json::{Value, json};

use super::*;
use crate::alert::{notification::Status, occurrence::tests::event};

fn at(seconds: u64) -> Timestamp {
    later(
        "2026-11-23T08:00:00Z".parse().unwrap(),
        Duration::from_secs(seconds),
    )
}

fn grouping() -> Grouping {
    Grouping {
        by: vec![Label::Rule, Label::Unit],
        wait: Duration::from_secs(30),
        interval: Duration::from_mins(5),
        repeat: Duration::from_hours(4),
        send_resolved: true,
    }
}

fn groups() -> Groups {
    Groups::new("ops".into(), grouping())
}

fn stall(number: u64) -> String {
    format!("{number}-abc-{number}")
}

/// Flushes whenever due up to a moment, and tells all that was said.
fn run_to(groups: &mut Groups, end: Timestamp) -> Vec<Notification> {
    let mut told = Vec::new();
    for _ in 0..1000 {
        match groups.due() {
            Some(due) if due <= end => told.extend(groups.flush(due, |_| false)),
            _ => return told,
        }
    }
    panic!("it is always due: {groups:?}");
}

fn detect(groups: &mut Groups, number: u64, time: u64) {
    groups.handle(
        &event(number, "stall.detected", &stall(number), &Value::Null),
        true,
        at(time),
    );
}

fn said(groups: &mut Groups, kind: &str, number: u64, more: &Value, time: u64) {
    groups.handle(&event(1000 + number, kind, &stall(number), more), true, at(time));
}

#[test]
fn an_incident_of_534_is_one_alert_with_a_count_and_the_worst_ten() {
    let mut groups = groups();
    for number in 1..=534 {
        let since = later(at(0), Duration::from_secs(number)).to_string();
        let more = json!({ "stall": { "since": since } });
        groups.handle(
            &event(number, "stall.detected", &stall(number), &more),
            true,
            at(600),
        );
    }

    let told = run_to(&mut groups, at(700));

    assert_eq!(told.len(), 1);
    let one = &told[0];
    assert_eq!((one.count, one.firing, one.status), (534, 534, Status::Firing));
    assert_eq!(one.subjects.len(), 534);
    assert_eq!(one.since, at(1));
    assert_eq!(
        (one.rule.as_str(), one.unit.as_str()),
        ("orphans", "peertube.service")
    );
    let pids: Vec<_> = one
        .worst
        .iter()
        .map(|w| w.event["stall"]["pid"].as_u64().unwrap())
        .collect();
    assert_eq!(pids, (1..=10).collect::<Vec<_>>());
    assert_eq!(one.states, [("stalled".to_owned(), 534)].into());
}

#[test]
fn an_incident_whose_writers_are_ended_one_after_the_other_is_told_three_times() {
    let mut groups = groups();
    for number in 1..=534 {
        detect(&mut groups, number, 0);
    }
    let mut told = Vec::new();
    for number in 1..=534 {
        told.extend(run_to(&mut groups, at(number)));
        said(&mut groups, "kill.planned", number, &Value::Null, number);
        said(&mut groups, "kill.sent", number, &Value::Null, number);
        said(&mut groups, "kill.confirmed", number, &Value::Null, number);
        said(
            &mut groups,
            "stall.ended",
            number,
            &json!({ "reason": "exited" }),
            number,
        );
    }
    told.extend(run_to(&mut groups, at(100_000)));

    let counts: Vec<_> = told
        .iter()
        .map(|one| (one.status, one.count, one.firing))
        .collect();
    assert_eq!(
        counts,
        [
            (Status::Firing, 534, 505),
            (Status::Firing, 534, 205),
            (Status::Resolved, 534, 0)
        ]
    );
    assert_eq!(told[2].states, [("killed".to_owned(), 534)].into());
    assert!(groups.incidents().is_empty() && groups.due().is_none());
    assert!(groups.places.is_empty());
}

#[test]
fn it_waits_for_others_then_for_the_interval_and_repeats_what_lasts() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    assert_eq!(groups.due(), Some(at(30)));
    detect(&mut groups, 2, 10);
    assert_eq!(groups.due(), Some(at(30)));
    assert_eq!(groups.flush(at(30), |_| false)[0].firing, 2);
    assert_eq!(groups.due(), Some(at(30 + 4 * 3600)));
    detect(&mut groups, 3, 40);
    assert_eq!(groups.due(), Some(at(330)));
    assert!(groups.flush(at(329), |_| false).is_empty());
    assert_eq!(groups.flush(at(330), |_| false)[0].firing, 3);
    let repeated = groups.flush(at(330 + 4 * 3600), |_| false);
    assert_eq!(repeated[0].firing, 3);
    assert_eq!(groups.due(), Some(at(330 + 8 * 3600)));
}

#[test]
fn all_that_is_told_has_a_name_of_its_own_and_an_incident_keeps_its() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    let first = run_to(&mut groups, at(30)).remove(0);
    said(&mut groups, "stall.ended", 1, &json!({ "reason": "drained" }), 40);
    let last = run_to(&mut groups, at(1000)).remove(0);
    assert_eq!(first.incident, last.incident);
    assert_ne!(first.id, last.id);
    assert!(!first.id.contains('.'), "{}", first.id);
    assert_eq!(
        (last.status, last.states),
        (Status::Resolved, [("recovered".to_owned(), 1)].into())
    );
}

#[test]
fn what_is_over_before_it_is_told_is_told_once_as_over() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    said(&mut groups, "kill.confirmed", 1, &Value::Null, 5);
    said(&mut groups, "stall.ended", 1, &json!({ "reason": "exited" }), 6);
    let told = run_to(&mut groups, at(100_000));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].status, told[0].count), (Status::Resolved, 1));
    assert_eq!(told[0].states, [("killed".to_owned(), 1)].into());
}

#[test]
fn only_wanted_events_begin_an_incident_and_every_event_is_of_use_to_it() {
    let mut groups = groups();
    let ignored = |groups: &mut Groups, kind: &str, reason: &str| {
        groups.handle(
            &event(9, kind, &stall(1), &json!({ "reason": reason })),
            false,
            at(0),
        );
    };
    ignored(&mut groups, "stall.detected", "");
    ignored(&mut groups, "stall.ended", "left");
    assert_eq!(groups.due(), None);
    said(&mut groups, "kill.planned", 1, &Value::Null, 0);
    ignored(&mut groups, "stall.ended", "left");
    let told = run_to(&mut groups, at(30));
    assert_eq!(told[0].status, Status::Resolved);
    assert_eq!(told[0].states, [("recovered".to_owned(), 1)].into());
}

#[test]
fn without_send_resolved_an_end_is_not_told_but_what_was_never_told_is() {
    let mut groups = Groups::new(
        "ops".into(),
        Grouping {
            send_resolved: false,
            ..grouping()
        },
    );
    detect(&mut groups, 1, 0);
    assert_eq!(run_to(&mut groups, at(30)).len(), 1);
    said(&mut groups, "stall.ended", 1, &json!({ "reason": "left" }), 40);
    assert!(run_to(&mut groups, at(100_000)).is_empty());
    assert!(groups.incidents().is_empty());
    said(&mut groups, "kill.confirmed", 2, &Value::Null, 100_000);
    assert_eq!(run_to(&mut groups, at(200_000)).len(), 1);
}

#[test]
fn a_failed_kill_is_an_incident_of_its_own_that_ends_with_the_stall() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    detect(&mut groups, 2, 0);
    said(&mut groups, "kill.failed", 1, &Value::Null, 1);
    let told = run_to(&mut groups, at(40));
    let of = |alert: &str| told.iter().find(|one| one.alert == alert).unwrap();
    assert_eq!(of("PipestallKillFailed").count, 1);
    assert_eq!(of("PipestallStalledWriters").count, 2);
    assert_eq!(of("PipestallStalledWriters").states["kill failed"], 1);
    said(&mut groups, "stall.ended", 1, &json!({ "reason": "exited" }), 50);
    let told = run_to(&mut groups, at(400));
    assert_eq!(told.len(), 2);
    assert_eq!(
        told.iter().filter(|one| one.status == Status::Resolved).count(),
        1
    );
}

#[test]
fn a_writer_that_another_rule_takes_over_leaves_the_first_ones_incident() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    assert_eq!(run_to(&mut groups, at(30)).len(), 1);
    said(&mut groups, "kill.planned", 1, &json!({ "rule": "other" }), 60);
    let told = run_to(&mut groups, at(400));
    let status: BTreeMap<_, _> = told.iter().map(|one| (one.rule.as_str(), one.status)).collect();
    assert_eq!(
        status,
        [("orphans", Status::Resolved), ("other", Status::Firing)].into()
    );
}

#[test]
fn a_writer_that_stalls_again_counts_again() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    run_to(&mut groups, at(30));
    said(&mut groups, "stall.ended", 1, &json!({ "reason": "drained" }), 40);
    groups.handle(
        &event(50, "stall.detected", "1-abc-99", &Value::Null),
        true,
        at(50),
    );
    let told = run_to(&mut groups, at(400));
    assert_eq!(
        (told[0].status, told[0].count, told[0].firing),
        (Status::Firing, 2, 1)
    );
}

#[test]
fn after_a_restart_what_is_not_seen_again_is_over_and_what_is_seen_goes_on() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    detect(&mut groups, 2, 0);
    run_to(&mut groups, at(30));
    let mut again = Groups::new("ops".into(), grouping());
    again.restore(groups.incidents().clone(), at(100));
    again.handle(&event(80, "agent.started", "", &Value::Null), false, at(100));
    // The new agent counts its stalls from one.
    again.handle(
        &event(81, "stall.detected", "2-abc-1", &Value::Null),
        false,
        at(102),
    );

    let told = run_to(&mut again, at(10_000));

    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].status, told[0].count, told[0].firing),
        (Status::Firing, 2, 1)
    );
    assert_eq!(told[0].states["gone when the agent was started"], 1);
    assert_eq!(told[0].incident, groups.incidents().values().next().unwrap().id);
}

#[test]
fn a_clock_that_was_set_back_does_not_hold_up_an_incident() {
    let mut groups = groups();
    detect(&mut groups, 1, 100_000);
    let mut again = Groups::new("ops".into(), grouping());
    again.restore(groups.incidents().clone(), at(0));
    assert_eq!(again.due(), Some(at(30)));
}

#[test]
fn what_the_agent_says_of_itself_is_told_once_and_never_over() {
    let mut groups = groups();
    for seq in 1..=2 {
        groups.handle(
            &event(seq, "agent.degraded", "", &json!({ "detail": "why" })),
            true,
            at(seq),
        );
    }
    let told = run_to(&mut groups, at(100_000));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].status, told[0].count), (Status::Firing, 2));
    assert_eq!(told[0].worst[0].event["detail"], "why");
    assert!(groups.incidents().is_empty());
}

#[test]
fn what_is_still_queued_is_not_repeated() {
    let mut groups = groups();
    detect(&mut groups, 1, 0);
    assert_eq!(groups.flush(at(30), |_| true).len(), 1);
    let due = groups.due().unwrap();
    assert!(groups.flush(due, |_| true).is_empty());
    let due = groups.due().unwrap();
    assert_eq!(groups.flush(due, |_| false).len(), 1);
}

#[test]
fn all_that_changes_is_named_so_that_it_can_be_kept() {
    let mut groups = groups();
    // What is kept, as somebody would who only sees what is named.
    let mut kept: BTreeMap<Key, Incident> = BTreeMap::new();
    let keep = |kept: &mut BTreeMap<Key, Incident>, groups: &mut Groups| {
        let touched = groups.touched();
        for touched in &touched {
            if let Touched::Incident(key) = touched {
                match groups.incidents().get(key) {
                    Some(incident) => {
                        let members = kept.remove(key).map(|old| old.members).unwrap_or_default();
                        let text = serde_json::to_string(incident).unwrap();
                        let mut copy: Incident = serde_json::from_str(&text).unwrap();
                        copy.members = members;
                        kept.insert(key.clone(), copy);
                    }
                    None => drop(kept.remove(key)),
                }
            }
        }
        for touched in &touched {
            if let Touched::Member(key, subject) = touched
                && let Some(copy) = kept.get_mut(key)
            {
                match groups.incidents()[key].members.get(subject) {
                    Some(member) => drop(copy.members.insert(subject.clone(), member.clone())),
                    None => drop(copy.members.remove(subject)),
                }
            }
        }
        let mut restored = Groups::new("ops".into(), grouping());
        restored.restore(kept.clone(), at(1_000_000));
        assert_eq!(restored.incidents(), groups.incidents());
        assert_eq!(restored.places, groups.places);
    };
    for step in 0..40_u64 {
        let writer = step % 7;
        match step % 6 {
            0 | 1 => detect(&mut groups, writer, step * 20),
            2 => said(
                &mut groups,
                "kill.skipped",
                writer,
                &json!({ "reason": "dry-run" }),
                step * 20,
            ),
            3 => said(&mut groups, "kill.failed", writer, &Value::Null, step * 20),
            4 => said(
                &mut groups,
                "stall.ended",
                writer,
                &json!({ "reason": "left" }),
                step * 20,
            ),
            _ => groups.handle(
                &event(step, "agent.started", "", &Value::Null),
                true,
                at(step * 20),
            ),
        }
        keep(&mut kept, &mut groups);
        run_to(&mut groups, at(step * 20));
        keep(&mut kept, &mut groups);
    }
}
