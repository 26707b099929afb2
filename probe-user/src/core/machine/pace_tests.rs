//! How fast and how far rules go, in simulated time.

use super::{
    world::{Happening, World, assert_trace, at, policy, rule, seconds},
    *,
};
use crate::core::{
    model::Stream,
    pace::{Cooldown, GroupBy, Limits, Pace, Rate},
    rule::{Hook, Match, Mode, Policy, Rule},
};

fn rate(count: usize, per: f64) -> Rate {
    Rate {
        count,
        per: seconds(per),
    }
}

fn paced(pace: Pace) -> Rule {
    Rule { pace, ..rule() }
}

fn world(rule: Rule) -> World {
    World::new(Settings {
        policy: policy(vec![rule]),
        ..Settings::default()
    })
}

/// `count` writers from pid 100 on, each blocking a tenth of a second after the one before.
fn crowd(world: &mut World, count: u32) {
    for pid in 100..100 + count {
        world.spawn(pid, "ffmpeg");
        world.run(seconds(0.1));
        world.happen(pid, Happening::Block);
    }
}

fn signalled(world: &World) -> Vec<u32> {
    world.signals.iter().map(|(_, writer, _)| writer.tid).collect()
}

fn said(world: &World, what: &str) -> usize {
    world
        .trace()
        .iter()
        .filter(|(_, text)| text.starts_with(what))
        .count()
}

#[test]
fn a_pile_is_worked_off_from_the_oldest_and_its_youngest_are_left() {
    let mut world = world(paced(Pace {
        pile_up: 4,
        leave: 2,
        ..Pace::default()
    }));
    crowd(&mut world, 3);
    world.run(seconds(60.0));
    assert!(signalled(&world).is_empty());
    for pid in [200, 201, 202] {
        world.spawn(pid, "ffmpeg");
        world.happen(pid, Happening::Block);
        world.run(seconds(0.1));
    }
    world.run(seconds(60.0));
    // The fourth makes a pile of four, of which two go; the sixth makes another.
    assert_eq!(signalled(&world), [100, 101, 102, 200]);
}

#[test]
fn piles_are_counted_by_group() {
    let mut world = world(paced(Pace {
        pile_up: 3,
        group_by: GroupBy::User,
        ..Pace::default()
    }));
    crowd(&mut world, 6);
    for pid in [100, 102] {
        world.tasks.get_mut(&pid).unwrap().uid = 1;
    }
    world.run(seconds(60.0));
    // The third makes a pile of three; the one that comes after it is alone.
    assert_eq!(signalled(&world), [101, 103, 104]);
}

#[test]
fn an_incident_is_drained_at_the_budgets_rate_and_said_once() {
    let mut world = world(paced(Pace {
        budget: Some(rate(100, 1.0)),
        ..Pace::default()
    }));
    for pid in 100..634 {
        world.spawn(pid, "ffmpeg");
        world.happen(pid, Happening::Block);
    }
    world.run(seconds(60.0));
    let times: Vec<_> = world
        .signals
        .iter()
        .map(|(when, ..)| when.since(at(seconds(0.0))).as_secs())
        .collect();
    let per_second: Vec<_> = (3..9)
        .map(|s| times.iter().filter(|t| **t == s).count())
        .collect();
    assert_eq!(per_second, [100, 100, 100, 100, 100, 34]);
    assert_eq!(signalled(&world), (100..634).collect::<Vec<_>>());
    assert_eq!(said(&world, "skipped budget"), 434);
}

#[test]
fn the_budget_of_all_rules_holds_for_each() {
    let limits = Limits {
        budget: Some(rate(1, 10.0)),
        ..Limits::default()
    };
    let policy = Policy {
        limits,
        ..policy(vec![rule()])
    };
    let mut world = World::new(Settings {
        policy,
        ..Settings::default()
    });
    crowd(&mut world, 3);
    world.run(seconds(60.0));
    let times: Vec<_> = world.signals.iter().map(|(when, ..)| *when).collect();
    let first = times[0];
    assert_eq!(
        times,
        [first, first.after(seconds(10.0)), first.after(seconds(20.0))]
    );
}

