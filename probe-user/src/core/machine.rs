//! The machine: looks, notes and outcomes in; effects out; time by argument.
//!
//! Its caller performs the effects in their order and hands back what came of
//! them. It takes no look by itself and waits for none longer than it must: a
//! writer that the last look did not show cannot be older than that look, or than
//! the look says of those who were awake, so the next is due at the first moment at which
//! anything could cross a threshold.

mod admission;
mod asked;
#[cfg(test)]
mod asked_tests;
mod case;
mod causes;
#[cfg(test)]
mod causes_tests;
mod effect;
mod kills;
#[cfg(test)]
mod pace_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod share_tests;
mod standing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use self::{
    asked::{Asked, Refusal},
    effect::{Effect, Note, Opened, Sent, Settings},
    standing::{Outlook, Standing},
};
use self::{
    case::{Case, Fate},
    causes::Causes,
};
use super::{
    kill::{Kill, KillId, Step},
    model::{Facts, Look, Mono, Process, Stall, StallId},
    pace::{NO_PRESSURE, Pacer},
    policy::{Trigger, Verdict},
    report::{Report, RuleRef, Skipped, Snapshot},
    tracker::{Ended, MISSING_FOR, Tracker},
};

/// A process is read about once its stall is this old, ahead of any decision.
pub const IDENTIFY_AFTER: Duration = Duration::from_secs(1);

/// A writer that woke is looked for this much later, when a signal handler is over.
const AFTER_WAKE: Duration = Duration::from_millis(20);

/// What is said of a kill whose writer has moved on.
const LEFT: &str = "it is not in the write any more";

/// What is said of a kill whose writer's reader is alive.
const TAKEN: &str = "the reader took something";

/// Looks caused by wake-ups keep this distance.
const BETWEEN_WAKE_LOOKS: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    tracker: Tracker,
    cases: BTreeMap<StallId, Case>,
    kills: BTreeMap<KillId, Kill>,
    /// The kill of each process that is being ended.
    targets: BTreeMap<Process, KillId>,
    next_kill: u64,
    pacer: Pacer,
    /// Whether the kernel did not tell how starved the host is when it was last asked.
    pressure_is_missing: bool,
    /// The processes whose facts are still awaited.
    asking: BTreeSet<Process>,
    causes: Causes,
    effects: VecDeque<Effect>,
    look_queued: bool,
    last_look: Option<Mono>,
    /// No writer that the last look did not show has got nowhere since before this.
    unseen: Mono,
    /// A look that a wake-up asked for.
    wake_look: Option<Mono>,
    /// The first moment at which any stall wants attention; `None` until it is worked out anew.
    next_stall: Option<Mono>,
    /// Whether the record cannot be made durable, so that nothing may be ended.
    unrecorded: bool,
}

impl Machine {
    /// A machine that has seen nothing yet; its first effect is a look.
    #[must_use]
    pub fn new(settings: Settings, started: Mono) -> Self {
        let mut machine = Self {
            tracker: Tracker::counting(started, settings.policy.windows()),
            cases: BTreeMap::new(),
            kills: BTreeMap::new(),
            targets: BTreeMap::new(),
            next_kill: 1,
            pacer: Pacer::default(),
            pressure_is_missing: false,
            settings,
            asking: BTreeSet::new(),
            causes: Causes::default(),
            effects: VecDeque::new(),
            look_queued: false,
            last_look: None,
            unseen: started,
            wake_look: None,
            next_stall: None,
            unrecorded: false,
        };
        machine.queue_look();
        machine
    }

