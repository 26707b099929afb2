//! How each stall stands: which rule decides about it, and what becomes of it. For
//! those who watch the machine; nothing is decided here.

use super::{Fate, Machine};
use crate::core::{
    kill::Step,
    model::{Mono, Stall},
    policy::Verdict,
    report::Skipped,
    rule::{Mode, Rule},
};

/// A stall, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing<'a> {
    /// The stall.
    pub stall: &'a Stall,
    /// The rule that decides about it, if one does.
    pub rule: Option<&'a Rule>,
    /// What becomes of it.
    pub outlook: Outlook,
}

/// What becomes of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Its process has not been read about yet.
    Unknown,
    /// No rule matches.
    NoRule,
    /// Its rule's condition is met at that moment, and this is what comes of it then.
    Due(Mono, Verdict),
    /// It is said, and that is all.
    Alerted,
    /// Its process is left alone.
    LeftAlone(Skipped, Option<&'static str>),
    /// Its process is to be ended, and has to wait: not to be asked for again before this.
    Held(Skipped, Mono),
    /// Its process is to be ended once the pile that the rule asks for is large enough.
    Piling,
    /// Its process is being ended.
    Ending(Step),
    /// Ending its process was tried, and it is still there.
    Tried,
}

impl Machine {
    /// The stalls that the last look showed, and how they stand.
    pub fn standings(&self, now: Mono) -> impl Iterator<Item = Standing<'_>> {
        self.stalls().map(move |stall| {
            let case = self.cases.get(&stall.id);
            let rule = case
                .and_then(|case| case.rule)
                .and_then(|at| self.settings.policy.rules.get(at));
            Standing {
                stall,
                rule,
                outlook: self.outlook(stall, rule, now),
            }
        })
    }

    fn outlook(&self, stall: &Stall, rule: Option<&Rule>, now: Mono) -> Outlook {
        let target = self.targets.get(&stall.last.writer.process);
        if let Some(kill) = target.and_then(|id| self.kills.get(id)) {
            return Outlook::Ending(kill.step);
        }
        if stall.facts.is_none() {
            return Outlook::Unknown;
        }
        let Some(rule) = rule else {
            return Outlook::NoRule;
        };
        let (due, verdict) = (rule.crossing(stall), rule.verdict(&self.settings.policy, stall));
        let case = self.cases.get(&stall.id);
        let fate = case.map(|case| case.fate).unwrap_or_default();
        match (fate, verdict) {
            (Fate::Open, _) => Outlook::Due(due.max(now), verdict),
            (Fate::Decided | Fate::Wanted, Verdict::Alert) => Outlook::Alerted,
            (Fate::Decided | Fate::Wanted, Verdict::Skip(reason, detail)) => {
                Outlook::LeftAlone(reason, detail)
            }
            (Fate::Decided, Verdict::End) if rule.mode == Mode::DryRun => {
                Outlook::LeftAlone(Skipped::DryRun, None)
            }
            (Fate::Decided, Verdict::End) => match self.settings.unsupported {
                Some(why) => Outlook::LeftAlone(Skipped::Unsupported, Some(why)),
                None => Outlook::Tried,
            },
            (Fate::Wanted, Verdict::End) => match case.and_then(|case| case.hold) {
                Some((reason, until)) => Outlook::Held(reason, until),
                None => Outlook::Piling,
            },
        }
    }
}
