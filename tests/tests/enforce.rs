//! Enforcement: exactly what a rule names is ended, each end is on record before it begins, and
//! whoever moves, is protected or is gone already is left alone.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tests::agent::{self, Agent, Seen};
use tests::config::Config;
use tests::crowd::{Channel, Crowd, Plan};
use tests::order::{Exit, Order};
use tests::scratch::Scratch;
use tests::strace::{Account, WITNESS};
use tests::{clock, need, proc, wait};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

#[test]
fn exactly_the_stuck_half_of_a_hundred_writers_is_ended() {
    need!(need::bpf());
    need!(need::speed());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(50).and_healthy(50).start();
    let (stuck, healthy) = (crowd.stuck(), crowd.healthy());
    let before: Vec<u64> = healthy.iter().map(|pid| crowd.drained(*pid)).collect();
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("2s");

    let mut agent = Agent::run(&config, &scratch);
    for pid in &stuck {
        agent.await_event("kill.confirmed", |event| event.is_of(*pid));
    }
    // As long again: nothing healthy becomes stalled for two seconds by waiting.
    let end = clock::mono() + Duration::from_secs(2);
    wait::till(end);
    let events = agent.stop();

    let wanted: BTreeSet<u32> = stuck.iter().copied().collect();
    for kind in ["kill.planned", "kill.sent", "kill.confirmed"] {
        assert_eq!(pids(&events, kind), wanted, "{kind}");
    }
    for kind in ["kill.failed", "kill.skipped"] {
        assert_eq!(pids(&events, kind), BTreeSet::new(), "{kind}");
    }
    for pid in &stuck {
        assert_eq!(crowd.await_exit(*pid), Exit::Signal(SIGTERM));
    }
    for (pid, before) in healthy.iter().zip(before) {
        assert_eq!(crowd.exit(*pid), None);
        assert!(crowd.drained(*pid) > before, "{pid} moves");
    }
    let confirmed = events.iter().filter(|seen| seen.kind == "kill.confirmed");
    assert!(
        confirmed
            .into_iter()
            .all(|seen| seen.took_ms.is_some_and(|took| (0.0..5000.0).contains(&took)))
    );
    assert_journal_agrees(&config, &events, &stuck);
}

#[test]
fn each_plan_is_on_disk_before_its_signal() {
    need!(need::bpf());
    let strace = need!(need::strace());
    let scratch = Scratch::new();
    for channel in [Channel::Pipe, Channel::Unix] {
        let crowd = Plan::stuck(10).on(channel).start();
        let stuck = crowd.stuck();
        let trace = scratch.path(format!("trace-{}", channel.as_str()));
        let state = scratch.path(format!("state-{}", channel.as_str()));
        let config = Config::of(&crowd, &scratch)
            .state(state)
            .enforcing()
            .stalled_for("1s");

        let mut agent = Agent::run_under(&strace, &WITNESS, &trace, &config, &scratch);
        for pid in &stuck {
            agent.await_event("kill.confirmed", |event| event.is_of(*pid));
        }
        agent.stop();

        let journal = fs::canonicalize(config.journal()).expect("the journal is there");
        let trace = fs::read_to_string(trace).expect("strace has written");
        let account = Account::read(&trace, &journal);
        let signalled: BTreeSet<u32> = account.signalled.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(
            signalled,
            stuck.iter().copied().collect(),
            "strace saw a signal to each"
        );
        for (pid, durable) in account.signalled {
            assert!(
                durable,
                "the plan for {pid} was not on disk when its signal was sent"
            );
        }
        assert_eq!(
            account.by_pid,
            Vec::<String>::new(),
            "a pid may be another's: only pidfds are signalled"
        );
    }
}

#[test]
fn a_writer_that_sigterm_does_not_end_gets_sigkill_after_the_grace() {
    const GRACE: Duration = Duration::from_secs(1);
    need!(need::bpf());
    // The second is what a stuck ffmpeg does: it handles the signal and goes back into its write.
    for how in ["--ignore-term", "--catch-term"] {
        let scratch = Scratch::new();
        let mut crowd = Plan::stuck(1).writing(&[how]).start();
        let writer = crowd.writer();
        let config = Config::of(&crowd, &scratch)
            .enforcing()
            .stalled_for("1s")
            .grace("1s");

        let mut agent = Agent::run(&config, &scratch);
        agent.await_event("kill.confirmed", |event| event.is_of(writer));
        let events = agent.stop();

        let sent: Vec<&Seen> = of(&events, writer)
            .filter(|seen| seen.kind == "kill.sent")
            .collect();
        let signals: Vec<Option<&str>> = sent.iter().map(|seen| seen.signal.as_deref()).collect();
        assert_eq!(signals, [Some("SIGTERM"), Some("SIGKILL")], "{how}");
        let between = sent[1]
            .event
            .time
            .duration_since(sent[0].event.time)
            .unsigned_abs();
        assert!(
            between >= GRACE.mul_f64(0.95) && between < GRACE + GRACE * wait::slowness(),
            "{how}: {between:?}"
        );
        assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGKILL));
    }
}

#[test]
fn a_process_is_ended_for_a_thread_of_any_name_that_writes_to_any_fd() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1)
        .on(Channel::Unix)
        .writing(&["--thread", "mux0:mp4", "--fd", "7"])
        .start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("1s");
    let config = config.matching_also(", stream = \"stdout\"");

    let mut agent = Agent::run(&config, &scratch);
    let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(writer));
    agent.stop();

    let stall = confirmed.stall.as_ref().expect("a stall");
    assert_eq!(
        (stall.thread.as_str(), stall.fd, stall.stream.as_deref()),
        ("mux0:mp4", 7, Some("stdout"))
    );
    assert_ne!(stall.tid, writer);
    assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGTERM));
}

