//! `ps --tree`: who waits for whom, each culprit with the writers behind it.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{NONE, age, place, text};
use crate::core::{
    chain::{Cause, Reader},
    model::{Process, Stall, channel_name},
    reader::Kind,
};

const WIDTH: usize = 80;

/// So many clients are named.
const MAX_CLIENTS: usize = 3;

/// What stands at the root of a tree, in this order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Root {
    /// These wait for each other.
    Deadlock(Vec<Process>),
    /// It does not read.
    Culprit(Process),
    /// Nobody knows who should read.
    Unknown,
}

/// A process in a tree.
#[derive(Default)]
struct Branch<'a> {
    /// Its blocked writes to the one that stands above.
    stalls: Vec<&'a Stall>,
    /// Its name, if it is not one of those shown.
    comm: String,
    behind: BTreeMap<Process, Branch<'a>>,
}

/// Draws stalls, oldest first, in lines of at most 80 columns.
pub(super) fn draw(stalls: &[Stall]) -> String {
    if stalls.is_empty() {
        return NONE.to_owned();
    }
    let mut roots: BTreeMap<Root, (Option<&Cause>, BTreeMap<Process, Branch<'_>>)> = BTreeMap::new();
    for stall in stalls {
        let cause = stall.cause.as_deref();
        let root = root(cause);
        let steps = cause.map_or(&[][..], |cause| cause.chain.as_slice());
        let (first, branches) = roots.entry(root.clone()).or_default();
        if first.is_none_or(|first| first.chain.is_empty()) {
            *first = cause;
        }
        let mut branches = branches;
        // From the root down: the last link is the culprit itself.
        let between = match root {
            Root::Culprit(_) => &steps[..steps.len() - 1],
            Root::Deadlock(_) | Root::Unknown => &[][..],
        };
        for link in between.iter().rev() {
            let branch = branches.entry(link.reader.process).or_default();
            branch.comm.clone_from(&link.reader.person.comm);
            branches = &mut branch.behind;
        }
        let branch = branches.entry(stall.last.writer.process).or_default();
        branch.comm = stall.last.comm.to_string();
        branch.stalls.push(stall);
    }
    let mut out = String::new();
    for (root, (cause, branches)) in &roots {
        out.push_str(&text::wrap(&text::one_line(&heading(root, *cause)), WIDTH));
        draw_branches(&mut out, "", branches);
    }
    out
}

fn root(cause: Option<&Cause>) -> Root {
    match cause {
        Some(cause) if !cause.deadlock.is_empty() => Root::Deadlock(cause.deadlock.clone()),
        Some(cause) => match cause.culprit() {
            // It waits for others that wait for each other: all of them are drawn there.
            Some(culprit) => Root::Culprit(culprit.process),
            None => Root::Unknown,
        },
        None => Root::Unknown,
    }
}

fn heading(root: &Root, cause: Option<&Cause>) -> String {
    match (root, cause) {
        (Root::Deadlock(members), _) if members.len() == 1 => {
            "deadlock: a process waits to write to a channel that it alone could read".to_owned()
        }
        (Root::Deadlock(members), _) => {
            format!("deadlock: {} processes wait for each other", members.len())
        }
        (Root::Culprit(_), Some(cause)) => cause.culprit().map_or_else(String::new, |culprit| {
            format!("{}{}", describe(culprit), clients(cause))
        }),
        (Root::Unknown | Root::Culprit(_), _) => "nobody was found who could read".to_owned(),
    }
}

fn describe(reader: &Reader) -> String {
    let person = &reader.person;
    let sleeps = person.sleeps_in.as_deref().map(|place| format!(" in {place}"));
    let accident = match reader.kind {
        Kind::Reader => "",
        Kind::Holder => ", inherited the descriptor by accident",
        Kind::Writer => ", holds its own reading end",
    };
    format!(
        "{} {}: {}{}{accident}",
        person.comm,
        reader.process.tgid,
        person.state.as_str(),
        sleeps.unwrap_or_default()
    )
}

fn clients(cause: &Cause) -> String {
    let shown = cause.clients.iter().take(MAX_CLIENTS);
    let shown: Vec<_> = shown
        .map(|client| format!("{} (fd {})", client.peer, client.fd))
        .collect();
    match cause.clients.len() {
        0 => String::new(),
        1 => format!("; client {} does not read", shown[0]),
        n if n <= MAX_CLIENTS => format!("; clients {} do not read", shown.join(", ")),
        n => format!("; {n} clients do not read: {}, …", shown.join(", ")),
    }
}

fn draw_branches(out: &mut String, indent: &str, branches: &BTreeMap<Process, Branch<'_>>) {
    let mut sorted: Vec<_> = branches.iter().collect();
    let oldest = |branch: &Branch<'_>| branch.stalls.iter().map(|stall| stall.since).min();
    sorted.sort_by_key(|(process, branch)| (oldest(branch), **process));
    let last = sorted.len().saturating_sub(1);
    for (i, (process, branch)) in sorted.into_iter().enumerate() {
        let (corner, below) = if i == last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        if branch.stalls.is_empty() {
            line(out, &format!("{indent}{corner}{} {}", branch.comm, process.tgid));
        }
        for (n, stall) in branch.stalls.iter().enumerate() {
            let corner = if n == 0 { corner } else { below };
            line(out, &format!("{indent}{corner}{}", writer(stall)));
        }
        draw_branches(out, &format!("{indent}{below}"), &branch.behind);
    }
}

fn writer(stall: &Stall) -> String {
    let last = &stall.last;
    let command = stall.facts.as_ref().map(|facts| facts.cmdline.join(" "));
    format!(
        "{} {} {} {} ({})  {}",
        last.comm,
        last.writer.process.tgid,
        age(stall),
        place(stall),
        channel_name(last.channel.kind),
        command.unwrap_or_default()
    )
}

/// One line: what a process calls itself cannot move the cursor.
fn line(out: &mut String, text: &str) {
    let _ = writeln!(out, "{}", text::cut(&text::one_line(text), WIDTH).trim_end());
}
