//! The agent's API: what it tells, whom it obeys, and what nobody can do to it.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::agent;
use tests::crowd::Plan;
use tests::order::Exit;
use tests::served::Served;
use tests::{need, wait};

const SIGTERM: i32 = 15;

/// The stalls of a list, by pid.
fn pids(stalls: &Value) -> Vec<u64> {
    let stalls = stalls["stalls"].as_array().expect("a list");
    let mut pids: Vec<_> = stalls
        .iter()
        .map(|one| one["stall"]["pid"].as_u64().expect("a pid"))
        .collect();
    pids.sort_unstable();
    pids
}

#[test]
fn the_api_tells_what_is_stalled_and_what_becomes_of_it() {
    need!(need::bpf());
    let crowd = Plan::stuck(3).start();
    let mut served = Served::over(&crowd, |config| config.stalled_for("1h"));
    served.agent.await_event("stall.detected", |_| true);

    let stalls = wait::until("three stalls", wait::PATIENCE, || {
        let stalls = served.api.json("/v1/stalls?min=500ms");
        (stalls["total"] == 3).then_some(stalls)
    });
    let mut stuck: Vec<u64> = crowd.stuck().into_iter().map(u64::from).collect();
    stuck.sort_unstable();
    assert_eq!(pids(&stalls), stuck);
    let first = &stalls["stalls"][0];
    assert_eq!(first["rule"], "the-rule");
    assert_eq!(first["fate"]["state"], "due");
    assert_eq!(first["fate"]["mode"], "dry-run");
    let due = first["fate"]["in_seconds"].as_f64().expect("a time");
    assert!((3500.0..3600.0).contains(&due), "{due}");
    assert_eq!(
        served.api.json("/v1/stalls?limit=1&min=0s")["stalls"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let id = first["stall"]["id"].as_str().expect("an id");
    assert_eq!(
        served.api.json(&format!("/v1/stalls/{id}"))["stall"]["pid"],
        first["stall"]["pid"]
    );

    let why = served.api.json(&format!("/v1/stalls/{id}/explain"));
    assert_eq!(why["stall"]["id"], id);
    assert_eq!(why["rules"][0]["matches"], true);
    let conditions = why["rules"][0]["conditions"].as_array().expect("a list");
    let told: Vec<_> = conditions
        .iter()
        .map(|one| (one["key"].as_str(), one["found"].as_str(), one["holds"].as_str()))
        .collect();
    let parent = ("parent", crowd.name());
    for (key, found) in [("comm", crowd.writer_name()), parent] {
        assert!(told.contains(&(Some(key), Some(found), Some("yes"))), "{told:?}");
    }
    assert_eq!(why["decision"]["reason"], "dry-run");
    let explained = why["decision"]["due_in_seconds"].as_f64().expect("a time");
    assert!((due - 60.0..=due).contains(&explained), "{explained}, {due}");
    served.api.get("/v1/stalls/1-2-s3/explain").json(404);

    let status = wait::until("the status", wait::PATIENCE, || {
        let status = served.api.json("/v1/status");
        (status["stalled"] == 3).then_some(status)
    });
    assert_eq!(status["mode"], "dry-run");
    assert_eq!(status["paused"], Value::Null);
    assert_eq!(status["pid"], served.agent.pid());
    assert_eq!(status["tracer"], "sched");
    let rules = served.api.json("/v1/rules");
    assert_eq!(rules["rules"][0]["name"], "the-rule");
    assert_eq!(rules["rules"][0]["matching"], 3);
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = served.api.get(path);
        assert_eq!((answer.status, &*answer.body), (200, body));
    }
    let socket = served.socket();
    served.agent.stop();
    assert!(!socket.exists(), "the socket goes with the agent");
}

#[test]
fn what_is_asked_wrongly_is_told_what_would_be_right() {
    need!(need::bpf());
    let served = Served::idle("");
    for (answer, status, word) in [
        (served.api.get("/nothing"), 404, "/v1/openapi.json"),
        (served.api.get("/v1/stalls/no-such-stall"), 404, "no such stall"),
        (served.api.get("/v1/stalls?min=soon"), 400, "500ms"),
        (served.api.get("/v1/stalls?mni=1s"), 400, "mni"),
        (served.api.get("/v1/events?after=x"), 400, "after"),
        (served.api.post("/v1/status", ""), 405, "another method"),
        (
            served.api.post("/v1/stalls/no-such-stall/kill", ""),
            404,
            "no such stall",
        ),
        (
            served.api.post("/v1/stalls/x/kill", "{\"grce\":\"5s\"}"),
            400,
            "grce",
        ),
        (
            served.api.post("/v1/stalls/x/kill", "{\"grace\":\"soon\"}"),
            400,
            "5s",
        ),
        (served.api.post("/v1/stalls/x/kill", &"x".repeat(5000)), 413, ""),
    ] {
        let error = answer.json(status)["error"]
            .as_str()
            .expect("an error")
            .to_owned();
        assert!(error.contains(word), "{word}: {error}");
    }
    served.agent.stop();
}

#[test]
fn a_kill_that_is_asked_for_goes_by_the_protocol_and_says_who_asked() {
    need!(need::bpf());
    let mut crowd = Plan::stuck(2).start();
    let stuck = crowd.stuck();
    // The rule would act in an hour, and is in dry-run.
    let mut served = Served::over(&crowd, |config| config.stalled_for("1h"));
    let detected = served
        .agent
        .await_event("stall.detected", |event| event.is_of(stuck[0]));
    let id = detected.stall.as_ref().expect("a stall").id.clone();

    let early = served.api.post(&format!("/v1/stalls/{id}/kill"), "").json(409);
    let error = early["error"].as_str().expect("an error");
    assert!(error.contains("watched for"), "{error}");

    let begun = wait::until("a kill that is let begin", wait::PATIENCE, || {
        let answer = served
            .api
            .post(&format!("/v1/stalls/{id}/kill"), "{\"grace\":\"3s\"}");
        (![409, 429].contains(&answer.status)).then(|| answer.json(202))
    });
    assert_eq!(begun["stall"], *id);
    served
        .agent
        .await_event("kill.confirmed", |event| event.is_of(stuck[0]));
    assert_eq!(crowd.await_exit(stuck[0]), Exit::Signal(SIGTERM));
    assert_eq!(crowd.exit(stuck[1]), None, "nobody asked for the other");

    let events = served.agent.stop();
    let kinds: Vec<_> = events
        .iter()
        .filter(|seen| seen.is_of(stuck[0]) && seen.kind.starts_with("kill."))
        .map(|seen| seen.kind.as_str())
        .collect();
    assert_eq!(kinds, ["kill.planned", "kill.sent", "kill.confirmed"]);
    let journal = fs::read_to_string(served.config.journal()).expect("the journal");
    let planned = journal
        .lines()
        .find(|line| line.contains("kill.planned"))
        .expect("a plan");
    let planned: Value = serde_json::from_str(planned).expect("an event");
    assert_eq!(planned["rule"], "manual");
    assert_eq!(planned["detail"], "asked for by root over the API");
}

#[test]
fn who_is_protected_cannot_be_killed_by_asking_either() {
    need!(need::bpf());
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let mut served = Served::over(&crowd, |config| {
        config.protecting(&format!("comm = [{:?}]", crowd.writer_name()))
    });
    let detected = served
        .agent
        .await_event("stall.detected", |event| event.is_of(writer));
    let id = detected.stall.as_ref().expect("a stall").id.clone();
    let refused = served.api.post(&format!("/v1/stalls/{id}/kill"), "").json(403);
    let error = refused["error"].as_str().expect("an error");
    assert!(error.contains("protected: comm"), "{error}");
    assert_eq!(crowd.exit(writer), None);
    served.agent.stop();
}

#[test]
fn events_are_streamed_from_where_a_client_left_off() {
    need!(need::bpf());
    let crowd = Plan::stuck(5).start();
    let mut served = Served::over(&crowd, |config| config.stalled_for("2s"));
    let mut live = served.api.events("");
    for pid in crowd.stuck() {
        served.agent.await_event("kill.skipped", |event| event.is_of(pid));
    }
    let mut seqs = Vec::new();
    while let Some(message) = live.next(Duration::from_millis(500)) {
        let event: Value = serde_json::from_str(&message.data).expect("an event");
        assert_eq!(message.id, event["seq"].to_string());
        assert_eq!(event["type"], *message.event);
        seqs.push(event["seq"].as_u64().expect("a number"));
    }
    let last = *seqs.last().expect("events");
    assert!(seqs.len() >= 10 && seqs.is_sorted(), "{seqs:?}");

    // From the journal, and then on.
    let mut again = served.api.events("?after=1");
    let replayed: Vec<u64> = std::iter::from_fn(|| again.next(Duration::from_millis(500)))
        .map(|message| message.id.parse().expect("a number"))
        .collect();
    assert_eq!(replayed, (2..=last).collect::<Vec<_>>());
    drop(crowd);
    let ended = again.next(wait::PATIENCE).expect("what happens next");
    assert_eq!(ended.id, (last + 1).to_string());
    served.agent.await_event("stall.ended", |_| true);
    let events = served.agent.stop();
    assert_eq!(agent::journal(&served.config.journal()).len(), events.len());
}
