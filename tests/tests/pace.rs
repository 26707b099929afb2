//! How fast and how far enforcement goes: piles from their oldest, budgets, cool-downs, the blast
//! radius, and what a rule runs before a kill.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{CWD, Mode, mkfifoat};
use tests::agent::{Agent, Seen, pids};
use tests::config::Config;
use tests::crowd::Plan;
use tests::family::Family;
use tests::scratch::Scratch;
use tests::{binary, clock, command, names, need, wait};

const SHELL: &str = "/bin/bash";

#[test]
fn a_pile_is_worked_off_from_its_oldest_and_its_youngest_are_left() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(12).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("3s")
        .paced("pile_up = 12\nleave = 4");

    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("kill.confirmed", |_| true);
    wait::till(clock::mono() + Duration::from_secs(2));
    let events = agent.stop();

    let ended = pids(&events, "kill.confirmed");
    let (eight, four): (Vec<_>, Vec<_>) = begins(&events)
        .into_iter()
        .partition(|(_, pid)| ended.contains(pid));
    assert_eq!((eight.len(), four.len()), (8, 4));
    // An event tells the time to the millisecond, in which two may have begun.
    let (latest, earliest) = (eight.iter().max(), four.iter().min());
    assert!(
        latest.map(|(since, _)| since) <= earliest.map(|(since, _)| since),
        "the oldest: {eight:?}, and not {four:?}"
    );
}

#[test]
fn a_pile_that_is_too_small_is_left_alone() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(5).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced("pile_up = 6");

    let mut agent = Agent::run(&config, &scratch);
    for pid in crowd.stuck() {
        agent.await_event("stall.detected", |event| event.is_of(pid));
    }
    wait::till(clock::mono() + Duration::from_secs(3));
    let events = agent.stop();

    assert_eq!(pids(&events, "kill.planned"), BTreeSet::new());
}

#[test]
fn an_incident_of_534_is_drained_at_a_hundred_a_second() {
    const STUCK: usize = 534;
    const RATE: usize = 100;
    need!(need::bpf());
    need!(need::speed());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(STUCK).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("2s")
        .paced("budget = { kills = 100, per = \"1s\" }");

    let mut agent = Agent::run(&config, &scratch);
    for pid in crowd.stuck() {
        agent.await_event("kill.confirmed", |event| event.is_of(pid));
    }
    let events = agent.stop();

    let sent: Vec<f64> = events
        .iter()
        .filter(|seen| seen.kind == "kill.sent")
        .map(|seen| seen.at.as_secs_f64())
        .collect();
    assert_eq!(sent.len(), STUCK);
    // A kill counts from its verdict; its signal follows within milliseconds, so that windows a
    // little shorter than a second must hold no more.
    for start in &sent {
        let within = sent
            .iter()
            .filter(|at| (*start..start + 0.8).contains(*at))
            .count();
        assert!(within <= RATE, "{within} in one second");
    }
    let took = sent[STUCK - 1] - sent[0];
    // The windows lie between verdicts; the signals follow those at their own pace.
    assert!((4.8..8.0).contains(&took), "{took} s for six portions");
    let waited = events
        .iter()
        .filter(|seen| seen.reason.as_deref() == Some("budget"));
    assert_eq!(waited.count(), STUCK - RATE, "each that had to wait says so once");
}

