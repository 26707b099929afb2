//! SIGKILL of the agent at any point: what it did is on record, and what is on record it did
//! once and to nobody else. `PIPESTALL_ROUNDS` says how often (12).

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tests::agent::{self, Agent};
use tests::config::Config;
use tests::crowd::Plan;
use tests::message::Event;
use tests::order::Exit;
use tests::scratch::Scratch;
use tests::{clock, need, wait};

const ROUNDS: u32 = 12;
const STUCK: usize = 6;
const HEALTHY: usize = 2;

/// From the start of the agent to some time after the last of its signals.
const SPAN_MS: u64 = 1600;

fn rounds() -> u32 {
    let asked = env::var("PIPESTALL_ROUNDS").ok();
    asked.map_or(ROUNDS, |text| text.parse().expect("PIPESTALL_ROUNDS is a number"))
}

#[test]
fn an_agent_killed_at_any_point_leaves_no_kill_without_a_record_and_repeats_none() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let state = scratch.path("state");
    let rounds = rounds();
    let (mut ended, mut planned_in_all) = (0, 0);
    for round in 0..rounds {
        // Half of them take SIGKILL after the grace, so that the protocol has all its steps.
        let how: &[&str] = if round % 2 == 0 { &["--ignore-term"] } else { &[] };
        let mut crowd = Plan::stuck(STUCK).and_healthy(HEALTHY).writing(how).start();
        let config = Config::of(&crowd, &scratch)
            .state(state.clone())
            .enforcing()
            .stalled_for("1s")
            .grace("200ms");
        let before = last_seq(&config.journal());
        let mut agent = Agent::run(&config, &scratch);
        // Spread evenly, in an order that looks random (the golden ratio's fraction of 2^16).
        let point = u64::from(round.wrapping_mul(40_503) & 0xffff) * SPAN_MS / 0x1_0000;
        let started = agent.started();
        wait::till(started + Duration::from_millis(point));
        agent.signal(Signal::KILL);
        agent.await_exit(wait::PATIENCE);
        // What was sent before the end of the agent has its effect by now, or soon.
        wait::till(clock::mono() + Duration::from_millis(50));

        let events: Vec<Event> = agent::journal(&config.journal());
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "round {round}");
        let of_round: Vec<&Event> = events.iter().filter(|event| event.seq > before).collect();
        let pids = |kind: &str| -> BTreeSet<u32> {
            of_round
                .iter()
                .filter(|event| event.kind == kind)
                .filter_map(|event| event.pid())
                .collect()
        };
        let stuck: BTreeSet<u32> = crowd.stuck().into_iter().collect();
        let planned = pids("kill.planned");
        assert!(planned.is_subset(&stuck), "round {round}: {planned:?} {stuck:?}");
        assert!(pids("kill.sent").is_subset(&planned), "round {round}");
        let plans = of_round
            .iter()
            .filter(|event| event.kind == "kill.planned")
            .count();
        assert_eq!(plans, planned.len(), "round {round}: one plan a process");
        for pid in &stuck {
            if let Some(exit) = crowd.exit(*pid) {
                assert!(matches!(exit, Exit::Signal(9 | 15)), "round {round}: {exit:?}");
                assert!(
                    planned.contains(pid),
                    "round {round}: {pid} was ended without a record"
                );
                ended += 1;
            }
        }
        for pid in crowd.healthy() {
            assert_eq!(crowd.exit(pid), None, "round {round}");
        }
        planned_in_all += planned.len();
    }
    eprintln!("{rounds} rounds: {planned_in_all} planned, {ended} ended");
    assert!(ended > 0, "no round got as far as a signal");
    assert!(ended < rounds as usize * STUCK, "no round was cut short");
}

fn last_seq(journal: &Path) -> u64 {
    if journal.exists() {
        agent::journal(journal).last().map_or(0, |event| event.seq)
    } else {
        0
    }
}
