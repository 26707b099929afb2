//! All that the dashboard knows and shows. Messages go in, commands come out; there is no clock
//! here and no I/O, and nothing of how it is drawn.

pub mod history;
pub mod kill;
pub mod order;
pub mod reasons;

use std::{collections::VecDeque, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Position, Rect};
use tui_input::{Input, InputRequest};

use self::{
    history::History,
    kill::{Kills, Question, Rights},
    order::{Group, Line, Order},
    reasons::{Reasons, Told},
};
use super::{
    filter::{Filter, Wrong},
    keys::{Action, Pending, Press},
    layout::{Areas, Pane, is_wide},
    model::{Event, Row, Snapshot},
};
use crate::core::model::Mono;

/// So many events are kept.
const LOG: usize = 1000;
/// Data that is older is not live, whatever the connection seems to be.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(6);
/// Columns that one key scrolls.
const SHIFT: usize = 8;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Message {
    /// A key.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The screen has this size now: columns and lines.
    Resize(u16, u16),
    /// A mouse button was pressed there: column and line.
    Click(u16, u16),
    /// The wheel was turned by so many lines, down where that is positive.
    Wheel(i32),
    /// The source is connected.
    Connected,
    /// The source is not connected; why, and when it tries again.
    Lost(String, Mono),
    /// What may be done from here.
    Rights(Rights),
    /// All that is known.
    Snapshot(Box<Snapshot>),
    /// An event.
    Event(Box<Event>),
    /// So many events were lost.
    Missed(u64),
    /// The answer to a kill that was asked for: of which stall, and why not if it is refused.
    Answer(String, Result<(), String>),
    /// Why each rule does or does not match a stall, or why that is not told.
    Explained(String, Told),
}

/// Something to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Leave.
    Quit,
    /// Stop until somebody continues the program.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Take the mouse, or give it back.
    Mouse(bool),
    /// Ask the agent to end the process of this stall.
    Kill(String),
    /// Ask why each rule does or does not match this stall.
    Explain(String),
}

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

/// What may be said of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// There is none.
    None,
    /// It is what is.
    Live,
    /// It is what was so long ago, because somebody wants to look at it.
    Paused(Duration),
    /// It is what was so long ago, because there is nothing newer.
    Stale(Duration),
}

/// A filter that is being typed.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// What is typed so far.
    pub input: Input,
    /// What is wrong with it.
    pub wrong: Option<Wrong>,
    before: Filter,
}

/// How far things can be scrolled, which only who draws them knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Lines of the detail that do not fit.
    pub detail: usize,
    /// Lines of the help that do not fit.
    pub help: usize,
}

