//! How fast and how far enforcement may go: budgets, cool-downs, the blast radius
//! and the pressure gate.
//!
//! It decides about one process that is to be ended at a time, and keeps only what
//! it takes for that: timestamps within the windows. It knows no stall's age and
//! no protocol.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    model::{Mono, Stall},
    report::Skipped,
    rule::{Mode, Rule},
};

/// So many, in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: usize,
    /// The window.
    pub per: Duration,
}

/// What a rule counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// All that the rule matches.
    #[default]
    Rule,
    /// Those with the same parent.
    Parent,
    /// Those of the same systemd unit.
    Unit,
    /// Those of the same user.
    User,
}

/// A group that a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// See [`GroupBy::Rule`].
    Rule,
    /// See [`GroupBy::Parent`].
    Parent(u32),
    /// See [`GroupBy::Unit`]; `None` for processes of no unit.
    Unit(Option<String>),
    /// See [`GroupBy::User`].
    User(u32),
}

impl GroupBy {
    /// The group of a stall's process.
    #[must_use]
    pub fn group(self, stall: &Stall) -> Group {
        match self {
            Self::Rule => Group::Rule,
            Self::Parent => Group::Parent(stall.last.ppid),
            Self::Unit => Group::Unit(stall.facts.as_ref().and_then(|facts| facts.unit.clone())),
            Self::User => Group::User(stall.last.uid),
        }
    }
}

/// Stops a rule where what it ends keeps coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// What is counted together: parents or units.
    pub per: GroupBy,
    /// So many kills in a window…
    pub after: Rate,
    /// …stop the rule for this long.
    pub lasts: Duration,
}

/// A rule's pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// It acts only while at least this many stalls have crossed its threshold…
    pub pile_up: usize,
    /// …counted in this way…
    pub group_by: GroupBy,
    /// …and leaves this many, the youngest, alone.
    pub leave: usize,
    /// How many it may end.
    pub budget: Option<Rate>,
    /// When it must stop.
    pub cooldown: Option<Cooldown>,
    /// The share of time in which some task waits for a CPU, above which it holds: there,
    /// a slow reader is not a dead one. From 0 to 1, averaged over 10 s.
    pub unless_cpu_pressure_over: Option<f64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pile_up: 1,
            group_by: GroupBy::Rule,
            leave: 0,
            budget: None,
            cooldown: None,
            unless_cpu_pressure_over: None,
        }
    }
}

/// Limits over all rules together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many processes may be ended.
    pub budget: Option<Rate>,
    /// How many different programs may be among them before enforcement stops for a window's
    /// length: a rule that starts to hit others than it is meant for shows in this.
    pub max_distinct: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        let max_distinct = Rate {
            count: 3,
            per: Duration::from_mins(10),
        };
        Self {
            budget: None,
            max_distinct: Some(max_distinct),
        }
    }
}

/// Whether a process may be ended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is counted.
    Go,
    /// Not before `until`, unless something else changes.
    Hold {
        /// Why.
        reason: Skipped,
        /// When to ask again.
        until: Mono,
        /// Whether this very process was one program too many.
        tripped: bool,
    },
}

/// When to ask again about a host under pressure: its average moves this slowly.
const PRESSURE_RETRY: Duration = Duration::from_secs(5);

/// What has been ended lately.
#[derive(Debug, Default)]
pub struct Pacer {
    rules: BTreeMap<String, VecDeque<Mono>>,
    all: VecDeque<Mono>,
    groups: BTreeMap<(String, Group), VecDeque<Mono>>,
    stopped: BTreeMap<(String, Group), Mono>,
    programs: VecDeque<(Mono, String)>,
    off_until: Option<Mono>,
    pressure: Option<f64>,
}

impl Pacer {
    /// Takes in the share of time in which some task waited for a CPU.
    pub fn set_pressure(&mut self, share: Option<f64>) {
        self.pressure = share;
    }

    /// Forgets why enforcement was stopped, as a reload does.
    pub fn rearm(&mut self) {
        self.off_until = None;
        self.programs.clear();
    }

