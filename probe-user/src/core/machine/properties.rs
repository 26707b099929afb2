//! What must hold whatever happens, over thousands of schedules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    world::{Happening, World, at, policy, rule, seconds},
    *,
};
use crate::core::{
    model::WriterId,
    pace::{Cooldown, GroupBy, Limits, Pace, Rate},
    policy::WATCH_BEFORE_KILL,
    report::{KillReport, Signal},
    rule::{Hook, Match, Mode, Policy, Rule},
    share::StalledShare,
};

/// Whoever is stuck is planned so soon after it crosses: looks are at most so far apart, which is
/// the smallest of the rule's and the report's ages.
const DEADLINE: Duration = Duration::from_secs(1);

/// One thing that goes on.
#[derive(Clone, Copy, Debug)]
enum Event {
    Happens(Happening),
    /// It happens once the next handle is being opened.
    BeforeOpen(Happening),
    /// It happens while the next record is on its way to the disk.
    BeforeCommit(Happening),
    /// It happens right before the next signal.
    BeforeSignal(Happening),
    /// Handles cannot be had, or can again.
    Short(bool),
}

/// A schedule: (milliseconds after the one before, which writer, what).
type Schedule = Vec<(u64, u32, Event)>;

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        5 => Just(Happening::Block),
        4 => Just(Happening::Drain),
        4 => any::<bool>().prop_map(|noted| Happening::Wake { noted }),
        1 => (0_u64..1500).prop_map(|millis| Happening::Hold(Duration::from_millis(millis))),
        2 => Just(Happening::Leave),
        1 => any::<bool>().prop_map(|noted| Happening::Exit { noted }),
        1 => Just(Happening::Reuse),
        1 => Just(Happening::Exec("ffmpeg")),
        1 => Just(Happening::Orphan),
        1 => Just(Happening::Lose),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let gone = prop_oneof![
        Just(Happening::Exit { noted: false }),
        Just(Happening::Exit { noted: true }),
        Just(Happening::Reuse),
    ];
    prop_oneof![
        20 => happening().prop_map(Event::Happens),
        1 => happening().prop_map(Event::BeforeOpen),
        1 => happening().prop_map(Event::BeforeCommit),
        1 => gone.prop_map(Event::BeforeSignal),
        1 => any::<bool>().prop_map(Event::Short),
    ]
}

fn schedule(wait: u64, writers: u32, most: usize) -> impl Strategy<Value = Schedule> {
    prop::collection::vec((0..wait, 2..2 + writers, event()), 1..most)
}

impl World {
    fn take(&mut self, pid: u32, event: Event) {
        match event {
            Event::Happens(what) => self.happen(pid, what),
            Event::BeforeOpen(what) => self.before_open = Some((pid, what)),
            Event::BeforeCommit(what) => self.before_commit = Some((pid, what)),
            Event::BeforeSignal(what) => self.before_signal = Some((pid, what)),
            Event::Short(short) => self.out_of_handles = short,
        }
    }

    /// Stops all that was yet to happen.
    fn calm(&mut self) {
        self.out_of_handles = false;
        (self.before_open, self.before_commit, self.before_signal) = (None, None, None);
    }

    /// What is kept is about who is there, and no more.
    fn check_memory(&self) -> Result<(), TestCaseError> {
        let machine = &self.machine;
        let stalls: Vec<_> = machine.tracker.stalls().map(|stall| stall.id).collect();
        // A pid that was used again may be known twice until the next look.
        prop_assert!(stalls.len() <= 2 * self.tasks.len(), "{} stalls", stalls.len());
        prop_assert!(
            machine.cases.keys().all(|id| stalls.contains(id)),
            "cases without a stall"
        );
        prop_assert!(machine.kills.len() <= stalls.len() + self.tasks.len());
        prop_assert!(machine.targets.len() == machine.kills.len());
        prop_assert!(
            machine.asking.is_empty(),
            "what was asked is answered at once here"
        );
        Ok(())
    }

    /// No plan and no signal for a writer that got anywhere within `least`.
    fn check_plans(&self, least: Duration) -> Result<(), TestCaseError> {
        for plan in &self.planned {
            prop_assert!(
                plan.idle.is_some_and(|idle| idle >= least),
                "{:?} after {:?}",
                plan.stall,
                plan.idle
            );
        }
        for (idle, (when, ..)) in self.idle_when_signalled.iter().zip(&self.signals) {
            prop_assert!(*idle >= least, "a signal after {idle:?}");
            prop_assert!(when.since(at(Duration::ZERO)) >= least.min(WATCH_BEFORE_KILL));
        }
        Ok(())
    }

