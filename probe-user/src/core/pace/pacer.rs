//! Decides about one process that is to be ended at a time, and keeps only what
//! it takes for that: timestamps within the windows. What it admits holds a place, its
//! [`Ticket`], from then on; the window counts from the moment that the place is spent, which
//! is the first signal, and a place that is taken back leaves no trace. It knows no stall's
//! age and no protocol.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Group, Limits, Rate};
use crate::core::{
    model::{Mono, Stall},
    report::Skipped,
    rule::{Mode, Rule},
};

/// A place in every window that counts a kill. Whoever holds it hands it back: to
/// [`Pacer::spend`] or to [`Pacer::take_back`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    rule: Option<String>,
    all: bool,
    group: Option<(String, Group)>,
    program: Option<String>,
}

/// Whether a process may be ended now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, and has its places.
    Go(Ticket),
    /// Not before `until`, unless something else changes.
    Hold {
        /// Why.
        reason: Skipped,
        /// More than the reason says, if there is more.
        detail: Option<&'static str>,
        /// When to ask again.
        until: Mono,
        /// Whether this very process was one program too many.
        tripped: bool,
    },
}

/// When to ask again about a host under pressure: its average moves this slowly.
const PRESSURE_RETRY: Duration = Duration::from_secs(5);

/// What is said where the kernel does not tell how starved the host is.
pub const NO_PRESSURE: &str = "unless_cpu_pressure_over cannot be kept: /proc/pressure/cpu cannot be read, so nobody \
                               knows whether the host is starved; the rule's kills wait (a kernel with \
                               CONFIG_PSI_DEFAULT_DISABLED takes psi=1 on its command line)";

/// When to ask again where a place is held that may yet be taken back.
const TICKET_RETRY: Duration = Duration::from_secs(1);

/// What a rate counts.
#[derive(Debug, Default)]
struct Window {
    /// Places that are held.
    held: usize,
    /// When others were spent, in order.
    spent: VecDeque<Mono>,
}

impl Window {
    /// When there is room; `None` if there is now.
    fn free_at(&mut self, rate: Rate, now: Mono) -> Option<Mono> {
        while self
            .spent
            .front()
            .is_some_and(|when| now.since(*when) >= rate.per)
        {
            self.spent.pop_front();
        }
        // The one whose leaving makes room; a count of none never has any.
        let excess = (self.held + self.spent.len()).checked_sub(rate.count)?;
        let leaves = self.spent.get(excess).map(|when| when.after(rate.per));
        let retry = (self.held > 0).then(|| now.after(TICKET_RETRY));
        Some(leaves.into_iter().chain(retry).min().unwrap_or(Mono::NEVER))
    }

    fn hold(&mut self) {
        self.held += 1;
    }

    fn give_up(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    fn spend(&mut self, now: Mono) {
        self.give_up();
        self.spent.push_back(now);
    }
}

/// A program that rules have hit.
#[derive(Debug, Default)]
struct Hit {
    /// Places that are held.
    held: usize,
    /// When one was last spent.
    last: Option<Mono>,
}

impl Hit {
    fn counts(&self, per: Duration, now: Mono) -> bool {
        self.held > 0 || self.was_spent(per, now)
    }

    fn was_spent(&self, per: Duration, now: Mono) -> bool {
        self.last.is_some_and(|last| now.since(last) < per)
    }
}

/// Enforcement is stopped: too many different programs were about to be hit.
#[derive(Clone, Copy, Debug)]
struct Off {
    until: Mono,
    /// For how long a hit counts.
    per: Duration,
}

/// What is being ended, and what has been ended lately.
#[derive(Debug, Default)]
pub struct Pacer {
    rules: BTreeMap<String, Window>,
    all: Window,
    groups: BTreeMap<(String, Group), Window>,
    stopped: BTreeMap<(String, Group), Mono>,
    programs: BTreeMap<String, Hit>,
    off: Option<Off>,
    pressure: Option<f64>,
}

impl Pacer {
    /// Takes in the share of time in which some task waited for a CPU, if that is known.
    pub fn set_pressure(&mut self, share: Option<f64>) {
        self.pressure = share;
    }

    /// Forgets why enforcement was stopped, as a reload does.
    pub fn rearm(&mut self) {
        self.off = None;
        self.programs.retain(|_, hit| {
            hit.last = None;
            hit.held > 0
        });
    }

