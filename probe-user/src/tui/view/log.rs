//! Events, the newest at the bottom.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::look::Tone;
use crate::{
    cli::text,
    tui::{model::Event, state::State},
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let log = state.log();
    if log.is_empty() {
        let line = Line::styled("  Nothing has happened yet.", Tone::Dim.style());
        return frame.render_widget(line, area);
    }
    let end = log.len().saturating_sub(state.log_scroll());
    let start = end.saturating_sub(area.height.into());
    for (y, event) in (area.y..area.bottom()).zip(log.range(start..end)) {
        frame.render_widget(line(event), Rect { y, height: 1, ..area });
    }
}

fn line(event: &Event) -> Line<'static> {
    let tone = match event.kind.as_str() {
        "kill.confirmed" => Tone::Good,
        "kill.planned" | "kill.sent" | "kill.failed" | "agent.degraded" => Tone::Alarm,
        "stall.detected" => Tone::Warn,
        _ => Tone::Plain,
    };
    // `2026-11-23T08:00:00.123Z`
    let time = event.time.get(11..19).unwrap_or(&event.time);
    let mut line = Line::from(vec![
        Span::styled(format!("{time} "), Tone::Dim.style()),
        Span::styled(format!("{:<14}", event.kind), tone.style()),
    ]);
    let mut say = |text: String| line.push_span(format!(" {}", text::one_line(&text)));
    if let Some(stall) = &event.stall {
        say(format!("{}[{}]", stall.comm, stall.pid));
    }
    for (name, value) in [
        ("rule", &event.rule),
        ("signal", &event.signal),
        ("reason", &event.reason),
    ] {
        if let Some(value) = value {
            say(format!("{name}={value}"));
        }
    }
    if let Some(took) = event.took_ms {
        say(format!("took={took}ms"));
    }
    if let Some(detail) = &event.detail {
        say(format!("({detail})"));
    }
    line
}
