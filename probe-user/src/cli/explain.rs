//! `--explain PID`: why each rule does or does not match a process, and what comes of it.
//!
//! The core explains; here it is written down, for people and as JSON.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::text;
use crate::{
    clock,
    config::{Config, Observe},
    core::{
        explain::{Decision, Explained, Explanation},
        matcher::{Condition, Holds, Subject},
        model::{Bound, Facts, Mono, Stall, channel_name},
        policy::Verdict,
        report::Skipped,
        rule::{Action, Mode, Rule},
    },
    event::{ShareView, StallView},
    probe::process::{Known, Reader, comm_bytes},
};

/// Lines are this wide at the most.
const WIDTH: usize = 80;

/// The process to explain.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Say why each rule does or does not match this process, and what would be done
    #[arg(long, value_name = "PID")]
    pub explain: Option<u32>,
}

/// Which rules to explain by.
#[derive(Debug, clap::Args)]
pub struct Rules {
    /// The configuration whose rules are explained
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH, requires = "explain")]
    pub config: PathBuf,
}

/// A process, and its blocked write if it was seen in one.
pub(super) enum Process {
    /// Its oldest stall, facts included, and how many more of its threads are blocked.
    Writing(Box<Stall>, usize),
    /// It may be writing: nobody looked, or it was not seen blocked.
    Other(Box<Known>),
}

impl Process {
    /// The process of that pid, by `/proc` alone.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn by_pid(pid: u32) -> Result<Self> {
        match Reader::default().know(pid) {
            Some(known) => Ok(Self::Other(Box::new(known))),
            None => bail!("there is no process {pid}"),
        }
    }

    fn facts(&self) -> Facts {
        match self {
            Self::Writing(stall, _) => stall.facts.as_deref().cloned().unwrap_or_default(),
            Self::Other(known) => known.facts.clone(),
        }
    }

    fn subject<'a>(&'a self, facts: &'a Facts) -> Subject<'a> {
        match self {
            Self::Writing(stall, _) => Subject::stalled(stall, facts),
            Self::Other(known) => Subject {
                pid: known.process.tgid,
                comm: &known.comm,
                uid: known.uid,
                at: clock::now(),
                facts,
                write: None,
                cause: None,
            },
        }
    }

    const fn stall(&self) -> Option<&Stall> {
        match self {
            Self::Writing(stall, _) => Some(stall),
            Self::Other(_) => None,
        }
    }

    /// What it is doing, in a sentence.
    fn headline(&self, subject: Subject<'_>) -> String {
        let who = format!("{}, pid {}", subject.comm, subject.pid);
        let Self::Writing(stall, more) = self else {
            return format!("{who}: not seen in a write that blocks.");
        };
        let last = &stall.last;
        let place = last
            .stream
            .map_or_else(|| format!("fd {}", last.fd), |stream| stream.as_str().to_owned());
        let channel = channel_name(last.channel.kind);
        let since = match (stall.draining, stall.bound == Bound::AtLeast) {
            (true, _) => "its reader takes bytes".to_owned(),
            (false, true) => format!("stalled for at least {}", text::age(stall.age(last.at))),
            (false, false) => format!("stalled for {}", text::age(stall.age(last.at))),
        };
        let more = match more {
            0 => String::new(),
            1 => " Another of its threads is blocked too.".to_owned(),
            n => format!(" {n} more of its threads are blocked."),
        };
        format!(
            "{who}: thread {} writes to its {place}, a {channel}; {since}.{more}",
            last.thread
        )
    }
}

/// Explains for people.
pub(super) fn as_text(config: &Config, process: &Process) -> String {
    let facts = process.facts();
    let subject = process.subject(&facts);
    let explanation = config.policy.explain(subject, process.stall());
    let mut out = text::wrap(&text::one_line(&process.headline(subject)), WIDTH);
    let observed = match not_observed(&config.observe, subject) {
        None => "observed: yes".to_owned(),
        Some(why) => format!("observed: no, {why}"),
    };
    let protected = match &explanation.protected {
        None => "protected: no".to_owned(),
        Some(why) => format!("protected: yes, by {why}"),
    };
    for line in [observed, protected] {
        out.push_str(&text::wrap(&text::one_line(&line), WIDTH));
    }
    for (i, explained) in explanation.rules.iter().enumerate() {
        out.push('\n');
        rule(&mut out, i, explained, &explanation);
    }
    out.push('\n');
    let conclusion = conclusion(config, subject, &explanation);
    out.push_str(&text::wrap(&text::one_line(&conclusion), WIDTH));
    out
}

