//! The kill protocol's way through the machine: see [`crate::core::kill`] for its steps.

use super::{Effect, Fate, LEFT, Machine, Opened, Sent};
use crate::core::{
    kill::{CONFIRM_WITHIN, KillId, Step},
    model::{Mono, Stall},
    report::{KillReport, Report, RuleRef, Signal, Skipped, Snapshot},
    rule::Action,
    tracker::MISSING_FOR,
};

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
    pub fn handle_committed(&mut self, now: Mono) {
        for (id, kill) in &mut self.kills {
            if kill.step == Step::Committing {
                kill.step = Step::Terminating {
                    until: now.after(kill.grace),
                };
                self.effects.push_back(Effect::Signal(*id, Signal::Term));
            }
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

    /// Moves each kill that waited for a look to its next step, or lets go.
    pub(super) fn move_kills_on(&mut self, now: Mono) {
        let mut planned = false;
        for id in self.kills.keys().copied().collect::<Vec<_>>() {
            let Some(kill) = self.kills.get_mut(&id) else {
                continue;
            };
            let stall = self
                .tracker
                .get(kill.stall.last.writer)
                .filter(|stall| stall.id == kill.stall.id);
            match (kill.step, stall) {
                (Step::Opened, Some(stall)) if stall.missing.is_none() => {
                    kill.stall = stall.clone();
                    kill.step = Step::Committing;
                    let hooked = kill.hooked.clone();
                    self.report_kill(id, KillReport::Planned(hooked), now);
                    planned = true;
                }
                (Step::Opened, _) => self.skip(id, Skipped::Progressed, Some(LEFT), now),
                (Step::Terminating { until }, stall) if until <= now => match stall {
                    None => self.skip(id, Skipped::Progressed, Some(LEFT), now),
                    Some(Stall {
                        missing: Some(missing),
                        ..
                    }) => {
                        kill.step = Step::Terminating {
                            until: missing.after(MISSING_FOR),
                        };
                    }
                    Some(stall) => {
                        kill.stall = stall.clone();
                        self.after_grace(id, now);
                    }
                },
                (
                    Step::Opening
                    | Step::Hooking
                    | Step::Committing
                    | Step::Terminating { .. }
                    | Step::Killing { .. },
                    _,
                ) => {}
            }
        }
        if planned {
            self.effects.push_back(Effect::Commit);
        }
    }

    /// SIGTERM and the grace have changed nothing.
    fn after_grace(&mut self, id: KillId, now: Mono) {
        let Some(kill) = self.kills.get_mut(&id) else {
            return;
        };
        match kill.rule.action {
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
            let why = "has not exited within 5 s of SIGKILL; it may be in an uninterruptible sleep";
            self.finish(id, KillReport::Failed(why.to_owned()), now);
        }
    }

    pub(super) fn skip(&mut self, id: KillId, reason: Skipped, detail: Option<&'static str>, now: Mono) {
        if reason == Skipped::Progressed
            && let Some(kill) = self.kills.get(&id)
            && let Some(case) = self.cases.get_mut(&kill.stall.id)
        {
            // Should the same stall be seen again after all, it is judged again.
            case.fate = Fate::Open;
        }
        self.finish(id, KillReport::Skipped(reason, detail), now);
    }

    fn finish(&mut self, id: KillId, report: KillReport, now: Mono) {
        self.report_kill(id, report, now);
        if let Some(kill) = self.kills.remove(&id) {
            self.targets.remove(&kill.process());
            // Its process may have another stalled thread.
            self.next_stall = None;
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
