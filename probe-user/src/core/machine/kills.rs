//! The kill protocol's way through the machine: see [`crate::core::kill`] for its steps.

use std::{collections::BTreeSet, time::Duration};

use super::{Effect, Fate, LEFT, Machine, Opened, Sent, TAKEN};
use crate::core::{
    kill::{CONFIRM_WITHIN, KillId, Next, Step},
    model::{Mono, Stall},
    policy::{CHANGED, MANUAL, Trigger},
    report::{KillReport, Report, RuleRef, Signal, Skipped, Snapshot},
    rule::Action,
    tracker::{MISSING_FOR, is_same_process},
};

/// What is said of a process that has moved after SIGTERM.
const LET_GO: &str = "it moved after SIGTERM, and is let go";

/// What is said of a kill that would leave no record.
pub(super) const UNRECORDED: &str = "the journal cannot be written; trying again when it can";

/// What is said of a writer that crawled.
const LESS: &str = "it is not blocked for that much of the time any more";

/// How long a crawling writer may be out of sight: it is awake now and then.
const CRAWLER_SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How soon a handle is tried for again that could not be had.
const RETRY: Duration = Duration::from_secs(1);

impl Machine {
    /// Takes in what came of [`Effect::Open`].
    pub fn handle_opened(&mut self, id: KillId, opened: Opened, now: Mono) {
        match opened {
            Opened::Ready => {
                let Some(kill) = self.kills.get_mut(&id) else {
                    return;
                };
                if let Some(hook) = &kill.pre_kill {
                    kill.step = Step::Hooking;
                    let snapshot = Box::new(Snapshot {
                        stall: kill.stall.clone(),
                        at: now,
                    });
                    self.effects.push_back(Effect::Hook(id, hook.clone(), snapshot));
                } else {
                    self.confirm(id);
                }
            }
            Opened::Exited => self.skip(id, Skipped::Exited, None, now),
            Opened::Later => {
                let why = "out of file descriptors or memory for a handle on it; trying again";
                self.put_off(id, (Skipped::Unsupported, why), now.after(RETRY), now);
            }
            Opened::OtherProcess => self.skip(id, Skipped::Identity, None, now),
            Opened::Unsupported => {
                self.skip(
                    id,
                    Skipped::Unsupported,
                    Some("the kernel gives no pidfd for it"),
                    now,
                );
            }
        }
    }

