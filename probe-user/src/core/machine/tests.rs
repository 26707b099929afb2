//! The machine's behaviour, one sentence a test, in simulated time.

use super::{
    world::{Happening, World, assert_trace, at, policy, rule, seconds},
    *,
};
use crate::core::{
    model::Stream,
    report::Signal,
    rule::{Action, Mode, Pattern, Policy, Protect, Rule},
};

fn world_with(change: impl FnOnce(&mut Rule)) -> World {
    let mut rule = rule();
    change(&mut rule);
    World::new(Settings {
        policy: policy(vec![rule]),
        ..Settings::default()
    })
}

/// One writer that blocks half a second after the start.
fn with_a_stuck_writer(mut world: World) -> World {
    world.spawn(7, "ffmpeg");
    world.run(seconds(0.5));
    world.happen(7, Happening::Block);
    world
}

#[test]
fn a_stuck_writer_is_reported_and_ended_at_the_moment_it_crosses() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.run(seconds(60.0));
    assert_trace(
        &world,
        &[
            (1.5, "detected 7 test"),
            (3.5, "planned 7"),
            (3.5, "sent SIGTERM 7"),
            (3.5, "ended 7 exited"),
            (3.5, "confirmed 7"),
        ],
    );
    assert_eq!((world.commits, world.machine.kills_under_way()), (1, 0));
}

#[test]
fn what_was_stuck_before_the_start_is_watched_before_it_is_ended() {
    let mut world = World::enforcing();
    world.spawn(7, "ffmpeg");
    world.block_before_start(7, seconds(600.0));
    world.run(seconds(60.0));
    assert_trace(
        &world,
        &[
            (1.0, "detected 7 test"),
            (3.0, "planned 7"),
            (3.0, "sent SIGTERM 7"),
            (3.0, "ended 7 exited"),
            (3.0, "confirmed 7"),
        ],
    );
    let (_, Report::StallDetected(first, _)) = &world.reports[0] else {
        panic!("{:?}", world.reports[0])
    };
    assert!(first.stall.preexisting);
    assert_eq!(first.age(), seconds(601.0));
}

#[test]
fn one_drained_byte_in_time_saves_a_writer() {
    let mut world = with_a_stuck_writer(World::enforcing());
    for _ in 0..20 {
        world.run(seconds(2.9));
        world.happen(7, Happening::Drain);
    }
    assert!(world.signals.is_empty());
    world.run(seconds(10.0));
    assert_eq!(world.signals.len(), 1);
}

#[test]
fn signals_neither_age_nor_rejuvenate_a_stall() {
    let mut world = with_a_stuck_writer(World::enforcing());
    for _ in 0..100 {
        world.run(seconds(0.05));
        world.happen(7, Happening::Wake { noted: false });
    }
    assert_eq!(world.signals.len(), 1);
    assert_eq!(world.signals[0].0, at(seconds(3.5)));
}

#[test]
fn a_writer_that_leaves_and_comes_back_starts_anew() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.run(seconds(2.0));
    world.happen(7, Happening::Leave);
    world.run(seconds(0.5));
    world.happen(7, Happening::Block);
    world.run(seconds(10.0));
    assert_eq!(world.signals[0].0, at(seconds(6.0)));
}

#[test]
fn sigterm_is_followed_by_sigkill_once_the_grace_is_over() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.tasks.get_mut(&7).unwrap().dies_on_term = false;
    world.run(seconds(10.0));
    let signals: Vec<_> = world
        .signals
        .iter()
        .map(|(when, _, signal)| (*when, *signal))
        .collect();
    assert_eq!(
        signals,
        [(at(seconds(3.5)), Signal::Term), (at(seconds(4.5)), Signal::Kill)]
    );
    assert_eq!(world.trace().last().unwrap().1, "confirmed 7");
}

