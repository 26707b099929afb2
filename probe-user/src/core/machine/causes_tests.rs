use super::{
    world::{Happening, World, assert_trace, policy, rule, seconds},
    *,
};
use crate::core::{
    chain::Cause,
    reader::State,
    report::Signal,
    rule::{Action, Match, Mode, Pattern, Rule},
};

/// A world in which 10 is stuck and ignores SIGTERM, and 50 should read.
fn world(rule: Rule) -> World {
    let mut world = World::new(Settings {
        policy: policy(vec![rule]),
        ..Settings::default()
    });
    world.spawn(10, "ffmpeg").dies_on_term = false;
    world.readers.insert(10, (50, State::Sleeping));
    world.happen(10, Happening::Block);
    world
}

fn set(world: &mut World, state: State) {
    set_reader(world, 50, state);
}

fn set_reader(world: &mut World, reader: u32, state: State) {
    world.readers.insert(10, (reader, state));
}

fn cause(world: &World) -> Cause {
    let stall = world.machine.stalls().next().unwrap();
    stall.cause.as_deref().cloned().unwrap()
}

#[test]
fn all_that_cross_together_cost_one_search_and_none_that_cross_nothing() {
    let mut world = World::enforcing();
    for pid in 100..634 {
        world.spawn(pid, "ffmpeg");
    }
    world.run(seconds(100.0));
    assert_eq!((world.searches, world.checks), (0, 0));
    for pid in 100..634 {
        world.happen(pid, Happening::Block);
    }
    world.run(seconds(2.0));
    assert_eq!(world.searches, 1, "for the reports");
    world.run(seconds(8.0));

    assert_eq!(world.signals.len(), 534);
    assert_eq!(
        world.searches, 1,
        "what is known serves as long as the stalls last"
    );
    // Before the verdicts and at the two confirming looks.
    assert!(world.checks <= 4, "{}", world.checks);
}

#[test]
fn a_report_tells_who_does_not_read() {
    let mut world = world(rule());
    world.run(seconds(1.5));

    let Some((_, Report::StallDetected(snapshot, _))) = world.reports.first() else {
        panic!("{:?}", world.reports)
    };
    let cause = snapshot.stall.cause.as_deref().unwrap();
    assert_eq!(cause.culprit().unwrap().process.tgid, 50);
}

#[test]
fn a_stopped_reader_holds_the_rule_back_which_is_said_once_and_acts_when_it_runs_again() {
    for state in [State::Stopped, State::Traced, State::Frozen] {
        let mut world = world(rule());
        set(&mut world, state);
        world.run(seconds(30.0));
        assert_trace(
            &world,
            &[(1.0, "detected 10 test"), (3.0, "skipped reader-stopped 10")],
        );
        set(&mut world, State::Sleeping);
        world.run(seconds(3.0));

        let signals: Vec<_> = world.signals.iter().map(|(_, _, signal)| *signal).collect();
        assert_eq!(signals, [Signal::Term, Signal::Kill], "{state:?}");
    }
}

#[test]
fn a_reader_that_is_stopped_while_the_record_is_written_is_noticed_before_the_signal() {
    let mut world = world(rule());
    world.before_commit = Some((10, Happening::StopReader));
    world.run(seconds(20.0));
    assert_eq!(world.signals, []);
    assert_trace(
        &world,
        &[
            (1.0, "detected 10 test"),
            (3.0, "planned 10"),
            (3.0, "skipped reader-stopped 10"),
        ],
    );

    set(&mut world, State::Running);
    world.run(seconds(3.0));
    assert_eq!(world.signals.len(), 2);
}

#[test]
fn a_reader_that_is_stopped_within_the_grace_keeps_the_writer_from_the_second_signal() {
    let mut world = world(rule());
    world.run(seconds(3.5));
    set(&mut world, State::Stopped);
    world.run(seconds(20.0));

    let signals: Vec<_> = world.signals.iter().map(|(_, _, signal)| *signal).collect();
    assert_eq!(signals, [Signal::Term]);
    let said = world
        .trace()
        .iter()
        .filter(|(_, what)| what == "skipped reader-stopped 10")
        .count();
    assert_eq!(said, 1);
}

#[test]
fn a_rule_that_says_so_does_not_care_for_stopped_readers() {
    let mut world = world(Rule {
        hold_when_reader_stopped: false,
        ..rule()
    });
    set(&mut world, State::Stopped);
    world.run(seconds(6.0));
    assert_eq!(world.signals.len(), 2);
}

#[test]
fn a_dry_run_says_that_it_would_be_held_back() {
    let mut world = world(Rule {
        mode: Mode::DryRun,
        ..rule()
    });
    set(&mut world, State::Stopped);
    world.run(seconds(10.0));
    assert_trace(
        &world,
        &[(1.0, "detected 10 test"), (3.0, "skipped reader-stopped 10")],
    );
}

#[test]
fn a_reader_that_is_gone_is_searched_for_again() {
    let mut world = world(rule());
    world.run(seconds(1.5));
    assert_eq!(world.searches, 1);
    // 50 is over, and 51 has its end.
    world.readers.insert(10, (51, State::Stopped));
    world.readers.insert(0, (50, State::Gone));
    world.run(seconds(10.0));

    assert_eq!(world.searches, 2);
    assert_eq!(cause(&world).culprit().unwrap().process.tgid, 51);
    assert_eq!(world.signals, []);
}

