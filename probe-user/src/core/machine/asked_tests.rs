//! What is asked of the machine from outside, and a record that cannot be kept, in simulated time.

use super::{
    world::{Disk, Happening, World, assert_trace, at, policy, rule, seconds},
    *,
};
use crate::core::{
    report::Signal,
    rule::{Mode, Pattern, Protect, Rule},
};

/// A world with a rule of its own, and one writer that blocks at its start.
fn stuck_under(change: impl FnOnce(&mut Rule)) -> World {
    let mut rule = rule();
    change(&mut rule);
    let mut world = World::new(Settings {
        policy: policy(vec![rule]),
        ..Settings::default()
    });
    world.spawn(7, "ffmpeg");
    world.happen(7, Happening::Block);
    world
}

fn dry_run(rule: &mut Rule) {
    rule.mode = Mode::DryRun;
}

fn ask(world: &mut World) -> Result<(), Refusal> {
    let stall = world
        .machine
        .stalls()
        .next()
        .map_or(StallId(99), |stall| stall.id);
    let asked = Asked {
        stall,
        by: "asked for by a test".to_owned(),
        grace: seconds(1.0),
    };
    let now = world.now;
    world.machine.handle_asked(asked, now)
}

fn reload(world: &mut World, change: impl FnOnce(&mut Settings)) {
    let mut settings = world.machine.settings().clone();
    change(&mut settings);
    world.machine.reload(settings);
}

fn outlook(world: &World) -> Outlook {
    let mut standings = world.machine.standings(world.now);
    standings.next().expect("a stall").outlook
}

#[test]
fn a_kill_that_is_asked_for_goes_by_the_protocol_whatever_the_rules_mode() {
    let mut world = stuck_under(dry_run);
    world.run(seconds(6.0));
    assert_eq!(ask(&mut world), Ok(()));
    assert_eq!(ask(&mut world), Err(Refusal::UnderWay));
    assert_eq!(outlook(&world), Outlook::Ending(Step::Opening));
    world.run(seconds(1.0));
    assert_trace(
        &world,
        &[
            (1.0, "detected 7 test"),
            (3.0, "skipped dry-run 7"),
            (6.0, "planned 7"),
            (6.0, "sent SIGTERM 7"),
            (6.0, "ended 7 exited"),
            (6.0, "confirmed 7"),
        ],
    );
    assert_eq!(world.commits, 1);
}

#[test]
fn a_kill_that_is_asked_for_stops_at_progress_like_any_other() {
    let mut world = stuck_under(dry_run);
    world.run(seconds(6.0));
    world.before_commit = Some((7, Happening::Drain));
    assert_eq!(ask(&mut world), Ok(()));
    world.run(seconds(1.0));
    assert!(world.signals.is_empty());
    assert!(
        world
            .trace()
            .iter()
            .any(|(_, what)| what == "skipped progressed 7")
    );
}

#[test]
fn what_may_not_be_ended_is_not_ended_by_asking() {
    let mut young = stuck_under(dry_run);
    young.run(seconds(2.0));
    assert!(matches!(ask(&mut young), Err(Refusal::TooYoung { .. })));

    let mut nobody = World::enforcing();
    assert_eq!(ask(&mut nobody), Err(Refusal::NoStall));

    let mut protected = stuck_under(dry_run);
    reload(&mut protected, |settings| {
        settings.policy.protect = Protect {
            comm: vec![Pattern::parse("ffmpeg").expect("a pattern")],
            ..Protect::default()
        };
    });
    protected.run(seconds(6.0));
    assert!(matches!(ask(&mut protected), Err(Refusal::Protected(_))));

    let mut elsewhere = stuck_under(dry_run);
    reload(&mut elsewhere, |settings| settings.unsupported = Some("not here"));
    elsewhere.run(seconds(6.0));
    assert_eq!(ask(&mut elsewhere), Err(Refusal::Unsupported("not here")));

    let mut unrecorded = stuck_under(dry_run);
    unrecorded.run(seconds(6.0));
    let now = unrecorded.now;
    unrecorded.machine.handle_recording(false, now);
    assert_eq!(ask(&mut unrecorded), Err(Refusal::Unrecorded));

    for world in [young, nobody, protected, elsewhere, unrecorded] {
        assert!(world.signals.is_empty());
    }
}