#[test]
fn the_action_term_goes_no_further_than_sigterm() {
    let mut world = with_a_stuck_writer(world_with(|rule| rule.action = Action::Term));
    world.tasks.get_mut(&7).unwrap().dies_on_term = false;
    world.run(seconds(60.0));
    assert_eq!(world.signals.len(), 1);
    assert_eq!(world.trace().last().unwrap().1, "failed 7");
}

#[test]
fn progress_during_the_grace_lets_a_writer_go() {
    for what in [Happening::Drain, Happening::Leave] {
        let mut world = with_a_stuck_writer(World::enforcing());
        world.tasks.get_mut(&7).unwrap().dies_on_term = false;
        world.run(seconds(3.2));
        world.happen(7, what);
        world.run(seconds(1.9));
        let signals: Vec<_> = world.signals.iter().map(|(_, _, signal)| *signal).collect();
        assert_eq!(signals, [Signal::Term], "{what:?}");
        assert!(
            world
                .trace()
                .iter()
                .any(|(_, what)| what == "skipped progressed 7"),
            "{what:?}"
        );
    }
}

#[test]
fn a_writer_that_answers_sigterm_by_leaving_its_write_is_let_go() {
    let mut world = with_a_stuck_writer(World::enforcing());
    let task = world.tasks.get_mut(&7).unwrap();
    (task.dies_on_term, task.leaves_on_term) = (false, true);
    world.run(seconds(60.0));
    assert_eq!(world.signals.len(), 1);
    let last: Vec<_> = world
        .trace()
        .into_iter()
        .rev()
        .take(2)
        .map(|(_, what)| what)
        .collect();
    assert_eq!(last, ["skipped progressed 7", "ended 7 left"]);
}

#[test]
fn dry_run_says_so_once_and_signals_nothing() {
    let mut world = with_a_stuck_writer(world_with(|rule| rule.mode = Mode::DryRun));
    world.run(seconds(600.0));
    assert_trace(&world, &[(1.5, "detected 7 test"), (3.5, "skipped dry-run 7")]);
}

#[test]
fn an_alerting_rule_speaks_again_at_its_own_age() {
    let mut world = with_a_stuck_writer(world_with(|rule| rule.action = Action::Alert));
    world.run(seconds(600.0));
    assert_trace(&world, &[(1.5, "detected 7 test"), (3.5, "detected 7 test")]);
}

#[test]
fn the_protected_are_never_signalled() {
    let protects = [
        Protect {
            comm: vec![Pattern::parse("ff*").unwrap()],
            ..Protect::default()
        },
        Protect {
            users: vec![Pattern::parse("peertube").unwrap()],
            ..Protect::default()
        },
        Protect {
            users: vec![Pattern::parse("1000").unwrap()],
            ..Protect::default()
        },
        Protect {
            pids: vec![7],
            ..Protect::default()
        },
    ];
    for protect in protects {
        let policy = Policy {
            protect: protect.clone(),
            ..policy(vec![rule()])
        };
        let mut world = with_a_stuck_writer(World::new(Settings {
            policy,
            ..Settings::default()
        }));
        world.run(seconds(60.0));
        assert!(world.signals.is_empty(), "{protect:?}");
        assert_eq!(world.trace()[1].1, "skipped protected 7");
    }
    let mut world = World::enforcing();
    world.spawn(1, "ffmpeg");
    world.happen(1, Happening::Block);
    world.run(seconds(60.0));
    assert!(world.signals.is_empty(), "pid 1");
}

#[test]
fn a_process_stuck_on_its_stderr_is_spared_unless_the_rule_says_otherwise() {
    for (allowed, signals) in [(false, 0), (true, 1)] {
        let mut world = with_a_stuck_writer(world_with(|rule| rule.allow_stderr_kill = allowed));
        world.tasks.get_mut(&7).unwrap().stream = Stream::Stderr;
        world.run(seconds(60.0));
        assert_eq!(world.signals.len(), signals);
    }
}

#[test]
fn nothing_is_signalled_where_pids_do_not_mean_the_same() {
    let settings = Settings {
        policy: policy(vec![rule()]),
        unsupported: Some("because"),
        ..Settings::default()
    };
    let mut world = with_a_stuck_writer(World::new(settings));
    world.run(seconds(60.0));
    assert_trace(
        &world,
        &[(1.5, "detected 7 test"), (3.5, "skipped unsupported 7")],
    );
}

