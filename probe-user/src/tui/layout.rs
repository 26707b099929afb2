//! Where everything goes on a screen of a given size. Both sides ask here: the view, to draw, and
//! the state, to know how long a page is and what was clicked on.

use ratatui::layout::{Constraint, Layout, Rect};

/// A part of the screen that can have the keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    /// The table of stalled writers.
    #[default]
    Stalls,
    /// Everything about the selected one.
    Detail,
    /// Events.
    Log,
    /// How long writers were blocked.
    Histogram,
}

impl Pane {
    /// All, in the order in which Tab goes through them.
    pub const ALL: [Self; 4] = [Self::Stalls, Self::Detail, Self::Log, Self::Histogram];

    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Stalls => "Stalls",
            Self::Detail => "Detail",
            Self::Log => "Events",
            Self::Histogram => "Blocked times",
        }
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The one before it.
    #[must_use]
    pub fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }
}

/// A screen's parts. Those that there is no room for are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Areas {
    /// The agent as a whole.
    pub header: Rect,
    /// The panes that are shown.
    pub panes: Vec<(Pane, Rect)>,
    /// What keys do, or the filter that is being typed.
    pub footer: Rect,
}

/// From this size on, all panes are shown at once.
const WIDE: (u16, u16) = (150, 36);
/// From this height on, a pane has room beside the table.
const TALL: u16 = 16;

impl Areas {
    /// Divides a screen; `open` is the pane that is shown beside the table.
    #[must_use]
    pub fn of(screen: Rect, open: Option<Pane>) -> Self {
        let header = match screen.height {
            ..6 => 1,
            6..16 => 2,
            _ => 3,
        };
        let parts = Layout::vertical([
            Constraint::Length(header),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [header, body, footer] = parts.areas(screen);
        Self {
            header,
            panes: panes(screen, body, open),
            footer,
        }
    }

    /// Where a pane is, if it is shown.
    #[must_use]
    pub fn pane(&self, pane: Pane) -> Option<Rect> {
        let found = self.panes.iter().find(|(shown, _)| *shown == pane);
        found.map(|(_, area)| *area)
    }

    /// How many lines a pane has for what it shows: all but its heading, and its columns'.
    #[must_use]
    pub fn lines(&self, pane: Pane) -> usize {
        let headings = if pane == Pane::Stalls { 2 } else { 1 };
        self.pane(pane)
            .map_or(0, |area| usize::from(area.height).saturating_sub(headings))
    }
}

/// Whether a screen has room for all panes.
#[must_use]
pub const fn is_wide(screen: Rect) -> bool {
    screen.width >= WIDE.0 && screen.height >= WIDE.1
}

fn panes(screen: Rect, body: Rect, open: Option<Pane>) -> Vec<(Pane, Rect)> {
    if is_wide(screen) {
        let columns = Layout::horizontal([Constraint::Percentage(65), Constraint::Fill(1)]).spacing(1);
        let [left, right] = columns.areas(body);
        let rows = Layout::vertical([Constraint::Percentage(70), Constraint::Fill(1)]);
        let ([stalls, log], [detail, histogram]) = (rows.areas(left), rows.areas(right));
        return vec![
            (Pane::Stalls, stalls),
            (Pane::Detail, detail),
            (Pane::Log, log),
            (Pane::Histogram, histogram),
        ];
    }
    match open {
        None | Some(Pane::Stalls) => vec![(Pane::Stalls, body)],
        Some(pane) if screen.height < TALL => vec![(pane, body)],
        Some(pane) => {
            let rows = Layout::vertical([Constraint::Percentage(38), Constraint::Fill(1)]);
            let [stalls, below] = rows.areas(body);
            vec![(Pane::Stalls, stalls), (pane, below)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_part_is_outside_the_screen_or_over_another(
            width in 0_u16..300, height in 0_u16..100, open in 0_usize..5,
        ) {
            let screen = Rect::new(0, 0, width, height);
            let areas = Areas::of(screen, Pane::ALL.get(open).copied());
            let mut parts = vec![areas.header, areas.footer];
            parts.extend(areas.panes.iter().map(|(_, area)| *area));
            for (i, part) in parts.iter().enumerate() {
                proptest::prop_assert!(part.is_empty() || part.intersection(screen) == *part);
                for other in &parts[..i] {
                    proptest::prop_assert!(part.intersection(*other).is_empty());
                }
            }
        }
    }

    #[test]
    fn a_small_screen_shows_one_pane_a_usual_one_two_and_a_wide_one_all() {
        for (width, height, panes) in [(40, 12, 1), (80, 24, 2), (200, 60, 4)] {
            let areas = Areas::of(Rect::new(0, 0, width, height), Some(Pane::Detail));
            assert_eq!(areas.panes.len(), panes);
            assert!(areas.lines(Pane::Detail) > 4);
        }
    }
}
