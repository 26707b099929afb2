//! What a policy would have done, for people: a line for each process, the sums for
//! each rule, and what another policy would have done otherwise. Fits 80 columns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use jiff::Timestamp;

use super::{Outcome, Survey};
use crate::{
    cli::text::{age, cut},
    core::{
        model::{Mono, Process},
        report::{KillReport, Report, RuleRef, Snapshot},
        rule::{Action, Mode, Policy},
    },
};

const WIDTH: usize = 80;
/// Columns of what is done, where nothing takes more.
const ACTION: usize = 17;

/// A moment of a recording as people tell the time.
#[must_use]
pub fn time(survey: &Survey, at: Mono) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(survey.wall(at))).unwrap_or_default()
}

/// Which recording it is: two lines.
#[must_use]
pub fn heading(name: &str, survey: &Survey) -> String {
    let header = &survey.header;
    let (first, last) = survey.span.unwrap_or_default();
    let lines = [
        format!("{name}: {}, Linux {}", header.node, header.kernel),
        format!(
            "{:.0} for {}: {}, {}; commands {}",
            time(survey, first),
            age(last.since(first)),
            count(survey.looks, "look"),
            count(survey.writers, "writer"),
            header.comm.join(", ")
        ),
    ];
    lines.map(|line| fit(&line) + "\n").concat()
}

/// One line of at most 80 columns: a process may call itself anything.
fn fit(line: &str) -> String {
    cut(&line.replace(char::is_control, "·"), WIDTH)
}

/// The kill plan in the order of time, and what it adds up to.
#[must_use]
pub fn show(survey: &Survey, outcome: &Outcome, policy: &Policy) -> String {
    let steps: Vec<_> = outcome
        .reports
        .iter()
        .filter_map(|(at, report)| match report {
            Report::Kill(snapshot, rule, step) => Some((*at, snapshot, rule, action(rule, step)?)),
            Report::StallDetected(..) | Report::StallEnded(..) | Report::Degraded(_) => None,
        })
        .collect();
    let widest = steps.iter().map(|(.., action)| action.len()).max();
    let width = widest.unwrap_or(0).max(ACTION);
    let mut out = String::new();
    let mut day = None;
    for (at, snapshot, rule, action) in steps {
        let time = format!("{:.3}", time(survey, at));
        let (date, clock) = (&time[..10], &time[11..23]);
        if day.as_deref() != Some(date) {
            let _ = writeln!(
                out,
                "\n{:<12} {:>6} {:>7} {:<15} {:<width$} RULE",
                date, "AGE", "PID", "COMM", "ACTION"
            );
            day = Some(date.to_owned());
        }
        let last = &snapshot.stall.last;
        let line = format!(
            "{clock} {:>6} {:>7} {:<15} {action:<width$} {}",
            age(snapshot.age()),
            last.writer.process.tgid,
            cut(&last.comm, 15),
            rule.name
        );
        let _ = writeln!(out, "{}", fit(&line));
    }
    out.push('\n');
    out.push_str(&sums(outcome, policy));
    out
}

/// What a step of a kill is called in the plan, if it is shown.
fn action(rule: &RuleRef, step: &KillReport) -> Option<String> {
    match step {
        KillReport::Planned(_) => Some(verb(rule)),
        KillReport::Skipped(why, _) => Some(format!("skip: {}", why.as_str())),
        KillReport::Failed(_) => Some("failed".to_owned()),
        KillReport::Sent(_) | KillReport::Confirmed { .. } => None,
    }
}

fn verb(rule: &RuleRef) -> String {
    match rule.mode {
        Mode::Enforce => rule.action.as_str().to_owned(),
        Mode::DryRun => format!("{} (dry-run)", rule.action.as_str()),
    }
}

/// What one rule did.
#[derive(Default)]
struct Sums {
    planned: usize,
    alerts: usize,
    failed: usize,
    skipped: BTreeMap<&'static str, usize>,
}

fn sums(outcome: &Outcome, policy: &Policy) -> String {
    let mut rules: BTreeMap<&str, Sums> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    for (_, report) in &outcome.reports {
        match report {
            Report::StallDetected(snapshot, rule) => {
                reported.insert(snapshot.stall.id);
                if let Some(rule) = rule.as_ref().filter(|rule| has_crossed(rule, snapshot)) {
                    rules.entry(&rule.name).or_default().alerts += 1;
                }
            }
            Report::Kill(_, rule, step) => {
                let sums = rules.entry(&rule.name).or_default();
                match step {
                    KillReport::Planned(_) => sums.planned += 1,
                    KillReport::Failed(_) => sums.failed += 1,
                    KillReport::Skipped(why, _) => *sums.skipped.entry(why.as_str()).or_default() += 1,
                    KillReport::Sent(_) | KillReport::Confirmed { .. } => {}
                }
            }
            Report::StallEnded(..) | Report::Degraded(_) => {}
        }
    }
    let mut out = format!("{}\n", count(reported.len(), "stall"));
    for rule in &policy.rules {
        let sums = rules.remove(rule.name.as_str()).unwrap_or_default();
        let reference = RuleRef::from(rule);
        let name = match rule.action {
            Action::Alert => format!("{} ({}):", rule.name, rule.action.as_str()),
            Action::Term | Action::Kill => format!("{}, {}:", rule.name, verb(&reference)),
        };
        let mut parts = vec![match rule.action {
            Action::Alert => count(sums.alerts, "alert"),
            Action::Term | Action::Kill => format!("{} planned", sums.planned),
        }];
        let skipped = sums.skipped.iter();
        parts.extend(skipped.map(|(why, times)| format!("{times} skipped: {why}")));
        if sums.failed > 0 {
            parts.push(format!("{} failed", sums.failed));
        }
        wrap(&name, &parts, &mut out);
    }
    for (n, what) in [
        (outcome.under_way, "under way when the recording ends"),
        (
            outcome.unknown,
            "of unknown command line and owner, which no rule can match",
        ),
    ] {
        if n > 0 {
            let _ = writeln!(out, "{n} {what}");
        }
    }
    out
}

