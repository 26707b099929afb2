//! Who is left alone: whoever moves again, is protected, or is matched by a rule that only tells.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::agent::{Agent, Seen, of, pids};
use tests::config::Config;
use tests::crowd::{Crowd, Plan};
use tests::order::Order;
use tests::scratch::Scratch;
use tests::{need, proc, wait};

#[test]
fn a_rule_that_says_alert_signals_nobody() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .action("alert")
        .stalled_for("1s");

    let events = run_past(&crowd, &config, &scratch, Duration::from_secs(1));

    assert!(of(&events, crowd.writer()).any(|seen| seen.kind == "stall.detected"));
    assert_untouched(&mut crowd, &events);
}

#[test]
fn a_writer_that_moves_again_after_sigterm_is_let_go() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).writing(&["--catch-term"]).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .grace("2s");

    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("kill.sent", |event| event.is_of(writer));
    crowd.order(Order::Drain { pid: writer });
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    // Past the grace, when SIGKILL would have been due.
    wait::till(skipped.at + Duration::from_millis(2500));
    let events = agent.stop();

    assert_eq!(skipped.reason.as_deref(), Some("progressed"));
    let signals = of(&events, writer).filter_map(|seen| seen.signal.as_deref());
    assert_eq!(signals.collect::<Vec<_>>(), ["SIGTERM"]);
    assert_eq!(crowd.exit(writer), None);
}

#[test]
fn a_rule_that_says_no_mode_only_tells_what_it_would_do() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let plan = Plan::stuck(3);
    let config = Config::of_plan(&plan, &scratch).stalled_for("1s");
    let mut agent = Agent::run(&config, &scratch);

    let mut crowd = plan.start();
    for pid in crowd.stuck() {
        agent.await_event("kill.skipped", |event| event.is_of(pid));
    }
    // As long again, and more: it is said once.
    wait::till(crowd.ready() + Duration::from_millis(2500));
    let events = agent.stop();

    for pid in crowd.stuck() {
        let skipped: Vec<_> = of(&events, pid)
            .filter(|seen| seen.kind == "kill.skipped")
            .collect();
        let [skipped] = &skipped[..] else {
            panic!("once per stall: {skipped:#?}")
        };
        assert_eq!(skipped.reason.as_deref(), Some("dry-run"));
        assert_eq!(skipped.rule.as_deref(), Some("the-rule"));
        assert!(
            (1.0..1.0 + wait::late(0.3)).contains(&skipped.age()),
            "at its crossing: {}",
            skipped.age()
        );
    }
    assert_untouched(&mut crowd, &events);
}

#[test]
fn protected_comms_are_never_signalled() {
    need!(need::bpf());
    protects(|crowd| format!("comm = [{:?}]", crowd.writer_name()));
}

#[test]
fn comms_protected_by_prefix_are_never_signalled() {
    need!(need::bpf());
    protects(|crowd| format!("comm = [\"sshd\", \"{}*\"]", &crowd.writer_name()[..6]));
}

#[test]
fn protected_users_are_never_signalled() {
    need!(need::bpf());
    protects(|_| "users = [\"root\"]".to_owned());
}

#[track_caller]
fn protects(lines: impl Fn(&Crowd) -> String) {
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(2).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .protecting(&lines(&crowd));

    let events = run_past(&crowd, &config, &scratch, Duration::from_secs(1));

    for pid in crowd.stuck() {
        let reasons = of(&events, pid).filter(|seen| seen.kind == "kill.skipped");
        let reasons: BTreeSet<_> = reasons.map(|seen| seen.reason.as_deref()).collect();
        assert_eq!(reasons, BTreeSet::from([Some("protected")]));
    }
    assert_untouched(&mut crowd, &events);
}

#[test]
fn a_rule_acts_only_where_each_of_its_conditions_holds() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let holds = "user = \"root\", stream = \"stdout\", cmdline = \"*--die-with-parent*\"";
    let wrong = [
        ("other-user", "user = \"nobody\", stream = \"stdout\""),
        ("other-stream", "user = \"root\", stream = \"stderr\""),
        ("other-cmdline", "user = \"root\", cmdline = \"*pipe:1*\""),
    ];
    let config = Config::of(&crowd, &scratch)
        .stalled_for("1s")
        .matching_also(&format!(", {holds}"));
    let (comm, parent) = (crowd.writer_name(), crowd.name());
    // The wrong ones come first: it is not their place that keeps them from acting.
    let others = wrong.map(|(name, conditions)| rule(name, comm, parent, conditions));
    let others = [
        others.concat(),
        rule("other-comm", "no-such-comm", parent, holds),
        rule("other-parent", comm, "no-such-parent", holds),
    ];
    let toml = format!("{}\n{}", others.concat(), config.toml());
    let file = scratch.write("rules.toml", &toml);
    let mut command = std::process::Command::new(tests::binary::pipestall());

    let mut agent = Agent::start(command.args(["run", "--json", "--config"]).arg(file));
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(crowd.writer()));
    wait::till(skipped.at + Duration::from_secs(1));
    let events = agent.stop();

    let rules = of(&events, crowd.writer()).filter(|seen| seen.kind.starts_with("kill."));
    let rules: BTreeSet<_> = rules.map(|seen| seen.rule.as_deref()).collect();
    assert_eq!(rules, BTreeSet::from([Some("the-rule")]));
}

/// Runs the agent from before the stalls reach their threshold until as long after it again, and
/// at least as long as an agent watches before it acts.
#[track_caller]
fn run_past(crowd: &Crowd, config: &Config, scratch: &Scratch, stalled_for: Duration) -> Vec<Seen> {
    let mut agent = Agent::run(config, scratch);
    for pid in crowd.stuck() {
        agent.await_event("stall.detected", |event| event.is_of(pid));
    }
    let watched = agent.started() + stalled_for;
    wait::till(watched + stalled_for + Duration::from_millis(500));
    agent.stop()
}

/// Asserts that nobody was signalled, by the agent's word and by the parent's.
#[track_caller]
fn assert_untouched(crowd: &mut Crowd, events: &[Seen]) {
    for kind in ["kill.planned", "kill.sent", "kill.confirmed", "kill.failed"] {
        assert_eq!(pids(events, kind), BTreeSet::new(), "{kind}");
    }
    for pid in crowd.stuck() {
        assert_eq!(crowd.exit(pid), None);
        assert!(
            !proc::blocked_writes(pid).is_empty(),
            "{pid} is still in its write"
        );
    }
}

fn rule(name: &str, comm: &str, parent: &str, conditions: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nmatch = {{ comm = \"{comm}\", parent = \"{parent}\", {conditions} }}\n\
         stalled_for = \"1s\"\naction = \"kill\"\nallow_stderr_kill = true\n\n"
    )
}