    /// Whether a stall's process may be ended now; it has its places if so.
    pub fn admit(&mut self, rule: &Rule, limits: &Limits, stall: &Stall, now: Mono) -> Admission {
        let hold = |reason, until| Admission::Hold {
            reason,
            detail: None,
            until,
            tripped: false,
        };
        let pace = &rule.pace;
        if let Some(limit) = pace.unless_cpu_pressure_over
            && self.pressure.is_none_or(|pressure| pressure > limit)
        {
            return Admission::Hold {
                reason: Skipped::Pressure,
                detail: self.pressure.is_none().then_some(NO_PRESSURE),
                until: now.after(PRESSURE_RETRY),
                tripped: false,
            };
        }
        let enforced = rule.mode == Mode::Enforce;
        if let Some(Off { until, .. }) = self.off.filter(|_| enforced) {
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
            if let Some(until) = kills.free_at(cooldown.after, now) {
                // What only holds a place may yet be spared: no reason to stop the rule.
                if kills.spent.len() < cooldown.after.count {
                    return hold(Skipped::Cooldown, until);
                }
                let until = now.after(cooldown.lasts);
                self.stopped.insert(key.clone(), until);
                self.groups.remove(key);
                return hold(Skipped::Cooldown, until);
            }
        }
        let own = pace.budget.and_then(|budget| {
            let window = self.rules.entry(rule.name.clone()).or_default();
            window.free_at(budget, now)
        });
        let shared = limits.budget.and_then(|budget| self.all.free_at(budget, now));
        if let Some(until) = own.max(shared) {
            return hold(Skipped::Budget, until);
        }
        let program = program(stall);
        if let Some(most) = limits.max_distinct.filter(|_| enforced) {
            let others = self.other_programs(&program, most.per, now);
            if others.hit >= most.count {
                let until = now.after(most.per);
                self.off = Some(Off { until, per: most.per });
                return Admission::Hold {
                    reason: Skipped::BlastRadius,
                    detail: None,
                    until,
                    tripped: true,
                };
            }
            if others.hit + others.held >= most.count {
                return hold(Skipped::BlastRadius, now.after(TICKET_RETRY));
            }
        }
        let ticket = Ticket {
            rule: pace.budget.map(|_| rule.name.clone()),
            all: limits.budget.is_some(),
            group,
            program: limits.max_distinct.filter(|_| enforced).map(|_| program),
        };
        self.hold(&ticket);
        self.forget(rule, now);
        Admission::Go(ticket)
    }

    /// The place is used up from now on: a first signal has been sent, or, in dry-run, would
    /// have been.
    pub fn spend(&mut self, ticket: Ticket, now: Mono) {
        let Ticket {
            rule,
            all,
            group,
            program,
        } = ticket;
        if let Some(rule) = rule {
            self.rules.entry(rule).or_default().spend(now);
        }
        if all {
            self.all.spend(now);
        }
        if let Some(group) = group {
            self.groups.entry(group).or_default().spend(now);
        }
        if let Some(program) = program {
            let hit = self.programs.entry(program).or_default();
            hit.held = hit.held.saturating_sub(1);
            hit.last = hit.last.max(Some(now));
            // It had its place before the stop, and counts for as long as any other hit.
            if let Some(off) = &mut self.off {
                off.until = off.until.max(now.after(off.per));
            }
        }
    }

    /// No signal was sent: the place is free again, as if it had never been taken.
    pub fn take_back(&mut self, ticket: Ticket) {
        let Ticket {
            rule,
            all,
            group,
            program,
        } = ticket;
        // What a reload or a cool-down has dropped meanwhile is not there any more.
        if let Some(window) = rule.and_then(|rule| self.rules.get_mut(&rule)) {
            window.give_up();
        }
        if all {
            self.all.give_up();
        }
        if let Some(window) = group.and_then(|group| self.groups.get_mut(&group)) {
            window.give_up();
        }
        if let Some(hit) = program.and_then(|program| self.programs.get_mut(&program)) {
            hit.held = hit.held.saturating_sub(1);
        }
    }

