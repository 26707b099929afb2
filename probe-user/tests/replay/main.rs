//! `pipestall replay` from outside, over the committed recordings. With
//! `PIPESTALL_BLESS=1` the recordings and the texts beside them are written anew.

#![expect(clippy::unwrap_used, reason = "a helper panics: that is how a test fails")]

mod scenes;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use proptest::prelude::*;

use probe_user::{
    config::Config,
    core::report::{KillReport, Report},
    recording::{Encoder, Frame, Recording},
    replay::{self, Outcome, Survey},
};
use serde_json::Value;

/// The rule of the README, in dry-run.
const USUAL: &str = "usual.toml";
/// The same, enforcing, at half the age.
const STRICT: &str = "strict.toml";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/recordings")
        .join(name)
}

/// Compares with a committed file, or writes it.
#[track_caller]
fn expect(name: &str, content: &[u8]) {
    let path = fixture(name);
    if std::env::var_os("PIPESTALL_BLESS").is_some() {
        fs::write(&path, content).unwrap();
    }
    let committed = fs::read(&path).unwrap_or_default();
    if committed != content {
        let text = String::from_utf8_lossy(content);
        panic!("{name} is not what comes out (PIPESTALL_BLESS=1 writes it); now:\n{text:.4000}");
    }
}

fn pipestall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipestall"))
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn replay(recording: &str, config: &str, more: &[&str]) -> Output {
    let (recording, config) = (fixture(recording), fixture(config));
    let paths = [recording.to_str().unwrap(), "--config", config.to_str().unwrap()];
    pipestall(&[&["replay"], &paths[..], more].concat())
}

/// The plan without its shell.
fn outcome(recording: &str, config: &str) -> Outcome {
    outcome_of(&fs::read(fixture(recording)).unwrap(), config)
}

fn outcome_of(bytes: &[u8], config: &str) -> Outcome {
    let recording = Recording::open(bytes).unwrap();
    let survey = Survey::of(recording.clone());
    let config = Config::load(&fixture(config)).unwrap();
    replay::run(recording, &survey, &config.observe, &config.policy)
}

/// Who is planned, and at what age in seconds, in order.
fn planned(outcome: &Outcome) -> Vec<(u32, f64)> {
    let plans = outcome.reports.iter().filter_map(|(_, report)| match report {
        Report::Kill(snapshot, _, KillReport::Planned(_)) => Some((
            snapshot.stall.last.writer.process.tgid,
            snapshot.age().as_secs_f64(),
        )),
        Report::Kill(..) | Report::StallDetected(..) | Report::StallEnded(..) | Report::Degraded(_) => None,
    });
    plans.collect()
}

#[test]
fn the_recordings_are_what_their_scenes_make_and_small() {
    let recordings = [
        ("incident.pst", scenes::incident()),
        ("slow-reader.pst", scenes::slow_reader()),
        ("respawn-loop.pst", scenes::respawn_loop()),
        ("paused-viewer.pst", scenes::paused_viewer()),
        ("stopped-reader.pst", scenes::stopped_reader()),
    ];
    let total: usize = recordings.iter().map(|(_, bytes)| bytes.len()).sum();
    for (name, bytes) in &recordings {
        println!("{name}: {} bytes", bytes.len());
        expect(name, bytes);
    }
    assert!(total <= 200 * 1024, "{total} bytes");
}

#[test]
fn the_plan_of_each_recording_is_what_it_was_and_fits_eighty_columns() {
    for name in [
        "incident",
        "slow-reader",
        "respawn-loop",
        "paused-viewer",
        "stopped-reader",
    ] {
        for config in [USUAL, STRICT] {
            let done = replay(&format!("{name}.pst"), config, &[]);
            let plan = stdout(&done);
            let config = config.trim_end_matches(".toml");
            expect(&format!("{name}.{config}.txt"), plan.as_bytes());
            assert!(plan.lines().all(|line| line.chars().count() <= 80), "{plan}");
            assert!(done.stderr.is_empty(), "{done:?}");
        }
    }
}

#[test]
fn each_of_the_534_is_planned_once_and_no_one_else() {
    let outcome = outcome("incident.pst", USUAL);

    let plans = planned(&outcome);
    let pids: BTreeSet<_> = plans.iter().map(|(pid, _)| *pid).collect();
    assert_eq!((plans.len(), pids.len()), (534, 534));
    assert!(
        pids.iter().all(|pid| *pid < 40_000),
        "one that was served was planned"
    );
    // Those who came while it was recorded are planned on the dot, between two looks.
    let came: Vec<_> = plans
        .iter()
        .filter(|(pid, _)| *pid >= 20_000 + 500 * 11)
        .collect();
    assert_eq!(came.len(), 34);
    assert!(
        came.iter().all(|(_, age)| (60.0..60.001).contains(age)),
        "{came:?}"
    );
    assert_eq!(outcome.under_way, 0);
}

