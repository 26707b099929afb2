//! Help: every key, from the table that decides what they do.

use ratatui::{
    Frame,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{centered, look::Tone};
use crate::tui::keys::{BINDINGS, Topic};

const WORDS: [&str; 7] = [
    "A writer is stalled while it is blocked in a write and its reader takes nothing;",
    "AGE counts from the last byte taken, `>` where it may be older. CULPRIT is who does",
    "not read, at the end of the chain; FATE is what the agent's rules make of it.",
    "A filter takes what a rule's match takes: comm thread exe cmdline user parent cgroup",
    "unit container channel stream, as globs or ~regular expressions. Any word without",
    "`=` is looked for in all that is shown. Nothing is ended by one key, and nothing",
    "without the agent: it checks, records and signals as it does for its rules.",
];

/// Draws it over everything else; returns how many lines do not fit.
pub(super) fn draw(frame: &mut Frame<'_>, scroll: usize) -> usize {
    let lines = lines();
    let screen = frame.area();
    let width = lines.iter().map(Line::width).max().unwrap_or(0) + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(screen.width);
    let area = centered(screen, width, lines.len() + 2);
    let hidden = (lines.len() + 2).saturating_sub(area.height.into());
    let scroll = scroll.min(hidden);
    let more = if scroll < hidden {
        " Down: more "
    } else {
        " any key: back "
    };
    let block = Block::bordered()
        .title(Span::styled(" Help ", Tone::Focus.style()))
        .title_bottom(Span::styled(more, Tone::Focus.style()));
    let text = Paragraph::new(lines)
        .block(block)
        .scroll((u16::try_from(scroll).unwrap_or(u16::MAX), 0));
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
    hidden
}

fn lines() -> Vec<Line<'static>> {
    let names = |topic| BINDINGS.iter().filter(move |binding| binding.topic == topic);
    let width = BINDINGS
        .iter()
        .map(|binding| binding.names().len())
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for topic in Topic::ALL {
        lines.push(Line::styled(topic.title(), Tone::Focus.style()));
        for binding in names(topic) {
            lines.push(Line::from(vec![
                Span::raw(format!("  {:<width$}  ", binding.names())),
                Span::raw(binding.what),
            ]));
        }
    }
    lines.push(Line::default());
    lines.extend(WORDS.map(Line::raw));
    lines
}
