//! SIGKILL of the agent at any point: what it did is on record, and what is on record it did
//! once and to nobody else. `PIPESTALL_ROUNDS` says how often (100).

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tests::agent::{self, Agent};
use tests::config::Config;
use tests::crowd::Plan;
use tests::message::Event;
use tests::order::Exit;
use tests::scratch::Scratch;
use tests::{clock, need, wait};

const ROUNDS: u32 = 100;
/// So many agents at a time, each with a journal of its own: most of a round is waiting.
const LANES: u32 = 5;
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
    let rounds = rounds();
    let sums: Vec<Sum> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| scope.spawn(move || take_lane((lane..rounds).step_by(LANES as usize))))
            .collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().expect("no round failed"))
            .collect()
    });
    let planned: usize = sums.iter().map(|sum| sum.planned).sum();
    let ended: usize = sums.iter().map(|sum| sum.ended).sum();
    eprintln!("{rounds} rounds: {planned} planned, {ended} ended");
    assert!(ended > 0, "no round got as far as a signal");
    assert!(ended < rounds as usize * STUCK, "no round was cut short");
}

/// What came of rounds.
#[derive(Debug, Default)]
struct Sum {
    planned: usize,
    ended: usize,
}

/// Takes rounds one after the other, all on one journal.
fn take_lane(rounds: impl Iterator<Item = u32>) -> Sum {
    let scratch = Scratch::new();
    let state = scratch.path("state");
    let mut sum = Sum::default();
    for (turn, round) in rounds.enumerate() {
        // Half of them take SIGKILL after the grace, so that the protocol has all its steps.
        let how: &[&str] = if turn % 2 == 0 { &["--ignore-term"] } else { &[] };
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
                sum.ended += 1;
            }
        }
        for pid in crowd.healthy() {
            assert_eq!(crowd.exit(pid), None, "round {round}");
        }
        sum.planned += planned.len();
    }
    sum
}

fn last_seq(journal: &Path) -> u64 {
    if journal.exists() {
        agent::journal(journal).last().map_or(0, |event| event.seq)
    } else {
        0
    }
}
