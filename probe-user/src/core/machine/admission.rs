//! Which of the processes that rules want ended are ended now: oldest first, by group, at
//! the pace that the rules allow.

use std::collections::BTreeMap;

use super::{Effect, Fate, Machine, causes::HOLD_FOR, kills::UNRECORDED};
use crate::core::{
    kill::{Kill, KillId, Step},
    model::{Mono, Stall, StallId, WriterId},
    pace::{Admission, Group},
    policy::Trigger,
    report::{Report, RuleRef, Signal, Skipped},
    rule::Mode,
};

/// What is known of a group of candidates.
#[derive(Default)]
struct Pile {
    /// Candidates and those that are being ended.
    size: usize,
    /// Those that are being ended.
    under_way: usize,
}

/// A process that a rule wants ended.
struct Candidate {
    since: Mono,
    id: StallId,
    writer: WriterId,
    pile: (usize, Group),
}

impl Machine {
    /// Ends the candidates that may be ended now. Waits until neither facts nor readers are
    /// awaited, so that a pile is counted whole.
    pub(super) fn admit(&mut self, now: Mono) {
        if !self.asking.is_empty() || self.causes.is_finding() {
            return;
        }
        let (mut candidates, mut piles) = self.candidates();
        candidates.sort_by_key(|candidate| (candidate.since, candidate.id));
        for candidate in candidates {
            let Some(rule) = self.settings.policy.rules.get(candidate.pile.0) else {
                continue;
            };
            let pile = piles.entry(candidate.pile).or_default();
            if pile.size < rule.pace.pile_up || pile.under_way + rule.pace.leave >= pile.size {
                continue;
            }
            // One that must wait keeps its place before those that are younger.
            pile.under_way += 1;
            self.end(candidate.writer, candidate.id, now);
        }
    }

    fn candidates(&self) -> (Vec<Candidate>, BTreeMap<(usize, Group), Pile>) {
        let mut piles: BTreeMap<(usize, Group), Pile> = BTreeMap::new();
        let mut candidates = Vec::new();
        for stall in self.stalls() {
            let Some(case) = self.cases.get(&stall.id).filter(|case| case.fate != Fate::Open) else {
                continue;
            };
            let Some((at, rule)) = case
                .rule
                .and_then(|at| Some((at, self.settings.policy.rules.get(at)?)))
            else {
                continue;
            };
            let pile = (at, rule.pace.group_by.group(stall));
            let counts = piles.entry(pile.clone()).or_default();
            let being_ended = self.targets.contains_key(&stall.last.writer.process);
            if case.fate == Fate::Decided && !being_ended {
                // Dry-run has had it already, as if it were gone.
                continue;
            }
            if !being_ended && rule.trigger(stall).is_none() {
                // One that crawls, and less than it did.
                continue;
            }
            counts.size += 1;
            if being_ended {
                counts.under_way += 1;
            } else {
                candidates.push(Candidate {
                    since: stall.since,
                    id: stall.id,
                    writer: stall.last.writer,
                    pile,
                });
            }
        }
        (candidates, piles)
    }

    /// Ends one process, or says why not yet.
    fn end(&mut self, writer: WriterId, id: StallId, now: Mono) {
        let policy = &self.settings.policy;
        let Some(stall) = self.tracker.get(writer).filter(|stall| stall.id == id).cloned() else {
            return;
        };
        let Some(case) = self.cases.get_mut(&id) else {
            return;
        };
        let Some((place, rule)) = case.rule.and_then(|at| Some((at, policy.rules.get(at)?))) else {
            return;
        };
        if self.targets.contains_key(&writer.process) || case.hold.is_some_and(|(_, until)| now < until) {
            return;
        }
        let Some(trigger) = rule.trigger(&stall) else {
            return;
        };
        let reference = RuleRef::from(rule);
        if let Some(why) = self.settings.unsupported.filter(|_| rule.mode == Mode::Enforce) {
            case.fate = Fate::Decided;
            self.report_skip(&stall, reference, Skipped::Unsupported, Some(why), now);
            return;
        }
        if self.unrecorded && rule.mode == Mode::Enforce {
            let said = case.hold_until(Skipped::Unrecorded, Mono::NEVER);
            if !said {
                self.report_skip(&stall, reference, Skipped::Unrecorded, Some(UNRECORDED), now);
            }
            return;
        }
        if rule.hold_when_reader_stopped {
            if !self.are_readers_fresh(&stall) {
                return;
            }
            if let Some(why) = Self::held_back(&stall) {
                self.hold(
                    &stall,
                    reference,
                    (Skipped::ReaderStopped, Some(why)),
                    now.after(HOLD_FOR),
                    now,
                );
                return;
            }
        }
        let policy = &self.settings.policy;
        let (Some(case), Some(rule)) = (self.cases.get_mut(&id), policy.rules.get(place)) else {
            return;
        };
        let (admission, mode) = (self.pacer.admit(rule, &policy.limits, &stall, now), rule.mode);
        let (grace, pre_kill) = (rule.grace, rule.pre_kill.clone());
        let crossed = match trigger {
            Trigger::Age => rule.crossing(&stall),
            Trigger::Share => case.crossed.unwrap_or(stall.last.at),
        };
        match (admission, mode) {
            (
                Admission::Hold {
                    reason,
                    detail,
                    until,
                    tripped,
                },
                _,
            ) => {
                if tripped {
                    self.effects
                        .push_back(Effect::Report(Box::new(Report::Degraded(TRIPPED))));
                }
                self.hold(&stall, reference, (reason, detail), until, now);
            }
            (Admission::Go(ticket), Mode::DryRun) => {
                self.pacer.spend(ticket, now);
                case.fate = Fate::Decided;
                case.done.insert(place);
                self.next_stall = None;
                self.report_skip(&stall, reference, Skipped::DryRun, None, now);
            }
            (Admission::Go(ticket), Mode::Enforce) => {
                case.fate = Fate::Decided;
                case.done.insert(place);
                self.begin(Kill {
                    stall,
                    rule: reference,
                    grace,
                    pre_kill,
                    hooked: None,
                    trigger,
                    crossed,
                    step: Step::Opening,
                    ticket: Some(ticket),
                    first_signal: None,
                    last_signal: Signal::Term,
                    unseen: None,
                    again: None,
                });
            }
        }
    }

    /// Puts a decision off, and says why if that was not said before.
    fn hold(
        &mut self,
        stall: &Stall,
        rule: RuleRef,
        (reason, detail): (Skipped, Option<&'static str>),
        until: Mono,
        now: Mono,
    ) {
        let case = self.cases.entry(stall.id).or_default();
        let said = case.hold_until(reason, until);
        self.next_stall = None;
        if !said {
            self.report_skip(stall, rule, reason, detail, now);
        }
    }

    pub(super) fn begin(&mut self, kill: Kill) {
        let id = KillId(self.next_kill);
        self.next_kill += 1;
        self.next_stall = None;
        self.targets.insert(kill.process(), id);
        self.effects.push_back(Effect::Open(id, kill.process()));
        self.kills.insert(id, kill);
    }
}

const TRIPPED: &str = "enforcement is off: the rules have hit more different programs than [limits] max_distinct allows; \
                       check them, then reload, or wait for the window to pass";
