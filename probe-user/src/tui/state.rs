//! All that the dashboard knows and shows. Messages go in, commands come out; there is no clock
//! here and no I/O, and nothing of how it is drawn.

pub mod history;
mod input;
pub mod kill;
mod message;
pub mod order;
pub mod reasons;
mod shown;

use std::collections::VecDeque;

use ratatui::layout::{Position, Rect};

use self::{
    history::History,
    kill::{Kills, Rights},
    order::{Line, Order},
    reasons::Reasons,
};
pub use self::{
    input::{Modal, Prompt},
    message::{Command, Message},
    shown::Freshness,
};
use super::{
    filter::Filter,
    keys::Pending,
    layout::Pane,
    model::{Event, Row, Snapshot},
};
use crate::core::model::Mono;

/// So many events are kept.
const LOG: usize = 1000;

/// How the source does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// It has not said anything yet.
    #[default]
    Connecting,
    /// It delivers.
    Live,
    /// It does not; why, and when it tries again.
    Lost(String, Mono),
}

/// How far things can be scrolled, which only who draws them knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Lines of the detail that do not fit.
    pub detail: usize,
    /// Lines of the help that do not fit.
    pub help: usize,
}

/// What stays selected when lines move.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selected {
    Row(String),
    Group(String),
}

/// All that is known and shown.
#[derive(Debug, Default)]
pub struct State {
    screen: Rect,
    connection: Connection,
    rights: Rights,
    data: Option<Snapshot>,
    /// Those of the snapshot, and of kills that are over.
    rows: Vec<Row>,
    /// Those of the snapshot before.
    spent: Vec<Row>,
    paused: Option<Mono>,
    waiting: Option<Box<Snapshot>>,
    order: Order,
    filter: Filter,
    lines: Vec<Line>,
    matched: usize,
    at: usize,
    selected: Option<Selected>,
    offset: usize,
    shift: usize,
    focus: Pane,
    open: Option<Pane>,
    detail_scroll: usize,
    /// From the newest.
    log_scroll: usize,
    modal: Modal,
    log: VecDeque<Event>,
    missed: u64,
    history: History,
    kills: Kills,
    reasons: Reasons,
    pending: Pending,
    notice: Option<(String, Mono)>,
    mouse: bool,
}

impl State {
    /// Nothing is known yet, and the screen has this size: columns and lines.
    #[must_use]
    pub fn new(width: u16, height: u16) -> Self {
        Self {
            screen: Rect::new(0, 0, width, height),
            ..Self::default()
        }
    }

    /// Takes in what happened.
    pub fn update(&mut self, message: Message, now: Mono) -> Vec<Command> {
        let mut commands = Vec::new();
        let news = matches!(message, Message::Snapshot(_));
        match message {
            Message::Key(key) => self.key(key, now, &mut commands),
            Message::Paste(text) => self.paste(&text, now),
            Message::Resize(width, height) => self.screen = Rect::new(0, 0, width, height),
            Message::Click(column, line) => self.click(Position::new(column, line)),
            Message::Wheel(lines) => self.scroll(lines.signum() as isize * 3),
            Message::Connected => self.connection = Connection::Live,
            Message::Lost(why, retry) => {
                self.connection = Connection::Lost(why, retry);
                self.kills.lose_sight(now);
                self.reasons.lose_sight();
            }
            Message::Rights(rights) => self.rights = rights,
            Message::Snapshot(snapshot) => {
                self.connection = Connection::Live;
                self.history.sample(snapshot.at, snapshot.total, &snapshot.rows);
                if self.paused.is_some() {
                    self.waiting = Some(snapshot);
                } else {
                    self.adopt(*snapshot, now);
                }
            }
            Message::Event(event) => self.record(*event, now),
            Message::Missed(count) => {
                self.missed += count;
                self.kills.lose_sight(now);
            }
            Message::Answer(stall, answer) => {
                if let Err(why) = &answer {
                    self.notify(format!("not ended: {why}"), now);
                }
                self.kills.answer(&stall, answer, now);
                self.rearrange(now);
            }
            Message::Explained(stall, told) => self.reasons.answer(stall, told),
        }
        self.keep_in_view();
        commands.extend(self.ask_why(news, now));
        commands
    }

    /// Asks for what the detail is to show, where somebody looks at it.
    fn ask_why(&mut self, news: bool, now: Mono) -> Option<Command> {
        let has_rules = self.data.as_ref().is_some_and(|data| !data.rules.is_empty());
        let is_shown = self.areas().pane(Pane::Detail).is_some();
        if !has_rules || !is_shown || self.freshness(now) != Freshness::Live {
            return None;
        }
        let id = self.stalled(&self.selected_row()?.id)?.id.clone();
        self.reasons.ask(&id, news, now).then_some(Command::Explain(id))
    }

    /// What was drawn had so many lines: nothing is scrolled beyond its end.
    pub fn settle(&mut self, drawn: Drawn) {
        self.detail_scroll = self.detail_scroll.min(drawn.detail);
        if let Modal::Help(scroll) = &mut self.modal {
            *scroll = (*scroll).min(drawn.help);
        }
    }

    fn adopt(&mut self, mut snapshot: Snapshot, now: Mono) {
        self.spent = std::mem::replace(&mut self.rows, std::mem::take(&mut snapshot.rows));
        self.data = Some(snapshot);
        self.rearrange(now);
    }

    /// Rows that are not shown any more. Of very many, freeing takes longer than a frame may: who
    /// draws has somebody else do it.
    #[must_use]
    pub fn take_spent(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.spent)
    }

    fn record(&mut self, event: Event, now: Mono) {
        self.kills.observe(&event, now);
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        if self.log_scroll > 0 {
            // What is being read stays where it is.
            self.log_scroll += 1;
        }
        self.log.push_back(event);
    }

    /// Works the lines out anew, and finds what was selected among them.
    fn rearrange(&mut self, now: Mono) {
        if self.paused.is_none() {
            self.kills.linger(&mut self.rows, now);
        }
        (self.lines, self.matched) = self.order.arrange(&self.rows, &self.filter);
        let found = self.selected.as_ref().and_then(|selected| {
            self.lines.iter().position(|line| match (line, selected) {
                (Line::Row(at), Selected::Row(id)) => self.rows[*at].id == *id,
                (Line::Group(heading), Selected::Group(label)) => heading.label == *label,
                _ => false,
            })
        });
        self.select(found.unwrap_or(self.at));
        self.keep_in_view();
    }

    fn select(&mut self, at: usize) {
        self.at = at.min(self.lines.len().saturating_sub(1));
        let before = self.selected.take();
        self.selected = self.lines.get(self.at).map(|line| match line {
            Line::Row(at) => Selected::Row(self.rows[*at].id.clone()),
            Line::Group(heading) => Selected::Group(heading.label.clone()),
        });
        if self.selected != before {
            self.detail_scroll = 0;
        }
    }

    fn keep_in_view(&mut self) {
        let page = self.page(Pane::Stalls);
        let last = self.lines.len().saturating_sub(page);
        self.offset = self.offset.min(last).min(self.at);
        if self.at >= self.offset + page {
            self.offset = self.at + 1 - page;
        }
    }

    fn page(&self, pane: Pane) -> usize {
        self.areas().lines(pane).max(1)
    }

    fn notify(&mut self, what: String, now: Mono) {
        self.notice = Some((what, now));
    }

    fn stalled(&self, id: &str) -> Option<&Row> {
        let over = self.kills.outcome(id).is_some_and(|outcome| outcome.succeeded);
        self.rows.iter().find(|row| row.id == id).filter(|_| !over)
    }
}

#[cfg(test)]
mod tests;
