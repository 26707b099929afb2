//! What keys, pastes and clicks do to what is shown.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Position;
use tui_input::{Input, InputRequest};

use super::{
    Command, Freshness, State,
    kill::Question,
    order::{Group, Line},
};
use crate::{
    core::model::Mono,
    tui::{
        filter::{Filter, Wrong},
        keys::{Action, Press},
        layout::Pane,
        model::Row,
    },
};

/// Columns that one key scrolls.
const SHIFT: usize = 8;

/// A filter that is being typed.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// What is typed so far.
    pub input: Input,
    /// What is wrong with it.
    pub wrong: Option<Wrong>,
    before: Filter,
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

impl State {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys are alike")]
    pub(super) fn key(&mut self, key: KeyEvent, now: Mono, commands: &mut Vec<Command>) {
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

    pub(super) fn paste(&mut self, text: &str, now: Mono) {
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

    pub(super) fn scroll(&mut self, by: isize) {
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

    pub(super) fn click(&mut self, place: Position) {
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
}

/// A process as people name it.
fn name(row: &Row) -> String {
    format!("{}[{}]", row.comm, row.pid)
}
