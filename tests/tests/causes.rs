//! What rules make of who does not read: they hold while a reader is stopped, and match by causes.

use std::process::Command;
use std::time::Duration;

use tests::agent::Agent;
use tests::config::Config;
use tests::crowd::{Channel, Plan};
use tests::message::Stall;
use tests::order::Exit;
use tests::ps::text;
use tests::scratch::Scratch;
use tests::{binary, need, proc, wait};

#[test]
fn a_rule_holds_while_the_reader_is_stopped_and_acts_once_it_runs_again() {
    need!(need::bpf());
    let scratch = Scratch::new();
    for channel in [Channel::Pipe, Channel::Unix] {
        let mut crowd = Plan::stuck(1).on(channel).start();
        let writer = crowd.writer();
        let parent = crowd.stopped();
        let config = Config::of(&crowd, &scratch)
            .state(scratch.path(channel.as_str()))
            .enforcing()
            .stalled_for("1s");
        let mut agent = Agent::run(&config, &scratch);
        let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
        // Time passes in which it could be ended.
        wait::till(skipped.at + Duration::from_secs(4));
        let meanwhile = agent.events_of(writer);
        assert!(proc::alive(writer));
        drop(parent);
        let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(writer));
        agent.stop();

        assert_eq!(skipped.reason.as_deref(), Some("reader-stopped"));
        assert_eq!(
            skipped.stall.as_ref().and_then(Stall::culprit_pid),
            Some(crowd.pid())
        );
        let kills = meanwhile.iter().filter(|seen| seen.kind.starts_with("kill."));
        assert_eq!(kills.count(), 1, "said once, and nothing done: {meanwhile:#?}");
        assert!(confirmed.at > skipped.at + Duration::from_secs(4));
        assert_eq!(crowd.await_exit(writer), Exit::Signal(15));
    }
}

#[test]
fn a_rule_that_says_so_ends_the_writer_of_a_stopped_reader() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let _parent = crowd.stopped();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced("hold_when_reader_stopped = false");
    let mut agent = Agent::run(&config, &scratch);

    agent.await_event("kill.sent", |event| event.is_of(writer));
    let events = agent.stop();

    let reasons: Vec<_> = events.iter().filter_map(|seen| seen.reason.clone()).collect();
    assert!(!reasons.contains(&"reader-stopped".to_owned()), "{reasons:?}");
}

#[test]
fn a_reader_stopped_between_plan_and_signal_keeps_the_writer_alive() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    // The hook runs once everything is decided but the confirming looks.
    let hook = format!("pre_kill = [\"/bin/sh\", \"-c\", \"kill -STOP {}\"]", crowd.pid());
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced(&hook);
    let mut agent = Agent::run(&config, &scratch);

    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    wait::till(skipped.at + Duration::from_secs(2));
    let events = agent.stop();
    drop(crowd.stopped());

    assert_eq!(skipped.reason.as_deref(), Some("reader-stopped"));
    assert!(events.iter().all(|seen| seen.kind != "kill.sent"), "{events:#?}");
    assert!(proc::alive(writer));
}

#[test]
fn rules_match_by_culprit_state_and_deadlock_and_explain_it() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let (writer, parent) = (crowd.writer(), crowd.name().to_owned());
    let wrong = [
        "culprit.comm = \"no-such\"",
        "reader.state = \"stopped\"",
        "deadlock = true",
    ];
    let others = wrong.iter().enumerate().map(|(n, condition)| {
        format!(
            "[[rule]]\nname = \"wrong-{n}\"\nmatch = {{ comm = {:?}, parent = {parent:?}, {condition} }}\n\
             stalled_for = \"1s\"\naction = \"kill\"\nmode = \"enforce\"\n\n",
            crowd.writer_name()
        )
    });
    let others: String = others.collect();
    let right = format!(", culprit.comm = {parent:?}, reader.state = \"sleeping\", deadlock = false");
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .matching_also(&right);
    let file = scratch.write("rules.toml", &format!("{others}{}", config.toml()));

    let (file_name, pid) = (file.to_str().expect("a path that is text"), writer.to_string());
    // The reader runs now and then, as the parent of the crowd.
    let explained = wait::until("the reader sleeps", wait::PATIENCE, || {
        let explained = text(&["ps", "--config", file_name, "--explain", &pid]);
        let words = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        words.contains("reader.state stopped sleeping").then_some(words)
    });
    let mut command = Command::new(binary::pipestall());
    let mut agent = Agent::start(command.args(["run", "--json", "--config"]).arg(&file));
    let planned = agent.await_event("kill.planned", |event| event.is_of(writer));
    agent.await_event("kill.confirmed", |event| event.is_of(writer));
    agent.stop();

    assert_eq!(planned.rule.as_deref(), Some("the-rule"));
    assert_eq!(crowd.await_exit(writer), Exit::Signal(15));
    for expected in [
        format!("no culprit.comm no-such {parent}"),
        "no deadlock true false".to_owned(),
        format!("yes culprit.comm {parent} {parent}"),
        "4. the-rule: matches, and decides".to_owned(),
    ] {
        assert!(
            explained.contains(&expected),
            "{expected:?} is missing:\n{explained}"
        );
    }
}