    /// Whether a stall's process may be ended now; counts it if so.
    pub fn admit(&mut self, rule: &Rule, limits: &Limits, stall: &Stall, now: Mono) -> Admission {
        let hold = |reason, until| Admission::Hold {
            reason,
            until,
            tripped: false,
        };
        let pace = &rule.pace;
        if let (Some(limit), Some(pressure)) = (pace.unless_cpu_pressure_over, self.pressure)
            && pressure > limit
        {
            return hold(Skipped::Pressure, now.after(PRESSURE_RETRY));
        }
        let enforced = rule.mode == Mode::Enforce;
        if let Some(until) = self.off_until.filter(|_| enforced) {
            if now < until {
                return hold(Skipped::BlastRadius, until);
            }
            self.rearm();
        }
        let group = pace
            .cooldown
            .map(|cooldown| (rule.name.clone(), cooldown.per.group(stall)));
        if let Some(until) = group
            .as_ref()
            .and_then(|key| self.stopped.get(key))
            .filter(|until| now < **until)
        {
            return hold(Skipped::Cooldown, *until);
        }
        if let Some((cooldown, key)) = pace.cooldown.zip(group.as_ref()) {
            let kills = self.groups.entry(key.clone()).or_default();
            if free_at(kills, cooldown.after, now).is_some() {
                let until = now.after(cooldown.lasts);
                self.stopped.insert(key.clone(), until);
                self.groups.remove(key);
                return hold(Skipped::Cooldown, until);
            }
        }
        let own = pace
            .budget
            .and_then(|budget| free_at(self.rules.entry(rule.name.clone()).or_default(), budget, now));
        let shared = limits
            .budget
            .and_then(|budget| free_at(&mut self.all, budget, now));
        if let Some(until) = own.max(shared) {
            return hold(Skipped::Budget, until);
        }
        if let Some(most) = limits.max_distinct.filter(|_| enforced)
            && self.is_one_too_many(program(stall), most, now)
        {
            let until = now.after(most.per);
            self.off_until = Some(until);
            return Admission::Hold {
                reason: Skipped::BlastRadius,
                until,
                tripped: true,
            };
        }
        self.count(rule, limits, group, stall, now);
        Admission::Go
    }

    fn is_one_too_many(&mut self, program: String, most: Rate, now: Mono) -> bool {
        self.programs.retain(|(when, _)| now.since(*when) < most.per);
        let mut programs: BTreeSet<_> = self.programs.iter().map(|(_, program)| program.clone()).collect();
        programs.insert(program);
        programs.len() > most.count
    }

    fn count(
        &mut self,
        rule: &Rule,
        limits: &Limits,
        group: Option<(String, Group)>,
        stall: &Stall,
        now: Mono,
    ) {
        if rule.pace.budget.is_some() {
            self.rules.entry(rule.name.clone()).or_default().push_back(now);
        }
        if limits.budget.is_some() {
            self.all.push_back(now);
        }
        if let Some(key) = group {
            self.groups.entry(key).or_default().push_back(now);
        }
        if limits.max_distinct.is_some() && rule.mode == Mode::Enforce {
            let program = program(stall);
            // The latest time of each program is enough.
            self.programs.retain(|(_, known)| *known != program);
            self.programs.push_back((now, program));
        }
        self.forget(rule, now);
    }

    /// Drops groups that nothing has happened to for longer than their rule remembers.
    fn forget(&mut self, rule: &Rule, now: Mono) {
        self.stopped.retain(|_, until| now < *until);
        if let Some(cooldown) = rule.pace.cooldown {
            self.groups.retain(|(name, _), kills| {
                *name != rule.name
                    || kills
                        .back()
                        .is_some_and(|last| now.since(*last) < cooldown.after.per)
            });
        }
    }
}

/// The program that a process runs: its file, or its command where that cannot be read.
fn program(stall: &Stall) -> String {
    let exe = stall.facts.as_ref().and_then(|facts| facts.exe.as_ref());
    exe.map_or_else(
        || stall.last.comm.clone(),
        |exe| exe.to_string_lossy().into_owned(),
    )
}

/// When a window that is full has room again; `None` if it has now.
fn free_at(times: &mut VecDeque<Mono>, rate: Rate, now: Mono) -> Option<Mono> {
    while times.front().is_some_and(|when| now.since(*when) >= rate.per) {
        times.pop_front();
    }
    // The one whose leaving makes room; a count of none never has any.
    let excess = times.len().checked_sub(rate.count)?;
    Some(times.get(excess).map_or(Mono::NEVER, |when| when.after(rate.per)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_full_window_says_when_it_has_room() {
        let rate = Rate {
            count: 2,
            per: Duration::from_secs(1),
        };
        let mut times = VecDeque::from([at(0), at(400)]);
        assert_eq!(free_at(&mut times, rate, at(500)), Some(at(1000)));
        assert_eq!(free_at(&mut times, rate, at(999)), Some(at(1000)));
        assert_eq!(free_at(&mut times, rate, at(1000)), None);
        assert_eq!(times, [at(400)]);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_its_rate(
            waits in prop::collection::vec(0_u64..300, 1..200),
            count in 1_usize..5,
            per in 1_u64..1000,
        ) {
            let rate = Rate { count, per: Duration::from_millis(per) };
            let (mut times, mut taken, mut now) = (VecDeque::new(), Vec::new(), 0);
            for wait in waits {
                now += wait;
                match free_at(&mut times, rate, at(now)) {
                    None => {
                        times.push_back(at(now));
                        taken.push(now);
                    }
                    Some(until) => prop_assert!(until > at(now), "it must say a time that is to come"),
                }
                prop_assert!(times.len() <= count);
            }
            for start in &taken {
                let within = taken.iter().filter(|t| **t >= *start && **t < start + per).count();
                prop_assert!(within <= count);
            }
        }
    }
}
