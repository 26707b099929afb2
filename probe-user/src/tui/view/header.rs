//! The lines at the top: who observes, how the data is, and the whole in numbers.

use ratatui::{
    Frame,
    layout::{Alignment, Rect},
    style::Style,
    text::{Line, Span},
};

use super::{look::Tone, spark};
use crate::{
    cli::text,
    core::model::Mono,
    tui::{
        model::Snapshot,
        state::{Connection, Freshness, State},
    },
};

/// Columns of the bars on the right, at most.
const BARS: usize = 40;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, now: Mono) {
    let lines: [(Line<'_>, Line<'_>); 3] = [
        (who(state), freshness(state, now)),
        numbers(state, now, usize::from(area.width)),
        (remark(state, now), Line::default()),
    ];
    for (i, (left, right)) in (0..area.height).zip(lines) {
        let row = Rect {
            y: area.y + i,
            height: 1,
            ..area
        };
        let width = u16::try_from(right.width()).unwrap_or(0).min(area.width);
        let gap = u16::from(width > 0 && width < area.width);
        frame.render_widget(
            left,
            Rect {
                width: area.width - width - gap,
                ..row
            },
        );
        frame.render_widget(
            right.alignment(Alignment::Right),
            Rect {
                x: area.right() - width,
                width,
                ..row
            },
        );
    }
}

fn who(state: &State) -> Line<'static> {
    let mut line = Line::from(vec![Span::styled("pipestall", Tone::Focus.style())]);
    let Some(Snapshot { status, .. }) = state.data() else {
        return line;
    };
    let mut part = |text: String, style: Style| {
        if !text.is_empty() {
            line.push_span("  ");
            line.push_span(Span::styled(text, style));
        }
    };
    part(text::one_line(&status.node), Style::new());
    if status.version.is_empty() {
        part("standalone".to_owned(), Style::new());
    } else {
        part(format!("agent {}", status.version), Style::new());
    }
    let mode = if status.paused.is_some() {
        Tone::Alarm
    } else if status.mode == "enforce" {
        Tone::Good
    } else {
        Tone::Warn
    };
    let paused = if status.paused.is_some() { ", paused" } else { "" };
    part(format!("{}{paused}", status.mode), mode.style());
    if !status.tracer.is_empty() {
        part(format!("tracer {}", status.tracer), Style::new());
    }
    line
}

fn freshness(state: &State, now: Mono) -> Line<'static> {
    let (text, tone) = match state.freshness(now) {
        Freshness::Live => ("● live".to_owned(), Tone::Good),
        Freshness::Paused(age) => (format!(" PAUSED {} ago ", text::age(age)), Tone::Warn),
        Freshness::Stale(age) => (format!(" DATA IS {} OLD ", text::age(age)), Tone::Alarm),
        Freshness::None => match state.connection() {
            Connection::Lost(..) => (" NO DATA ".to_owned(), Tone::Alarm),
            Connection::Connecting | Connection::Live => ("waiting for data".to_owned(), Tone::Dim),
        },
    };
    let style = match tone {
        Tone::Warn | Tone::Alarm => tone.style().reversed(),
        Tone::Plain | Tone::Dim | Tone::Focus | Tone::Good | Tone::Stale | Tone::Wrong => tone.style(),
    };
    Line::styled(text, style)
}

fn numbers(state: &State, now: Mono, width: usize) -> (Line<'static>, Line<'static>) {
    let Some(data) = state.data() else {
        return (Line::default(), Line::default());
    };
    let status = &data.status;
    let oldest = state
        .rows()
        .iter()
        .filter(|row| !row.draining)
        .map(|row| row.age)
        .max();
    let oldest = oldest.map_or_else(|| "-".to_owned(), |age| text::age(age + state.elapsed(now)));
    let count = if data.total > 0 { Tone::Warn } else { Tone::Good };
    let mut line = Line::from(vec![
        Span::styled(data.total.to_string(), count.style()),
        Span::raw(format!(" stalled  oldest {oldest}  ")),
    ]);
    if !status.version.is_empty() {
        let kills = status.kills_last_hour;
        line.push_span(format!("kills/h {}", kills.confirmed));
        if kills.failed > 0 {
            line.push_span(Span::styled(
                format!(" {} failed", kills.failed),
                Tone::Alarm.style(),
            ));
        }
        if status.kills_under_way > 0 {
            line.push_span(Span::styled(
                format!(" {} under way", status.kills_under_way),
                Tone::Alarm.style(),
            ));
        }
        line.push_span("  ");
    }
    let lost = status.lost.events() + state.missed();
    let tone = if lost > 0 { Tone::Warn } else { Tone::Plain };
    line.push_span(Span::styled(format!("dropped {lost}"), tone.style()));
    let room = width.saturating_sub(line.width() + 2).min(BARS);
    let bars = spark(state.history().stalled().iter().copied(), room);
    (line, Line::styled(bars, Tone::Focus.style()))
}

/// What is wrong, most of all; else how the table is ordered.
fn remark(state: &State, now: Mono) -> Line<'static> {
    if let Connection::Lost(why, retry) = state.connection() {
        let wait = retry.since(now).as_secs();
        let again = if wait == 0 {
            "retrying".to_owned()
        } else {
            format!("retry in {wait} s")
        };
        return Line::styled(format!("{again}: {}", text::one_line(why)), Tone::Alarm.style());
    }
    if let Some(data) = state.data() {
        let wrong = data
            .status
            .paused
            .iter()
            .map(|why| format!("not enforcing: {why}"));
        let mut wrong = wrong.chain(data.status.degraded.iter().cloned());
        if let Some(first) = wrong.next() {
            let more = wrong.count();
            let more = if more > 0 {
                format!(" (and {more} more)")
            } else {
                String::new()
            };
            return Line::styled(format!("{}{more}", text::one_line(&first)), Tone::Alarm.style());
        }
    }
    let order = state.order();
    let arrow = if order.reversed == order.sort.is_descending() {
        '▲'
    } else {
        '▼'
    };
    let mut line = Line::styled(format!("by {} {arrow}", order.sort.name()), Tone::Dim.style());
    if let Some(group) = order.group.name() {
        line.push_span(format!("  grouped by {group}"));
    }
    if !state.filter().is_empty() {
        let filter = text::one_line(state.filter().text());
        let counts = format!("{} of {}", state.matched(), state.rows().len());
        line.push_span(Span::styled(
            format!("  filter {filter} ({counts})"),
            Tone::Warn.style(),
        ));
    }
    line
}
