//! Few descriptors: what is to be ended is ended one portion after the other, and an agent that
//! can look no more says so, and waits, and gives up with a clear line.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::agent::Agent;
use tests::config::Config;
use tests::crowd::Plan;
use tests::scratch::Scratch;
use tests::{binary, need, wait};

const RUNTIME_FAILURE: i32 = 1;

#[test]
fn an_incident_is_ended_with_fewer_descriptors_than_it_has_processes() {
    const STUCK: usize = 200;
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(STUCK).start();
    // Two portions of some twenty would use this up if what was put off counted.
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("2s")
        .paced("budget = { kills = 200, per = \"1h\" }");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -n 120 && exec \"$0\" run --json --config \"$1\""])
        .arg(binary::pipestall())
        .arg(config.file(&scratch));

    let mut agent = Agent::start(&mut command);
    for pid in crowd.stuck() {
        agent.await_event("kill.confirmed", |event| event.is_of(pid));
    }
    let events = agent.stop();

    let confirmed: BTreeSet<_> = events
        .iter()
        .filter(|seen| seen.kind == "kill.confirmed")
        .filter_map(|seen| seen.pid())
        .collect();
    assert_eq!(confirmed.len(), STUCK);
    let put_off: Vec<_> = events
        .iter()
        .filter(|seen| seen.reason.as_deref() == Some("unsupported"))
        .filter_map(|seen| seen.pid())
        .collect();
    assert!(
        !put_off.is_empty(),
        "120 descriptors are not enough for 200 at once"
    );
    let once: BTreeSet<_> = put_off.iter().collect();
    assert_eq!(once.len(), put_off.len(), "each says so once");
}

#[test]
fn an_agent_that_cannot_look_says_so_and_goes_on_once_it_can() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch).stalled_for("2s");
    let mut agent = Agent::run(&config, &scratch);

    let before = limit(&agent, too_few());
    let degraded = agent.await_event("agent.degraded", |_| true);
    limit(&agent, before);
    agent.await_event("kill.skipped", |event| event.reason.as_deref() == Some("dry-run"));
    let events = agent.stop();

    let detail = degraded.detail.clone().unwrap_or_default();
    assert!(
        detail.contains("Too many open files") && detail.contains("trying again"),
        "{detail}"
    );
    let degraded = events.iter().filter(|seen| seen.kind == "agent.degraded");
    assert_eq!(degraded.count(), 1);
}

#[test]
fn an_agent_that_cannot_look_for_long_has_failed_while_running() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("30s");
    let mut agent = Agent::run(&config, &scratch);

    limit(&agent, too_few());
    let status = agent.await_exit(wait::PATIENCE + Duration::from_secs(10));

    assert_eq!(
        status.code(),
        Some(RUNTIME_FAILURE),
        "the kernel can, as it has shown"
    );
    wait::until("the reason on stderr", wait::PATIENCE, || {
        agent.stderr().contains("Too many open files").then_some(())
    });
}

/// Sets how many descriptors the agent may have; returns how many it might.
fn limit(agent: &Agent, new: Rlimit) -> Rlimit {
    let pid = i32::try_from(agent.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, new).expect("the agent's limit")
}

/// Fewer than any agent has open.
fn too_few() -> Rlimit {
    Rlimit {
        current: Some(3),
        maximum: getrlimit(Resource::Nofile).maximum,
    }
}
