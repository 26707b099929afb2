//! Turns single texts into values: patterns, durations, and words from a fixed set.
//!
//! It must not know which key a text belongs to.

use std::time::Duration;

use jiff::SignedDuration;

use crate::{
    config::{
        problem::{Problem, instead},
        raw::DURATION,
        source::Place,
    },
    core::{
        model::human,
        pattern::{Pattern, PatternError},
    },
};

/// From the least to the most.
pub(super) type Limits = (Duration, Duration);

/// A pattern, which must not be empty.
pub(super) fn pattern(place: &Place<'_>, text: &str) -> Result<Pattern, Problem> {
    if matches!(text, "" | "~") {
        return Err(place.problem("is empty; use \"*\" for anything, or leave it out"));
    }
    Pattern::parse(text).map_err(|error| {
        let right = match error {
            PatternError::Glob(_) => "use `*` and `?`",
            PatternError::Regex(_) => {
                "a pattern that starts with `~` must be one; write `[~]` for a plain `~`"
            }
        };
        place.problem(format!("`{text}` {error}; {right}"))
    })
}

/// A duration within the limits, both of them included.
pub(super) fn duration(place: &Place<'_>, text: &str, (least, most): Limits) -> Result<Duration, Problem> {
    let signed: SignedDuration = text
        .parse()
        .map_err(|_| place.problem(format!("`{text}` is no duration; write {DURATION}")))?;
    // A negative one is shorter than any limit.
    let duration = Duration::try_from(signed).unwrap_or_default();
    if duration < least {
        return Err(place.problem(format!("`{text}` is too short; use {} or more", human(least))));
    }
    if duration > most {
        return Err(place.problem(format!("`{text}` is too long; use {} or less", human(most))));
    }
    Ok(duration)
}

/// The one of `choices` that `text` names; `what` is what they are called, one and several.
pub(super) fn one_of<T: Copy>(
    place: &Place<'_>,
    text: &str,
    (what, plural): (&str, &str),
    choices: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    choices
        .iter()
        .copied()
        .find(|choice| name(*choice) == text)
        .ok_or_else(|| {
            let known: Vec<_> = choices.iter().map(|choice| name(*choice)).collect();
            place.problem(format!(
                "there is no {what} `{text}`; {}",
                instead(text, plural, &known)
            ))
        })
}
