//! What becomes of a stall, in a few words.

use std::time::Duration;

use super::look::Tone;
use crate::{
    cli::text,
    tui::{
        model::{Fate, Row},
        state::State,
    },
};

/// In words, and how they stand out; `elapsed` is how long ago the snapshot was.
pub(super) fn words(row: &Row, state: &State, elapsed: Duration) -> (String, Tone) {
    if let Some(outcome) = state.kills().outcome(&row.id) {
        let tone = match (outcome.is_over, outcome.succeeded) {
            (false, _) => Tone::Alarm,
            (true, true) => Tone::Good,
            (true, false) => Tone::Warn,
        };
        return (outcome.text.clone(), tone);
    }
    if row.draining {
        return ("draining: slow, but alive".to_owned(), Tone::Good);
    }
    of(&row.fate, elapsed)
}

/// The agent's word.
pub(super) fn of(fate: &Fate, elapsed: Duration) -> (String, Tone) {
    let left = |seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .unwrap_or_default()
            .checked_sub(elapsed)
            .filter(|left| !left.is_zero())
            .map(brief)
    };
    match fate {
        Fate::Unknown => ("being read about".to_owned(), Tone::Dim),
        Fate::NoRule => ("no rule".to_owned(), Tone::Dim),
        Fate::Unsaid => ("-".to_owned(), Tone::Dim),
        Fate::Alerted => ("alerted".to_owned(), Tone::Warn),
        Fate::Tried => ("tried, still there".to_owned(), Tone::Alarm),
        Fate::Due {
            in_seconds,
            action,
            mode,
            unless,
        } => {
            let (what, tone) = match unless.as_deref() {
                Some(reason) if reason != "dry-run" => return (spaced(reason), Tone::Dim),
                _ if action == "alert" => (action.clone(), Tone::Warn),
                Some(_) => (would(action), Tone::Dim),
                None if mode == "dry-run" => (would(action), Tone::Dim),
                None => (action.clone(), Tone::Alarm),
            };
            let when = match in_seconds {
                None => "by share".to_owned(),
                Some(seconds) => left(*seconds).map_or_else(|| "due".to_owned(), |left| format!("in {left}")),
            };
            (format!("{what} {when}"), tone)
        }
        Fate::LeftAlone { reason, .. } => match reason.as_str() {
            "dry-run" | "protected" | "unsupported" => (reason.clone(), Tone::Dim),
            other => (format!("let go: {}", spaced(other)), Tone::Dim),
        },
        Fate::Held {
            reason, for_seconds, ..
        } => {
            let wait = for_seconds.and_then(left);
            let wait = wait.map_or_else(String::new, |wait| format!(", {wait}"));
            (format!("held: {}{wait}", spaced(reason)), Tone::Warn)
        }
        Fate::Ending { step, for_seconds } => {
            let what = match step.as_str() {
                "terminating" => "SIGTERM sent",
                "killing" => "SIGKILL sent",
                "hooking" => "its pre_kill runs",
                _ => "checking to end it",
            };
            let left = for_seconds.and_then(left);
            let left = left.map_or_else(String::new, |left| format!(", {left}"));
            (format!("{what}{left}"), Tone::Alarm)
        }
    }
}

/// `12 s`, and longer ones as ages are.
fn brief(left: Duration) -> String {
    // What is left of a second is one: a countdown ends at zero.
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        text::age(Duration::from_secs(seconds))
    }
}

/// What a rule in dry-run would do.
fn would(action: &str) -> String {
    format!("would {action}")
}

fn spaced(reason: &str) -> String {
    reason.replace('-', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(fate: &str) -> Fate {
        serde_json::from_str(fate).unwrap()
    }

    #[test]
    fn a_fate_is_told_in_a_few_words_and_counts_down() {
        let due = |more: &str| format!(r#"{{"state":"due","in_seconds":15.2,{more}}}"#);
        for (fate, elapsed, words) in [
            (due(r#""action":"kill","mode":"enforce""#), 3, "kill in 13 s"),
            (due(r#""action":"term","mode":"enforce""#), 20, "term due"),
            (
                due(r#""action":"kill","mode":"dry-run""#),
                3,
                "would kill in 13 s",
            ),
            (
                due(r#""action":"kill","mode":"dry-run","unless":"dry-run""#),
                0,
                "would kill in 16 s",
            ),
            (
                due(r#""action":"kill","mode":"enforce","unless":"protected""#),
                0,
                "protected",
            ),
            (due(r#""action":"alert","mode":"dry-run""#), 0, "alert in 16 s"),
            (
                r#"{"state":"held","reason":"reader-stopped"}"#.to_owned(),
                0,
                "held: reader stopped",
            ),
            (
                r#"{"state":"held","reason":"budget","for_seconds":90.0}"#.to_owned(),
                20,
                "held: budget, 1m10s",
            ),
            (
                r#"{"state":"ending","step":"terminating","for_seconds":9.5}"#.to_owned(),
                1,
                "SIGTERM sent, 9 s",
            ),
            (
                r#"{"state":"left-alone","reason":"progressed"}"#.to_owned(),
                0,
                "let go: progressed",
            ),
            (r#"{"state":"no-rule"}"#.to_owned(), 0, "no rule"),
        ] {
            assert_eq!(
                of(&parsed(&fate), Duration::from_secs(elapsed)).0,
                words,
                "{fate}"
            );
        }
    }
}
