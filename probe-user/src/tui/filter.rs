//! What `/` takes: conditions in the words of a rule's `match`, and plain words.
//!
//! `user=peertube comm=ffmpeg*` is what `match = { user = "peertube", comm = "ffmpeg*" }` is in a
//! configuration, and that may be pasted too. A word without `=` may stand anywhere in what is
//! shown of a writer.

use std::ops::Range;

use super::model::Row;
use crate::{config::Config, core::matcher::Match};

/// What rows are shown; by default, all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    text: String,
    matches: Match,
    words: Vec<String>,
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In which bytes of the text.
    pub at: Range<usize>,
    /// What it is, and what would be right.
    pub message: String,
}

impl Filter {
    /// Understands a line.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let trimmed = text.trim_start();
        let (lines, words) =
            if trimmed.starts_with('{') || trimmed.starts_with("match") && trimmed.contains('{') {
                (table(text)?, Vec::new())
            } else {
                pieces(text)?
            };
        let document: Vec<_> = lines.iter().map(|(line, _)| line.as_str()).collect();
        let matches = Config::conditions(&document.join("\n")).map_err(|problem| {
            let line = problem.position().map_or(1, |position| position.line);
            let at = lines.get(line.saturating_sub(1)).map(|(_, at)| at.clone());
            Wrong {
                at: at.unwrap_or(0..text.len()),
                message: problem.message(),
            }
        })?;
        for (key, given) in [
            ("group", matches.group.is_some()),
            ("ancestor", matches.ancestor.is_some()),
            ("min_process_age", matches.min_process_age.is_some()),
        ] {
            if given {
                let at = text.find(key).unwrap_or(0);
                let message = format!("`{key}` is for rules: what is shown here does not tell it");
                return Err(Wrong {
                    at: at..at + key.len(),
                    message,
                });
            }
        }
        Ok(Self {
            text: text.trim().to_owned(),
            matches,
            words,
        })
    }

    /// The line as it was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it lets a row through.
    #[must_use]
    pub fn holds(&self, row: &Row) -> bool {
        let asks = self.matches.asks_about_readers();
        let cause = asks.then(|| row.cause()).flatten();
        self.matches.applies(row.subject(cause.as_ref())) && self.words.iter().all(|word| mentions(row, word))
    }
}

/// Whether a word, in lower case, stands anywhere in what is shown of a row.
fn mentions(row: &Row, word: &str) -> bool {
    let (user, pid, culprit) = (row.user(), row.pid.to_string(), row.culprit_label());
    let facts = &row.facts;
    [
        Some(row.comm.as_str()),
        Some(&row.thread),
        Some(&row.command),
        Some(&user),
        Some(&pid),
        Some(&row.channel),
        facts.parent.as_deref(),
        row.unit(),
        row.rule.as_deref(),
        culprit.as_deref(),
    ]
    .into_iter()
    .flatten()
    .any(|text| text.to_lowercase().contains(word))
}

/// Conditions as lines of TOML, with the bytes of the text that each comes from.
type Lines = Vec<(String, Range<usize>)>;