#[test]
fn an_exit_between_verdict_and_signal_is_told_from_progress() {
    for (before_open, before_signal) in [(true, false), (false, true)] {
        let mut world = with_a_stuck_writer(World::enforcing());
        let exit = Some((7, Happening::Exit { noted: false }));
        world.before_open = exit.filter(|_| before_open);
        world.before_signal = exit.filter(|_| before_signal);
        world.run(seconds(60.0));
        assert!(world.signals.is_empty());
        assert!(
            world.trace().iter().any(|(_, what)| what == "skipped exited 7"),
            "{:?}",
            world.trace()
        );
    }
}

#[test]
fn a_reused_pid_is_never_signalled() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.before_open = Some((7, Happening::Reuse));
    world.run(seconds(3.5));
    assert!(world.signals.is_empty());
    assert!(world.trace().iter().any(|(_, what)| what == "skipped identity 7"));
}

#[test]
fn only_those_that_the_fresh_look_still_shows_are_planned() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.before_open = Some((7, Happening::Drain));
    world.run(seconds(3.5));
    assert!(world.signals.is_empty());
    assert!(
        world
            .trace()
            .iter()
            .any(|(_, what)| what == "skipped progressed 7")
    );
    assert_eq!(world.commits, 0);
}

#[test]
fn a_thousand_that_cross_together_take_one_commit_and_three_looks() {
    let mut world = World::enforcing();
    for pid in 2..1002 {
        world.spawn(pid, "ffmpeg");
    }
    world.run(seconds(0.5));
    for pid in 2..1002 {
        world.happen(pid, Happening::Block);
    }
    world.run(seconds(2.9));
    let looks = world.looks;
    world.run(seconds(0.1));
    assert_eq!(world.signals.len(), 1000);
    assert_eq!((world.commits, world.looks - looks), (1, 3));
}

#[test]
fn an_idle_observer_looks_once_per_smallest_threshold() {
    let mut world = World::enforcing();
    world.spawn(7, "ffmpeg");
    world.run(seconds(100.0));
    assert_eq!(world.looks, 101);
}

#[test]
fn a_writer_that_wakes_after_a_long_stall_is_looked_for_at_once() {
    let mut world = with_a_stuck_writer(world_with(|rule| rule.stalled_for = Some(seconds(60.0))));
    world.run(seconds(2.0));
    world.happen(7, Happening::Leave);
    let writer = world.tasks[&7].writer;
    let now = world.now;
    world.machine.handle_note(Note::Woke(writer), now);
    world.run(seconds(0.5));
    assert_eq!(world.trace().last().unwrap().1, "ended 7 left");
}

#[test]
fn a_writer_that_is_awake_at_a_look_is_no_younger_at_the_next() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.run(seconds(0.45));
    // The look that comes each second does not show it.
    world.happen(7, Happening::Hold(seconds(0.12)));
    world.run(seconds(60.0));
    assert_trace(
        &world,
        &[
            (1.5, "detected 7 test"),
            (3.5, "planned 7"),
            (3.5, "sent SIGTERM 7"),
            (3.5, "ended 7 exited"),
            (3.5, "confirmed 7"),
        ],
    );
}

#[test]
fn a_writer_that_is_held_is_not_looked_for_all_the_time() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.happen(7, Happening::Hold(seconds(10.0)));
    world.run(seconds(9.9));
    // One a second, and in that after it was awakened one each tenth.
    let looks = world.looks;
    assert!((11..=21).contains(&looks), "{looks}");
    world.run(seconds(1.1));
    assert_eq!(world.signals.len(), 1);
}