    /// What of the programs but one counts.
    fn other_programs(&mut self, program: &str, per: Duration, now: Mono) -> Others {
        self.programs.retain(|_, hit| hit.counts(per, now));
        let mut others = Others { hit: 0, held: 0 };
        for (_, hit) in self.programs.iter().filter(|(known, _)| *known != program) {
            if hit.was_spent(per, now) {
                others.hit += 1;
            } else {
                others.held += 1;
            }
        }
        others
    }

    fn hold(&mut self, ticket: &Ticket) {
        if let Some(rule) = &ticket.rule {
            self.rules.entry(rule.clone()).or_default().hold();
        }
        if ticket.all {
            self.all.hold();
        }
        if let Some(group) = &ticket.group {
            self.groups.entry(group.clone()).or_default().hold();
        }
        if let Some(program) = &ticket.program {
            self.programs.entry(program.clone()).or_default().held += 1;
        }
    }

    /// Drops groups that nothing has happened to for longer than their rule remembers.
    fn forget(&mut self, rule: &Rule, now: Mono) {
        self.stopped.retain(|_, until| now < *until);
        if let Some(cooldown) = rule.pace.cooldown {
            self.groups.retain(|(name, _), kills| {
                *name != rule.name
                    || kills.held > 0
                    || kills
                        .spent
                        .back()
                        .is_some_and(|last| now.since(*last) < cooldown.after.per)
            });
        }
    }
}

/// Programs but one.
struct Others {
    /// Those that have been hit.
    hit: usize,
    /// Those of which somebody only holds a place.
    held: usize,
}

/// The program that a process runs: its file, or its command where that cannot be read.
fn program(stall: &Stall) -> String {
    let exe = stall.facts.as_ref().and_then(|facts| facts.exe.as_ref());
    exe.map_or_else(
        || stall.last.comm.to_string(),
        |exe| exe.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    fn window(spent: &[u64], held: usize) -> Window {
        Window {
            held,
            spent: spent.iter().map(|millis| at(*millis)).collect(),
        }
    }

    #[test]
    fn a_full_window_says_when_it_has_room() {
        let rate = Rate {
            count: 2,
            per: Duration::from_secs(1),
        };
        let mut full = window(&[0, 400], 0);
        assert_eq!(full.free_at(rate, at(500)), Some(at(1000)));
        assert_eq!(full.free_at(rate, at(999)), Some(at(1000)));
        assert_eq!(full.free_at(rate, at(1000)), None);
        assert_eq!(full.spent, [at(400)]);
    }

    #[test]
    fn a_place_that_is_held_counts_and_is_asked_about_again() {
        let rate = Rate {
            count: 2,
            per: Duration::from_mins(1),
        };
        assert_eq!(window(&[0], 1).free_at(rate, at(500)), Some(at(1500)));
        assert_eq!(window(&[], 2).free_at(rate, at(500)), Some(at(1500)));
        assert_eq!(window(&[0], 1).free_at(rate, at(59_900)), Some(at(60_000)));
        assert_eq!(window(&[0], 1).free_at(rate, at(60_000)), None);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_its_rate(
            steps in prop::collection::vec((0_u64..300, 0_u64..2000, prop::bool::weighted(0.7)), 1..200),
            count in 1_usize..5,
            per in 1_u64..1000,
        ) {
            let rate = Rate { count, per: Duration::from_millis(per) };
            let mut window = Window::default();
            // Places that are held: until when, and whether they are spent then.
            let mut held: Vec<(u64, bool)> = Vec::new();
            let (mut spent, mut now) = (Vec::new(), 0);
            for (wait, lasts, is_spent) in steps {
                now += wait;
                held.sort_unstable();
                while let Some(due) = held.first().copied().filter(|(until, _)| *until <= now) {
                    held.remove(0);
                    if due.1 {
                        window.spend(at(due.0));
                        spent.push(due.0);
                    } else {
                        window.give_up();
                    }
                }
                match window.free_at(rate, at(now)) {
                    None => {
                        window.hold();
                        held.push((now + lasts, is_spent));
                    }
                    Some(until) => prop_assert!(until > at(now), "it must say a time that is to come"),
                }
                prop_assert!(window.spent.len() + window.held <= count);
                prop_assert_eq!(window.held, held.len());
            }
            for start in &spent {
                let within = spent.iter().filter(|t| **t >= *start && **t < start + per).count();
                prop_assert!(within <= count);
            }
        }
    }
}