#[test]
fn a_respawn_loop_cools_down_and_is_taken_up_again() {
    let cooldown = Cooldown {
        per: GroupBy::Parent,
        after: rate(2, 60.0),
        lasts: seconds(100.0),
    };
    let mut world = world(paced(Pace {
        cooldown: Some(cooldown),
        ..Pace::default()
    }));
    // What is ended comes back at once, under the same parent.
    for pid in 100..110 {
        world.spawn(pid, "ffmpeg");
        world.happen(pid, Happening::Block);
        world.run(seconds(4.0));
    }
    assert_eq!(signalled(&world), [100, 101]);
    assert_eq!(said(&world, "skipped cooldown"), 8);
    world.run(seconds(100.0));
    assert_eq!(
        signalled(&world),
        [100, 101, 102, 103],
        "two more, then it stops again"
    );
}

#[test]
fn rules_that_hit_too_many_different_programs_are_stopped_and_armed_again_in_time() {
    let mut world = world(Rule {
        matches: Match::default(),
        ..rule()
    });
    for (pid, comm) in [(100, "a"), (101, "b"), (102, "c"), (103, "d"), (104, "a")] {
        world.spawn(pid, comm);
        world.run(seconds(0.1));
        world.happen(pid, Happening::Block);
    }
    world.run(seconds(60.0));
    assert_eq!(signalled(&world), [100, 101, 102]);
    assert_eq!(
        (said(&world, "degraded"), said(&world, "skipped blast-radius")),
        (1, 2)
    );
    world.run(seconds(600.0));
    assert_eq!(signalled(&world), [100, 101, 102, 103, 104]);
}

#[test]
fn a_starved_host_holds_a_rule_until_it_has_recovered() {
    let mut world = world(paced(Pace {
        unless_cpu_pressure_over: Some(0.6),
        ..Pace::default()
    }));
    assert!(world.machine.asks_for_pressure() && !World::enforcing().machine.asks_for_pressure());
    world.machine.handle_pressure(Some(0.7));
    crowd(&mut world, 1);
    world.run(seconds(30.0));
    assert_eq!(
        (signalled(&world).len(), said(&world, "skipped pressure")),
        (0, 1)
    );
    world.machine.handle_pressure(Some(0.5));
    world.run(seconds(6.0));
    assert_eq!(signalled(&world), [100]);
}

#[test]
fn where_nobody_knows_whether_the_host_is_starved_a_rule_that_asks_waits_and_says_why() {
    let mut world = world(paced(Pace {
        unless_cpu_pressure_over: Some(0.6),
        ..Pace::default()
    }));
    world.machine.handle_pressure(None);
    crowd(&mut world, 2);
    world.run(seconds(30.0));
    world.machine.handle_pressure(None);
    world.run(seconds(30.0));
    assert!(signalled(&world).is_empty());
    assert_eq!(
        (said(&world, "degraded"), said(&world, "skipped pressure")),
        (1, 2),
        "once, and once for each"
    );
    assert!(world.machine.lacks_pressure().is_some());
    world.machine.handle_pressure(Some(0.1));
    world.run(seconds(6.0));
    assert_eq!(signalled(&world), [100, 101]);
    assert_eq!(world.machine.lacks_pressure(), None);
}

#[test]
fn a_rule_that_does_not_ask_is_not_held_by_a_kernel_that_does_not_tell() {
    let mut world = world(rule());
    world.machine.handle_pressure(None);
    crowd(&mut world, 1);
    world.run(seconds(30.0));
    assert_eq!(signalled(&world), [100]);
    assert_eq!(world.machine.lacks_pressure(), None);
}

#[test]
fn dry_run_keeps_the_pace_that_enforcing_would() {
    let pace = Pace {
        pile_up: 2,
        leave: 1,
        budget: Some(rate(1, 10.0)),
        ..Pace::default()
    };
    let mut world = world(Rule {
        mode: Mode::DryRun,
        ..paced(pace)
    });
    crowd(&mut world, 3);
    world.run(seconds(60.0));
    assert!(signalled(&world).is_empty());
    assert_trace(
        &world,
        &[
            (1.1, "detected 100 test"),
            (1.2, "detected 101 test"),
            (1.3, "detected 102 test"),
            (3.2, "skipped dry-run 100"),
            (3.3, "skipped budget 101"),
            (13.2, "skipped dry-run 101"),
        ],
    );
}

#[test]
fn progress_while_waiting_saves_a_writer() {
    let mut world = world(paced(Pace {
        budget: Some(rate(1, 10.0)),
        ..Pace::default()
    }));
    crowd(&mut world, 2);
    world.run(seconds(8.0));
    world.happen(101, Happening::Drain);
    world.run(seconds(3.0));
    assert_eq!(signalled(&world), [100]);
}