fn rule(out: &mut String, place: usize, explained: &Explained<'_>, explanation: &Explanation<'_>) {
    let decides = explanation.decision.as_ref();
    let answer = match (explained.matches, decides) {
        (Some(false), _) => "does not match".to_owned(),
        (Some(true), Some(decision)) if decision.place == place => "matches, and decides".to_owned(),
        (None, Some(decision)) if decision.place == place => {
            "may match, depending on its write; if so, it decides".to_owned()
        }
        (Some(true), Some(decision)) if decision.certain => {
            format!("matches, but {} comes first", decision.rule.name)
        }
        (Some(true), _) => "matches, and decides unless a rule before it does".to_owned(),
        (None, _) => "may match, depending on its write, unless a rule before it does".to_owned(),
    };
    let title = format!("{}. {}: {answer}", place + 1, explained.rule.name);
    out.push_str(&text::wrap(&text::one_line(&title), WIDTH));
    let widest = |texts: &mut dyn Iterator<Item = usize>, most: usize| texts.max().unwrap_or(0).min(most);
    let conditions = &explained.conditions;
    let key = widest(&mut conditions.iter().map(|c| c.key.len()), 15);
    let pattern = widest(&mut conditions.iter().map(|c| c.pattern.chars().count()), 28);
    for condition in conditions {
        let Condition { key: name, holds, .. } = condition;
        let asked = text::cut(&text::one_line(&condition.pattern), pattern);
        let found = match (&condition.found, holds) {
            (Some(found), _) => text::one_line(found),
            (None, Holds::Unknown) => "(not seen writing)".to_owned(),
            (None, _) => "(none)".to_owned(),
        };
        let found = text::cut(&found, WIDTH - 12 - key - pattern);
        let line = format!("   {:<4} {name:<key$}  {asked:<pattern$}  {found}", sign(*holds));
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

const fn sign(holds: Holds) -> &'static str {
    match holds {
        Holds::Yes => "yes",
        Holds::From(_) => "wait",
        Holds::No => "no",
        Holds::Unknown => "?",
    }
}

/// Why the agent would not even look at the process, if it would not.
fn not_observed(observe: &Observe, subject: Subject<'_>) -> Option<String> {
    if !observe.filter.matches(comm_bytes(subject.comm)) {
        return Some(format!(
            "observe.comm ({}) does not let {} through",
            observe.comm.join(", "),
            subject.comm
        ));
    }
    let channel = subject.write?.channel;
    (!observe.channels.contains(&channel))
        .then(|| format!("observe.channels does not name {}", channel_name(channel)))
}

fn conclusion(config: &Config, subject: Subject<'_>, explanation: &Explanation<'_>) -> String {
    if not_observed(&config.observe, subject).is_some() {
        return "Decision: nothing, for the process is not observed.".to_owned();
    }
    let Some(decision) = &explanation.decision else {
        let after = text::age(config.policy.report_after);
        return format!("Decision: nothing but a report once it is stalled for {after}: no rule matches.");
    };
    let Decision {
        rule, certain, due, ..
    } = decision;
    let condition = if *certain { "" } else { "if it matches, " };
    let what = what(rule, decision.verdict, explanation.protected.as_deref());
    let share = rule.stalled_share.map(|share| {
        format!("once it has been blocked for over {share}, which only a running agent can tell")
    });
    let by_age = match due {
        None => rule
            .stalled_for
            .map(|age| format!("once it is stalled for {}", text::age(age))),
        Some(due) if *due <= subject.at => {
            Some("at once, by an agent that has watched the stall for long enough".to_owned())
        }
        Some(due) => Some(format!(
            "in {}, if nothing moves until then",
            text::age(due.since(subject.at))
        )),
    };
    let when = by_age.into_iter().chain(share).collect::<Vec<_>>().join(", or ");
    let age = rule.matches.min_process_age.filter(|_| due.is_none());
    let age = age.map_or(String::new(), |age| {
        format!(" and the process is {} old", text::age(age))
    });
    format!("Decision by {}: {condition}{what}, {when}{age}.", rule.name)
}

/// What a rule does once its time has come.
fn what(rule: &Rule, verdict: Verdict, protected: Option<&str>) -> String {
    let grace = text::age(rule.grace);
    let signals = match rule.action {
        Action::Alert => "alert".to_owned(),
        Action::Term => "SIGTERM".to_owned(),
        Action::Kill => format!("SIGTERM, and SIGKILL {grace} later"),
    };
    match verdict {
        Verdict::Alert => signals,
        Verdict::End if rule.mode == Mode::DryRun => {
            format!(
                "{} is skipped as dry-run (the rule's mode says so)",
                rule.action.as_str()
            )
        }
        Verdict::End => format!("{} ({signals})", rule.action.as_str()),
        Verdict::Skip(reason, detail) => {
            let why = detail.or(protected).unwrap_or("the rule's mode says so");
            let action = rule.action.as_str();
            format!("{action} is skipped as {} ({why})", reason.as_str())
        }
    }
}

/// Explains as one JSON object.
pub(super) fn as_json(config: &Config, process: &Process) -> Result<String> {
    let facts = process.facts();
    let subject = process.subject(&facts);
    let explanation = config.policy.explain(subject, process.stall());
    let view = View {
        pid: subject.pid,
        comm: subject.comm,
        stall: process
            .stall()
            .map(|stall| StallView::new(stall, stall.last.at, clock::wall())),
        not_observed: not_observed(&config.observe, subject),
        protected: explanation.protected.as_deref(),
        rules: explanation
            .rules
            .iter()
            .map(|explained| RuleView::new(explained, subject.at))
            .collect(),
        decision: explanation
            .decision
            .as_ref()
            .map(|decision| DecisionView::new(decision, subject.at)),
    };
    Ok(format!("{}\n", serde_json::to_string_pretty(&view)?))
}

#[derive(Serialize)]
struct View<'a> {
    pid: u32,
    comm: &'a str,
    stall: Option<StallView>,
    /// Why the agent would not look at it; null if it would.
    not_observed: Option<String>,
    protected: Option<&'a str>,
    rules: Vec<RuleView<'a>>,
    decision: Option<DecisionView<'a>>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    name: &'a str,
    /// Null where it depends on a write that was not seen.
    matches: Option<bool>,
    conditions: Vec<ConditionView<'a>>,
}

