//! What a text is compared with: a glob as in shells, or a regular expression.

use globset::GlobMatcher;
use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// A regular expression starts with this.
const REGEX: char = '~';

/// What a compiled regular expression may take, in bytes: repetitions can blow one up.
const SIZE_LIMIT: usize = 1 << 20;

/// A glob over a whole text, where `*` also matches `/`; or, after a `~`, a regular expression
/// that may match anywhere in it unless it is anchored. Both take time linear in the text.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Glob(GlobMatcher),
    Regex(Regex),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// It is no glob.
    #[error("is no glob: {0}")]
    Glob(String),
    /// What follows the `~` is no regular expression.
    #[error("is no regular expression: {0}")]
    Regex(String),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The text is neither; the message says why.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let matcher = match text.strip_prefix(REGEX) {
            Some(regex) => Matcher::Regex(parse_regex(regex)?),
            None => Matcher::Glob(
                globset::GlobBuilder::new(text)
                    .literal_separator(false)
                    .backslash_escape(true)
                    .build()
                    .map_err(|error| PatternError::Glob(error.kind().to_string()))?
                    .compile_matcher(),
            ),
        };
        Ok(Self {
            text: text.to_owned(),
            matcher,
        })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text matches: a glob all of it, a regular expression any part of it.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => glob.is_match(text),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }

    /// The one text that matches, where the pattern is plain.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.text.starts_with(REGEX) && !self.text.contains(['*', '?', '[', ']', '{', '}', '\\']))
            .then_some(&self.text)
    }

    /// Whether every text that matches `other` clearly matches this too. No is no proof of the contrary.
    #[must_use]
    pub fn clearly_covers(&self, other: &Self) -> bool {
        // What every match of a glob like `abc*` starts with.
        let prefix = |text: &str| {
            let rest = text.strip_suffix('*')?.to_owned();
            Self::parse(&rest).ok()?.literal().is_some().then_some(rest)
        };
        self.text == other.text
            || self.text == "*"
            || other.literal().is_some_and(|text| self.matches(text))
            || prefix(&self.text)
                .zip(prefix(&other.text))
                .is_some_and(|(wide, narrow)| narrow.starts_with(&wide))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn parse_regex(text: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(text)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| {
            // A syntax error is shown over several lines, with the reason in the last.
            let reason = if matches!(error, regex::Error::CompiledTooBig(_)) {
                "it would be too large; repeat less often".to_owned()
            } else {
                error.to_string()
            };
            let last = reason.lines().last().unwrap_or_default();
            PatternError::Regex(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_glob_matches_all_of_a_text_and_a_regular_expression_any_part_of_it() {
        for (pattern, text, expected) in [
            ("ffmpeg", "ffmpeg", true),
            ("ffmpeg", "ffmpeg-linux", false),
            ("ffmpeg*", "ffmpeg-linux", true),
            ("*pipe:1*", "ffmpeg -i a/b -f mp4 pipe:1", true),
            ("/usr/*/ffmpeg", "/usr/local/bin/ffmpeg", true),
            ("ff{mpeg,probe}", "ffprobe", true),
            ("mux[0-9]:*", "mux0:mp4", true),
            ("mux[!0]:*", "mux0:mp4", false),
            ("a?c", "abc", true),
            ("[~]a", "~a", true),
            ("a.c", "abc", false),
            ("", "", true),
            ("~ffmpeg", "an ffmpeg here", true),
            ("~^ffmpeg$", "ffmpeg", true),
            ("~^ffmpeg$", "ffmpeg-linux", false),
            ("~^mux\\d+:", "mux0:mp4", true),
            ("~pipe:1( |$)", "-f mp4 pipe:1", true),
            ("~pipe:1( |$)", "-f mp4 pipe:10", false),
            ("~(?i)FFMPEG", "ffmpeg", true),
            ("~a.c", "abc", true),
            ("~*", "", false),
        ] {
            let matches = Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(text));
            assert_eq!(matches, expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_in_one_line() {
        for (pattern, expected) in [
            ("a[b", "is no glob: unclosed character class; missing ']'"),
            ("~a(b", "is no regular expression: unclosed group"),
            (
                "~*",
                "is no regular expression: repetition operator missing expression",
            ),
            (
                "~(?=look-ahead)",
                "is no regular expression: look-around, including look-ahead and look-behind, is not supported",
            ),
            (
                "~(\\w{100}){100}",
                "is no regular expression: it would be too large; repeat less often",
            ),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap_err().to_string(),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_regular_expression_that_backtracking_would_choke_on_takes_no_time() {
        let pattern = Pattern::parse("~^(a+)+$").unwrap();

        assert!(!pattern.matches(&format!("{}!", "a".repeat(100_000))));
    }

    #[test]
    fn what_clearly_covers_another_pattern() {
        for (wide, narrow, expected) in [
            ("root", "root", true),
            ("*", "~x", true),
            ("systemd*", "systemd-logind", true),
            ("systemd*", "systemd-*", true),
            ("~^sys", "systemd", true),
            ("~^sys", "~^sys", true),
            ("systemd-*", "systemd*", false),
            ("systemd*", "s?stemd", false),
            ("systemd*", "~^systemd", false),
            ("[s]*", "sshd*", false),
            ("root", "0", false),
        ] {
            let covers = Pattern::parse(wide)
                .unwrap()
                .clearly_covers(&Pattern::parse(narrow).unwrap());
            assert_eq!(covers, expected, "{wide} {narrow}");
        }
    }

    proptest! {
        #[test]
        fn what_is_clearly_covered_is_covered_for_every_text(
            wide in "[ab*?]{1,4}",
            narrow in "[ab*?]{1,4}",
            text in "[ab]{0,5}",
        ) {
            let (wide, narrow) = (Pattern::parse(&wide).unwrap(), Pattern::parse(&narrow).unwrap());
            prop_assert!(!wide.clearly_covers(&narrow) || !narrow.matches(&text) || wide.matches(&text));
        }

        #[test]
        fn any_text_is_a_pattern_or_a_one_line_error(text in "~?\\PC{0,20}") {
            if let Err(error) = Pattern::parse(&text) {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
