//! Why each rule does or does not match a process: what the core explains, as JSON and in the
//! words that commands and the dashboard share.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    cli::text,
    clock,
    core::{
        explain::{Decision, Explained, Explanation},
        matcher::{Condition, Holds, Subject},
        model::Mono,
        policy::Verdict,
        report::Skipped,
        rule::Mode,
    },
    event::{Name, ShareView, StallView},
};

/// The answer to `GET /v1/stalls/{id}/explain`, and what `--explain --json` prints.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplanationView {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub comm: String,
    /// Its blocked write, if it was seen in one.
    pub stall: Option<StallView>,
    /// Why the agent would not look at it; null if it would.
    pub not_observed: Option<String>,
    /// Why it is never signalled; null if it may be.
    pub protected: Option<String>,
    /// The rules, in their order.
    pub rules: Vec<RuleView>,
    /// What comes of it; null if no rule matches.
    pub decision: Option<DecisionView>,
}

/// What a rule says of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// Null where that is not known: it depends on a write that was not seen, or on readers.
    pub matches: Option<bool>,
    /// All that it asks.
    pub conditions: Vec<ConditionView>,
}

/// One condition of a rule, and what it met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConditionView {
    /// Its key in the configuration.
    pub key: Name,
    /// What is asked for.
    pub pattern: String,
    /// What was found; null if there is no such thing, or it is not known.
    pub found: Option<String>,
    /// `yes`, `no`, `later` or `unknown`.
    pub holds: Name,
    /// In how long, if later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds_in_seconds: Option<f64>,
}

/// What comes of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// The rule that decides, or that may.
    pub rule: String,
    /// What it does: `alert`, `term` or `kill`.
    pub action: Name,
    /// `dry-run` or `enforce`.
    pub mode: Name,
    /// From which age, if it asks for one.
    pub stalled_for_seconds: Option<f64>,
    /// From which share of the time, if it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_share: Option<ShareView>,
    /// Whether the rule matches for certain.
    pub certain: bool,
    /// What becomes of the action: `done`, or `skipped` with a reason.
    pub outcome: Name,
    /// Why it is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Name>,
    /// The same, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Null if there is no stall, or the rule asks for no age; zero if its time has come.
    pub due_in_seconds: Option<f64>,
}

impl ExplanationView {
    /// Shows what is explained of a process as of `now`.
    #[must_use]
    pub fn new(subject: Subject<'_>, explanation: &Explanation<'_>, now: Mono) -> Self {
        Self {
            pid: subject.pid,
            comm: subject.comm.to_owned(),
            stall: None,
            not_observed: None,
            protected: explanation.protected.clone(),
            rules: explanation
                .rules
                .iter()
                .map(|explained| RuleView::new(explained, now))
                .collect(),
            decision: explanation
                .decision
                .as_ref()
                .map(|decision| DecisionView::new(decision, now)),
        }
    }

    /// Adds the blocked write.
    #[must_use]
    pub fn with_stall(self, stall: Option<StallView>) -> Self {
        Self { stall, ..self }
    }

    /// Whether the process is protected, as a line.
    #[must_use]
    pub fn protection(&self) -> String {
        match &self.protected {
            None => "protected: no".to_owned(),
            Some(why) => format!("protected: yes, by {why}"),
        }
    }

    /// Each rule's answer as a line, with its conditions in lines of at most `width` columns.
    pub fn answers(&self, width: usize) -> impl Iterator<Item = (String, Vec<String>)> {
        let first = self.rules.iter().position(|rule| rule.matches != Some(false));
        self.rules.iter().enumerate().map(move |(place, rule)| {
            let answer = self.answer(rule, first == Some(place));
            let title = format!("{}. {}: {answer}", place + 1, rule.name);
            (text::one_line(&title), self.conditions(rule, width))
        })
    }