#[derive(Serialize)]
struct ConditionView<'a> {
    key: &'static str,
    pattern: &'a str,
    found: Option<&'a str>,
    holds: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds_in_seconds: Option<f64>,
}

#[derive(Serialize)]
struct DecisionView<'a> {
    rule: &'a str,
    action: &'static str,
    mode: &'static str,
    stalled_for_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled_share: Option<ShareView>,
    certain: bool,
    /// What becomes of the action: `done`, or `skipped` with a reason.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    /// Null if there is no stall; zero if its time has come.
    due_in_seconds: Option<f64>,
}

impl<'a> RuleView<'a> {
    fn new(explained: &'a Explained<'_>, now: Mono) -> Self {
        let condition = |condition: &'a Condition<'_>| {
            let (holds, from) = match condition.holds {
                Holds::Yes => ("yes", None),
                Holds::From(from) => ("later", Some(clock::seconds(from.since(now)))),
                Holds::No => ("no", None),
                Holds::Unknown => ("unknown", None),
            };
            ConditionView {
                key: condition.key,
                pattern: &condition.pattern,
                found: condition.found.as_deref(),
                holds,
                holds_in_seconds: from,
            }
        };
        Self {
            name: &explained.rule.name,
            matches: explained.matches,
            conditions: explained.conditions.iter().map(condition).collect(),
        }
    }
}

impl<'a> DecisionView<'a> {
    fn new(decision: &Decision<'a>, now: Mono) -> Self {
        let (outcome, reason, detail) = match decision.verdict {
            Verdict::End if decision.rule.mode == Mode::DryRun => {
                ("skipped", Some(Skipped::DryRun.as_str()), None)
            }
            Verdict::Alert | Verdict::End => ("done", None, None),
            Verdict::Skip(reason, detail) => ("skipped", Some(reason.as_str()), detail),
        };
        let rule = decision.rule;
        Self {
            rule: &rule.name,
            action: rule.action.as_str(),
            mode: rule.mode.as_str(),
            stalled_for_seconds: rule.stalled_for.map(clock::seconds),
            stalled_share: rule.stalled_share.map(|limit| ShareView::new(limit, None)),
            certain: decision.certain,
            outcome,
            reason,
            detail,
            due_in_seconds: decision.due.map(|due| clock::seconds(due.since(now))),
        }
    }
}
