//! SIGKILL at any point, and receivers that fail: no alert is lost, and what comes twice comes under
//! one name. Once of the part that alerts, fast, and once of the whole agent on a live kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tests::agent::{self, Agent};
use tests::alerting::{PATIENCE, alerter, faulty, only, signed};
use tests::api::Api;
use tests::config::Config;
use tests::crowd::{Crowd, Plan};
use tests::dice::Dice;
use tests::family::Family;
use tests::message::Event;
use tests::receiver::{Receiver, Request};
use tests::scratch::Scratch;
use tests::{binary, clock, command, names, need, wait};

/// Asserts that what is told of one thing has one name and one body, however often it came.
#[track_caller]
fn assert_one_name_each<T: Ord + Debug>(requests: &[Request], thing: impl Fn(&Request) -> T) {
    let mut told: BTreeMap<T, BTreeSet<(&str, &str)>> = BTreeMap::new();
    let mut things: BTreeMap<&str, BTreeSet<T>> = BTreeMap::new();
    for request in requests {
        let name = request.header("webhook-id");
        told.entry(thing(request))
            .or_default()
            .insert((name, &request.body));
        things.entry(name).or_default().insert(thing(request));
    }
    for (thing, told) in told {
        assert_eq!(told.len(), 1, "{thing:?} has one name and one body: {told:?}");
    }
    for (name, things) in things {
        assert_eq!(things.len(), 1, "{name} is of one: {things:?}");
    }
}

/// Says how the requests went, for the record; a receiver that hardly failed proves nothing.
#[track_caller]
fn summary(requests: &[Request]) {
    let taken: Vec<_> = requests.iter().filter(|request| request.answer.takes()).collect();
    let faults = requests.len() - taken.len();
    assert!(
        faults * 5 > requests.len(),
        "{faults} faults in {} requests",
        requests.len()
    );
    let names: BTreeSet<_> = taken.iter().map(|request| request.header("webhook-id")).collect();
    eprintln!(
        "{} requests, {faults} faults, {} taken, {} of them again",
        requests.len(),
        taken.len(),
        taken.len() - names.len()
    );
}

#[test]
fn nothing_is_lost_by_faults_and_twenty_kills_and_what_comes_twice_has_one_name() {
    const EVENTS: u64 = 1000;
    const KILLS: u64 = 20;
    let scratch = Scratch::new();
    let receiver = Receiver::start(faulty(7));
    let config = only(
        &scratch,
        &receiver.url(),
        &signed(&scratch, "timeout = \"250ms\""),
    );
    let (events, journal) = (EVENTS.to_string(), scratch.path("state/journal.ndjson"));
    let written = || {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.lines().count() as u64
    };

    let mut dice = Dice(11);
    let mut counts = BTreeSet::new();
    for kill in 1..=KILLS {
        let mut run = Family::start(&mut alerter(&config, &["--events", &events, "--pause", "2"]));
        // Somewhere within this part of the events, and then somewhat later: within what is sent.
        let until = (kill - 1) * EVENTS / KILLS + dice.roll(EVENTS / KILLS);
        wait::until("events are written", PATIENCE, || {
            (written() >= until).then_some(())
        });
        let until = receiver.count() as u64 + dice.roll(60);
        wait::until("messages are sent", PATIENCE, || {
            (receiver.count() as u64 >= until).then_some(())
        });
        counts.insert(receiver.count());
        assert_eq!(run.exited(Duration::ZERO), None, "it runs until it is killed");
        run.signal(Signal::KILL);
        assert!(run.exited(PATIENCE).is_some());
    }
    assert!(counts.len() as u64 > KILLS / 2, "{counts:?}");
    command::run(
        &mut alerter(&config, &["--events", &events]),
        Duration::from_secs(90),
    )
    .expect_code(0);

    let requests = receiver.requests();
    let seq = |request: &Request| {
        let event = &request.json()["data"]["worst"][0]["event"];
        event["seq"].as_u64().expect("an event's number")
    };
    let taken = requests.iter().filter(|request| request.answer.takes());
    let told: BTreeSet<u64> = taken.map(seq).collect();
    assert_eq!(told, (1..=EVENTS).collect(), "none is lost");
    assert_one_name_each(&requests, seq);
    summary(&requests);
}

/// The writers of the journal's events of a kind, as far as its lines are whole: the agent may be
/// writing the last one.
fn on_record(journal: &Path, kind: &str) -> BTreeSet<u32> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| Event::parse(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|event| event.kind == kind)
        .filter_map(|event| event.pid())
        .collect()
}

const KILLS: usize = 20;
const CROWD: usize = 50;
/// So many requests, and this time, after its start an agent is killed at the latest.
const REQUESTS: u64 = 120;
const SPAN: Duration = Duration::from_millis(1500);
/// An agent is on its way to its start for about so long.
const START_MS: u64 = 800;

/// What has been started and not ended by the time of the last kill.
struct Aftermath {
    /// Of all writers that there ever were.
    pids: BTreeSet<u32>,
    /// Crowds some of whose stalls may be on no record yet.
    crowds: Vec<Crowd>,
}