#[test]
fn nobody_is_ended_while_nothing_can_be_recorded_and_everybody_once_it_can() {
    let mut world = stuck_under(|_| ());
    world.disk = Disk::Full;
    world.run(seconds(60.0));
    assert!(world.signals.is_empty());
    assert!(matches!(outlook(&world), Outlook::Held(Skipped::Unrecorded, _)));
    let skips = world
        .trace()
        .iter()
        .filter(|(_, what)| what == "skipped unrecorded 7")
        .count();
    assert_eq!(skips, 1, "said once");

    world.disk = Disk::Works;
    let now = world.now;
    world.machine.handle_recording(true, now);
    world.run(seconds(1.0));
    assert_eq!(world.signals.len(), 1);
    assert_eq!(world.signals[0].0, at(seconds(60.0)));
}

#[test]
fn a_plan_that_is_on_disk_is_put_off_too_when_nothing_more_can_be_recorded() {
    let mut world = stuck_under(|_| ());
    world.disk = Disk::Fills;
    world.run(seconds(60.0));
    assert_eq!((world.commits, world.signals.len()), (1, 0));
    assert!(matches!(outlook(&world), Outlook::Held(Skipped::Unrecorded, _)));

    world.disk = Disk::Works;
    let now = world.now;
    world.machine.handle_recording(true, now);
    world.run(seconds(1.0));
    assert_eq!((world.commits, world.signals.len()), (2, 1));
}

#[test]
fn a_sigkill_that_is_due_waits_for_the_record() {
    let mut world = stuck_under(|_| ());
    world.tasks.get_mut(&7).expect("the task").dies_on_term = false;
    world.run(seconds(3.5));
    assert_eq!(world.signals.len(), 1, "SIGTERM");
    let now = world.now;
    world.machine.handle_recording(false, now);
    world.run(seconds(30.0));
    assert_eq!(world.signals.len(), 1, "and nothing more");
    let now = world.now;
    world.machine.handle_recording(true, now);
    world.run(seconds(3.0));
    assert_eq!(world.signals.len(), 2, "SIGKILL");
}

#[test]
fn a_reload_keeps_ages_and_judges_anew_only_where_rules_have_changed() {
    let mut world = stuck_under(dry_run);
    world.run(seconds(10.0));
    reload(&mut world, |_| ());
    world.run(seconds(10.0));
    let skips = |world: &World| {
        world
            .trace()
            .iter()
            .filter(|(_, what)| what == "skipped dry-run 7")
            .count()
    };
    assert_eq!(skips(&world), 1, "the same rules have nothing new to say");

    reload(&mut world, |settings| {
        settings.policy.rules[0].stalled_for = Some(seconds(30.0));
    });
    let Outlook::Due(due, _) = outlook(&world) else {
        panic!("{:?}", outlook(&world))
    };
    assert_eq!(due, at(seconds(30.0)), "by the age that it has");
    reload(&mut world, |settings| {
        settings.policy.rules[0].stalled_for = Some(seconds(15.0));
        settings.policy.rules[0].mode = Mode::Enforce;
    });
    world.run(seconds(1.0));
    assert_eq!(world.signals.len(), 1);
    assert_eq!(world.signals[0].0, at(seconds(20.0)), "at once: it is old enough");
}

#[test]
fn a_kill_under_way_is_let_go_by_a_reload_that_changes_or_removes_its_rule() {
    type Change = fn(&mut Settings);
    let changes: [Change; 3] = [
        |settings| settings.policy.rules.clear(),
        |settings| settings.policy.rules[0].mode = Mode::DryRun,
        |settings| settings.policy.rules[0].name = "other".to_owned(),
    ];
    for change in changes {
        let mut world = stuck_under(|_| ());
        world.tasks.get_mut(&7).expect("the task").dies_on_term = false;
        world.run(seconds(3.5));
        assert_eq!(world.signals.len(), 1, "SIGTERM");
        reload(&mut world, change);
        world.run(seconds(1.0));
        // A rule of another name may begin on its own account.
        assert!(world.signals.iter().all(|(.., signal)| *signal == Signal::Term));
        assert!(world.trace().iter().any(|(_, what)| what == "skipped identity 7"));
    }
}
