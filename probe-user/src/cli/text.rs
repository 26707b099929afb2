//! How ages and sizes are written for people: short, and the same everywhere.

use std::time::Duration;

use crate::core::model::Bound;

/// An age in at most six columns: `0.2s`, `12s`, `3m04s`, `5h12m`, `12d3h`.
#[must_use]
pub fn age(age: Duration) -> String {
    let s = age.as_secs();
    match s {
        0..10 => format!("{:.1}s", age.as_secs_f64().min(9.9)),
        10..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// What is said before an age of what it says of the truth.
#[must_use]
pub const fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::Exact => "",
        Bound::AtLeast => "at least ",
        Bound::AtMost => "at most ",
    }
}

/// A size in at most five columns: `900`, `64K`, `214K`, `1.5M`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "G", "T"];
    if bytes < 1000 {
        return bytes.to_string();
    }
    let mut tenths = bytes * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if tenths < 100 && !tenths.is_multiple_of(10) {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{}{}", tenths / 10, UNITS[unit])
    }
}

/// The first `width` characters, the last of them an ellipsis where something was cut off.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The text with its control characters escaped, those that turn the direction of writing
/// included: what a process calls itself cannot move the cursor, or what stands beside it.
#[must_use]
pub fn one_line(text: &str) -> String {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escape = |c: char| (c.is_control() || turns(c)).then(|| c.escape_default().to_string());
    text.chars()
        .map(|c| escape(c).unwrap_or_else(|| c.to_string()))
        .collect()
}

/// The text in lines of at most `width` characters, each ended, all but the first indented.
/// Only a word that is longer than a line is cut in two.
#[must_use]
pub fn wrap(text: &str, width: usize) -> String {
    const INDENT: &str = "   ";
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() > width {
            out.push('\n');
            out.push_str(INDENT);
            used = INDENT.len();
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        while used + rest.len() > width {
            let tail = rest.split_off(width - used);
            out.extend(rest);
            out.push('\n');
            out.push_str(INDENT);
            (rest, used) = (tail, INDENT.len());
        }
        used += rest.len();
        out.extend(rest);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_never_rounded_up_to_the_next_unit() {
        for (millis, text) in [
            (0, "0.0s"),
            (240, "0.2s"),
            (9_999, "9.9s"),
            (59_999, "59s"),
            (184_000, "3m04s"),
            (18_720_000, "5h12m"),
            (1_047_600_000, "12d3h"),
        ] {
            assert_eq!(age(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (900, "900"),
            (4096, "4K"),
            (65_536, "64K"),
            (219_264, "214K"),
            (1_572_864, "1.5M"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(cut("ffmpeg -i pipe:0", 10), "ffmpeg -i…");
        assert_eq!(cut("ffmpeg", 10), "ffmpeg");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\né"), "a\\u{1b}[2Jb\\né");
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn long_texts_are_wrapped_between_words_and_long_words_cut() {
        for (text, wrapped) in [
            ("", "\n"),
            ("one two", "one two\n"),
            ("one two three four", "one two\n   three\n   four\n"),
            ("abcdefghijklmn", "abcdefghij\n   klmn\n"),
        ] {
            assert_eq!(wrap(text, 10), wrapped);
        }
    }
}
