//! How long writers were blocked, as the kernel counted: a bar for each power of two.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::look::Tone;
use crate::tui::{model::Bucket, state::State};

/// Columns for a bar's bound and its count.
const WORDS: usize = 22;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let buckets = state
        .data()
        .map(|data| data.status.blocked_seconds.buckets.as_slice());
    let bars = bars(buckets.unwrap_or_default(), area.height.into());
    if bars.is_empty() {
        let line = Line::styled(
            "  No blocked write has ended since the observer started.",
            Tone::Dim.style(),
        );
        return frame.render_widget(line, area);
    }
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let room = usize::from(area.width).saturating_sub(WORDS);
    for (y, (le, count)) in (area.y..area.bottom()).zip(bars) {
        let len = (u128::from(count) * room as u128).div_ceil(u128::from(most));
        let line = Line::from(vec![
            Span::raw(format!(" ≤ {:>7} {count:>9} ", seconds(le))),
            Span::styled(
                "█".repeat(usize::try_from(len).unwrap_or(room)),
                Tone::Focus.style(),
            ),
        ]);
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// How many of each, neighbours put together until they fit on so many lines.
fn bars(buckets: &[Bucket], lines: usize) -> Vec<(f64, u64)> {
    if lines == 0 {
        return Vec::new();
    }
    let together = buckets.len().div_ceil(lines).max(1);
    let mut below = 0;
    buckets
        .chunks(together)
        .filter_map(<[Bucket]>::last)
        .map(|bucket| {
            let count = bucket.count.saturating_sub(below);
            below = bucket.count;
            (bucket.le, count)
        })
        .collect()
}

/// A bound in three digits at most, and its unit.
fn seconds(seconds: f64) -> String {
    for (unit, factor) in [("ns", 1e9), ("us", 1e6), ("ms", 1e3), ("s", 1.0)] {
        let value = seconds * factor;
        if value < 999.5 || unit == "s" && value < 600.0 {
            return format!("{value:.0} {unit}");
        }
    }
    format!("{:.1} h", seconds / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(le: f64, count: u64) -> Bucket {
        Bucket { le, count }
    }

    #[test]
    fn bars_are_what_is_new_in_each_bucket_and_fit_the_lines() {
        let buckets = [
            bucket(0.001, 5),
            bucket(0.002, 7),
            bucket(0.004, 7),
            bucket(8.0, 9),
        ];

        assert_eq!(bars(&buckets, 9), [(0.001, 5), (0.002, 2), (0.004, 0), (8.0, 2)]);
        assert_eq!(bars(&buckets, 2), [(0.002, 7), (8.0, 2)]);
        assert_eq!(bars(&buckets, 0), []);
    }

    #[test]
    fn bounds_are_short() {
        for (value, text) in [
            (1e-9, "1 ns"),
            (0.000_524_288, "524 us"),
            (0.000_999_9, "1 ms"),
            (0.134, "134 ms"),
            (8.59, "9 s"),
            (1099.0, "0.3 h"),
        ] {
            assert_eq!(seconds(value), text);
        }
    }
}