#[test]
fn a_rule_that_says_term_never_sends_sigkill() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).writing(&["--ignore-term"]).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .action("term")
        .stalled_for("1s")
        .grace("500ms");

    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("kill.failed", |event| event.is_of(writer));
    let events = agent.stop();

    let signals = of(&events, writer).filter_map(|seen| seen.signal.as_deref());
    assert_eq!(signals.collect::<Vec<_>>(), ["SIGTERM"]);
    assert_eq!(crowd.exit(writer), None);
    assert!(proc::alive(writer));
}

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

#[test]
fn a_pid_that_exits_between_verdict_and_signal_is_skipped_as_exited() {
    need!(need::bpf());
    let strace = need!(need::strace());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("1s");
    // strace holds the agent at the door of its signal: time to be gone before it.
    let hold = [
        "-e",
        "trace=pidfd_send_signal",
        "-e",
        "inject=pidfd_send_signal:delay_enter=1500ms",
    ];
    let trace = scratch.path("trace");
    let journal = config.journal();

    let mut agent = Agent::run_under(&strace, &hold, &trace, &config, &scratch);
    wait::until("a plan in the journal", wait::PATIENCE, || {
        fs::read_to_string(&journal)
            .ok()
            .filter(|text| text.contains("\"kill.planned\""))
    });
    crowd.order(Order::Kill { pid: writer });
    assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGKILL));
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    let events = agent.stop();

    assert_eq!(skipped.reason.as_deref(), Some("exited"));
    for kind in ["kill.sent", "kill.confirmed", "kill.failed"] {
        assert_eq!(pids(&events, kind), BTreeSet::new(), "{kind}");
    }
}

#[test]
fn writers_that_die_around_their_threshold_never_confuse_the_agent() {
    const WRITERS: usize = 30;
    const STALLED_FOR: Duration = Duration::from_secs(1);
    const SPREAD: Duration = Duration::from_millis(200);
    const ENDS: [&str; 3] = ["kill.confirmed", "kill.skipped", "kill.failed"];
    need!(need::bpf());
    let scratch = Scratch::new();
    let plan = Plan::stuck(WRITERS);
    let config = Config::of_plan(&plan, &scratch).enforcing().stalled_for("1s");
    let mut agent = Agent::run(&config, &scratch);

    let mut crowd = plan.start();
    let stuck = crowd.stuck();
    // One after the other, from before the threshold to after it; the last is the agent's.
    let (last, others) = stuck.split_last().expect("there are writers");
    let first = crowd.ready() + STALLED_FOR.saturating_sub(SPREAD / 2);
    let step = SPREAD / u32::try_from(WRITERS).expect("a small number");
    for (number, pid) in (0..).zip(others) {
        wait::till(first + step * number);
        crowd.order(Order::Kill { pid: *pid });
    }
    for pid in &stuck {
        crowd.await_exit(*pid);
    }
    agent.await_event("kill.confirmed", |event| event.is_of(*last));
    wait::until("each plan has come to its end", wait::PATIENCE, || {
        let events = agent.events();
        let over = |pid| of(events, pid).any(|seen| ENDS.contains(&seen.kind.as_str()));
        pids(events, "kill.planned").into_iter().all(over).then_some(())
    });
    let events = agent.stop();

    for pid in stuck {
        let kinds: Vec<&str> = of(&events, pid).map(|seen| seen.kind.as_str()).collect();
        let count = |kind| kinds.iter().filter(|one| **one == kind).count();
        assert_eq!(count("kill.failed"), 0, "{pid}: {kinds:?}");
        assert_eq!(count("kill.sent"), count("kill.confirmed"), "{pid}: {kinds:?}");
        assert!(count("kill.sent") <= count("kill.planned"), "{pid}: {kinds:?}");
        let reasons = of(&events, pid).filter(|seen| seen.kind == "kill.skipped");
        for skipped in reasons {
            let reason = skipped.reason.as_deref();
            assert!(
                matches!(reason, Some("exited" | "progressed")),
                "{pid}: {reason:?}"
            );
        }
    }
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

/// Asserts that the journal holds the same events in the same order, each plan before its signal.
#[track_caller]
fn assert_journal_agrees(config: &Config, events: &[Seen], stuck: &[u32]) {
    let journal = agent::journal(&config.journal());
    let said: Vec<_> = events
        .iter()
        .map(|seen| (seen.seq, &seen.kind, seen.pid()))
        .collect();
    let kept: Vec<_> = journal
        .iter()
        .map(|event| (event.seq, &event.kind, event.pid()))
        .collect();
    assert_eq!(said, kept);
    assert!(
        journal.is_sorted_by(|one, next| one.seq < next.seq),
        "the order is the order of seq"
    );
    for pid in stuck {
        let kills = journal
            .iter()
            .filter(|event| event.is_of(*pid) && event.kind.starts_with("kill."));
        let kinds: Vec<&str> = kills.map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["kill.planned", "kill.sent", "kill.confirmed"], "{pid}");
    }
}

fn rule(name: &str, comm: &str, parent: &str, conditions: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nmatch = {{ comm = \"{comm}\", parent = \"{parent}\", {conditions} }}\n\
         stalled_for = \"1s\"\naction = \"kill\"\nallow_stderr_kill = true\n\n"
    )
}

fn of(events: &[Seen], pid: u32) -> impl Iterator<Item = &Seen> {
    events.iter().filter(move |seen| seen.is_of(pid))
}

fn pids(events: &[Seen], kind: &str) -> BTreeSet<u32> {
    events
        .iter()
        .filter(|seen| seen.kind == kind)
        .filter_map(|seen| seen.pid())
        .collect()
}