    fn answer(&self, rule: &RuleView, decides: bool) -> String {
        match (rule.matches, &self.decision) {
            (Some(false), _) => "does not match".to_owned(),
            (Some(true), _) if decides => "matches, and decides".to_owned(),
            (None, _) if decides => format!("may match, {}; if so, it decides", self.depending()),
            (Some(true), Some(decision)) if decision.certain => {
                format!("matches, but {} comes first", decision.rule)
            }
            (Some(true), _) => "matches, and decides unless a rule before it does".to_owned(),
            (None, _) => format!("may match, {}, unless a rule before it does", self.depending()),
        }
    }

    const fn depending(&self) -> &'static str {
        if self.stall.is_some() {
            "depending on who should read"
        } else {
            "depending on its write"
        }
    }

    fn conditions(&self, rule: &RuleView, width: usize) -> Vec<String> {
        let widest = |texts: &mut dyn Iterator<Item = usize>, most: usize| texts.max().unwrap_or(0).min(most);
        let conditions = &rule.conditions;
        let key = widest(&mut conditions.iter().map(|c| c.key.len()), 15);
        let pattern = widest(&mut conditions.iter().map(|c| c.pattern.chars().count()), 28);
        let line = |condition: &ConditionView| {
            let asked = text::cut(&text::one_line(&condition.pattern), pattern);
            let found = match &condition.found {
                Some(found) => text::one_line(found),
                None if &*condition.holds != UNKNOWN => "(none)".to_owned(),
                None if self.stall.is_some() => "(not looked for yet)".to_owned(),
                None => "(not seen writing)".to_owned(),
            };
            let found = text::cut(&found, width.saturating_sub(9 + key + pattern));
            let (sign, name) = (condition.sign(), &condition.key);
            let line = format!("{sign:<4} {name:<key$}  {asked:<pattern$}  {found}");
            text::cut(line.trim_end(), width)
        };
        conditions.iter().map(line).collect()
    }
}

const UNKNOWN: &str = "unknown";

impl ConditionView {
    fn new(condition: &Condition<'_>, now: Mono) -> Self {
        let (holds, from) = match condition.holds {
            Holds::Yes => ("yes", None),
            Holds::From(from) => ("later", Some(clock::seconds(from.since(now)))),
            Holds::No => ("no", None),
            Holds::Unknown => (UNKNOWN, None),
        };
        Self {
            key: condition.key.into(),
            pattern: condition.pattern.to_string(),
            found: condition.found.as_deref().map(str::to_owned),
            holds: holds.into(),
            holds_in_seconds: from,
        }
    }

    /// Whether it holds, in at most four characters.
    fn sign(&self) -> &str {
        match &*self.holds {
            "later" => "wait",
            UNKNOWN => "?",
            holds => holds,
        }
    }
}

impl RuleView {
    fn new(explained: &Explained<'_>, now: Mono) -> Self {
        let conditions = explained.conditions.iter();
        Self {
            name: explained.rule.name.clone(),
            matches: explained.matches,
            conditions: conditions
                .map(|condition| ConditionView::new(condition, now))
                .collect(),
        }
    }
}

impl DecisionView {
    fn new(decision: &Decision<'_>, now: Mono) -> Self {
        let (outcome, reason, detail) = match decision.verdict {
            Verdict::End if decision.rule.mode == Mode::DryRun => {
                ("skipped", Some(Skipped::DryRun.as_str()), None)
            }
            Verdict::Alert | Verdict::End => ("done", None, None),
            Verdict::Skip(reason, detail) => ("skipped", Some(reason.as_str()), detail),
        };
        let rule = decision.rule;
        Self {
            rule: rule.name.clone(),
            action: rule.action.as_str().into(),
            mode: rule.mode.as_str().into(),
            stalled_for_seconds: rule.stalled_for.map(clock::seconds),
            stalled_share: rule.stalled_share.map(|limit| ShareView::new(limit, None)),
            certain: decision.certain,
            outcome: outcome.into(),
            reason: reason.map(Name::from),
            detail: detail.map(str::to_owned),
            due_in_seconds: decision.due.map(|due| clock::seconds(due.since(now))),
        }
    }
}