#[test]
fn a_reader_that_comes_back_while_the_record_is_written_saves_the_writer() {
    for what in [Happening::Drain, Happening::Leave] {
        let mut world = with_a_stuck_writer(World::enforcing());
        world.before_commit = Some((7, what));
        world.run(seconds(3.5));
        assert!(world.signals.is_empty(), "{what:?} {:?}", world.trace());
        assert!(
            world
                .trace()
                .iter()
                .any(|(_, what)| what == "skipped progressed 7"),
            "{what:?}: {:?}",
            world.trace()
        );
    }
}

#[test]
fn a_process_that_has_become_another_program_is_not_ended_for_what_it_was() {
    for when in [2.0, 3.2] {
        let mut world = with_a_stuck_writer(world_with(|rule| rule.grace = seconds(2.0)));
        world.tasks.get_mut(&7).unwrap().dies_on_term = false;
        world.run(seconds(when));
        world.happen(7, Happening::Exec("sshd"));
        world.run(seconds(60.0));
        assert!(
            world.signals.iter().all(|(when, ..)| *when <= at(seconds(3.5))),
            "{:?}",
            world.trace()
        );
        assert!(world.signals.iter().all(|(.., signal)| *signal == Signal::Term));
    }
}

#[test]
fn a_writer_whose_parent_is_gone_is_asked_about_anew() {
    let parent = Some(Pattern::parse("99").unwrap());
    let mut world = with_a_stuck_writer(world_with(|rule| rule.matches.parent = parent));
    world.run(seconds(2.0));
    world.happen(7, Happening::Orphan);
    world.run(seconds(60.0));
    assert!(world.signals.is_empty(), "{:?}", world.trace());
}

#[test]
fn what_may_have_been_draining_before_the_start_is_watched_for_all_of_the_rules_time() {
    let mut world = world_with(|rule| rule.stalled_for = Some(seconds(20.0)));
    for (pid, taken_from) in [(7, false), (8, true)] {
        world.spawn(pid, "ffmpeg");
        world.block_before_start(pid, seconds(600.0));
        if taken_from {
            world.happen(pid, Happening::Drain);
        }
    }
    world.run(seconds(60.0));
    let signals: Vec<_> = world
        .signals
        .iter()
        .map(|(when, writer, _)| (*when, writer.tid))
        .collect();
    assert_eq!(signals, [(at(seconds(5.0)), 7), (at(seconds(20.0)), 8)]);
}

#[test]
fn a_process_that_cleans_up_after_sigterm_is_confirmed_when_it_exits() {
    let mut world = with_a_stuck_writer(World::enforcing());
    let task = world.tasks.get_mut(&7).unwrap();
    (task.dies_on_term, task.leaves_on_term) = (false, true);
    world.run(seconds(3.7));
    world.happen(7, Happening::Exit { noted: true });
    world.tell_exits();
    world.run(seconds(60.0));
    assert_eq!(world.signals.len(), 1);
    let kills: Vec<_> = world
        .trace()
        .into_iter()
        .map(|(_, what)| what)
        .filter(|what| !what.starts_with("ended"))
        .collect();
    assert_eq!(kills[1..], ["planned 7", "sent SIGTERM 7", "confirmed 7"]);
}

#[test]
fn what_is_under_way_when_the_observer_stops_is_told() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.tasks.get_mut(&7).unwrap().dies_on_term = false;
    world.run(seconds(3.2));
    let now = world.now;
    world.machine.handle_stop(now);
    world.run(Duration::ZERO);
    assert_eq!(world.trace().last().unwrap().1, "failed 7");
    assert_eq!(world.machine.kills_under_way(), 0);
}

#[test]
fn a_shortage_of_handles_puts_kills_off_and_loses_none() {
    let mut world = with_a_stuck_writer(World::enforcing());
    world.out_of_handles = true;
    world.run(seconds(20.0));
    assert!(world.signals.is_empty());
    let said = world
        .trace()
        .iter()
        .filter(|(_, what)| what == "skipped unsupported 7")
        .count();
    assert_eq!(said, 1);
    world.out_of_handles = false;
    world.run(seconds(2.0));
    assert_eq!(world.signals.len(), 1);
}