/// What the keyboard belongs to before anything else.
#[derive(Clone, Debug, Default)]
pub enum Modal {
    /// Nothing.
    #[default]
    None,
    /// Help, scrolled down by so many lines.
    Help(usize),
    /// The question whether to end a process.
    Kill(Box<Question>),
    /// The filter's line.
    Filter(Box<Prompt>),
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
        self.rows = std::mem::take(&mut snapshot.rows);
        self.data = Some(snapshot);
        self.rearrange(now);
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

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys are alike")]
    fn key(&mut self, key: KeyEvent, now: Mono, commands: &mut Vec<Command>) {
        // What ends or stops the program does so wherever the keyboard is.
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return commands.push(Command::Quit),
                KeyCode::Char('z') => return commands.push(Command::Suspend),
                _ => {}
            }
        }
        match &mut self.modal {
            Modal::None => {
                if let Some(action) = self.pending.take(Press::of(key)) {
                    self.act(action, now, commands);
                }
            }
            Modal::Help(scroll) => match key.code {
                KeyCode::Up | KeyCode::Char('k') => *scroll = scroll.saturating_sub(1),
                KeyCode::Down | KeyCode::Char('j' | ' ') => *scroll += 1,
                _ => self.modal = Modal::None,
            },
            Modal::Kill(_) => self.answer(key, now, commands),
            Modal::Filter(_) => self.type_filter(key, now),
        }
    }

    /// Only `y` is yes.
    fn answer(&mut self, key: KeyEvent, now: Mono, commands: &mut Vec<Command>) {
        let Modal::Kill(question) = std::mem::take(&mut self.modal) else {
            return;
        };
        if key.code != KeyCode::Char('y') || question.impossible.is_some() {
            return;
        }
        let id = question.row.id.clone();
        if self.stalled(&id).is_none() {
            return self.notify(
                format!(
                    "{} is not stalled any more; nothing was asked",
                    name(&question.row)
                ),
                now,
            );
        }
        commands.push(Command::Kill(id));
        self.kills.ask(question.row, now);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys are alike")]
    fn type_filter(&mut self, key: KeyEvent, now: Mono) {
        let Modal::Filter(prompt) = &mut self.modal else {
            return;
        };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let request = match key.code {
            KeyCode::Enter => {
                if prompt.wrong.is_none() {
                    self.modal = Modal::None;
                }
                return;
            }
            KeyCode::Esc => {
                self.filter = std::mem::take(&mut prompt.before);
                self.modal = Modal::None;
                return self.rearrange(now);
            }
            KeyCode::Char('u') if control => InputRequest::DeleteLine,
            KeyCode::Char('w') if control => InputRequest::DeletePrevWord,
            KeyCode::Char('a') if control => InputRequest::GoToStart,
            KeyCode::Char('e') if control => InputRequest::GoToEnd,
            KeyCode::Char(c) if !control => InputRequest::InsertChar(c),
            KeyCode::Backspace => InputRequest::DeletePrevChar,
            KeyCode::Delete => InputRequest::DeleteNextChar,
            KeyCode::Left => InputRequest::GoToPrevChar,
            KeyCode::Right => InputRequest::GoToNextChar,
            KeyCode::Home => InputRequest::GoToStart,
            KeyCode::End => InputRequest::GoToEnd,
            _ => return,
        };
        prompt.input.handle(request);
        self.apply_filter(now);
    }

    /// Shows what the filter lets through as it is typed; while it is wrong, what the one
    /// before lets through.
    fn apply_filter(&mut self, now: Mono) {
        let Modal::Filter(prompt) = &mut self.modal else {
            return;
        };
        match Filter::parse(prompt.input.value()) {
            Ok(filter) => {
                prompt.wrong = None;
                self.filter = filter;
                self.rearrange(now);
            }
            Err(wrong) => {
                prompt.wrong = Some(wrong);
                self.filter = prompt.before.clone();
                self.rearrange(now);
            }
        }
    }

    fn paste(&mut self, text: &str, now: Mono) {
        // Keys that come by paste are not commands: nobody meant them.
        if let Modal::Filter(prompt) = &mut self.modal {
            for c in text.chars().filter(|c| !c.is_control()) {
                prompt.input.handle(InputRequest::InsertChar(c));
            }
            self.apply_filter(now);
        }
    }

    fn act(&mut self, action: Action, now: Mono, commands: &mut Vec<Command>) {
        let page = isize::try_from(self.page(self.focus)).unwrap_or(1);
        match action {
            Action::Up => self.scroll(-1),
            Action::Down => self.scroll(1),
            Action::PageUp => self.scroll(-page),
            Action::PageDown => self.scroll(page),
            Action::First => self.scroll(isize::MIN),
            Action::Last => self.scroll(isize::MAX),
            Action::Left => self.sideways(false, now),
            Action::Right => self.sideways(true, now),
            Action::Detail => self.enter(now),
            Action::Back => self.back(now),
            Action::NextPane => self.show(self.focus.next()),
            Action::PreviousPane => self.show(self.focus.previous()),
            Action::Log => self.toggle(Pane::Log),
            Action::Histogram => self.toggle(Pane::Histogram),
            Action::Filter => {
                self.modal = Modal::Filter(Box::new(Prompt {
                    input: Input::new(self.filter.text().to_owned()),
                    wrong: None,
                    before: self.filter.clone(),
                }));
            }
            Action::Sort => {
                self.order.sort = self.order.sort.next();
                self.rearrange(now);
            }
            Action::Reverse => {
                self.order.reversed ^= true;
                self.rearrange(now);
            }
            Action::Group => {
                self.order.group = self.order.group.next();
                self.order.unfolded.clear();
                self.selected = None;
                self.at = 0;
                self.rearrange(now);
            }
            Action::Pause => self.pause(now),
            Action::Kill => self.ask(now),
            Action::Mouse => {
                self.mouse ^= true;
                commands.push(Command::Mouse(self.mouse));
                let what = if self.mouse {
                    "clicks select here"
                } else {
                    "the terminal has the mouse"
                };
                self.notify(format!("mouse: {what}"), now);
            }
            Action::Redraw => commands.push(Command::Redraw),
            Action::Suspend => commands.push(Command::Suspend),
            Action::Help => self.modal = Modal::Help(0),
            Action::Quit => commands.push(Command::Quit),
        }
    }

    fn pause(&mut self, now: Mono) {
        if self.paused.take().is_none() {
            self.paused = Some(now);
        } else if let Some(snapshot) = self.waiting.take() {
            self.adopt(*snapshot, now);
        }
    }

    /// Opens the question, or says why there is none.
    fn ask(&mut self, now: Mono) {
        let Some(row) = self.selected_row().cloned() else {
            let what = if self.lines.is_empty() {
                "nothing is selected"
            } else {
                "select one writer: groups are not ended as a whole"
            };
            return self.notify(what.to_owned(), now);
        };
        let impossible = match self.freshness(now) {
            Freshness::Live => self
                .stalled(&row.id)
                .map_or(Some("it is not stalled any more".to_owned()), |row| {
                    self.kills.impossible(row, &self.rights)
                }),
            Freshness::Paused(_) => Some("the screen is paused; Space goes on".to_owned()),
            Freshness::None | Freshness::Stale(_) => {
                Some("there is no connection to an agent that could do it".to_owned())
            }
        };
        self.modal = Modal::Kill(Box::new(Question { row, impossible }));
    }

    fn enter(&mut self, now: Mono) {
        if matches!(self.lines.get(self.at), Some(Line::Group(_))) && self.focus == Pane::Stalls {
            let unfolded = self.is_unfolded();
            self.sideways(!unfolded, now);
        } else {
            self.show(Pane::Detail);
        }
    }

    fn back(&mut self, now: Mono) {
        if self.focus != Pane::Stalls || self.open.is_some() {
            self.show(Pane::Stalls);
            self.open = None;
        } else if !self.filter.is_empty() {
            self.filter = Filter::default();
            self.rearrange(now);
        }
    }

    fn show(&mut self, pane: Pane) {
        self.focus = pane;
        let only_one = self.areas().panes.len() == 1;
        if pane != Pane::Stalls {
            self.open = Some(pane);
        } else if only_one {
            self.open = None;
        }
    }

    fn toggle(&mut self, pane: Pane) {
        if self.focus == pane {
            self.open = None;
            self.focus = Pane::Stalls;
        } else {
            self.show(pane);
        }
    }

    fn is_unfolded(&self) -> bool {
        matches!(self.lines.get(self.at), Some(Line::Group(heading)) if heading.unfolded)
    }

    /// Folds or unfolds, or scrolls the commands.
    fn sideways(&mut self, right: bool, now: Mono) {
        if self.order.group == Group::None {
            self.shift = if right {
                self.shift + SHIFT
            } else {
                self.shift.saturating_sub(SHIFT)
            };
            return;
        }
        // From within a group, its heading is meant.
        let heading = self.lines[..(self.at + 1).min(self.lines.len())]
            .iter()
            .rposition(|line| matches!(line, Line::Group(_)));
        let Some((at, Line::Group(heading))) = heading.and_then(|at| Some((at, self.lines.get(at)?))) else {
            return;
        };
        if right {
            self.order.unfolded.insert(heading.label.clone());
        } else {
            self.order.unfolded.remove(&heading.label);
            self.select(at);
        }
        self.rearrange(now);
    }

    fn scroll(&mut self, by: isize) {
        match self.focus {
            Pane::Stalls => self.select(self.at.saturating_add_signed(by)),
            Pane::Detail => self.detail_scroll = self.detail_scroll.saturating_add_signed(by),
            Pane::Log => {
                let most = self.log.len().saturating_sub(self.page(Pane::Log));
                // Down is towards the newest.
                let back = by.checked_neg().unwrap_or(isize::MAX);
                self.log_scroll = self.log_scroll.saturating_add_signed(back).min(most);
            }
            Pane::Histogram => {}
        }
    }

    fn click(&mut self, place: Position) {
        if !matches!(self.modal, Modal::None) {
            return;
        }
        let areas = self.areas();
        let hit = areas.panes.iter().find(|(_, area)| area.contains(place));
        let Some((pane, area)) = hit else { return };
        self.focus = *pane;
        // Below the heading and the columns' names.
        let line = usize::from(place.y - area.y).checked_sub(2);
        if *pane == Pane::Stalls
            && let Some(line) = line
            && self.offset + line < self.lines.len()
        {
            self.select(self.offset + line);
        }
    }

    fn notify(&mut self, what: String, now: Mono) {
        self.notice = Some((what, now));
    }

    fn stalled(&self, id: &str) -> Option<&Row> {
        let over = self.kills.outcome(id).is_some_and(|outcome| outcome.succeeded);
        self.rows.iter().find(|row| row.id == id).filter(|_| !over)
    }
}

