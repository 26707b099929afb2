//! What the view asks of the state.

use std::{collections::VecDeque, time::Duration};

use super::{
    Connection, Modal, State,
    history::History,
    kill::{Kills, Question, Rights},
    order::{Line, Order},
    reasons::Told,
};
use crate::{
    core::model::Mono,
    tui::{
        filter::Filter,
        keys::Pending,
        layout::{Areas, Pane, is_wide},
        model::{Event, Row, Snapshot},
    },
};

/// Data that is older is not live, whatever the connection seems to be.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(6);

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