    /// Each stall is planned once, but for plans that came to nothing by name.
    fn check_once(&self) -> Result<(), TestCaseError> {
        let mut open: BTreeMap<StallId, bool> = BTreeMap::new();
        for (_, report) in &self.reports {
            let Report::Kill(snapshot, _, step) = report else {
                continue;
            };
            let planned = open.entry(snapshot.stall.id).or_default();
            match step {
                KillReport::Planned(_) => {
                    prop_assert!(
                        !*planned,
                        "{:?} is planned twice: {:?}",
                        snapshot.stall.id,
                        self.trace()
                    );
                    *planned = true;
                }
                KillReport::Skipped(Skipped::Progressed | Skipped::Identity | Skipped::Protected, _) => {
                    *planned = false;
                }
                KillReport::Skipped(..)
                | KillReport::Sent(_)
                | KillReport::Confirmed { .. }
                | KillReport::Failed(_) => {}
            }
        }
        Ok(())
    }

    /// Whoever has been stuck for so long without a disturbance is planned by now, or a gate is
    /// named. `short` is when handles could last not be had.
    fn check_nobody_is_forgotten(
        &self,
        stalled_for: Duration,
        short: Option<Mono>,
    ) -> Result<(), TestCaseError> {
        for (pid, task) in self
            .tasks
            .iter()
            .filter(|(_, task)| task.alive && task.blocked.is_some())
        {
            let left_alone = task
                .disturbed
                .max(short.unwrap_or_default())
                .max(at(Duration::ZERO));
            if self.now.since(left_alone) < stalled_for + DEADLINE + DEADLINE {
                continue;
            }
            let stall = self.machine.tracker.get(task.writer);
            let planned = stall.is_some_and(|stall| self.planned.iter().any(|plan| plan.stall == stall.id));
            prop_assert!(planned, "{pid} is forgotten: {task:?}\n{:?}", self.trace());
        }
        Ok(())
    }
}

/// The first signals to each process, in order.
fn first_signals(world: &World) -> Vec<(Mono, WriterId)> {
    let mut seen = BTreeSet::new();
    world
        .signals
        .iter()
        .filter(|(_, writer, _)| seen.insert(*writer))
        .map(|(when, writer, _)| (*when, *writer))
        .collect()
}

/// At most `count` in any window that begins with one of them.
fn check_rate(times: &[Mono], rate: Rate) -> Result<(), TestCaseError> {
    for start in times {
        let within = times
            .iter()
            .filter(|when| **when >= *start && when.since(*start) < rate.per)
            .count();
        prop_assert!(
            within <= rate.count,
            "{within} within {:?} of {start:?}",
            rate.per
        );
    }
    Ok(())
}

fn rate() -> impl Strategy<Value = Rate> {
    (1_usize..4, 1_u64..15).prop_map(|(count, per)| Rate {
        count,
        per: Duration::from_secs(per),
    })
}

