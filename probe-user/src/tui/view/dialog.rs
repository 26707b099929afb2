//! The question whether to end a process: exactly what would be signalled, and how.

use ratatui::{
    Frame,
    text::{Line, Span},
    widgets::{Block, Clear, Padding, Paragraph},
};

use super::{centered, look::Tone};
use crate::{
    cli::text,
    core::model::Mono,
    tui::state::{
        State,
        kill::{GRACE, Question},
    },
};

/// Columns, borders included.
const WIDTH: u16 = 78;
/// Columns that border and padding take.
const FRAME: u16 = 4;
/// A command line may take so many lines of the question.
const COMMAND_LINES: usize = 4;

pub(super) fn draw(frame: &mut Frame<'_>, question: &Question, state: &State, now: Mono) {
    let screen = frame.area();
    let width = WIDTH.min(screen.width);
    let lines = lines(question, state, now, usize::from(width - FRAME));
    let area = centered(screen, width, lines.len() + 2);
    let block = Block::bordered()
        .title(Span::styled(" End a process ", Tone::Alarm.style()))
        .border_style(Tone::Alarm.style())
        .padding(Padding::horizontal(1));
    // On a screen that is too low, what is asked is worth more than the rest.
    let hidden = (lines.len() + 2).saturating_sub(area.height.into());
    let text = Paragraph::new(lines)
        .block(block)
        .scroll((u16::try_from(hidden).unwrap_or(u16::MAX), 0));
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
}

fn lines(question: &Question, state: &State, now: Mono, width: usize) -> Vec<Line<'static>> {
    let row = state.current(question);
    let age = text::age(row.age + state.elapsed(now));
    let stream = row
        .stream
        .map_or_else(|| format!("fd {}", row.fd), |it| it.as_str().to_owned());
    let channel = if row.channel == "unix" {
        "unix socket"
    } else {
        row.channel.as_str()
    };
    let owner = [
        Some(row.user()),
        row.facts.parent.clone(),
        row.unit().map(str::to_owned),
    ];
    let owner: Vec<_> = owner.into_iter().flatten().collect();
    let mut lines = Vec::new();
    let mut say = |text: &str, tone: Tone| {
        let wrapped = text::wrap(&text::one_line(text), width);
        lines.extend(
            wrapped
                .lines()
                .map(|line| Line::styled(line.to_owned(), tone.style())),
        );
    };
    say(&format!("pid {} {}", row.pid, row.comm), Tone::Focus);
    say(&text::cut(&row.command, width * COMMAND_LINES), Tone::Plain);
    say(&format!("of {}", owner.join(", ")), Tone::Plain);
    say(
        &format!("stalled {age} in {} to a {channel}, {stream}", row.syscall),
        Tone::Plain,
    );
    say("", Tone::Plain);
    if let Some(why) = &question.impossible {
        say(&format!("It cannot be ended from here: {why}."), Tone::Alarm);
        say("", Tone::Plain);
        say("any key: back", Tone::Focus);
        return lines;
    }
    say(
        &format!("SIGTERM to {}, and to nothing else;", row.pid),
        Tone::Alarm,
    );
    let wait = GRACE.as_secs();
    say(
        &format!("{wait} s for it to exit, or for its reader to take something;"),
        Tone::Plain,
    );
    say(&format!("then SIGKILL to {}.", row.pid), Tone::Alarm);
    say(
        "The agent looks again before each signal, and lets it go if anything has changed.",
        Tone::Plain,
    );
    say("", Tone::Plain);
    lines.push(Line::from(vec![
        Span::styled("End it? y", Tone::Alarm.style()),
        Span::styled(" / N", Tone::Focus.style()),
    ]));
    lines
}