    /// The next thing to do, if there is one.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if effect == Some(Effect::Look) {
            self.look_queued = false;
        }
        effect
    }

    /// The stalls that the last look showed.
    pub fn stalls(&self) -> impl Iterator<Item = &Stall> {
        self.tracker.stalls().filter(|stall| stall.missing.is_none())
    }

    /// How many kills are under way.
    #[must_use]
    pub fn kills_under_way(&self) -> usize {
        self.kills.len()
    }

    /// When [`Self::handle_deadline`] is next to be called, if nothing happens before.
    #[must_use]
    pub fn poll_deadline(&mut self) -> Option<Mono> {
        let last = self.last_look?;
        let stalls = self.next_stall.unwrap_or_else(|| {
            self.tracker
                .stalls()
                .filter_map(|stall| self.next_moment(stall))
                .min()
                .unwrap_or(Mono::NEVER)
        });
        self.next_stall = Some(stalls);
        let threshold = self.settings.policy.smallest_threshold();
        // Who was awake at a look is looked for again, but not all the time.
        let unseen = self
            .unseen
            .after(threshold)
            .max(last.after(threshold.min(MISSING_FOR)));
        let refresh = self.settings.refresh.map(|every| last.after(every));
        let kills = self.kills.values().filter_map(Kill::deadline);
        kills
            .chain([stalls])
            .chain(refresh)
            .chain(self.wake_look)
            .chain(self.causes.again())
            .chain([unseen])
            .min()
    }

    /// Time has passed: asks for what is due.
    pub fn handle_deadline(&mut self, now: Mono) {
        if self.poll_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.ask_about_the_unknown(false, now);
        self.give_up_on_the_unkillable(now);
        // What is still due wants a look: crossings, missing writers, the end of a grace.
        if self.poll_deadline().is_some_and(|deadline| deadline <= now) {
            self.queue_look();
        }
    }

    /// Takes in a look, which must have begun after its effect was taken.
    pub fn handle_look(&mut self, look: Look, now: Mono) {
        self.last_look = Some(look.at);
        self.unseen = look.awake.map_or(look.at, |since| since.min(look.at));
        self.wake_look = None;
        self.next_stall = None;
        for (stall, why) in self.tracker.observe(look) {
            self.stall_ended(stall, why, now);
        }
        self.let_crawlers_go();
        self.age_readers();
        self.move_confirmed_on(now);
        self.poll_readers(now);
        self.ask_about_the_unknown(true, now);
        self.judge_all(now);
        self.admit(now);
    }

    /// Takes in what was read of a process; `None` if it is gone or unreadable.
    pub fn handle_facts(&mut self, process: Process, facts: Option<Facts>, now: Mono) {
        self.asking.remove(&process);
        // Without facts, rules that ask for any do not match, and nothing is signalled.
        if let Some(facts) = facts {
            self.tracker.identify(process, &Arc::new(facts));
            self.next_stall = None;
            let stalls: Vec<_> = self.tracker.stalls_of(process).cloned().collect();
            for stall in stalls {
                self.cases.entry(stall.id).or_default().rule = self.settings.policy.rule_for(&stall);
                if stall.missing.is_none() && stall.cause.is_some() && self.is_due(&stall) {
                    self.judge(&stall, now);
                }
            }
        }
        // Once for all of them, as for admission.
        if self.asking.is_empty() {
            self.find_readers(now);
        }
        self.admit(now);
    }

    /// Whether any rule asks for [`Self::handle_pressure`].
    #[must_use]
    pub fn asks_for_pressure(&self) -> bool {
        self.settings.policy.asks_for_pressure()
    }

    /// Takes in the share of time, from 0 to 1, in which some task waited for a CPU; `None` if
    /// that cannot be known, so that rules that ask for it wait. Comes ahead of each look.
    pub fn handle_pressure(&mut self, share: Option<f64>) {
        let was_missing = std::mem::replace(&mut self.pressure_is_missing, share.is_none());
        if !was_missing && self.lacks_pressure().is_some() {
            let degraded = Report::Degraded(NO_PRESSURE);
            self.effects.push_back(Effect::Report(Box::new(degraded)));
        }
        self.pacer.set_pressure(share);
    }

    /// Why rules that ask for the host's pressure wait, if it is not known.
    #[must_use]
    pub fn lacks_pressure(&self) -> Option<&'static str> {
        (self.pressure_is_missing && self.asks_for_pressure()).then_some(NO_PRESSURE)
    }

    /// Takes in what the tracer noted.
    pub fn handle_note(&mut self, note: Note, now: Mono) {
        match note {
            Note::Exited(writer) => {
                if let Some(stall) = self.tracker.exited(writer) {
                    self.next_stall = None;
                    self.stall_ended(stall, Ended::Exited, now);
                }
            }
            Note::Woke(writer) => {
                if self.tracker.get(writer).is_some() && self.wake_look.is_none() {
                    let earliest = self.last_look.map_or(now, |last| last.after(BETWEEN_WAKE_LOOKS));
                    self.wake_look = Some(earliest.max(now.after(AFTER_WAKE)));
                }
            }
        }
    }

    /// The next moment at which a stall wants attention.
    fn next_moment(&self, stall: &Stall) -> Option<Mono> {
        if let Some(missing) = stall.missing {
            return Some(missing.after(stall.patience()));
        }
        let case = self.cases.get(&stall.id);
        let identify = case.is_none().then(|| self.identify_at(stall));
        let report = (!case.is_some_and(|c| c.reported)).then(|| self.settings.policy.reporting(stall));
        let rule = case
            .filter(|case| {
                case.fate != Fate::Decided && !self.targets.contains_key(&stall.last.writer.process)
            })
            .and_then(|case| match case.hold {
                Some((_, until)) => Some(until),
                None => Some(self.settings.policy.rules.get(case.rule?)?.crossing(stall)),
            });
        // A moment that the last look has seen is over.
        let unseen = |moment: &Mono| *moment > stall.last.at;
        identify
            .into_iter()
            .chain(report.filter(unseen))
            .chain(rule.filter(unseen))
            .min()
    }

    fn identify_at(&self, stall: &Stall) -> Mono {
        stall
            .since
            .after(self.settings.policy.smallest_threshold().min(IDENTIFY_AFTER))
    }

    fn queue_look(&mut self) {
        if !self.look_queued {
            self.look_queued = true;
            self.effects.push_back(Effect::Look);
        }
    }

    /// Asks about processes ahead of any decision, and `again` about those that nothing is
    /// known of any more.
    fn ask_about_the_unknown(&mut self, again: bool, now: Mono) {
        let policy = &self.settings.policy;
        for stall in self.tracker.stalls().filter(|stall| stall.missing.is_none()) {
            let known = self.cases.contains_key(&stall.id);
            let is_young = self.identify_at(stall) > now && !policy.may_crawl(stall);
            if is_young || known && (stall.facts.is_some() || !again) {
                continue;
            }
            let case = self.cases.entry(stall.id).or_default();
            if stall.facts.is_some() {
                case.rule = policy.rule_for(stall);
            } else {
                let process = stall.last.writer.process;
                if self.asking.insert(process) {
                    self.effects.push_back(Effect::Identify(process));
                }
            }
            self.next_stall = None;
        }
    }

    /// Those that were blocked for most of the time and are not any more are as all others.
    fn let_crawlers_go(&mut self) {
        let rules = &self.settings.policy.rules;
        let is_over = |stall: &&Stall| {
            let rule = self.cases.get(&stall.id).and_then(|case| rules.get(case.rule?));
            let Some((rule, limit)) = rule.and_then(|rule| Some((rule, rule.stalled_share?))) else {
                return true;
            };
            rule.blocked(stall)
                .is_some_and(|blocked| limit.is_over_with(blocked))
        };
        let crawlers = self.stalls().filter(|stall| stall.crawls.is_some());
        let over: Vec<_> = crawlers.filter(is_over).map(|stall| stall.last.writer).collect();
        for writer in over {
            self.tracker.set_crawling(writer, None);
        }
    }

    /// Judges all that are due and of whom it is known who should read.
    fn judge_all(&mut self, now: Mono) {
        self.find_readers(now);
        let open = |stall: &&Stall| {
            let case = self.cases.get(&stall.id);
            stall.facts.is_some()
                && stall.cause.is_some()
                && case.is_some_and(|case| !(case.reported && case.fate == Fate::Decided))
        };
        let due: Vec<_> = self
            .stalls()
            .filter(open)
            .filter(|stall| self.is_due(stall))
            .cloned()
            .collect();
        for stall in due {
            self.judge(&stall, now);
        }
    }

    /// Whether the last look saw the stall cross anything.
    fn is_due(&self, stall: &Stall) -> bool {
        let rule = self
            .cases
            .get(&stall.id)
            .and_then(|case| self.settings.policy.rules.get(case.rule?));
        rule.is_some_and(|rule| rule.trigger(stall).is_some())
            || self.settings.policy.reporting(stall) <= stall.last.at
    }

    /// Reports and decides what the last look saw of a stall whose facts are known.
    fn judge(&mut self, stall: &Stall, now: Mono) {
        self.next_stall = None;
        let policy = &self.settings.policy;
        let case = self.cases.entry(stall.id).or_default();
        // Once more: the process may have changed its command since it was asked about.
        case.rule = policy.rule_for(stall);
        let rule = case.rule.and_then(|at| policy.rules.get(at));
        if rule.is_none() {
            case.fate = Fate::Decided;
        }
        let trigger = rule
            .filter(|_| case.fate == Fate::Open)
            .and_then(|rule| rule.trigger(stall));
        let crossed = rule.filter(|_| trigger.is_some());
        let verdict = crossed.map(|rule| rule.verdict(policy, stall));
        if trigger.is_some() {
            case.crossed.get_or_insert(stall.last.at);
        }
        if trigger == Some(Trigger::Share)
            && let Some(share) = crossed.and_then(|rule| rule.stalled_share)
        {
            // What is said of it is said once, and not of each of its stalls.
            self.tracker.set_crawling(stall.last.writer, Some(share.slack()));
        }
        let old_enough = policy.reporting(stall) <= stall.last.at;
        let reference = rule.map(RuleRef::from);

        if !case.reported && (old_enough || verdict.is_some()) || verdict == Some(Verdict::Alert) {
            case.reported = true;
            let snapshot = Snapshot {
                stall: stall.clone(),
                at: now,
            };
            self.effects
                .push_back(Effect::Report(Box::new(Report::StallDetected(
                    snapshot,
                    reference.clone(),
                ))));
        }
        let (Some(reference), Some(verdict)) = (reference, verdict) else {
            return;
        };
        match verdict {
            Verdict::Alert => {
                case.fate = Fate::Decided;
                case.done.extend(case.rule);
            }
            Verdict::Skip(reason, detail) => {
                case.fate = Fate::Decided;
                case.done.extend(case.rule);
                self.report_skip(stall, reference, reason, detail, now);
            }
            Verdict::End => case.fate = Fate::Wanted,
        }
    }

    fn stall_ended(&mut self, stall: Stall, why: Ended, now: Mono) {
        self.forget_write(&stall);
        // After SIGTERM, leaving the write is what is hoped for: an exit may follow.
        let is_reason = |kill: &Kill| {
            let waits = matches!(kill.step, Step::Terminating { .. }) && why == Ended::Left;
            kill.stall.id == stall.id && !waits && !matches!(kill.step, Step::Killing { .. })
        };
        let target = self.targets.get(&stall.last.writer.process).copied();
        let kill = target.filter(|id| self.kills.get(id).is_some_and(is_reason));
        match (kill, why) {
            (Some(id), Ended::Drained) => {
                self.skip(id, Skipped::Progressed, Some(TAKEN), now);
            }
            (Some(id), Ended::Left) => self.skip(id, Skipped::Progressed, Some(LEFT), now),
            // The handle tells whether the process went with its thread.
            (Some(_), Ended::Exited) | (None, _) => {}
        }
        if self.cases.remove(&stall.id).is_some_and(|case| case.reported) {
            self.effects.push_back(Effect::Report(Box::new(Report::StallEnded(
                Snapshot { stall, at: now },
                why,
            ))));
        }
    }
}