prop_compose! {
    fn paces()(
        budget in prop::option::of(rate()),
        cooldown in prop::option::of((rate(), 1_u64..20)),
        shared in prop::option::of(rate()),
        distinct in prop::option::of(rate()),
        (pile_up, leave) in (1_usize..4, 0_usize..2),
        hooked in prop::bool::weighted(0.2),
    ) -> (Rule, Limits) {
        let cooldown = cooldown.map(|(after, lasts)| Cooldown {
            per: GroupBy::Parent,
            after,
            lasts: Duration::from_secs(lasts),
        });
        let pace = Pace { pile_up, leave, budget, cooldown, ..Pace::default() };
        let pre_kill = hooked.then(|| Hook {
            command: vec!["true".into()],
            timeout: seconds(5.0),
        });
        let rule = Rule { pace, pre_kill, matches: Match::default(), ..rule() };
        (rule, Limits { budget: shared, max_distinct: distinct })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn no_writer_that_made_progress_is_planned_and_none_that_did_not_is_forgotten(
        events in schedule(2500, 4, 60),
        old in prop::collection::vec(any::<bool>(), 4),
    ) {
        let mut world = World::enforcing();
        for (pid, old) in (2..6).zip(old) {
            world.spawn(pid, "ffmpeg").dies_on_term = false;
            if old {
                world.block_before_start(pid, seconds(100.0));
            }
        }
        let mut short = None;
        for (wait, pid, event) in events {
            world.run(Duration::from_millis(wait));
            world.check_memory()?;
            if !world.out_of_handles {
                world.check_nobody_is_forgotten(seconds(3.0), short)?;
            }
            world.take(pid, event);
            if world.out_of_handles || matches!(event, Event::Short(_)) {
                short = Some(world.now);
            }
        }
        world.calm();
        world.run(seconds(20.0));
        world.check_plans(seconds(3.0))?;
        world.check_once()?;
        world.check_memory()?;
        // Those that were left alone for the last 20 s, three of them needed, are gone or were never stuck.
        for task in world.tasks.values() {
            prop_assert!(!task.alive || task.blocked.is_none(), "spared: {task:?}\n{:?}", world.trace());
        }
        prop_assert_eq!(world.machine.kills_under_way(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_window_sees_more_kills_than_its_rate_and_everyone_stuck_is_reached(
        (rule, limits) in paces(),
        events in schedule(1500, 8, 60),
        parents in prop::collection::vec(100_u32..103, 8),
        mode in prop::sample::select(vec![Mode::Enforce, Mode::Enforce, Mode::DryRun]),
    ) {
        const COMMS: [&str; 5] = ["a", "b", "c", "d", "e"];
        let (pace, leaves) = (rule.pace, rule.pace.leave > 0 || rule.pace.pile_up > 1);
        let policy = Policy { limits, ..policy(vec![Rule { mode, ..rule }]) };
        let mut world = World::new(Settings { policy, ..Settings::default() });
        for (pid, parent) in (2..10).zip(&parents) {
            let task = world.spawn(pid, COMMS[pid as usize % COMMS.len()]);
            task.ppid = *parent;
        }
        for (wait, pid, event) in events {
            world.run(Duration::from_millis(wait));
            // Hooks end when they end.
            if wait % 3 == 0 {
                let now_done = std::mem::take(&mut world.hooks);
                for id in now_done {
                    world.machine.handle_hooked(id, "pre_kill: done".into());
                }
            }
            world.take(pid, event);
        }
        world.calm();
        for _ in 0..60 {
            for id in std::mem::take(&mut world.hooks) {
                world.machine.handle_hooked(id, "pre_kill: done".into());
            }
            world.run(seconds(5.0));
        }
        world.check_plans(seconds(3.0))?;
        world.check_memory()?;

        let (firsts, who) = (first_signals(&world), &world.signalled);
        let times: Vec<_> = firsts.iter().map(|(when, _)| *when).collect();
        prop_assert!(mode == Mode::Enforce || times.is_empty());
        for budget in pace.budget.into_iter().chain(limits.budget) {
            check_rate(&times, budget)?;
        }
        if let Some(cooldown) = pace.cooldown {
            // Once it has cooled down, a rule begins to count anew.
            let per = cooldown.after.per.min(cooldown.lasts);
            let most = Rate { per, ..cooldown.after };
            for parent in [1, 100, 101, 102] {
                let of_parent = firsts.iter().filter(|(_, writer)| who[writer].0 == parent);
                let times: Vec<_> = of_parent.map(|(when, _)| *when).collect();
                check_rate(&times, most)
                    .map_err(|error| TestCaseError::fail(format!("{error} under {parent}: {:?}", world.trace())))?;
            }
        }
        if let Some(most) = limits.max_distinct {
            for (start, _) in &firsts {
                let within = firsts.iter().filter(|(when, _)| when >= start && when.since(*start) < most.per);
                let programs: BTreeSet<_> = within.map(|(_, writer)| who[writer].1).collect();
                prop_assert!(programs.len() <= most.count, "{programs:?}");
            }
        }
        // No reason to wait is said twice of a stall.
        let mut said = BTreeSet::new();
        for (_, report) in &world.reports {
            if let Report::Kill(s, _, KillReport::Skipped(why, _)) = report
                && matches!(why, Skipped::Budget | Skipped::Cooldown | Skipped::BlastRadius | Skipped::Unsupported)
            {
                prop_assert!(said.insert((s.stall.id, why.as_str())), "{why:?} twice: {:?}", world.trace());
            }
        }
        if mode == Mode::Enforce && !leaves {
            let spared = world.tasks.values().filter(|task| task.alive && task.blocked.is_some()).count();
            prop_assert_eq!(spared, 0, "{:?}", world.trace());
        }
        prop_assert_eq!(world.machine.kills_under_way(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whoever_is_ended_by_its_share_was_blocked_for_that_much_of_the_time(
        events in schedule(700, 3, 150),
        steady in 50_u64..950,
    ) {
        let share = StalledShare::new(0.8, seconds(10.0));
        let rule = Rule { stalled_for: None, stalled_share: Some(share), ..rule() };
        let mut world = World::new(Settings { policy: policy(vec![rule]), ..Settings::default() });
        for pid in 2..5 {
            world.spawn(pid, "ffmpeg");
        }
        let mut checked = 0;
        for (wait, pid, event) in events {
            world.run(Duration::from_millis(wait));
            check_shares(&world, share, &mut checked)?;
            world.take(pid, event);
            world.check_memory()?;
        }
        // And then one of them is blocked for so much of each second.
        world.calm();
        world.tasks.retain(|pid, _| *pid == 2);
        for second in 0..25 {
            world.happen(2, Happening::Block);
            world.run(Duration::from_millis(steady));
            check_shares(&world, share, &mut checked)?;
            world.happen(2, Happening::Leave);
            world.run(Duration::from_millis(1000 - steady));
            check_shares(&world, share, &mut checked)?;
            // Looks a sixteenth of the window apart leave a little doubt.
            let must = world.tasks[&2].alive && second > 20 && steady > 850;
            prop_assert!(!must, "spared: {:?}", world.trace());
        }
        world.check_once()?;
    }
}

/// Each new signal went to a writer that was blocked for more than the share.
fn check_shares(world: &World, share: StalledShare, checked: &mut usize) -> Result<(), TestCaseError> {
    for (when, writer, signal) in &world.signals[*checked..] {
        let task = &world.tasks[&writer.tid];
        let blocked = task.blocked_within(share.over, *when);
        prop_assert!(*signal == Signal::Term);
        prop_assert!(blocked > share.blocked, "{blocked:?} of {:?}", share.over);
    }
    *checked = world.signals.len();
    Ok(())
}