/// Whether a report is that of an alerting rule, and not of the age from which all are reported.
fn has_crossed(rule: &RuleRef, snapshot: &Snapshot) -> bool {
    rule.action == Action::Alert && rule.is_met(snapshot)
}

/// A name and what belongs to it, separated by commas, on as few lines as that takes.
fn wrap(name: &str, parts: &[String], out: &mut String) {
    let mut line = cut(name, WIDTH - 30);
    for (i, part) in parts.iter().enumerate() {
        let comma = if i + 1 < parts.len() { "," } else { "" };
        if line.chars().count() + 1 + part.chars().count() + comma.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            "   ".clone_into(&mut line);
        }
        let _ = write!(line, " {part}{comma}");
    }
    let _ = writeln!(out, "{line}");
}

/// How a policy treats a process.
#[derive(Clone, PartialEq)]
struct Treatment {
    at: Mono,
    age: Duration,
    comm: String,
    rule: RuleRef,
    let_go: bool,
}

impl Treatment {
    fn show(&self) -> String {
        let verb = verb(&self.rule);
        let end = if self.let_go { ", let go" } else { "" };
        format!(
            "{:>6} {:<22} {}",
            age(self.age),
            format!("{verb}{end}"),
            self.rule.name
        )
    }
}

/// Each process's last plan.
fn treatments(outcome: &Outcome) -> BTreeMap<Process, Treatment> {
    let mut treatments: BTreeMap<Process, Treatment> = BTreeMap::new();
    for (at, report) in &outcome.reports {
        let Report::Kill(snapshot, rule, step) = report else {
            continue;
        };
        let process = snapshot.stall.last.writer.process;
        match step {
            KillReport::Planned(_) => {
                let treatment = Treatment {
                    at: *at,
                    age: snapshot.age(),
                    comm: snapshot.stall.last.comm.to_string(),
                    rule: rule.clone(),
                    let_go: false,
                };
                treatments.insert(process, treatment);
            }
            KillReport::Skipped(..) | KillReport::Failed(_) => {
                if let Some(treatment) = treatments.get_mut(&process) {
                    treatment.let_go = true;
                }
            }
            KillReport::Sent(_) | KillReport::Confirmed { .. } => {}
        }
    }
    treatments
}

/// Which processes the second policy would have treated differently.
#[must_use]
pub fn difference(first: &Outcome, second: &Outcome) -> String {
    let (first, second) = (treatments(first), treatments(second));
    let mut processes: Vec<_> = first.keys().chain(second.keys()).copied().collect();
    processes.sort_by_key(|process| {
        let times = [first.get(process), second.get(process)];
        (times.into_iter().flatten().map(|t| t.at).min(), *process)
    });
    processes.dedup();
    let mut out = String::new();
    let (mut more, mut less, mut otherwise) = (0, 0, 0);
    for process in processes {
        let (mark, before, after) = match (first.get(&process), second.get(&process)) {
            (Some(before), None) => {
                less += 1;
                ('-', before, None)
            }
            (None, Some(after)) => {
                more += 1;
                ('+', after, None)
            }
            (Some(before), Some(after)) if before != after => {
                otherwise += 1;
                ('~', before, Some(after))
            }
            _ => continue,
        };
        let line = format!(
            "{mark} {:>7} {:<15} {}",
            process.tgid,
            cut(&before.comm, 15),
            before.show()
        );
        let _ = writeln!(out, "{}", fit(&line));
        if let Some(after) = after {
            let line = format!("{:>25} {}", "->", after.show());
            let _ = writeln!(out, "{}", fit(&line));
        }
    }
    let _ = writeln!(
        out,
        "{} treated differently: {more} more (+), {less} fewer (-), {otherwise} otherwise (~)",
        count(more + less + otherwise, "process")
    );
    out
}

fn count(n: usize, what: &str) -> String {
    match (n, what) {
        (1, what) => format!("1 {what}"),
        (n, "process") => format!("{n} processes"),
        (n, what) => format!("{n} {what}s"),
    }
}
