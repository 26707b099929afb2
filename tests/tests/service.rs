//! The agent as a service: what it tells the service manager, and what it keeps over a reload.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tests::agent::Agent;
use tests::api::Api;
use tests::config::Config;
use tests::crowd::Plan;
use tests::order::Exit;
use tests::scratch::Scratch;
use tests::served::Served;
use tests::{binary, clock, need, wait};

const SIGTERM: i32 = 15;

/// A service manager's end of the notifications.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(scratch: &Scratch) -> Self {
        let socket = UnixDatagram::bind(scratch.path("notify")).expect("a socket");
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("a time-out");
        Self(socket)
    }

    /// Waits for a notification that has such a line.
    #[track_caller]
    fn await_line(&self, begin: &str) -> String {
        let mut buffer = [0; 4096];
        // Bounded by the patience for each, and by what the agent has to say.
        for _ in 0..1000 {
            let len = self
                .0
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {begin}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if text.lines().any(|line| line.starts_with(begin)) {
                return text;
            }
        }
        panic!("no {begin}");
    }
}

#[test]
fn the_service_manager_is_told_how_it_goes_and_fed_by_the_loop_that_decides() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let manager = Manager::listen(&scratch);
    let config = Config::new("no-such-comm", "no-such-parent", &scratch.path("state")).file(&scratch);
    let mut agent = Agent::start(
        Command::new(binary::pipestall())
            .args(["run", "--json", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", scratch.path("notify"))
            .env("WATCHDOG_USEC", "400000"),
    );
    manager.await_line("READY=1");
    // As often as half of what is asked for, while nothing happens at all.
    let begun = clock::mono();
    for _ in 0..5 {
        manager.await_line("WATCHDOG=1");
    }
    let took = clock::lapse(begun, clock::mono());
    assert!(took < Duration::from_secs(2), "{took:?}");

    agent.signal(Signal::HUP);
    let reloading = manager.await_line("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.await_line("READY=1");

    // A loop that does not come round feeds nobody.
    agent.signal(Signal::STOP);
    manager
        .0
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a time-out");
    while manager.0.recv(&mut [0; 4096]).is_ok() {}
    manager
        .0
        .set_read_timeout(Some(Duration::from_secs(1)))
        .expect("a time-out");
    assert!(
        manager.0.recv(&mut [0; 4096]).is_err(),
        "nobody is there to feed it"
    );
    manager
        .0
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a time-out");
    agent.signal(Signal::CONT);

    agent.signal(Signal::TERM);
    manager.await_line("STOPPING=1");
    assert_eq!(agent.await_exit(wait::PATIENCE).code(), Some(0));
}

#[test]
fn a_reload_keeps_ages_and_brings_new_rules_into_force() {
    need!(need::bpf());
    let mut crowd = Plan::stuck(2).start();
    let mut served = Served::over(&crowd, |config| config.enforcing().stalled_for("1h"));
    for pid in crowd.stuck() {
        served
            .agent
            .await_event("stall.detected", |event| event.is_of(pid));
    }
    // Until the stalls are older than the new rule wants, as the agent itself has seen.
    wait::till(crowd.ready() + Duration::from_secs(7));

    served.config.clone().stalled_for("6s").file(&served.scratch);
    let reloaded = served.api.post("/v1/reload", "").json(200);
    assert_eq!(reloaded["rules"], 1);
    let at = clock::mono();
    for pid in crowd.stuck() {
        let planned = served.agent.await_event("kill.planned", |event| event.is_of(pid));
        assert!(planned.age() >= 7.0, "the age goes on: {}", planned.age());
        served
            .agent
            .await_event("kill.confirmed", |event| event.is_of(pid));
        assert_eq!(crowd.await_exit(pid), Exit::Signal(SIGTERM));
    }
    let took = clock::lapse(at, clock::mono());
    assert!(
        took < Duration::from_secs(4),
        "nothing is waited for twice: {took:?}"
    );
    served.agent.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_the_event_says_why() {
    need!(need::bpf());
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let mut served = Served::over(&crowd, |config| config.enforcing().stalled_for("6s"));

    served.scratch.write(
        "pipestall.toml",
        &served.config.toml().replace("stalled_for", "stalled_fr"),
    );
    let refused = served.api.post("/v1/reload", "").json(422);
    let error = refused["error"].as_str().expect("an error");
    assert!(error.contains("did you mean `stalled_for`?"), "{error}");
    served.agent.signal(Signal::HUP);
    let event = served.agent.await_event("agent.reloaded", |event| {
        event
            .detail
            .as_deref()
            .is_some_and(|detail| detail.starts_with("SIGHUP"))
    });
    assert_eq!(event.reason.as_deref(), Some("refused"));
    assert_eq!(
        served.api.json("/v1/rules")["rules"][0]["stalled_for_seconds"],
        6.0
    );

    served
        .agent
        .await_event("kill.confirmed", |event| event.is_of(writer));
    assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGTERM));
    served.agent.stop();
}

#[test]
fn a_reload_may_change_what_is_observed_and_known_stalls_keep_their_ages() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let (first, second) = (Plan::stuck(1).start(), Plan::stuck(1).start());
    let config = Config::of(&first, &scratch)
        .served(&scratch, "")
        .stalled_for("1h");
    let mut agent = Agent::run(&config, &scratch);
    let api = Api::at(&Config::socket(&scratch));
    let before = agent.await_event("stall.detected", |event| event.is_of(first.writer()));

    let both = format!(
        "comm = [{:?}, {:?}]\nchannels",
        first.writer_name(),
        second.writer_name()
    );
    let toml = config
        .toml()
        .replacen(&format!("comm = [{:?}]\nchannels", first.writer_name()), &both, 1);
    scratch.write("pipestall.toml", &toml);
    api.post("/v1/reload", "").json(200);
    let new = agent.await_event("stall.detected", |event| event.is_of(second.writer()));
    assert!(new.stall.as_ref().is_some_and(|stall| stall.preexisting));

    let stalls = api.json("/v1/stalls");
    let known: &Value = stalls["stalls"]
        .as_array()
        .and_then(|stalls| stalls.iter().find(|one| one["stall"]["pid"] == first.writer()))
        .expect("the first is still there");
    assert_eq!(known["stall"]["id"], before.stall.as_ref().expect("a stall").id);
    let events = agent.stop();
    assert!(
        !events.iter().any(|seen| seen.kind == "stall.ended"),
        "no stall ended by it"
    );
}