/// What the view asks.
impl State {
    /// Where everything goes.
    #[must_use]
    pub fn areas(&self) -> Areas {
        Areas::of(self.screen, self.open)
    }

    /// Whether all panes are shown at once.
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        is_wide(self.screen)
    }

    /// How the source does.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What may be done from here.
    #[must_use]
    pub const fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The snapshot that is shown; its rows are [`Self::rows`].
    #[must_use]
    pub const fn data(&self) -> Option<&Snapshot> {
        self.data.as_ref()
    }

    /// The rows that lines refer to.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The table's lines that are on a page of that many.
    pub fn visible(&self, page: usize) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().skip(self.offset).take(page)
    }

    /// How many lines the table has, and the first one shown.
    #[must_use]
    pub fn extent(&self) -> (usize, usize) {
        (self.lines.len(), self.offset)
    }

    /// How many rows the filter lets through.
    #[must_use]
    pub const fn matched(&self) -> usize {
        self.matched
    }

    /// The place of the selected line.
    #[must_use]
    pub const fn selected(&self) -> usize {
        self.at
    }

    /// The selected row, if it is one.
    #[must_use]
    pub fn selected_row(&self) -> Option<&Row> {
        match self.lines.get(self.at)? {
            Line::Row(at) => self.rows.get(*at),
            Line::Group(_) => None,
        }
    }

    /// How the rows are ordered.
    #[must_use]
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// The writer that a question is about, as it is now.
    #[must_use]
    pub fn current<'a>(&'a self, question: &'a Question) -> &'a Row {
        self.stalled(&question.row.id).unwrap_or(&question.row)
    }

    /// Which of them are shown.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The pane that has the keyboard.
    #[must_use]
    pub const fn focus(&self) -> Pane {
        self.focus
    }

    /// What the keyboard belongs to before anything else.
    #[must_use]
    pub const fn modal(&self) -> &Modal {
        &self.modal
    }

    /// Columns that commands are scrolled by.
    #[must_use]
    pub const fn shift(&self) -> usize {
        self.shift
    }

    /// Lines that the detail is scrolled by.
    #[must_use]
    pub const fn detail_scroll(&self) -> usize {
        self.detail_scroll
    }

    /// Events between the last one shown and the newest.
    #[must_use]
    pub const fn log_scroll(&self) -> usize {
        self.log_scroll
    }

    /// Events, the newest last.
    #[must_use]
    pub const fn log(&self) -> &VecDeque<Event> {
        &self.log
    }

    /// How many events did not arrive here.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// What was.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Kills that were asked for here.
    #[must_use]
    pub const fn kills(&self) -> &Kills {
        &self.kills
    }

    /// Why each rule does or does not match a stall; `None` where nothing was told yet.
    #[must_use]
    pub fn reasons(&self, stall: &str) -> Option<&Told> {
        self.reasons.of(stall)
    }

    /// The first keys of several.
    #[must_use]
    pub const fn pending(&self) -> &Pending {
        &self.pending
    }

    /// What there is to say for a moment.
    #[must_use]
    pub fn notice(&self, now: Mono) -> Option<&str> {
        let (text, at) = self.notice.as_ref()?;
        (now.since(*at) < NOTICE).then_some(text)
    }

    /// What may be said of the data.
    #[must_use]
    pub fn freshness(&self, now: Mono) -> Freshness {
        let Some(data) = &self.data else {
            return Freshness::None;
        };
        let age = now.since(data.at);
        if self.paused.is_some() {
            Freshness::Paused(age)
        } else if matches!(self.connection, Connection::Lost(..)) || age > STALE_AFTER {
            Freshness::Stale(age)
        } else {
            Freshness::Live
        }
    }

    /// How long after the snapshot the shown moment is: what is not live stands still.
    #[must_use]
    pub fn elapsed(&self, now: Mono) -> Duration {
        match (self.freshness(now), &self.data) {
            (Freshness::Live, Some(data)) => now.since(data.at),
            (Freshness::Paused(_), Some(data)) => self.paused.unwrap_or(data.at).since(data.at),
            _ => Duration::ZERO,
        }
    }
}

/// A process as people name it.
fn name(row: &Row) -> String {
    format!("{}[{}]", row.comm, row.pid)
}

#[cfg(test)]
mod tests;