#[test]
fn a_reader_that_is_gone_within_the_grace_is_searched_for_again_before_the_second_signal() {
    let mut world = world(rule());
    world.run(seconds(3.5));
    assert_eq!(world.signals.len(), 1);
    // 50 is over, and 51 has its end and is stopped.
    world.readers.insert(10, (51, State::Stopped));
    world.readers.insert(0, (50, State::Gone));
    world.run(seconds(10.0));
    assert_eq!((world.searches, world.signals.len()), (2, 1));

    set_reader(&mut world, 51, State::Sleeping);
    world.run(seconds(3.0));
    let signals: Vec<_> = world.signals.iter().map(|(_, _, signal)| *signal).collect();
    assert_eq!(signals, [Signal::Term, Signal::Term, Signal::Kill]);
}

#[test]
fn readers_of_several_that_are_asked_about_one_after_the_other_are_not_taken_for_gone() {
    let mut world = world(rule());
    for (pid, reader) in [(11, 51), (12, 52)] {
        world.spawn(pid, "ffmpeg");
        world.readers.insert(pid, (reader, State::Sleeping));
        world.happen(pid, Happening::Block);
    }
    world.run(seconds(10.0));
    assert_eq!(world.signals.len(), 4);
    assert_eq!(world.searches, 1);
}

#[test]
fn what_is_committed_while_others_readers_are_looked_at_waits_for_a_look_of_its_own() {
    let mut world = world(rule());
    world.run(seconds(1.0));
    world.spawn(11, "ffmpeg");
    world.readers.insert(11, (51, State::Sleeping));
    world.happen(11, Happening::Block);
    world.run(seconds(2.5));
    assert_eq!(world.signals.len(), 1, "the first has its grace");
    // The second is planned in the moment in which the first one's grace is over, and gets on
    // while that is written.
    world.before_commit = Some((11, Happening::Drain));
    world.run(seconds(1.0));
    assert!(
        world.signals.iter().all(|(_, writer, _)| writer.tid == 10),
        "{:?}",
        world.signals
    );
}

#[test]
fn nothing_is_decided_while_nobody_can_be_looked_for() {
    let mut world = world(rule());
    world.blind = true;
    world.run(seconds(30.0));
    assert_eq!(world.reports, []);
    assert!(
        (25..=35).contains(&world.searches),
        "once a second: {}",
        world.searches
    );

    world.blind = false;
    world.run(seconds(5.0));
    assert_eq!(world.signals.len(), 2);
}

#[test]
fn a_reader_whose_state_cannot_be_read_may_be_stopped() {
    let mut world = world(rule());
    set(&mut world, State::Unknown);
    world.run(seconds(10.0));
    assert_eq!(world.signals, []);
}

#[test]
fn a_reader_that_is_found_and_cannot_be_seen_is_searched_for_once_a_look_and_holds_the_rule() {
    let mut world = world(rule());
    set(&mut world, State::Gone);
    world.run(seconds(20.0));

    assert_eq!(world.signals, []);
    assert!(world.searches <= 25, "{}", world.searches);
}

#[test]
fn a_rule_for_deadlocks_takes_over_when_one_forms() {
    let deadlock = Rule {
        name: "deadlock".into(),
        matches: Match {
            deadlock: Some(true),
            ..Match::default()
        },
        ..rule()
    };
    let alert = Rule {
        action: Action::Alert,
        ..rule()
    };
    let mut world = World::new(Settings {
        policy: policy(vec![deadlock, alert]),
        ..Settings::default()
    });
    for (pid, reader) in [(10, 11), (11, 10)] {
        world.spawn(pid, "ffmpeg");
        world.readers.insert(pid, (reader, State::Sleeping));
    }
    world.happen(10, Happening::Block);
    world.run(seconds(8.0));
    // 11 sleeps, and does not read: no deadlock.
    assert_eq!(world.signals, []);
    assert_eq!(cause(&world).deadlock, []);
    world.happen(11, Happening::Block);
    world.run(seconds(2.0));

    let (_, first, _) = world
        .signals
        .first()
        .expect("as soon as the second is known to be stuck");
    assert_eq!(first.tid, 10);
    world.run(seconds(5.0));
    // The first has left, so that the second waits for nobody who is stuck.
    assert_eq!(world.signals.len(), 1);
}

#[test]
fn a_rule_for_a_state_applies_while_a_reader_is_in_it() {
    let alert = Rule {
        action: Action::Alert,
        matches: Match {
            reader_state: Some(State::Stopped),
            culprit_comm: Some(Pattern::parse("read*").unwrap()),
            ..Match::default()
        },
        ..rule()
    };
    let mut world = world(alert);
    world.run(seconds(10.0));
    assert_trace(&world, &[(1.0, "detected 10 -")]);
    set(&mut world, State::Stopped);
    world.run(seconds(20.0));

    let trace = world.trace();
    assert_eq!(trace.len(), 2, "{trace:?}");
    assert_eq!(trace[1].1, "detected 10 test");
    assert!(trace[1].0 <= seconds(12.0), "{trace:?}");
}