    /// Something is missing that may come back; the process keeps its place in the queue.
    fn put_off(&mut self, id: KillId, (reason, why): (Skipped, &'static str), until: Mono, now: Mono) {
        if self.kills.get(&id).is_some_and(|kill| kill.rule.name == MANUAL) {
            self.skip(id, reason, Some(why), now);
            return;
        }
        let Some(kill) = self.kills.remove(&id) else {
            return;
        };
        self.targets.remove(&kill.process());
        self.effects.push_back(Effect::Release(id));
        if let Some(ticket) = kill.ticket {
            self.pacer.take_back(ticket);
        }
        self.next_stall = None;
        let Some(case) = self.cases.get_mut(&kill.stall.id) else {
            // The stall has ended meanwhile.
            return;
        };
        case.fate = Fate::Wanted;
        let said = case.hold_until(reason, until);
        if !said {
            self.report_skip(&kill.stall, kill.rule, reason, Some(why), now);
        }
    }

    /// Takes in whether what is reported can be made durable. While it cannot, no kill begins and
    /// none goes further; those that have sent nothing yet are put off.
    pub fn handle_recording(&mut self, works: bool, now: Mono) {
        self.unrecorded = !works;
        self.next_stall = None;
        if works {
            for case in self.cases.values_mut() {
                case.hold = case.hold.filter(|(reason, _)| *reason != Skipped::Unrecorded);
            }
            self.queue_look();
            return;
        }
        let unsent: Vec<_> = self
            .kills
            .iter()
            .filter(|(_, kill)| kill.step.is_before_signal())
            .map(|(id, _)| *id)
            .collect();
        for id in unsent {
            self.put_off(id, (Skipped::Unrecorded, UNRECORDED), Mono::NEVER, now);
        }
    }

    /// Takes in what came of [`Effect::Hook`], in words: it changes nothing but the record.
    pub fn handle_hooked(&mut self, id: KillId, outcome: String) {
        if let Some(kill) = self.kills.get_mut(&id) {
            kill.hooked = Some(outcome);
            self.confirm(id);
        }
    }

    /// One look confirms all that wait for it by then.
    fn confirm(&mut self, id: KillId) {
        if let Some(kill) = self.kills.get_mut(&id) {
            kill.step = Step::Opened;
        }
        self.queue_look();
    }

    /// Everything reported so far is on disk.
    pub fn handle_committed(&mut self) {
        for kill in self
            .kills
            .values_mut()
            .filter(|kill| kill.step == Step::Committing)
        {
            kill.step = Step::Committed;
        }
        self.queue_look();
    }

    /// The observer is about to stop: says what becomes of the kills that are under way.
    pub fn handle_stop(&mut self, now: Mono) {
        for id in self.kills.keys().copied().collect::<Vec<_>>() {
            let signalled = self
                .kills
                .get(&id)
                .is_some_and(|kill| kill.first_signal.is_some());
            let why = if signalled {
                "pipestall stopped before the exit"
            } else {
                "pipestall stopped before the first signal"
            };
            self.finish(id, KillReport::Failed(why.to_owned()), now);
        }
    }

    /// Takes in what came of [`Effect::Signal`].
    pub fn handle_signalled(&mut self, id: KillId, signal: Signal, sent: Sent, now: Mono) {
        let Some(kill) = self.kills.get_mut(&id) else {
            return;
        };
        match sent {
            Sent::Yes => {
                kill.first_signal.get_or_insert(now);
                kill.last_signal = signal;
                if let Some(ticket) = kill.ticket.take() {
                    self.pacer.spend(ticket, now);
                }
                self.report_kill(id, KillReport::Sent(signal), now);
            }
            Sent::Gone => self.handle_exit(id, now),
            Sent::Failed(why) => {
                self.finish(
                    id,
                    KillReport::Failed(format!("{} not sent: {why}", signal.as_str())),
                    now,
                );
            }
        }
    }

    /// The process of a kill has exited.
    pub fn handle_exit(&mut self, id: KillId, now: Mono) {
        let Some(kill) = self.kills.get(&id) else { return };
        let report = match kill.first_signal {
            None => KillReport::Skipped(Skipped::Exited, None),
            Some(first) => KillReport::Confirmed {
                took: now.since(first),
                since_crossing: now.since(kill.crossed),
                signal: kill.last_signal,
            },
        };
        self.finish(id, report, now);
    }

    /// Moves each of these kills, which the last look may confirm, to its next step, or lets go.
    pub(super) fn move_kills_on(&mut self, kills: BTreeSet<KillId>, now: Mono) {
        let mut planned = false;
        for id in kills {
            let Some(kill) = self.kills.get(&id) else { continue };
            let Some(next) = kill.step.after_look(now) else {
                continue;
            };
            let (rule, before) = (kill.rule.clone(), kill.stall.last.clone());
            let stall = self
                .tracker
                .get(kill.stall.last.writer)
                .filter(|stall| stall.id == kill.stall.id)
                .cloned();
            let stall = match stall {
                None => {
                    self.skip(id, Skipped::Progressed, Some(LEFT), now);
                    continue;
                }
                Some(Stall {
                    missing: Some(missing),
                    ..
                }) => {
                    self.not_seen(id, missing, now);
                    continue;
                }
                Some(stall) => stall,
            };
            if !self.still_holds(id, &stall, now) {
                continue;
            }
            let meant = if is_same_process(&before, &stall.last) {
                self.settings.policy.still_means(&rule, &stall)
            } else {
                Err((Skipped::Identity, CHANGED))
            };
            if let Err((reason, why)) = meant {
                self.skip(id, reason, Some(why), now);
                continue;
            }
            let holds = self
                .settings
                .policy
                .rules
                .iter()
                .any(|known| known.name == rule.name && known.hold_when_reader_stopped);
            let held_back = Self::held_back(&stall).filter(|_| holds);
            let Some(kill) = self.kills.get_mut(&id) else {
                continue;
            };
            kill.stall = stall;
            (kill.unseen, kill.again) = (None, None);
            if let Some(why) = held_back {
                self.hold_kill(id, why, now);
                continue;
            }
            match next {
                Next::Plan => {
                    kill.step = Step::Committing;
                    let hooked = kill.hooked.clone();
                    self.report_kill(id, KillReport::Planned(hooked), now);
                    planned = true;
                }
                Next::Terminate => {
                    kill.step = Step::Terminating {
                        until: now.after(kill.grace),
                    };
                    self.effects.push_back(Effect::Signal(id, Signal::Term));
                }
                Next::GoFurther => self.after_grace(id, now),
            }
        }
        if planned {
            self.effects.push_back(Effect::Commit);
        }
    }

    /// The look did not show the writer, which may be in a signal handler, or about to exit: it
    /// is looked for again before anything is said or done.
    fn not_seen(&mut self, id: KillId, missing: Mono, now: Mono) {
        let Some(kill) = self.kills.get_mut(&id) else {
            return;
        };
        let again = match kill.trigger {
            // Its stall ends if it is not seen then.
            Trigger::Age => missing.after(MISSING_FOR),
            Trigger::Share => {
                if now.since(*kill.unseen.get_or_insert(now)) >= CRAWLER_SEEN_WITHIN {
                    self.skip(id, Skipped::Progressed, Some(LEFT), now);
                    return;
                }
                now.after(MISSING_FOR)
            }
        };
        match &mut kill.step {
            Step::Terminating { until } => *until = again,
            _ if kill.trigger == Trigger::Share => kill.again = Some(again),
            Step::Opening
            | Step::Hooking
            | Step::Opened
            | Step::Committing
            | Step::Committed
            | Step::Killing { .. } => {}
        }
    }

    /// Whether what made the rule act still holds by the last look; if not, the kill is over or
    /// waits for another.
    fn still_holds(&mut self, id: KillId, stall: &Stall, now: Mono) -> bool {
        let Some(kill) = self.kills.get(&id) else {
            return false;
        };
        match kill.trigger {
            Trigger::Age if kill.stall.since == stall.since => true,
            Trigger::Age => {
                self.skip(id, Skipped::Progressed, Some(TAKEN), now);
                false
            }
            Trigger::Share => {
                let rules = &self.settings.policy.rules;
                let rule = rules.iter().find(|rule| rule.name == kill.rule.name);
                match rule.and_then(|rule| rule.is_over_share(stall)) {
                    Some(true) => true,
                    Some(false) => {
                        self.skip(id, Skipped::Progressed, Some(LESS), now);
                        false
                    }
                    None => {
                        self.not_seen(id, now, now);
                        false
                    }
                }
            }
        }
    }

    /// SIGTERM and the grace have changed nothing.
    fn after_grace(&mut self, id: KillId, now: Mono) {
        let Some(kill) = self.kills.get_mut(&id) else {
            return;
        };
        match kill.rule.action {
            Action::Kill if self.unrecorded => {
                kill.step = Step::Terminating {
                    until: now.after(RETRY),
                };
            }
            Action::Kill => {
                kill.step = Step::Killing {
                    until: now.after(CONFIRM_WITHIN),
                };
                self.effects.push_back(Effect::Signal(id, Signal::Kill));
            }
            Action::Term | Action::Alert => {
                let why = "still stuck after SIGTERM and its grace; the rule goes no further";
                self.finish(id, KillReport::Failed(why.to_owned()), now);
            }
        }
    }

    pub(super) fn give_up_on_the_unkillable(&mut self, now: Mono) {
        let late: Vec<_> = self
            .kills
            .iter()
            .filter(|(_, kill)| matches!(kill.step, Step::Killing { until } if until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let why = format!(
                "has not exited within {} s of SIGKILL; it may be in an uninterruptible sleep",
                CONFIRM_WITHIN.as_secs()
            );
            self.finish(id, KillReport::Failed(why), now);
        }
    }

    pub(super) fn skip(&mut self, id: KillId, reason: Skipped, detail: Option<&'static str>, now: Mono) {
        if matches!(reason, Skipped::Progressed | Skipped::Identity)
            && let Some(kill) = self.kills.get(&id)
            && let Some(case) = self.cases.get_mut(&kill.stall.id)
        {
            // Should the same stall be seen again after all, it is judged again.
            case.fate = Fate::Open;
            case.crossed = None;
            case.done.retain(|rule| {
                self.settings
                    .policy
                    .rules
                    .get(*rule)
                    .is_none_or(|known| known.name != kill.rule.name)
            });
        }
        let signalled = self
            .kills
            .get(&id)
            .is_some_and(|kill| kill.first_signal.is_some());
        let detail = if signalled && reason == Skipped::Progressed {
            Some(LET_GO)
        } else {
            detail
        };
        self.finish(id, KillReport::Skipped(reason, detail), now);
    }

    pub(super) fn finish(&mut self, id: KillId, report: KillReport, now: Mono) {
        self.report_kill(id, report, now);
        if let Some(kill) = self.kills.remove(&id) {
            self.targets.remove(&kill.process());
            if let Some(ticket) = kill.ticket {
                self.pacer.take_back(ticket);
            }
            // Its process may have another stalled thread.
            self.next_stall = None;
            if kill.rule.name == MANUAL
                && let Some(case) = self.cases.get_mut(&kill.stall.id)
            {
                // What the rules say of it is still to be heard.
                case.fate = Fate::Open;
            }
            self.effects.push_back(Effect::Release(id));
        }
    }

    fn report_kill(&mut self, id: KillId, report: KillReport, now: Mono) {
        if let Some(kill) = self.kills.get(&id) {
            let snapshot = Snapshot {
                stall: kill.stall.clone(),
                at: now,
            };
            self.effects.push_back(Effect::Report(Box::new(Report::Kill(
                snapshot,
                kill.rule.clone(),
                report,
            ))));
        }
    }

    pub(super) fn report_skip(
        &mut self,
        stall: &Stall,
        rule: RuleRef,
        reason: Skipped,
        detail: Option<&'static str>,
        now: Mono,
    ) {
        let snapshot = Snapshot {
            stall: stall.clone(),
            at: now,
        };
        let report = Report::Kill(snapshot, rule, KillReport::Skipped(reason, detail));
        self.effects.push_back(Effect::Report(Box::new(report)));
    }
}