#[test]
fn a_rule_is_held_back_where_the_reader_was_stopped_and_acts_where_it_ran_again() {
    let outcome = outcome("stopped-reader.pst", STRICT);

    let said: Vec<_> = outcome
        .reports
        .iter()
        .filter_map(|(at, report)| match report {
            Report::Kill(_, _, KillReport::Skipped(why, _)) => {
                Some((scenes::seconds(*at).round(), why.as_str()))
            }
            Report::Kill(_, _, KillReport::Planned(_)) => Some((scenes::seconds(*at).round(), "planned")),
            Report::Kill(..) | Report::StallDetected(..) | Report::StallEnded(..) | Report::Degraded(_) => {
                None
            }
        })
        .collect();
    // Blocked at 5 s; the rule is due at 40 s, and the debugger lets go at 70 s.
    assert_eq!(said, [(40.0, "reader-stopped"), (70.0, "planned")]);
}

#[test]
fn a_reader_of_a_byte_now_and_then_is_never_planned() {
    for config in [USUAL, STRICT] {
        let outcome = outcome("slow-reader.pst", config);
        assert!(planned(&outcome).is_empty());
    }
}

#[test]
fn one_whose_reader_only_ever_takes_a_byte_is_planned_by_its_share() {
    let plans = planned(&outcome("slow-reader.pst", "crawl.toml"));
    assert_eq!(plans.len(), 1, "{plans:?}");
    assert!(plans[0].1 < 60.0, "no stall of it is that old: {plans:?}");
}

#[test]
fn what_an_older_pipestall_recorded_is_replayed_as_far_as_it_tells() {
    let (old, new) = ("version-1.pst", "respawn-loop.pst");
    assert_eq!(fs::read(fixture(old)).unwrap()[8], 1);
    for config in [USUAL, STRICT] {
        let plans = planned(&outcome(old, config));
        assert_eq!(plans, planned(&outcome(new, config)));
    }
    let done = replay(old, "crawl.toml", &[]);
    stdout(&done);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("no rule acts by its stalled_share"), "{said}");
    assert_eq!(planned(&outcome(old, "crawl.toml")), []);
}

#[test]
fn each_child_of_a_respawn_loop_is_planned_and_heard_of_no_more() {
    let outcome = outcome("respawn-loop.pst", "brisk.toml");

    assert_eq!(planned(&outcome).len(), 12);
    let mut over = BTreeSet::new();
    for (_, report) in &outcome.reports {
        let (Report::StallDetected(snapshot, _)
        | Report::StallEnded(snapshot, _)
        | Report::Kill(snapshot, ..)) = report
        else {
            continue;
        };
        let process = snapshot.stall.last.writer.process;
        assert!(!over.contains(&process), "{report:?}");
        if matches!(report, Report::Kill(_, _, KillReport::Confirmed { .. })) {
            over.insert(process);
        }
    }
    assert_eq!(over.len(), 12);
}

#[test]
fn one_who_watches_on_within_the_grace_is_let_go() {
    let outcome = outcome("paused-viewer.pst", STRICT);

    let steps: Vec<_> = outcome
        .reports
        .iter()
        .filter_map(|(_, report)| match report {
            Report::Kill(_, _, step) => Some(step),
            Report::StallDetected(..) | Report::StallEnded(..) | Report::Degraded(_) => None,
        })
        .collect();
    assert!(
        matches!(steps[..], [KillReport::Planned(_), KillReport::Sent(_), KillReport::Skipped(why, _)] if why.as_str() == "progressed"),
        "{steps:?}"
    );
}

#[test]
fn events_are_those_of_the_agent_at_the_recorded_time_and_place() {
    let done = replay("paused-viewer.pst", "brisk.toml", &["--json"]);
    let again = replay("paused-viewer.pst", "brisk.toml", &["--json"]);

    assert_eq!(
        stdout(&done),
        stdout(&again),
        "nothing of here and now is in them"
    );
    let events: Vec<Value> = stdout(&done)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "stall.detected",
            "kill.planned",
            "kill.sent",
            "kill.sent",
            "stall.ended",
            "kill.confirmed"
        ]
    );
    let planned = &events[1];
    assert_eq!(planned["time"], "2026-11-20T07:50:15.000Z");
    assert_eq!(planned["node"], "peertube-1");
    assert_eq!(planned["mode"], "dry-run");
    assert_eq!(planned["stall"]["age_seconds"], 10.0);
    assert_eq!(planned["stall"]["unit"], "peertube.service");
}

