//! The metrics, to a real Prometheus, and the alerting rules that are shipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::agent::Agent;
use tests::alerting::signed;
use tests::api;
use tests::command;
use tests::config::Config;
use tests::crowd::Plan;
use tests::prometheus::Prometheus;
use tests::receiver::{Answer, Receiver};
use tests::scratch::Scratch;
use tests::{need, wait};

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The names of metrics in a text.
fn names_in(text: &str) -> Vec<&str> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("pipestall_")
        .map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())]
        })
        .collect()
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    need!(need::bpf());
    let promtool = need!(need::on_path("promtool"));
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(400));
    let down = Receiver::start(|_| Answer::Status(500));
    let lines = signed(&scratch, "events = [\"stall.detected\"]\nsend_resolved = false");
    let crowd = Plan::stuck(2).start();
    let address = api::free_address();
    let config = Config::of(&crowd, &scratch)
        .served(&scratch, &format!("[metrics]\nlisten = {address:?}"))
        .enforcing()
        .stalled_for("1s")
        .alerting("ops", &receiver.url(), &lines)
        .alerting("down", &down.url(), &lines);
    let mut agent = Agent::run(&config, &scratch);
    for pid in crowd.stuck() {
        agent.await_event("kill.confirmed", |event| event.is_of(pid));
    }
    let metrics = wait::until("the webhooks have failed", wait::PATIENCE, || {
        let metrics = api::get_tcp(&address, "/metrics").body;
        let is_known = |line: &str| metrics.lines().any(|found| found == line);
        let failed = is_known("pipestall_alert_spool_entries{webhook=\"ops\",state=\"refused\"} 2.0")
            && is_known("pipestall_alert_webhook_failing{webhook=\"down\"} 1.0");
        failed.then_some(metrics)
    });
    for line in [
        "pipestall_alerts_total{webhook=\"ops\",outcome=\"refused\"} 2.0",
        "pipestall_alert_spool_entries{webhook=\"ops\",state=\"queued\"} 0.0",
        "pipestall_alert_spool_entries{webhook=\"down\",state=\"queued\"} 2.0",
        "pipestall_alert_oldest_seconds{webhook=\"ops\"} 0.0",
        "pipestall_alert_webhook_failing{webhook=\"ops\"} 0.0",
        "pipestall_events_lost_total{consumer=\"alerts\"} 0.0",
        "pipestall_kills_total{rule=\"the-rule\",outcome=\"confirmed\"} 2.0",
        "pipestall_stalls_total 2.0",
        "pipestall_stalled_writers{rule=\"the-rule\",channel=\"pipe\"} 0.0",
        "pipestall_enforcement_paused 0.0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    for name in [
        "oldest_stall_seconds",
        "blocked_seconds_bucket",
        "scan_seconds_bucket",
        "scans_total",
        "events_lost_total",
        "tracked_entries",
        "build_info",
        "last_scan_age_seconds",
    ] {
        assert!(
            metrics.contains(&format!("\npipestall_{name}")),
            "{name}\n{metrics}"
        );
    }
    assert!(
        !metrics.contains("pid="),
        "what a process is called makes no series"
    );
    for asker in ["prometheus/pipestall.rules.yml", "grafana/pipestall.json"] {
        let text = fs::read_to_string(deployed(asker)).expect("what asks for metrics");
        for name in names_in(&text) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            let declared = format!("# TYPE {family} ");
            assert!(metrics.contains(&declared), "{asker} asks for {name}\n{metrics}");
        }
    }
    let file = scratch.write("metrics", &metrics);
    let input = fs::File::open(file).expect("the metrics");
    let done = command::run_with_input(
        Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::from(input)),
        wait::PATIENCE,
    );
    assert!(
        done.status.success() && done.stderr.is_empty(),
        "{}\n{metrics}",
        done.stderr
    );
    agent.stop();
}

#[test]
fn the_alerting_rules_fire_when_they_should_and_not_else() {
    let promtool = need!(need::on_path("promtool"));
    let done = command::run(
        Command::new(promtool)
            .args(["test", "rules"])
            .arg(deployed("prometheus/pipestall.rules.test.yml")),
        wait::PATIENCE,
    );
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
}

#[test]
fn a_real_prometheus_counts_the_stalled_and_fires_an_alert() {
    const STUCK: usize = 5;
    need!(need::bpf());
    let program = need!(Prometheus::find());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(STUCK).start();
    let address = api::free_address();
    let config = Config::of(&crowd, &scratch).served(&scratch, &format!("[metrics]\nlisten = {address:?}"));
    let agent = Agent::run(&config, &scratch);
    // The shipped rules, in a hurry.
    let rules = fs::read_to_string(deployed("prometheus/pipestall.rules.yml")).expect("the rules");
    let hurried = rules
        .replace("for: 1m", "for: 1s")
        .replace("_seconds > 60", "_seconds > 3");
    assert_ne!(rules, hurried);
    let hurried = scratch.write("rules.yml", &hurried);

    let prometheus = Prometheus::start(&program, &address, &[hurried], &scratch);
    let counted = prometheus.await_value("sum(pipestall_stalled_writers)", |value| value > 0.0);
    assert!((counted - 5.0).abs() < 0.1, "{counted}");
    wait::until("the alert", wait::PATIENCE, || {
        prometheus
            .firing()
            .contains(&"PipestallStalledWriters".to_owned())
            .then_some(())
    });
    drop(crowd);
    prometheus.await_value("sum(pipestall_stalled_writers)", |value| value < 0.1);
    agent.stop();
}
