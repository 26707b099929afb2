//! The table of stalled writers. Only the lines on the page are made.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{fate, fit, look::Tone};
use crate::{
    cli::text,
    core::model::{Bound, Mono, Stream},
    tui::{
        model::{Party, Row},
        state::{
            Connection, Freshness, State,
            order::{Heading, Line as Shown},
        },
    },
};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Age,
    Pid,
    Comm,
    User,
    Via,
    Stream,
    Queued,
    Owner,
    Culprit,
    Rule,
    Fate,
    Command,
}

/// What is shown from which width on, and how wide it is then.
const COLUMNS: [(Column, &str, usize, usize); 12] = [
    (Column::Age, "AGE", 6, 0),
    (Column::Pid, "PID", 7, 0),
    (Column::Comm, "COMM/THREAD", 12, 0),
    (Column::User, "USER", 8, 68),
    (Column::Via, "VIA", 4, 60),
    (Column::Stream, "STREAM", 6, 104),
    (Column::Queued, "QUEUE", 5, 54),
    (Column::Owner, "OWNER", 16, 97),
    (Column::Culprit, "CULPRIT", 11, 80),
    (Column::Rule, "RULE", 16, 150),
    (Column::Fate, "FATE", 20, 48),
    (Column::Command, "COMMAND", 0, ROOMY),
];

/// From this width on, there is room for commands, and for longer names beside them.
const ROOMY: usize = 120;

/// The columns that a width has room for, the last as wide as what is left.
fn columns(width: usize, any_culprit: bool) -> Vec<(Column, &'static str, usize)> {
    let mut shown: Vec<_> = COLUMNS
        .into_iter()
        .filter(|(.., from)| width >= *from)
        .map(|(column, title, least, _)| {
            if matches!(column, Column::Comm | Column::Culprit) && width >= ROOMY {
                (column, title, least + 4)
            } else if column == Column::Culprit && !any_culprit {
                // Where nobody says who does not read, whose the writer is tells more.
                (Column::Owner, "OWNER", least)
            } else {
                (column, title, least)
            }
        })
        .collect();
    if !any_culprit {
        let mut seen = false;
        shown.retain(|(column, ..)| *column != Column::Owner || !std::mem::replace(&mut seen, true));
    }
    let used: usize = shown.iter().map(|(.., width)| width + 1).sum();
    if let Some((.., last)) = shown.last_mut() {
        *last += (width + 1).saturating_sub(used);
    }
    shown
}

/// Where the page is in the whole.
pub(super) fn position(state: &State) -> String {
    match state.extent() {
        (0, _) => String::new(),
        (lines, _) => format!("{} of {lines} ", state.selected() + 1),
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, now: Mono) {
    if area.is_empty() {
        return;
    }
    let any_culprit = state
        .visible(area.height.into())
        .filter_map(|(_, line)| row(state, line))
        .any(|row| row.deadlock || row.culprit.is_some());
    let columns = columns(area.width.into(), any_culprit);
    let titles: Vec<_> = columns
        .iter()
        .map(|(column, title, width)| fit(title, *width, is_right(*column)))
        .collect();
    let style = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    frame.render_widget(Line::styled(titles.join(" "), style), Rect { height: 1, ..area });

    let body = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    if state.extent().0 == 0 {
        return nothing(frame, body, state, now);
    }
    let is_old = matches!(state.freshness(now), Freshness::Stale(_));
    let elapsed = state.elapsed(now);
    for (y, (at, shown)) in (body.y..body.bottom()).zip(state.visible(body.height.into())) {
        let mut line = match shown {
            Shown::Group(heading) => group(heading, elapsed),
            Shown::Row(at) => cells(&state.rows()[*at], &columns, state, (elapsed, is_old)),
        };
        if is_old {
            // What was is not shown as what is.
            line = line.patch_style(Tone::Stale.style());
        }
        if at == state.selected() {
            line = Line::styled(fit(&line.to_string(), body.width.into(), false), line.style)
                .style(Style::new().reversed());
        }
        frame.render_widget(line, Rect { y, height: 1, ..body });
    }
}

fn row<'a>(state: &'a State, line: &Shown) -> Option<&'a Row> {
    match line {
        Shown::Row(at) => state.rows().get(*at),
        Shown::Group(_) => None,
    }
}