/// Takes apart `key=value`, `key="value with spaces"` and words.
fn pieces(text: &str) -> Result<(Lines, Vec<String>), Wrong> {
    let (mut lines, mut words) = (Lines::new(), Vec::new());
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok((lines, words));
        }
        let start = text.len() - rest.len();
        let mut quoted = false;
        let len = rest
            .find(|c: char| {
                quoted ^= c == '"';
                c.is_whitespace() && !quoted
            })
            .unwrap_or(rest.len());
        let at = start..start + len;
        if quoted {
            return Err(Wrong {
                at,
                message: "a quotation mark is missing at the end".to_owned(),
            });
        }
        let piece = &rest[..len];
        rest = &rest[len..];
        match piece.split_once('=') {
            Some((key, value)) => {
                let value = value.replace('"', "");
                let truth = matches!(value.as_str(), "true" | "false") && key == "deadlock";
                let value = if truth { value } else { toml_string(&value) };
                // A word that no key can be is quoted, so that TOML has nothing to say of it.
                let key = key.split('.').map(toml_string).collect::<Vec<_>>().join(".");
                lines.push((format!("{key} = {value}"), at));
            }
            None => words.push(piece.replace('"', "").to_lowercase()),
        }
    }
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Takes apart an inline table, as a configuration has it.
fn table(text: &str) -> Result<Lines, Wrong> {
    let start = text.find('{').unwrap_or(0);
    let document = format!("m = {}", &text[start..]);
    let parsed: toml::Table = document.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let at = (at + start).saturating_sub("m = ".len()).min(text.len());
        Wrong {
            at: at..text.len(),
            message: error.message().to_owned(),
        }
    })?;
    let conditions = parsed.get("m").and_then(toml::Value::as_table);
    let line = |(key, value): (&String, &toml::Value)| {
        let at = text.find(key.as_str()).unwrap_or(start);
        (format!("{} = {value}", toml_string(key)), at..at + key.len())
    };
    Ok(conditions.into_iter().flatten().map(line).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        core::model::{Facts, Stream},
        tui::model::Party,
    };

    fn party(pid: u32, comm: &str, state: &str) -> Party {
        Party {
            pid,
            comm: comm.to_owned(),
            state: state.to_owned(),
            ..Party::default()
        }
    }

    fn row() -> Row {
        Row {
            pid: 4711,
            comm: "ffmpeg".to_owned(),
            thread: "mux0:mp4".to_owned(),
            command: "ffmpeg -i pipe:0 pipe:1".to_owned(),
            channel: "unix".to_owned(),
            readers: Some(vec![party(20, "gzip", "S"), party(21, "tail", "T")]),
            culprit: Some(party(30, "ssh", "T")),
            stream: Some(Stream::Stdout),
            rule: Some("downloads".to_owned()),
            facts: Arc::new(Facts {
                cmdline: ["ffmpeg", "-i", "pipe:0", "pipe:1"].map(str::to_owned).to_vec(),
                user: Some("peertube".to_owned()),
                parent: Some("node".to_owned()),
                ..Facts::default()
            }),
            ..Row::default()
        }
    }

    #[test]
    fn conditions_are_those_of_rules_and_words_stand_anywhere() {
        for (text, expected) in [
            ("", true),
            ("user=peertube comm=ffmpeg*", true),
            ("user=peertube comm=ffprobe", false),
            ("cmdline=\"*pipe:0 pipe:1\"", true),
            ("cmdline=~pipe:1$", true),
            ("cmdline=~^pipe", false),
            ("channel=unix stream=stdout", true),
            ("channel=pipe", false),
            ("thread=mux[0-9]:*", true),
            ("4711", true),
            ("FFMPEG Down", true),
            ("ffmpeg nobody", false),
            ("{ comm = \"ffmpeg*\", parent = 'node' }", true),
            ("match = { parent = \"bash\" }", false),
            ("matching", false),
            ("culprit.comm=ssh", true),
            ("culprit.comm=gzip", false),
            ("reader.state=stopped culprit.comm=s*", true),
            ("reader.state=frozen", false),
            ("deadlock=false", true),
            ("deadlock=true", false),
            (
                "{ culprit.comm = 'ssh', reader = { state = 'sleeping' }, deadlock = false }",
                true,
            ),
        ] {
            assert_eq!(Filter::parse(text).unwrap().holds(&row()), expected, "{text}");
        }
    }

    #[test]
    fn a_deadlock_is_found_and_of_a_writer_whose_readers_are_not_known_nothing_is_said() {
        let dead = Row {
            deadlock: true,
            ..row()
        };
        let unknown = Row {
            readers: None,
            culprit: None,
            ..row()
        };
        for (text, expected) in [
            ("deadlock=true", [true, false]),
            ("deadlock=false", [false, false]),
            ("culprit.comm=*", [true, false]),
        ] {
            let filter = Filter::parse(text).unwrap();
            assert_eq!([&dead, &unknown].map(|row| filter.holds(row)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place, message) in [
            (
                "comm=ffmpeg* usr=peertube",
                "usr=peertube",
                "unknown key; did you mean `user`?",
            ),
            (
                "channel=socket",
                "channel=socket",
                "there is no channel `socket`; known channels: `pipe`, `fifo`, `unix`",
            ),
            (
                "x cmdline=~a(b",
                "cmdline=~a(b",
                "`~a(b` is no regular expression: unclosed group; a pattern that starts with `~` must be \
                 one; write `[~]` for a plain `~`",
            ),
            (
                "comm=",
                "comm=",
                "is empty; use \"*\" for anything, or leave it out",
            ),
            (
                "cmdline=\"a b",
                "cmdline=\"a b",
                "a quotation mark is missing at the end",
            ),
            (
                "ancestor=sshd",
                "ancestor",
                "`ancestor` is for rules: what is shown here does not tell it",
            ),
            (
                "x deadlock=perhaps",
                "deadlock=perhaps",
                "wrong type, string \"perhaps\"; write true or false",
            ),
            (
                "culprit.com=x",
                "culprit.com=x",
                "unknown key; did you mean `comm`?",
            ),
            (
                "{ command = 'x' }",
                "command",
                "unknown key; did you mean `comm`?",
            ),
        ] {
            let wrong = Filter::parse(text).unwrap_err();
            assert_eq!(
                (&text[wrong.at], wrong.message.as_str()),
                (place, message),
                "{text}"
            );
        }
        assert!(Filter::parse("{ comm = }").is_err());
        assert!(Filter::parse("comm=a comm=b").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_a_filter_or_is_wrong_in_a_place_of_it(text in "(match )?[ {=\"~*a-z\\PC]{0,20}") {
            if let Err(wrong) = Filter::parse(&text) {
                proptest::prop_assert!(text.get(wrong.at).is_some());
            }
        }
    }
}
