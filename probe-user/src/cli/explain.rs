//! `--explain PID`: why each rule does or does not match a process, and what comes of it.
//!
//! The core explains; here it is written down, for people and as JSON.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};

use super::text;
use crate::{
    api::explanation::ExplanationView,
    clock,
    config::{Config, Observe},
    core::{
        explain::{Decision, Explanation},
        matcher::Subject,
        model::{Facts, Stall, channel_name},
        policy::Verdict,
        rule::{Action, Mode, Rule},
    },
    event::StallView,
    probe::process::{Known, Reader, comm_bytes},
};

/// Lines are this wide at the most.
const WIDTH: usize = 80;
/// Before each condition of a rule.
const INDENT: &str = "   ";

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
        let since = if stall.draining {
            "its reader takes bytes".to_owned()
        } else {
            let age = text::age(stall.age(last.at));
            format!("stalled for {}{age}", text::bound(stall.bound))
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
    let view = view(config, process, subject, &explanation);
    let mut out = text::wrap(&text::one_line(&process.headline(subject)), WIDTH);
    let observed = match &view.not_observed {
        None => "observed: yes".to_owned(),
        Some(why) => format!("observed: no, {why}"),
    };
    for line in [observed, view.protection()] {
        out.push_str(&text::wrap(&text::one_line(&line), WIDTH));
    }
    for (title, conditions) in view.answers(WIDTH - INDENT.len()) {
        out.push('\n');
        out.push_str(&text::wrap(&title, WIDTH));
        for condition in conditions {
            let _ = writeln!(out, "{INDENT}{condition}");
        }
    }
    out.push('\n');
    let conclusion = conclusion(config, subject, process.stall(), &explanation);
    out.push_str(&text::wrap(&text::one_line(&conclusion), WIDTH));
    out
}

/// Explains as one JSON object.
pub(super) fn as_json(config: &Config, process: &Process) -> Result<String> {
    let facts = process.facts();
    let subject = process.subject(&facts);
    let explanation = config.policy.explain(subject, process.stall());
    let view = view(config, process, subject, &explanation);
    Ok(format!("{}\n", serde_json::to_string_pretty(&view)?))
}

fn view(
    config: &Config,
    process: &Process,
    subject: Subject<'_>,
    explanation: &Explanation<'_>,
) -> ExplanationView {
    let stall = process.stall();
    let stall = stall.map(|stall| StallView::new(stall, stall.last.at, clock::wall()));
    ExplanationView {
        not_observed: not_observed(&config.observe, subject),
        ..ExplanationView::new(subject, explanation, subject.at).with_stall(stall)
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

fn conclusion(
    config: &Config,
    subject: Subject<'_>,
    stall: Option<&Stall>,
    explanation: &Explanation<'_>,
) -> String {
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
    let by_age = rule.stalled_for.map(|stalled_for| match (stall, due) {
        (Some(stall), Some(due)) if *due <= subject.at => format!(
            "at once, by an agent that has watched the stall for {}",
            text::age(rule.watch(stall, stalled_for))
        ),
        (_, Some(due)) => format!(
            "in {}, if nothing moves until then",
            text::age(due.since(subject.at))
        ),
        (_, None) => format!("once it is stalled for {}", text::age(stalled_for)),
    });
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
