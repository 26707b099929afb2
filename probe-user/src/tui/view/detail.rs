//! Everything about the selected writer.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{fate, look::Tone, spark};
use crate::{
    cli::text,
    core::model::Mono,
    tui::{
        model::{Party, Row},
        state::State,
    },
};

/// Columns of the name of a fact.
const NAME: usize = 9;
/// Before each condition of a rule.
const INDENT: &str = "   ";
/// Said where a chain comes back to the writer.
const DEADLOCK: &str = ": a deadlock";

/// Draws it; returns how many lines do not fit.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, now: Mono) -> usize {
    let Some(row) = state.selected_row() else {
        let line = Line::styled("  Select a writer to see more of it.", Tone::Dim.style());
        frame.render_widget(line, area);
        return 0;
    };
    let lines = lines(row, state, state.elapsed(now), area.width.into());
    let hidden = lines.len().saturating_sub(area.height.into());
    let scroll = u16::try_from(state.detail_scroll().min(hidden)).unwrap_or(u16::MAX);
    frame.render_widget(Paragraph::new(lines).scroll((scroll, 0)), area);
    hidden
}

fn lines(row: &Row, state: &State, elapsed: Duration, width: usize) -> Vec<Line<'static>> {
    let mut page = Page {
        lines: Vec::new(),
        width: width.max(NAME + 12),
    };
    let before = if row.preexisting {
        ", before the observer"
    } else {
        ""
    };
    page.fact(
        "stalled",
        &format!(
            "{}{}, since {}{before}",
            text::bound(row.bound),
            text::age(row.age + elapsed),
            short_time(&row.since)
        ),
    );
    if let Some(ages) = state.history().ages(row) {
        let seen = ages.len();
        let bars = spark(ages.iter().copied(), page.width.saturating_sub(NAME + 16));
        page.styled("age", &format!("{bars} {seen} s seen"), Tone::Focus);
    }
    let (words, tone) = fate::words(row, state, elapsed);
    page.styled("fate", &words, tone);
    page.fact("command", &row.command);
    page.chain(row);
    page.fact("channel", &channel(row));
    page.fact("process", &process(row));
    let facts = &row.facts;
    page.rules(row, state);
    let exe = facts.exe.as_ref().map(|exe| exe.to_string_lossy().into_owned());
    page.maybe("exe", exe.as_deref());
    page.maybe("unit", facts.unit.as_deref());
    page.maybe("container", facts.container.as_deref());
    page.maybe("pod", facts.pod.as_deref());
    page.maybe("cgroup", facts.cgroup.as_deref());
    page.lines
}

fn channel(row: &Row) -> String {
    let stream = row.stream.map_or("no standard stream", |stream| stream.as_str());
    let queued = row.queued.map_or_else(String::new, |queued| {
        let what = if row.channel == "unix" {
            "of memory queued"
        } else {
            "queued"
        };
        format!(", {} {what}", text::size(queued))
    });
    format!(
        "{} {}, {stream}, {} on fd {}{queued}",
        row.channel, row.inode, row.syscall, row.fd
    )
}

fn process(row: &Row) -> String {
    let parent = row.facts.parent.as_deref().unwrap_or("?");
    let thread = if row.tid == row.pid {
        String::new()
    } else {
        format!(", thread {}[{}]", row.thread, row.tid)
    };
    format!(
        "{}[{}]{thread}, user {} ({}), child of {parent}[{}]",
        row.comm,
        row.pid,
        row.user(),
        row.uid,
        row.ppid
    )
}

/// `08:00:00 on 2026-11-23` of what events carry.
fn short_time(time: &str) -> String {
    match (time.get(..10), time.get(11..19)) {
        (Some(date), Some(of_day)) => format!("{of_day} on {date} UTC"),
        _ => time.to_owned(),
    }
}

struct Page {
    lines: Vec<Line<'static>>,
    width: usize,
}