#[test]
fn a_respawn_loop_cools_down() {
    need!(need::bpf());
    need!(need::bash());
    let scratch = Scratch::new();
    let nobody_reads = fifo(&scratch, "respawned");
    let (parent, writer) = (names::unique("respawn"), names::unique("child"));
    let script = format!(
        "exec 3<>{}; for i in 1 2 3 4 5 6; do {} write --name {writer} >&3; done; sleep 600",
        nobody_reads.display(),
        binary::stuck().display(),
    );
    let _shell = shell(&scratch, &parent, &script);
    let config = Config::new(&writer, &parent, &scratch.path("state"))
        .enforcing()
        .stalled_for("1s")
        .paced("cooldown = { per = \"parent\", after = 2, within = \"1m\", for = \"10m\" }");

    let mut agent = Agent::run(&config, &scratch);
    let held = agent.await_event("kill.skipped", |event| {
        event.reason.as_deref() == Some("cooldown")
    });
    wait::till(clock::mono() + Duration::from_secs(3));
    let events = agent.stop();

    let ended = pids(&events, "kill.confirmed");
    assert_eq!(ended.len(), 2, "two may go, the third is left: {ended:?}");
    let said = events
        .iter()
        .filter(|seen| seen.reason.as_deref() == Some("cooldown"));
    assert_eq!(said.count(), 1);
    let pid = held.pid().expect("a stall");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn rules_that_hit_too_many_different_programs_are_stopped() {
    need!(need::bpf());
    need!(need::bash());
    let scratch = Scratch::new();
    let (parent, writer) = (names::unique("many"), names::unique("prog"));
    let mut script = String::new();
    for program in ["a", "b", "c"] {
        let copy = scratch.path(program);
        fs::copy(binary::stuck(), &copy).expect("a copy");
        let nobody_reads = fifo(&scratch, &format!("{program}-out"));
        let (copy, fifo) = (copy.display(), nobody_reads.display());
        let _ = write!(script, "{copy} write --name {writer} <>{fifo} >&0 & sleep 0.2;");
    }
    let _shell = shell(&scratch, &parent, &format!("{script} wait"));
    let config = Config::new(&writer, &parent, &scratch.path("state"))
        .enforcing()
        .stalled_for("1s")
        .limited("max_distinct = { exes = 2, per = \"10m\" }");

    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("agent.degraded", |_| true);
    wait::till(clock::mono() + Duration::from_secs(2));
    let events = agent.stop();

    assert_eq!(pids(&events, "kill.confirmed").len(), 2);
    let spared = events
        .iter()
        .filter(|seen| seen.reason.as_deref() == Some("blast-radius"));
    assert_eq!(spared.count(), 1);
}

#[test]
fn what_a_rule_runs_before_a_kill_gets_the_stall_and_cannot_stop_it_by_hanging() {
    need!(need::bpf());
    need!(need::bash());
    let scratch = Scratch::new();
    let hangs = scratch.write("hook", &format!("#!{SHELL}\ncat >\"$1\"\nexec sleep 600\n"));
    fs::set_permissions(&hangs, Permissions::from_mode(0o755)).expect("its mode");
    let seen = scratch.path("seen");
    let crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced(&format!(
            "pre_kill = [{:?}, {:?}]\npre_kill_timeout = \"700ms\"",
            hangs.display().to_string(),
            seen.display().to_string()
        ));

    let mut agent = Agent::run(&config, &scratch);
    let planned = agent.await_event("kill.planned", |event| event.is_of(crowd.writer()));
    agent.await_event("kill.confirmed", |event| event.is_of(crowd.writer()));
    agent.stop();

    let detail = planned.detail.as_deref().unwrap_or_default();
    assert!(detail.contains("ended after 0.7 s"), "{detail:?}");
    let given: serde_json::Value =
        serde_json::from_slice(&fs::read(seen).expect("what the hook got")).expect("JSON");
    assert_eq!(given["pid"], crowd.writer());
}

#[test]
fn where_the_kernel_does_not_tell_its_pressure_a_rule_that_asks_for_it_ends_nobody_and_says_why() {
    need!(need::bpf());
    let unshare = need!(need::on_path("unshare"));
    if !Path::new("/proc/pressure/cpu").is_file() {
        return need::skip("this kernel has no /proc/pressure/cpu to be hidden");
    }
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced("unless_cpu_pressure_over = \"100%\"");
    let file = config.file(&scratch);
    // As a kernel without PSI, for this process alone.
    let blind = |arguments: &[&str]| {
        let mut command = Command::new(&unshare);
        let hide = "mount --bind /dev/null /proc/pressure/cpu && exec \"$@\"";
        command.args(["--mount", SHELL, "-c", hide, "blind"]);
        command.arg(binary::pipestall()).args(arguments).arg(&file);
        command
    };

    let checked = command::run(&mut blind(&["check-config"]), wait::PATIENCE);
    let warned = checked.expect_code(0).stdout.contains("warning: on this machine");
    assert!(warned, "{}", checked.stdout);
    let mut agent = Agent::start(&mut blind(&["run", "--json", "--config"]));
    let degraded = agent.await_event("agent.degraded", |_| true);
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    assert_eq!(skipped.reason.as_deref(), Some("pressure"));
    for said in [&degraded, &skipped] {
        let detail = said.detail.as_deref().unwrap_or_default();
        assert!(detail.contains("/proc/pressure/cpu cannot be read"), "{detail}");
    }
    // It is asked again, and again.
    wait::till(clock::mono() + Duration::from_secs(6));
    assert_eq!(crowd.exit(writer), None);
    let events = agent.stop();
    assert_eq!(pids(&events, "kill.planned").len(), 0);

    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("kill.confirmed", |event| event.is_of(writer));
    agent.stop();
}

/// Starts a shell under a name of the test's own.
fn shell(scratch: &Scratch, name: &str, script: &str) -> Family {
    let shell = scratch.named(Path::new(SHELL), name);
    Family::start(Command::new(shell).args(["-c", script]))
}

fn fifo(scratch: &Scratch, name: &str) -> PathBuf {
    let path = scratch.path(name);
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("a fifo");
    path
}

/// All writers that were detected, the oldest stall first.
/// When each stall began, and whose it is.
fn begins(events: &[Seen]) -> Vec<(Option<Timestamp>, u32)> {
    events
        .iter()
        .filter(|seen| seen.kind == "stall.detected")
        .filter_map(|seen| seen.stall.as_ref())
        .map(|stall| (stall.since, stall.pid))
        .collect()
}