#[test]
fn a_difference_names_the_processes_that_another_configuration_treats_otherwise() {
    for (name, before, after) in [
        ("paused-viewer", USUAL, STRICT),
        ("respawn-loop", "brisk.toml", USUAL),
        ("respawn-loop", "brisk.toml", "brisker.toml"),
        ("incident", USUAL, USUAL),
    ] {
        let other = fixture(after);
        let done = replay(
            &format!("{name}.pst"),
            before,
            &["--diff", other.to_str().unwrap()],
        );
        let text = stdout(&done);
        let [before, after] = [before, after].map(|config| config.trim_end_matches(".toml"));
        expect(&format!("{name}.{before}-{after}.diff"), text.as_bytes());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn a_recording_that_is_cut_off_is_replayed_as_far_as_it_goes_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = scenes::respawn_loop();
    let cut = dir.path().join("cut.pst");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let config = fixture("brisk.toml");

    let done = pipestall(&[
        "replay",
        cut.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ]);

    assert!(stdout(&done).contains(": 6 planned"), "{}", stdout(&done));
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("stopped at byte "), "{stderr}");
}

#[test]
fn looks_that_lie_centuries_apart_are_replayed_in_no_time() {
    const CENTURIES: Duration = Duration::from_hours(300 * 365 * 24);
    let bytes = scenes::respawn_loop();
    let recording = Recording::open(&bytes).unwrap();
    let header = recording.header().clone();
    let mut frames: Vec<_> = recording.collect();
    let mut looks = frames.iter().rev().filter_map(|frame| {
        let Frame::Look(look) = frame else { return None };
        Some(look)
    });
    let stuck = looks.find(|look| !look.sightings.is_empty()).cloned();
    let mut late = stuck.unwrap();
    late.at = late.at.after(CENTURIES);
    frames.pop_if(|frame| matches!(frame, Frame::End(_)));
    frames.push(Frame::Look(late));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header, &mut bytes);
    for frame in &frames {
        encoder.frame(frame, &mut bytes);
    }

    let planned = planned(&outcome_of(&bytes, "brisk.toml"));

    assert_eq!(planned.len(), 12, "as many as without it");
}

#[test]
fn what_cannot_be_replayed_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut newer = scenes::paused_viewer();
    newer[8] = 9;
    let usual = fixture(USUAL).to_str().unwrap().to_owned();
    let good = fixture("paused-viewer.pst").to_str().unwrap().to_owned();
    let cases = [
        (write("foreign.pst", b"\x7fELF"), usual.clone(), 1, "no recording"),
        (write("empty.pst", b""), usual.clone(), 1, "no recording"),
        (write("newer.pst", &newer), usual.clone(), 1, "version 9"),
        (write("header.pst", &newer[..8]), usual.clone(), 1, "header"),
        ("/no/such.pst".to_owned(), usual, 1, "/no/such.pst"),
        (good.clone(), "/no/such.toml".to_owned(), 64, "/no/such.toml"),
        (good, write("bad.toml", b"[[rul]]\n"), 64, "rul"),
    ];
    for (recording, config, code, word) in cases {
        let done = pipestall(&["replay", &recording, "--config", &config]);

        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
        assert!(done.stdout.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Looks are a second apart; what happens between them is drawn to the millisecond.
    #[test]
    fn only_those_are_planned_who_truly_were_stuck_and_of_them_none_is_forgotten(lives in scenes::any_lives()) {
        let outcome = outcome_of(&scenes::record(&lives, 120), "brisk.toml");

        for (at, report) in &outcome.reports {
            let Report::Kill(snapshot, _, KillReport::Planned(_)) = report else { continue };
            let pid = snapshot.stall.last.writer.process.tgid;
            let life = lives.iter().find(|life| life.pid == pid).unwrap();
            let stalled = life.stalled_for(scenes::seconds(*at));
            prop_assert!(stalled.is_some_and(|stalled| stalled >= 9.999), "{at:?} {stalled:?} {life:?}");
        }
        for life in &lives {
            // Stuck, and watched, for the ten seconds of the rule and the two looks around them.
            let steps = (0..1150_u32).map(|tenth| f64::from(tenth) / 10.0);
            let stuck = steps.filter(|now| *now >= 12.0).any(|now| life.stalled_for(now).is_some_and(|s| s >= 12.0));
            let plans = planned(&outcome).iter().filter(|(pid, _)| *pid == life.pid).count();
            prop_assert!(!stuck || plans >= 1, "{life:?}");
        }
    }
}