#[test]
fn a_rule_that_is_put_into_dry_run_while_it_ends_a_process_lets_go_of_it() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).writing(&["--catch-term"]).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .served(&scratch, "")
        .stalled_for("1s")
        .grace("6s");
    let mut agent = Agent::run(&config.clone().enforcing(), &scratch);
    let api = Api::at(&Config::socket(&scratch));
    agent.await_event("kill.sent", |event| event.is_of(writer));
    config.file(&scratch);
    api.post("/v1/reload", "").json(200);
    let skipped = agent.await_event("kill.skipped", |event| {
        event.is_of(writer) && event.reason.as_deref() == Some("identity")
    });
    assert!(
        skipped
            .detail
            .as_deref()
            .is_some_and(|detail| detail.contains("changed"))
    );
    assert_eq!(crowd.exit(writer), None, "no SIGKILL");
    agent.stop();
}

#[test]
fn what_is_not_needed_is_given_up_after_the_start() {
    need!(need::bpf());
    let served = Served::idle("");
    let sets = |tid: &str| {
        let text = fs::read_to_string(format!("/proc/{}/task/{tid}/status", served.agent.pid()))
            .expect("its status");
        let set = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .expect("a set");
            u64::from_str_radix(line.trim(), 16).expect("a number")
        };
        (set("CapPrm:"), set("CapEff:"))
    };
    // Bits of linux/capability.h.
    let [kill, sys_ptrace, sys_nice, perfmon, bpf] = [5, 19, 23, 38, 39].map(|bit| 1_u64 << bit);
    let running = kill | sys_ptrace | sys_nice;
    let tasks = fs::read_dir(format!("/proc/{}/task", served.agent.pid())).expect("its threads");
    for task in tasks {
        let tid = task
            .expect("a thread")
            .file_name()
            .into_string()
            .expect("a number");
        let (permitted, effective) = sets(&tid);
        assert_eq!(permitted & !(running | perfmon | bpf), 0, "{permitted:x}");
        assert_eq!(effective & !(running | bpf), 0, "{effective:x}");
    }
    served.agent.stop();
}
