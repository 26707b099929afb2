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
    /// When its time comes for the stall by its age, to an agent that has watched it for long
    /// enough; `None` if there is no stall, or the rule asks for no age. For a share of the time,
    /// only a running agent can tell.
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
                due: stall
                    .zip(rule.stalled_for)
                    .map(|(stall, stalled_for)| stall.since.after(stalled_for).max(grown_up)),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        matcher::{
            Match,
            tests::{at, facts, sighting},
        },
        model::{Bound, ChannelKind, StallId, Stream},
        pace::Pace,
        report::Skipped,
        rule::{Action, Mode, Pattern, Protect},
    };

    /// The incident's writer, stalled for a hundred seconds and watched all the time.
    fn stall() -> Stall {
        Stall {
            id: StallId(1),
            last: sighting(),
            since: at(900),
            bound: Bound::Exact,
            look: 1,
            preexisting: false,
            draining: false,
            watched: at(900),
            missing: None,
            shares: Vec::new(),
            crawls: None,
            facts: Some(facts().into()),
            cause: None,
        }
    }

    fn rule(matches: Match) -> Rule {
        Rule {
            name: "r".into(),
            matches,
            stalled_for: Some(Duration::from_mins(1)),
            stalled_share: None,
            action: Action::Kill,
            grace: Duration::from_secs(10),
            mode: Mode::Enforce,
            pace: Pace::default(),
            pre_kill: None,
            allow_stderr_kill: false,
            hold_when_reader_stopped: true,
        }
    }

    fn policy(rules: Vec<Rule>) -> Policy {
        Policy {
            rules,
            ..Policy::default()
        }
    }

    fn comm(pattern: &str) -> Match {
        Match {
            comm: Some(Pattern::parse(pattern).unwrap()),
            ..Match::default()
        }
    }

    #[test]
    fn a_young_process_holds_its_rule_back_and_no_other_rule_takes_over() {
        let aged = Match {
            min_process_age: Some(Duration::from_mins(5)),
            ..comm("ffmpeg*")
        };
        let policy = policy(vec![rule(aged), rule(comm("*"))]);
        let stall = stall();

        let place = policy.rule_for(&stall);
        let crossings = policy.rules.iter().map(|rule| rule.crossing(&stall));

        // Born at 900, as old as five minutes at 1200.
        assert_eq!(place, Some(0));
        assert_eq!(crossings.collect::<Vec<_>>(), [at(1200), at(960)]);
        let facts = facts();
        let explained = policy.explain(Subject::writing(&stall.last, &facts), Some(&stall));
        let decision = explained.decision.unwrap();
        assert_eq!(
            (decision.place, decision.certain, decision.due),
            (0, true, Some(at(1200)))
        );
    }

    #[test]
    fn a_protected_process_is_explained_as_such() {
        let mut policy = policy(vec![rule(comm("*"))]);
        policy.protect = Protect {
            units: vec![Pattern::parse("peertube*").unwrap()],
            ..Protect::default()
        };
        let (stall, facts) = (stall(), facts());

        let explained = policy.explain(Subject::writing(&stall.last, &facts), Some(&stall));

        assert_eq!(explained.protected.as_deref(), Some("units peertube*"));
        assert_eq!(
            explained.decision.map(|decision| decision.verdict),
            Some(Verdict::Skip(Skipped::Protected, None))
        );
    }

    #[test]
    fn without_a_write_the_first_rule_that_may_match_is_named_as_uncertain() {
        let unix = Match {
            channel: Some(ChannelKind::Unix),
            ..comm("*")
        };
        let policy = policy(vec![rule(comm("node")), rule(unix), rule(comm("*"))]);
        let (sighting, facts) = (sighting(), facts());
        let subject = Subject {
            write: None,
            ..Subject::writing(&sighting, &facts)
        };

        let explained = policy.explain(subject, None);

        let matches: Vec<_> = explained.rules.iter().map(|rule| rule.matches).collect();
        assert_eq!(matches, [Some(false), None, Some(true)]);
        let decision = explained.decision.unwrap();
        assert_eq!((decision.place, decision.certain, decision.due), (1, false, None));
    }

    proptest! {
        #[test]
        fn what_is_explained_is_what_is_decided(
            rules in prop::collection::vec(
                (prop::bool::ANY, prop::option::of(prop::bool::ANY), 0u64..400, prop::bool::ANY),
                0..5,
            ),
            protected in prop::bool::ANY,
            stderr in prop::bool::ANY,
        ) {
            let rules = rules.into_iter().map(|(by_comm, stdout, age, dry)| {
                let stream = stdout.map(|is_it| if is_it { Stream::Stdout } else { Stream::Stderr });
                let min_process_age = Some(Duration::from_secs(age)).filter(|age| !age.is_zero());
                let matches = Match { stream, min_process_age, ..comm(if by_comm { "ffmpeg*" } else { "node" }) };
                Rule { mode: if dry { Mode::DryRun } else { Mode::Enforce }, ..rule(matches) }
            });
            let mut policy = policy(rules.collect());
            if protected {
                policy.protect.users = vec![Pattern::parse("peertube").unwrap()];
            }
            let mut stall = stall();
            stall.last.stream = Some(if stderr { Stream::Stderr } else { Stream::Stdout });
            let facts = facts();

            let explained = policy.explain(Subject::writing(&stall.last, &facts), Some(&stall));

            let place = policy.rule_for(&stall);
            prop_assert_eq!(explained.decision.as_ref().map(|decision| decision.place), place);
            if let (Some(decision), Some(place)) = (explained.decision, place) {
                let rule = &policy.rules[place];
                prop_assert!(decision.certain);
                prop_assert_eq!(decision.verdict, rule.verdict(&policy, &stall));
                prop_assert_eq!(decision.due, Some(rule.crossing(&stall)));
            }
        }
    }
}