/// Starts and kills agents, each with a crowd of its own that is stuck, at points of chance: while
/// they start, look, tell and are told off. Crowds whose stalls are on record end meanwhile.
fn kill_agents(
    run: impl Fn() -> Command,
    plan: impl Fn() -> Plan,
    journal: &Path,
    receiver: &Receiver,
) -> Aftermath {
    let mut dice = Dice(13);
    let mut counts = Vec::new();
    let mut pids = BTreeSet::new();
    let mut crowds: Vec<Crowd> = Vec::new();
    for kill in 0..KILLS {
        let before = receiver.count() as u64;
        crowds.push(plan().start());
        pids.extend(crowds.last().map(Crowd::stuck).unwrap_or_default());
        if kill % 5 == 0 {
            let mut starting = Family::start(run().stdin(Stdio::null()).stdout(Stdio::null()));
            wait::till(clock::mono() + Duration::from_millis(dice.roll(START_MS)));
            assert_eq!(
                starting.exited(Duration::ZERO),
                None,
                "it runs until it is killed"
            );
            starting.signal(Signal::KILL);
            assert!(starting.exited(PATIENCE).is_some());
            continue;
        }
        let mut agent = Agent::start(&mut run());
        let detected = on_record(journal, "stall.detected");
        crowds.retain(|crowd| !detected.is_superset(&crowd.stuck().into_iter().collect()));
        let until = before + dice.roll(REQUESTS);
        wait::until_or_none(SPAN, || (receiver.count() as u64 >= until).then_some(()));
        agent.signal(Signal::KILL);
        assert_eq!(agent.await_exit(PATIENCE).signal(), Some(9));
        counts.push(receiver.count());
    }
    eprintln!("requests by each kill: {counts:?}");
    let different: BTreeSet<_> = counts.iter().collect();
    assert!(
        different.len() > KILLS / 2,
        "kills came before anything was told: {counts:?}"
    );
    assert_eq!(pids.len(), KILLS * CROWD, "no pid is used twice");
    Aftermath { pids, crowds }
}

#[test]
fn an_agent_killed_twenty_times_tells_every_stall_whatever_the_receiver_does() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let receiver = Receiver::start(faulty(7));
    let (parent, writer) = (names::unique("par"), names::unique("wri"));
    let config = Config::new(&writer, &parent, &scratch.path("state"))
        .action("alert")
        .report_after("100ms")
        .served(&scratch, "")
        .alerting(
            "ops",
            &receiver.url(),
            &signed(&scratch, "timeout = \"250ms\"\nevents = [\"stall.detected\"]"),
        );
    let (file, journal) = (config.file(&scratch), config.journal());
    let run = || {
        let mut command = Command::new(binary::pipestall());
        command.args(["run", "--json", "--config"]).arg(&file);
        command
    };
    let plan = || Plan::stuck(CROWD).named(&parent).writers_named(&writer);

    let Aftermath { pids, crowds } = kill_agents(run, plan, &journal, &receiver);
    let agent = Agent::start(&mut run());
    wait::until("every stall is on record", PATIENCE, || {
        (on_record(&journal, "stall.detected") == pids).then_some(())
    });
    drop(crowds);
    await_delivery(&Api::at(&Config::socket(&scratch)));
    agent.stop();

    assert_all_is_told(&agent::journal(&journal), &receiver.requests());
}

/// Waits until the agent has nothing more to tell, and nothing to tell of.
#[track_caller]
fn await_delivery(api: &Api) {
    let deadline = clock::mono() + 2 * PATIENCE;
    loop {
        let status = api.json("/v1/status");
        let alerts = &status["alerts"];
        let is_idle = status["stalled"] == 0 && alerts["last_event"] == status["last_event"];
        if is_idle && alerts["spool_entries"] == 0 {
            assert_eq!(alerts["lost_events_total"], 0, "{alerts:#}");
            return;
        }
        assert!(clock::mono() < deadline, "not all is delivered: {status:#}");
        // Asked more often, it would refuse.
        wait::till(clock::mono() + Duration::from_millis(50));
    }
}

/// Asserts that what a journal has of stalls was taken, under one name each.
#[track_caller]
fn assert_all_is_told(events: &[Event], requests: &[Request]) {
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let by_seq: BTreeMap<u64, (&str, Option<u32>)> = events
        .iter()
        .map(|event| (event.seq, (event.id.as_str(), event.pid())))
        .collect();
    // Of each message: about whom, and whether it goes on.
    let told = |request: &Request| -> (u32, String) {
        let data = request.json()["data"].take();
        let [one] = &data["worst"].as_array().expect("the worst")[..] else {
            panic!("one writer was expected: {data}")
        };
        let event = &one["event"];
        let seq = event["seq"].as_u64().expect("an event's number");
        let pid = event["stall"]["pid"].as_u64();
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
        let id = event["id"].as_str().expect("an id");
        assert_eq!(
            by_seq.get(&seq),
            Some(&(id, Some(pid))),
            "what is told is what is on record: {event}"
        );
        (pid, data["status"].as_str().expect("a status").to_owned())
    };
    let of = |kind: &str| -> BTreeSet<u32> {
        let events = events.iter().filter(|event| event.kind == kind);
        events.filter_map(Event::pid).collect()
    };
    let (begun, over) = (of("stall.detected"), of("stall.ended"));
    let taken = requests.iter().filter(|request| request.answer.takes());
    let taken: BTreeSet<(u32, String)> = taken.map(told).collect();
    let told_of: BTreeSet<u32> = taken.iter().map(|(pid, _)| *pid).collect();
    let resolved = |pid: &&u32| taken.contains(&(**pid, "resolved".to_owned()));
    assert_eq!(
        begun.difference(&told_of).next(),
        None,
        "a stall that nobody was told of"
    );
    assert_eq!(
        over.iter().find(|pid| !resolved(pid)),
        None,
        "an end that nobody was told of"
    );
    assert_one_name_each(requests, told);
    let (begun, over, taken) = (begun.len(), over.len(), taken.len());
    eprintln!("{begun} stalls and {over} ends on record, {taken} messages");
    summary(requests);
}