#[test]
fn a_hook_runs_before_the_fresh_look_and_holds_up_nobody_else() {
    let hook = Hook {
        command: vec!["true".into()],
        timeout: seconds(5.0),
    };
    let rules = vec![
        Rule {
            name: "hooked".into(),
            pre_kill: Some(hook),
            matches: stream(Stream::Stderr),
            allow_stderr_kill: true,
            ..rule()
        },
        rule(),
    ];
    let mut world = World::new(Settings {
        policy: policy(rules),
        ..Settings::default()
    });
    for pid in [100, 101, 102] {
        world.spawn(pid, "ffmpeg");
        world.happen(pid, Happening::Block);
    }
    for pid in [100, 101] {
        world.tasks.get_mut(&pid).unwrap().stream = Stream::Stderr;
    }
    world.run(seconds(4.0));
    assert_eq!((signalled(&world), world.hooks.len()), (vec![102], 2));
    // One of the two moves while its hook runs.
    world.happen(101, Happening::Drain);
    for id in std::mem::take(&mut world.hooks) {
        world.machine.handle_hooked(id, "pre_kill: done".into());
    }
    world.run(seconds(0.1));
    assert_eq!(signalled(&world), [102, 100]);
    assert_eq!(said(&world, "skipped progressed 101"), 1);
}

#[test]
fn a_kill_that_could_not_begin_uses_up_no_budget_and_each_reason_is_said_once() {
    let mut world = world(paced(Pace {
        budget: Some(rate(2, 60.0)),
        ..Pace::default()
    }));
    crowd(&mut world, 4);
    world.out_of_handles = true;
    world.run(seconds(20.0));
    for pid in 100..104 {
        for reason in ["unsupported", "budget"] {
            let times = said(&world, &format!("skipped {reason} {pid}"));
            assert!(times <= 1, "{reason} of {pid} said {times} times");
        }
    }
    world.out_of_handles = false;
    world.run(seconds(1.5));
    assert_eq!(signalled(&world), [100, 101]);
    world.run(seconds(57.0));
    assert_eq!(signalled(&world).len(), 2);
    world.run(seconds(5.0));
    assert_eq!(signalled(&world), [100, 101, 102, 103]);
}

#[test]
fn who_is_spared_gives_its_place_to_the_next() {
    let cooldown = Cooldown {
        per: GroupBy::Parent,
        after: rate(1, 60.0),
        lasts: seconds(100.0),
    };
    for pace in [
        Pace {
            budget: Some(rate(1, 60.0)),
            ..Pace::default()
        },
        Pace {
            cooldown: Some(cooldown),
            ..Pace::default()
        },
    ] {
        for what in [
            Happening::Drain,
            Happening::Leave,
            Happening::Reuse,
            Happening::Exit { noted: false },
        ] {
            let mut world = world(paced(pace));
            for pid in [100, 101] {
                world.spawn(pid, "ffmpeg");
                world.happen(pid, Happening::Block);
            }
            world.before_open = Some((100, what));
            world.run(seconds(5.0));
            assert_eq!(signalled(&world), [101], "{what:?} {:?}", world.trace());
        }
    }
}

#[test]
fn a_program_that_is_spared_is_not_one_of_too_many() {
    let mut world = world(Rule {
        matches: Match::default(),
        ..rule()
    });
    for (pid, comm) in [(100, "a"), (101, "b"), (102, "c"), (103, "d")] {
        world.spawn(pid, comm);
        world.happen(pid, Happening::Block);
    }
    world.before_open = Some((100, Happening::Drain));
    world.run(seconds(5.5));
    assert_eq!(signalled(&world), [101, 102, 103]);
    assert_eq!(said(&world, "degraded"), 0);
}

#[test]
fn a_budget_counts_from_the_signal_however_long_a_hook_takes() {
    let hook = Hook {
        command: vec!["true".into()],
        timeout: seconds(60.0),
    };
    let mut world = world(Rule {
        pre_kill: Some(hook),
        ..paced(Pace {
            budget: Some(rate(1, 10.0)),
            ..Pace::default()
        })
    });
    crowd(&mut world, 2);
    world.run(seconds(30.0));
    for _ in 0..2 {
        for id in std::mem::take(&mut world.hooks) {
            world.machine.handle_hooked(id, "pre_kill: done".into());
        }
        world.run(seconds(12.0));
    }
    let times: Vec<_> = world.signals.iter().map(|(when, ..)| *when).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1].since(times[0]) >= seconds(10.0), "{times:?}");
}

fn stream(stream: Stream) -> Match {
    Match {
        stream: Some(stream),
        ..Match::default()
    }
}