fn nothing(frame: &mut Frame<'_>, area: Rect, state: &State, now: Mono) {
    let text = match (state.freshness(now), state.connection()) {
        (Freshness::None, Connection::Lost(..)) => vec![
            "No agent answers, so nothing is known.".to_owned(),
            "Start one with `pipestall run`, or look without: `pipestall top --standalone`.".to_owned(),
        ],
        (Freshness::None, _) => vec!["Waiting for data.".to_owned()],
        _ if !state.filter().is_empty() => vec![
            "No stalled writer matches the filter.".to_owned(),
            "Esc clears it.".to_owned(),
        ],
        _ => {
            let observed = state.data().map(|data| data.status.observed.join(", "));
            let observed = observed.filter(|observed| !observed.is_empty());
            vec![
                "No stalled writers.".to_owned(),
                observed.map_or_else(String::new, |observed| format!("Observed: {observed}.")),
            ]
        }
    };
    for (y, line) in (area.y + 1..area.bottom()).zip(text) {
        let line = Line::styled(format!("  {}", text::one_line(&line)), Tone::Dim.style());
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

fn group(heading: &Heading, elapsed: Duration) -> Line<'static> {
    let mark = if heading.unfolded { '▾' } else { '▸' };
    Line::from(vec![
        Span::styled(format!("{mark} {:>5} ", heading.count), Tone::Warn.style()),
        Span::styled(text::one_line(&heading.label), Tone::Focus.style()),
        Span::styled(
            format!(
                "  oldest {}, {} queued",
                text::age(heading.oldest + elapsed),
                text::size(heading.queued)
            ),
            Tone::Dim.style(),
        ),
    ])
}

fn cells(
    row: &Row,
    columns: &[(Column, &'static str, usize)],
    state: &State,
    (elapsed, is_old): (Duration, bool),
) -> Line<'static> {
    let mut line = Line::default();
    for (i, (column, _, width)) in columns.iter().enumerate() {
        let (mut text, tone) = cell(*column, *width, row, state, elapsed);
        if is_old && *column == Column::Fate {
            // By words too, for terminals that do not dim.
            text.insert_str(0, "was: ");
        }
        if i > 0 {
            line.push_span(" ");
        }
        line.push_span(Span::styled(fit(&text, *width, is_right(*column)), tone.style()));
    }
    line
}

const fn is_right(column: Column) -> bool {
    matches!(column, Column::Age | Column::Pid | Column::Queued)
}

fn cell(column: Column, width: usize, row: &Row, state: &State, elapsed: Duration) -> (String, Tone) {
    let plain = |text: String| (text, Tone::Plain);
    let or_dash = |text: Option<&str>| match text {
        Some(text) => (text.to_owned(), Tone::Plain),
        None => ("-".to_owned(), Tone::Dim),
    };
    match column {
        Column::Age => plain(age(row, state, elapsed)),
        Column::Pid => plain(row.pid.to_string()),
        Column::Comm if row.comm == row.thread || row.thread.is_empty() => plain(row.comm.clone()),
        Column::Comm => plain(format!("{}/{}", text::cut(&row.comm, 6), row.thread)),
        Column::User => plain(row.user()),
        Column::Via => plain(row.channel.clone()),
        Column::Stream => plain(row.stream.map_or_else(
            || format!("fd {}", row.fd),
            |stream| Stream::as_str(stream).to_owned(),
        )),
        Column::Queued => plain(row.queued.map_or_else(|| "-".to_owned(), text::size)),
        Column::Owner => or_dash(row.unit().or(row.facts.parent.as_deref())),
        Column::Culprit if row.deadlock => ("deadlock".to_owned(), Tone::Alarm),
        Column::Culprit => or_dash(row.culprit.as_ref().map(|party| named(party, width)).as_deref()),
        Column::Rule => or_dash(row.rule.as_deref()),
        Column::Fate => fate::words(row, state, elapsed),
        Column::Command => {
            let clean = text::one_line(&row.command);
            plain(clean.chars().skip(state.shift()).collect())
        }
    }
}

/// A process in so many columns: of its name and its pid, the name is cut.
fn named(party: &Party, width: usize) -> String {
    let pid = format!("[{}]", party.pid);
    let name = text::one_line(&party.comm);
    let room = width.saturating_sub(pid.len()).max(1);
    // Characters that are two columns wide are rare in names, and `fit` has the last word.
    text::cut(&name, room) + &pid
}

/// A row whose process was ended has the age that it had then.
fn age(row: &Row, state: &State, elapsed: Duration) -> String {
    let over = state
        .kills()
        .outcome(&row.id)
        .is_some_and(|outcome| outcome.succeeded);
    let age = if over { row.age } else { row.age + elapsed };
    let bound = if row.bound == Bound::AtLeast { ">" } else { "" };
    format!("{bound}{}", text::age(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_never_cut_and_a_name_is() {
        for (comm, pid, expected) in [
            ("node", 2934, "node[2934]"),
            ("node", 123_456, "no…[123456]"),
            ("ffmpeg", 4_194_304, "f…[4194304]"),
        ] {
            let party = Party {
                pid,
                comm: comm.to_owned(),
                ..Party::default()
            };
            assert_eq!(named(&party, 11), expected);
        }
    }

    #[test]
    fn the_columns_fill_every_width_and_never_more() {
        for any_culprit in [true, false] {
            for width in 30..300 {
                let columns = columns(width, any_culprit);
                let used: usize = columns.iter().map(|(.., width)| width + 1).sum();
                assert_eq!(used - 1, width, "{width} {columns:?}");
            }
        }
        let titles: Vec<_> = columns(80, true).iter().map(|(_, title, _)| *title).collect();
        assert_eq!(
            titles.join(" "),
            "AGE PID COMM/THREAD USER VIA QUEUE CULPRIT FATE"
        );
        assert!("held: reader stopped".len() <= columns(80, true).last().unwrap().2);
    }
}
