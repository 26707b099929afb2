//! Why a policy decides about a process as it does.
//!
//! It asks what the rules themselves ask, and changes nothing.

use super::{
    matcher::{Condition, Holds, Subject},
    model::{Mono, Stall},
    policy::Verdict,
    rule::{Policy, Rule},
};

/// What a policy says of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation<'a> {
    /// Why it is never signalled, if it is not.
    pub protected: Option<String>,
    /// The rules in their order.
    pub rules: Vec<Explained<'a>>,
    /// What comes of it; `None` if no rule matches.
    pub decision: Option<Decision<'a>>,
}

/// What a rule says of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Each of its conditions.
    pub conditions: Vec<Condition<'a>>,
    /// Whether it matches; `None` if that depends on the write.
    pub matches: Option<bool>,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<'a> {
    /// The place of the rule that decides, or that may.
    pub place: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// Whether the rule matches for certain.
    pub certain: bool,
    /// What it says once its time has come.
    pub verdict: Verdict,
    /// When its time comes for the stall, to an agent that has watched it for long enough;
    /// `None` if there is no stall.
    pub due: Option<Mono>,
}

impl Policy {
    /// Explains what is decided about a process, and, if it is one, about its stall.
    #[must_use]
    pub fn explain<'a>(&'a self, subject: Subject<'a>, stall: Option<&Stall>) -> Explanation<'a> {
        let protected = self.protect.reason(subject);
        let rules: Vec<_> = self.rules.iter().map(|rule| explained(rule, subject)).collect();
        let place = rules.iter().position(|rule| rule.matches != Some(false));
        let decision = place.map(|place| {
            let Explained { rule, matches, .. } = &rules[place];
            let stream = subject.write.and_then(|write| write.stream);
            let grown_up = rule.matches.not_before(subject.facts);
            Decision {
                place,
                rule,
                certain: *matches == Some(true),
                verdict: rule.verdict_on(protected.is_some(), stream),
                due: stall.map(|stall| stall.since.after(rule.stalled_for).max(grown_up)),
            }
        });
        Explanation {
            protected,
            rules,
            decision,
        }
    }
}

fn explained<'a>(rule: &'a Rule, subject: Subject<'a>) -> Explained<'a> {
    let conditions = rule.matches.explain(subject);
    let any = |holds| conditions.iter().any(|condition| condition.holds == holds);
    let matches = match (any(Holds::No), any(Holds::Unknown)) {
        (true, _) => Some(false),
        (false, true) => None,
        (false, false) => Some(true),
    };
    Explained {
        rule,
        conditions,
        matches,
    }
}
