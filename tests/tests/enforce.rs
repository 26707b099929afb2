//! Enforcement: exactly what a rule names is ended, each end is on record before it begins, and a
//! process that is gone already confuses nobody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tests::agent::{self, Agent, Seen, of, pids};
use tests::config::Config;
use tests::crowd::{Channel, Plan};
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
        let crowd = Plan::stuck(50).and_healthy(50).on(channel).start();
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

        assert_recorded_first(&trace, &config, &stuck);
    }
}

/// The kernel tells once of a sync that failed: the next one succeeds, whatever became of the data.
#[test]
fn what_a_failed_sync_was_to_make_durable_is_planned_anew() {
    need!(need::bpf());
    let strace = need!(need::strace());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(20).start();
    let stuck = crowd.stuck();
    let trace = scratch.path("trace");
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("1s");
    let options = [&WITNESS[..], &["-e", "inject=fdatasync:error=EIO:when=1"]].concat();

    let mut agent = Agent::run_under(&strace, &options, &trace, &config, &scratch);
    agent.await_event("agent.degraded", |_| true);
    agent.await_event("agent.recovered", |_| true);
    for pid in &stuck {
        agent.await_event("kill.confirmed", |event| event.is_of(*pid));
    }
    agent.stop();

    assert_recorded_first(&trace, &config, &stuck);
}

/// Asserts by strace's account that each was signalled, and that its plan was on disk by then.
#[track_caller]
fn assert_recorded_first(trace: &Path, config: &Config, stuck: &[u32]) {
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
    assert!(
        account.late.is_empty() || account.may_not_go_ahead,
        "those who die first took the CPU from whoever had {:?} to signal",
        account.late
    );
    assert_eq!(
        account.by_pid,
        Vec::<String>::new(),
        "a pid may be another's: only pidfds are signalled"
    );
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
fn a_pid_that_exits_between_verdict_and_signal_is_skipped_as_exited() {
    /// The system call's number, on every machine.
    const PIDFD_SEND_SIGNAL: &str = "424 ";
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

    let mut agent = Agent::run_under(&strace, &hold, &trace, &config, &scratch);
    let call = format!("/proc/{}/syscall", agent.pid());
    wait::until("the agent is about to signal", wait::PATIENCE, || {
        let text = fs::read_to_string(&call).ok()?;
        text.starts_with(PIDFD_SEND_SIGNAL).then_some(())
    });
    let journal = fs::read_to_string(config.journal()).expect("the journal is there");
    assert!(journal.contains("\"kill.planned\""), "{journal}");
    crowd.order(Order::Kill { pid: writer });
    assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGKILL));
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    let events = agent.stop();

    assert_eq!(skipped.reason.as_deref(), Some("exited"));
    let trace = fs::read_to_string(trace).expect("strace has written");
    let is_refused = |line: &str| line.contains("pidfd_send_signal") && line.contains("ESRCH");
    assert!(
        trace.lines().any(is_refused),
        "it was signalled too late:\n{trace}"
    );
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
