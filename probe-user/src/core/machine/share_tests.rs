//! Rules on how much of the time a writer is blocked, in simulated time.

use super::{
    world::{Happening, World, at, policy, rule, seconds},
    *,
};
use crate::core::{
    model::Stream,
    report::Signal,
    rule::{Action, Hook, Mode, Pattern, Policy, Protect, Rule},
    share::StalledShare,
};

fn crawl() -> Rule {
    Rule {
        stalled_for: None,
        stalled_share: Some(StalledShare::new(0.8, seconds(10.0))),
        ..rule()
    }
}

/// A world with one writer.
fn world(rule: Rule) -> World {
    let mut world = World::new(Settings {
        policy: policy(vec![rule]),
        ..Settings::default()
    });
    world.spawn(7, "ffmpeg");
    world
}

/// Blocked for `blocked` of each second, `times` seconds long.
fn crawls(world: &mut World, blocked: f64, times: usize) {
    for _ in 0..times {
        world.happen(7, Happening::Block);
        world.run(seconds(blocked));
        world.happen(7, Happening::Leave);
        world.run(seconds(1.0 - blocked));
    }
}

fn said(world: &World, what: &str) -> usize {
    let trace = world.trace();
    trace.iter().filter(|(_, text)| text.starts_with(what)).count()
}

#[test]
fn a_writer_that_is_blocked_most_of_the_time_is_ended_and_another_is_not() {
    for (blocked, signals) in [(0.9, 1), (0.75, 0), (0.4, 0)] {
        let mut world = world(crawl());
        crawls(&mut world, blocked, 40);
        assert_eq!(world.signals.len(), signals, "{blocked}: {:?}", world.trace());
        if signals > 0 {
            let when = world.signals[0].0;
            assert!(when.since(at(Duration::ZERO)) >= seconds(10.0));
            assert!(
                when.since(at(Duration::ZERO)) <= seconds(12.0),
                "{:?}",
                world.trace()
            );
        }
    }
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_no_progress_for_a_share() {
    let mut world = world(crawl());
    world.happen(7, Happening::Block);
    for _ in 0..60 {
        world.run(seconds(0.3));
        world.happen(7, Happening::Drain);
    }
    assert_eq!(world.signals.len(), 1, "{:?}", world.trace());
    assert_eq!(said(&world, "detected"), 1);
}

#[test]
fn of_an_age_and_a_share_the_first_to_be_met_decides() {
    let both = Rule {
        stalled_for: Some(seconds(3.0)),
        ..crawl()
    };
    let mut stuck = world(both.clone());
    stuck.happen(7, Happening::Block);
    stuck.run(seconds(30.0));
    assert_eq!(stuck.signals[0].0, at(seconds(3.0)));

    let mut crawling = world(both);
    crawls(&mut crawling, 0.9, 30);
    assert_eq!(crawling.signals.len(), 1, "{:?}", crawling.trace());
    assert!(crawling.signals[0].0 >= at(seconds(10.0)));
}

#[test]
fn what_crossed_by_its_age_is_saved_by_a_byte_even_where_it_also_crawls() {
    let mut world = world(Rule {
        stalled_for: Some(seconds(30.0)),
        mode: Mode::Enforce,
        grace: seconds(2.0),
        ..crawl()
    });
    world.tasks.get_mut(&7).unwrap().dies_on_term = false;
    // Over the share from the tenth second on, but awake often enough to be let go after SIGTERM.
    crawls(&mut world, 0.9, 11);
    let first = world.signals.len();
    assert_eq!(first, 1);
    // Nothing blocks it any more.
    world.run(seconds(60.0));
    assert_eq!(world.signals.len(), 1, "{:?}", world.trace());
    assert_eq!(said(&world, "skipped progressed"), 1);
}

#[test]
fn a_writer_that_crawls_on_through_the_grace_gets_sigkill() {
    let mut world = world(crawl());
    world.tasks.get_mut(&7).unwrap().dies_on_term = false;
    crawls(&mut world, 0.9, 20);
    let signals: Vec<_> = world.signals.iter().map(|(.., signal)| *signal).collect();
    assert_eq!(signals, [Signal::Term, Signal::Kill], "{:?}", world.trace());
    assert_eq!(said(&world, "confirmed"), 1);
}

#[test]
fn dry_run_and_alerts_speak_of_a_crawling_writer_once_and_of_its_end() {
    for (action, mode, what) in [
        (Action::Kill, Mode::DryRun, "skipped dry-run"),
        (Action::Alert, Mode::DryRun, "detected"),
    ] {
        let mut world = world(Rule {
            action,
            mode,
            ..crawl()
        });
        crawls(&mut world, 0.9, 60);
        assert_eq!(
            (said(&world, what), said(&world, "detected")),
            (1, 1),
            "{:?}",
            world.trace()
        );
        assert_eq!(said(&world, "ended"), 0);
        world.run(seconds(60.0));
        assert_eq!(said(&world, "ended 7 left"), 1);
    }
}

#[test]
fn the_protected_and_those_on_their_stderr_are_spared() {
    let mut on_stderr = world(crawl());
    on_stderr.tasks.get_mut(&7).unwrap().stream = Stream::Stderr;
    crawls(&mut on_stderr, 0.9, 30);
    let mut protected = World::new(Settings {
        policy: Policy {
            protect: Protect {
                comm: vec![Pattern::parse("ff*").unwrap()],
                ..Protect::default()
            },
            ..policy(vec![crawl()])
        },
        ..Settings::default()
    });
    protected.spawn(7, "ffmpeg");
    crawls(&mut protected, 0.9, 30);
    for world in [on_stderr, protected] {
        assert!(world.signals.is_empty());
        assert_eq!(said(&world, "skipped protected"), 1, "{:?}", world.trace());
    }
}

#[test]
fn what_the_tracer_has_lost_is_counted_anew() {
    let mut world = world(crawl());
    crawls(&mut world, 0.9, 9);
    world.happen(7, Happening::Lose);
    crawls(&mut world, 0.9, 9);
    assert!(world.signals.is_empty(), "{:?}", world.trace());
    crawls(&mut world, 0.9, 4);
    assert_eq!(world.signals.len(), 1);
}

#[test]
fn another_program_and_another_process_are_counted_anew() {
    for what in [Happening::Exec("ffmpeg"), Happening::Reuse] {
        let mut world = world(crawl());
        crawls(&mut world, 0.9, 9);
        world.happen(7, what);
        crawls(&mut world, 0.9, 9);
        assert!(world.signals.is_empty(), "{what:?} {:?}", world.trace());
    }
}

#[test]
fn a_writer_that_comes_to_rest_before_its_turn_is_spared() {
    let hook = Hook {
        command: vec!["true".into()],
        timeout: seconds(60.0),
    };
    let mut world = world(Rule {
        pre_kill: Some(hook),
        ..crawl()
    });
    crawls(&mut world, 0.9, 14);
    assert_eq!((world.hooks.len(), world.signals.len()), (1, 0));
    crawls(&mut world, 0.3, 8);
    for id in std::mem::take(&mut world.hooks) {
        world.machine.handle_hooked(id, "pre_kill: done".into());
    }
    crawls(&mut world, 0.3, 8);
    assert!(world.signals.is_empty(), "{:?}", world.trace());
    assert_eq!(said(&world, "skipped progressed"), 1);
}
