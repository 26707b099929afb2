//! Makes a frame of the state. A pure function: it keeps nothing, and does not know where the data
//! comes from.
//!
//! Everything is drawn in color and Unicode; where a terminal has neither, [`Look::apply`] takes it
//! out of the finished frame, so that no pane has to think of it.

mod detail;
mod dialog;
mod fate;
mod header;
mod help;
mod histogram;
mod log;
mod look;
mod table;

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph},
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

pub use self::look::Look;
use self::look::Tone;
use super::{
    keys::{Action, BINDINGS},
    layout::Pane,
    state::{Drawn, Modal, State},
};
use crate::{cli::text, core::model::Mono};

/// Smaller than this, nothing can be read.
const LEAST: (u16, u16) = (30, 5);

/// Draws the state as of `now`.
pub fn draw(frame: &mut Frame<'_>, state: &State, now: Mono, look: Look) -> Drawn {
    let screen = frame.area();
    let mut drawn = Drawn::default();
    if screen.width < LEAST.0 || screen.height < LEAST.1 {
        frame.render_widget(Paragraph::new("pipestall: make this larger"), screen);
        look.apply(frame.buffer_mut());
        return drawn;
    }
    let areas = state.areas();
    header::draw(frame, areas.header, state, now);
    for (pane, area) in &areas.panes {
        let inner = heading(frame, *area, *pane, state);
        match pane {
            Pane::Stalls => table::draw(frame, inner, state, now),
            Pane::Detail => drawn.detail = detail::draw(frame, inner, state, now),
            Pane::Log => log::draw(frame, inner, state),
            Pane::Histogram => histogram::draw(frame, inner, state),
        }
    }
    footer(frame, areas.footer, state, now);
    match state.modal() {
        Modal::Help(scroll) => drawn.help = help::draw(frame, *scroll),
        Modal::Kill(question) => dialog::draw(frame, question, state, now),
        Modal::Filter(_) | Modal::None => {}
    }
    look.apply(frame.buffer_mut());
    drawn
}

/// Draws a pane's heading; returns what is below it.
fn heading(frame: &mut Frame<'_>, area: Rect, pane: Pane, state: &State) -> Rect {
    let tone = if state.focus() == pane {
        Tone::Focus
    } else {
        Tone::Dim
    };
    let mut title = vec![Span::styled(format!(" {} ", pane.title()), tone.style())];
    if pane == Pane::Stalls {
        title.push(Span::styled(table::position(state), Tone::Dim.style()));
    }
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(Tone::Dim.style())
        .title(Line::from(title));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

/// The filter while it is typed, a notice, or the most useful keys.
fn footer(frame: &mut Frame<'_>, area: Rect, state: &State, now: Mono) {
    if let Modal::Filter(prompt) = state.modal() {
        let typed = text::one_line(prompt.input.value());
        let mut line = Line::from(vec![Span::styled("/", Tone::Focus.style())]);
        match &prompt.wrong {
            None => {
                line.push_span(typed);
                let hint = "  user=NAME comm=ffmpeg* cmdline=~REGEX, or any word; Enter, Esc";
                line.push_span(Span::styled(hint, Tone::Dim.style()));
            }
            Some(wrong) => {
                let value = prompt.input.value();
                let (before, rest) = value.split_at(wrong.at.start);
                let (it, after) = rest.split_at(wrong.at.len());
                line.push_span(text::one_line(before));
                line.push_span(Span::styled(text::one_line(it), Tone::Wrong.style()));
                line.push_span(text::one_line(after));
                line.push_span(Span::styled(format!("  {}", wrong.message), Tone::Warn.style()));
            }
        }
        frame.render_widget(line, area);
        let cursor = u16::try_from(prompt.input.visual_cursor() + 1).unwrap_or(u16::MAX);
        frame.set_cursor_position((area.x.saturating_add(cursor).min(area.right() - 1), area.y));
        return;
    }
    if let Some(notice) = state.notice(now) {
        return frame.render_widget(Line::styled(format!(" {notice}"), Tone::Warn.style()), area);
    }
    let pending = state.pending().names();
    if !pending.is_empty() {
        let line = format!(" {pending}… once more asks to end the selected writer");
        return frame.render_widget(Line::styled(line, Tone::Warn.style()), area);
    }
    let mut line = Line::default();
    for (action, word) in [
        (Action::Help, "help"),
        (Action::Detail, "detail"),
        (Action::Filter, "filter"),
        (Action::Sort, "sort"),
        (Action::Group, "group"),
        (Action::NextPane, "panes"),
        (Action::Pause, "pause"),
        (Action::Kill, "end"),
        (Action::Quit, "quit"),
    ] {
        let binding = BINDINGS.iter().find(|binding| binding.action == action);
        let Some(key) = binding.and_then(|binding| binding.ways.first()) else {
            continue;
        };
        let key: String = key.iter().map(|press| press.name()).collect();
        if line.width() + key.width() + word.width() + 2 > usize::from(area.width) {
            break;
        }
        line.push_span(Span::styled(format!(" {key}"), Tone::Focus.style()));
        line.push_span(Span::styled(format!(" {word}"), Tone::Dim.style()));
    }
    frame.render_widget(line, area);
}

/// The text without control characters, cut or filled up to `width` columns.
fn fit(text: &str, width: usize, right: bool) -> String {
    let clean = text::one_line(text);
    let mut out = String::new();
    let mut used = 0;
    if clean.width() <= width {
        out.push_str(&clean);
        used = clean.width();
    } else if width > 0 {
        for c in clean.chars() {
            let columns = c.width().unwrap_or(0);
            if used + columns > width - 1 {
                break;
            }
            used += columns;
            out.push(c);
        }
        out.push('…');
        used += 1;
    }
    let fill = " ".repeat(width - used);
    if right { fill + &out } else { out + &fill }
}

/// Values as one line of bars, the last `width` of them.
fn spark<T: Copy + Into<u64>>(values: impl DoubleEndedIterator<Item = T>, width: usize) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut last: Vec<u64> = values.rev().take(width).map(Into::into).collect();
    last.reverse();
    let most = last.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| {
        // What is not nothing is seen.
        let eighths = (value * 8).div_ceil(most);
        BARS[usize::try_from(eighths).unwrap_or(8).min(8)]
    };
    last.iter().map(bar).collect()
}

/// An area of so many columns and lines in the middle of another, or as much as fits.
fn centered(within: Rect, width: u16, height: usize) -> Rect {
    let height = u16::try_from(height).unwrap_or(u16::MAX);
    within.centered(Constraint::Length(width), Constraint::Length(height))
}

#[cfg(test)]
mod tests;