impl Page {
    fn fact(&mut self, name: &str, value: &str) {
        self.styled(name, value, Tone::Plain);
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.fact(name, value);
        }
    }

    /// A fact in as many lines as it takes.
    fn styled(&mut self, name: &str, value: &str, tone: Tone) {
        let wrapped = text::wrap(&text::one_line(value), self.width - NAME - 1);
        for (i, line) in wrapped.lines().enumerate() {
            let name = if i == 0 { name } else { "" };
            self.lines.push(Line::from(vec![
                Span::styled(format!("{name:<NAME$} "), Tone::Dim.style()),
                Span::styled(line.to_owned(), tone.style()),
            ]));
        }
    }

    /// The way from the writer to whoever does not read.
    fn chain(&mut self, row: &Row) {
        let Some(readers) = &row.readers else {
            return self.styled("chain", "who reads is not told here", Tone::Dim);
        };
        self.fact("chain", &format!("{}[{}]", row.comm, row.pid));
        let direct: &[Party] = if row.chain.is_empty() { readers } else { &row.chain };
        if direct.is_empty() {
            return self.branch(0, "who holds the reading end is not known", Tone::Warn);
        }
        let is_chain = !row.chain.is_empty();
        for (i, party) in direct.iter().enumerate() {
            let depth = if is_chain { i } else { 0 };
            let is_culprit = row.culprit.as_ref().is_some_and(|it| it.pid == party.pid);
            let tone = if is_culprit { Tone::Alarm } else { Tone::Plain };
            let closes = row.deadlock && party.pid == row.pid;
            let mark = match (closes, is_culprit && !row.deadlock) {
                (true, _) => DEADLOCK,
                (false, true) => " ← does not read",
                (false, false) => "",
            };
            let tone = if closes { Tone::Alarm } else { tone };
            self.branch(depth, &format!("{}{mark}", described(party)), tone);
        }
        let depth = if is_chain { direct.len() } else { 1 };
        if row.deadlock && direct.iter().all(|party| party.pid != row.pid) {
            let back = format!("back to {}[{}]{DEADLOCK}", row.comm, row.pid);
            self.branch(depth, &back, Tone::Alarm);
        }
        for client in &row.clients {
            let line = format!(
                "client {}, {} not taken",
                client.peer,
                text::size(client.queued_bytes)
            );
            self.branch(depth, &line, Tone::Alarm);
        }
        let others = readers
            .iter()
            .filter(|reader| is_chain && row.chain.iter().all(|link| link.pid != reader.pid));
        for reader in others {
            self.styled("also", &described(reader), Tone::Dim);
        }
    }

    fn branch(&mut self, depth: usize, text: &str, tone: Tone) {
        // A chain may be longer than the page is wide.
        let indent = "   ".repeat(depth.min(8));
        let room = self.width.saturating_sub(NAME + 1 + indent.len() + 3).max(20);
        let wrapped = text::wrap(&text::one_line(text), room);
        for (i, line) in wrapped.lines().enumerate() {
            let mark = if i == 0 { "└─ " } else { "" };
            self.lines.push(Line::from(vec![
                Span::raw(format!("{:<NAME$} {indent}{mark:<3}", "")),
                Span::styled(line.to_owned(), tone.style()),
            ]));
        }
    }

    fn rules(&mut self, row: &Row, state: &State) {
        let Some(data) = state.data() else { return };
        let Some(name) = &row.rule else {
            let why = if data.status.version.is_empty() {
                "none: standalone observes without rules"
            } else if data.rules.is_empty() {
                "none: the agent has no rules"
            } else {
                "none matches"
            };
            self.styled("rule", why, Tone::Dim);
            return self.explain(row, state);
        };
        let rule = data.rules.iter().find(|rule| rule.name == *name);
        match rule {
            Some(rule) if rule.summary.starts_with(name) => self.fact("rule", &rule.summary),
            Some(rule) => self.fact("rule", &format!("{name} ({}): {}", rule.mode, rule.summary)),
            None => self.fact("rule", name),
        }
        self.explain(row, state);
    }

    /// Why each rule does or does not match it.
    fn explain(&mut self, row: &Row, state: &State) {
        if state.data().is_none_or(|data| data.rules.is_empty()) {
            return;
        }
        let told = match state.reasons(&row.id) {
            None => return self.styled("why", "not told yet", Tone::Dim),
            Some(Err(why)) => {
                let how = format!("not told ({why}); pipestall ps --explain {} tells", row.pid);
                return self.styled("why", &how, Tone::Dim);
            }
            Some(Ok(told)) => told,
        };
        let width = self.width - NAME - 1 - INDENT.len();
        for (i, (title, conditions)) in told.answers(width).enumerate() {
            let name = if i == 0 { "why" } else { "" };
            self.styled(name, &title, Tone::Plain);
            for condition in conditions {
                let tone = if condition.starts_with("yes") {
                    Tone::Plain
                } else {
                    Tone::Dim
                };
                let line = format!("{:NAME$} {INDENT}{condition}", "");
                self.lines.push(Line::styled(line, tone.style()));
            }
        }
        if told.protected.is_some() {
            self.styled("", &told.protection(), Tone::Plain);
        }
    }
}

/// A process with what it does.
fn described(party: &Party) -> String {
    let via = match (&party.channel, party.inode) {
        (Some(channel), Some(inode)) => format!("{channel} {inode} to "),
        (Some(channel), None) => format!("{channel} to "),
        _ => String::new(),
    };
    let state = match party.state.as_str() {
        "" => "",
        "R" => ", running",
        "S" => ", asleep",
        "D" => ", asleep and deaf to signals",
        "T" => ", stopped",
        "t" => ", held by a tracer",
        "F" => ", frozen",
        "Z" => ", a zombie",
        "X" => ", gone",
        _ => ", in an unknown state",
    };
    let sleeps = party
        .sleeps_in
        .as_ref()
        .map(|function| format!(" in {function}"))
        .unwrap_or_default();
    let kind = match party.kind.as_deref() {
        Some("holder") => ", holds the end by accident",
        Some("writer") => ", the writer itself",
        _ => "",
    };
    format!("{via}{}[{}]{state}{sleeps}{kind}", party.comm, party.pid)
}
