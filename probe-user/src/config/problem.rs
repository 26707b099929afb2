//! What is wrong with a configuration, where, and what would be right.
//!
//! It knows how a problem is written down, not what can be wrong.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counts from 1.
    pub line: usize,
    /// Counts characters from 1.
    pub column: usize,
}

impl Position {
    /// Where the byte at `offset` is in `text`; its end, if it is not inside.
    pub(super) fn of(offset: usize, text: &str) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong. Displayed in one line: `FILE:LINE:COL: KEY: what is wrong; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: PathBuf,
    position: Option<Position>,
    key: Option<String>,
    message: String,
}

impl Problem {
    pub(super) fn new(
        file: &Path,
        position: Option<Position>,
        key: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            position,
            key: key.map(str::to_owned),
            message: message.into(),
        }
    }

    /// The file that it is in.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where in the file; `None` if it is about the file as a whole.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// The key's path, such as `rule[0].stalled_for`; `None` if it is about no key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What is wrong, and what would be right.
    #[must_use]
    pub fn message(&self) -> String {
        OneLine(&self.message).to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {}", OneLine(key))?;
        }
        write!(f, ": {}", OneLine(&self.message))
    }
}

/// A text whose control characters are escaped: it may quote the file, and stays one line.
pub(super) struct OneLine<'a>(pub(super) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() {
                write!(f, "{}", c.escape_default())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

/// Why there is no configuration: one or more problems, displayed a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) const fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The problems, at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// What to write instead of `given`: the known word that is near, else all of them.
pub(super) fn instead(given: &str, what: &str, known: &[&str]) -> String {
    // Jaro rates a shared beginning (`command` for `comm`) above what edit distance makes of it.
    const NEAR: f64 = 0.75;
    let given = given.to_lowercase();
    let nearest = known
        .iter()
        .map(|word| (strsim::jaro(&given, word), *word))
        .filter(|(nearness, _)| *nearness >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => format!("known {what}: {}", list(known)),
    }
}

/// The words, each in backticks, with commas between them.
pub(super) fn list<T: AsRef<str>>(words: &[T]) -> String {
    words
        .iter()
        .map(|word| format!("`{}`", word.as_ref()))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "ab\nçd\n";
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 2),
            (3, 2, 1),
            (5, 2, 2),
            (7, 3, 1),
            (99, 3, 1),
            (4, 3, 1),
        ] {
            assert_eq!(Position::of(offset, text), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn a_problem_stays_one_line_whatever_it_quotes() {
        let at = Position { line: 3, column: 4 };

        let problem = Problem::new(Path::new("a.toml"), Some(at), Some("k\u{7}"), "`x\ny` is wrong");

        assert_eq!(problem.to_string(), "a.toml:3:4: k\\u{7}: `x\\ny` is wrong");
    }

    #[test]
    fn only_near_words_are_suggested() {
        let streams = ["stdin", "stdout", "stderr"];
        let keys = ["comm", "cmdline", "user", "parent", "stream"];
        for (given, known, expected) in [
            ("stdot", &streams[..], "did you mean `stdout`?"),
            ("STDERR", &streams[..], "did you mean `stderr`?"),
            ("socket", &streams[..], "known words: `stdin`, `stdout`, `stderr`"),
            ("", &streams[..], "known words: `stdin`, `stdout`, `stderr`"),
            ("command", &keys[..], "did you mean `comm`?"),
            ("cmd", &keys[..], "did you mean `cmdline`?"),
            ("users", &keys[..], "did you mean `user`?"),
            (
                "unit",
                &keys[..],
                "known words: `comm`, `cmdline`, `user`, `parent`, `stream`",
            ),
        ] {
            assert_eq!(instead(given, "words", known), expected, "{given:?}");
        }
    }
}
