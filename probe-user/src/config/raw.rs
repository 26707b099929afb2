//! The keys of a configuration file and the types of their values.
//!
//! It knows what may be written where, not which values make sense; and it puts
//! the parser's errors into the words of the configuration.

use serde::{Deserialize, de::DeserializeOwned};
use serde_path_to_error::{Path as KeyPath, Segment};
use toml::Spanned;

use super::{
    problem::{Problem, instead},
    source::Source,
};

/// A text that knows its place.
pub(super) type Text = Spanned<String>;

/// A file, its values typed.
#[derive(Debug)]
pub(super) struct File {
    pub(super) source: Source,
    pub(super) raw: Raw,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    pub(super) observe: Option<Spanned<RawObserve>>,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RawRule>>,
    pub(super) protect: Option<Spanned<RawProtect>>,
    pub(super) state: Option<Spanned<RawState>>,
    pub(super) limits: Option<Spanned<RawLimits>>,
    pub(super) api: Option<Spanned<RawApi>>,
    pub(super) metrics: Option<Spanned<RawMetrics>>,
    #[serde(default)]
    pub(super) webhook: Vec<Spanned<RawWebhook>>,
    pub(super) spool: Option<Spanned<RawSpool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawObserve {
    pub(super) comm: Option<Spanned<Vec<Text>>>,
    pub(super) channels: Option<Spanned<Vec<Text>>>,
    pub(super) report_after: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawRule {
    pub(super) name: Option<Text>,
    #[serde(rename = "match")]
    pub(super) matches: Option<Spanned<RawMatch>>,
    pub(super) stalled_for: Option<Text>,
    pub(super) stalled_share: Option<Spanned<RawShare>>,
    pub(super) action: Option<Text>,
    pub(super) grace: Option<Text>,
    pub(super) mode: Option<Text>,
    #[serde(default)]
    pub(super) allow_stderr_kill: bool,
    #[serde(default = "yes")]
    pub(super) hold_when_reader_stopped: bool,
    pub(super) pile_up: Option<Spanned<u32>>,
    pub(super) group_by: Option<Text>,
    pub(super) leave: Option<Spanned<u32>>,
    pub(super) budget: Option<Spanned<RawBudget>>,
    pub(super) cooldown: Option<Spanned<RawCooldown>>,
    pub(super) unless_cpu_pressure_over: Option<Text>,
    pub(super) pre_kill: Option<Spanned<Vec<Text>>>,
    pub(super) pre_kill_timeout: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawShare {
    pub(super) share: Option<Text>,
    pub(super) over: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawBudget {
    pub(super) kills: Option<Spanned<u32>>,
    pub(super) per: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawCooldown {
    pub(super) per: Option<Text>,
    pub(super) after: Option<Spanned<u32>>,
    pub(super) within: Option<Text>,
    #[serde(rename = "for")]
    pub(super) lasts: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawLimits {
    pub(super) budget: Option<Spanned<RawBudget>>,
    pub(super) max_distinct: Option<Spanned<RawDistinct>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawDistinct {
    pub(super) exes: Option<Spanned<u32>>,
    pub(super) per: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawMatch {
    pub(super) comm: Option<Text>,
    pub(super) thread: Option<Text>,
    pub(super) exe: Option<Text>,
    pub(super) cmdline: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) group: Option<Text>,
    pub(super) parent: Option<Text>,
    pub(super) ancestor: Option<Text>,
    pub(super) cgroup: Option<Text>,
    pub(super) unit: Option<Text>,
    pub(super) container: Option<Text>,
    pub(super) channel: Option<Text>,
    pub(super) stream: Option<Text>,
    pub(super) culprit: Option<RawCulprit>,
    pub(super) reader: Option<RawReader>,
    pub(super) deadlock: Option<bool>,
    pub(super) min_process_age: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawCulprit {
    pub(super) comm: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawReader {
    pub(super) state: Option<Text>,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawProtect {
    #[serde(default)]
    pub(super) comm: Vec<Text>,
    #[serde(default)]
    pub(super) users: Vec<Text>,
    #[serde(default)]
    pub(super) units: Vec<Text>,
    #[serde(default)]
    pub(super) exe: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawState {
    pub(super) dir: Option<Text>,
    pub(super) rotate_mib: Option<Spanned<u64>>,
    pub(super) keep_files: Option<Spanned<u64>>,
    pub(super) keep_for: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawApi {
    pub(super) socket: Option<Text>,
    pub(super) group: Option<Text>,
    pub(super) operators: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawMetrics {
    pub(super) listen: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawWebhook {
    pub(super) name: Option<Text>,
    pub(super) url: Option<Text>,
    pub(super) url_file: Option<Text>,
    pub(super) url_credential: Option<Text>,
    pub(super) format: Option<Text>,
    pub(super) secret_file: Option<Text>,
    pub(super) secret_credential: Option<Text>,
    pub(super) events: Option<Spanned<Vec<Text>>>,
    pub(super) group_by: Option<Spanned<Vec<Text>>>,
    pub(super) group_wait: Option<Text>,
    pub(super) group_interval: Option<Text>,
    pub(super) repeat_interval: Option<Text>,
    pub(super) send_resolved: Option<bool>,
    pub(super) title: Option<Text>,
    pub(super) text: Option<Text>,
    #[serde(default)]
    pub(super) redact: Vec<Text>,
    pub(super) redact_defaults: Option<bool>,
    pub(super) timeout: Option<Text>,
    pub(super) retry_min: Option<Text>,
    pub(super) retry_max: Option<Text>,
    pub(super) ca_file: Option<Text>,
    pub(super) proxy: Option<Text>,
    #[serde(default)]
    pub(super) allow_private: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RawSpool {
    pub(super) max_mib: Option<Spanned<u32>>,
    pub(super) max_age: Option<Text>,
}

impl File {
    /// Gives a text's keys their types.
    ///
    /// # Errors
    /// The text is not TOML, or the first key that is unknown or has a value of a wrong type.
    pub(super) fn parse(source: Source) -> Result<Self, Problem> {
        let raw = typed(&source)?;
        Ok(Self { source, raw })
    }
}

/// Gives a text's keys the types of `T`.
///
/// # Errors
/// As for [`File::parse`].
pub(super) fn typed<T: DeserializeOwned>(source: &Source) -> Result<T, Problem> {
    let document = toml::Deserializer::parse(source.text()).map_err(|error| not_toml(source, &error))?;
    serde_path_to_error::deserialize(document).map_err(|error| wrong_key(source, error.path(), error.inner()))
}

fn not_toml(source: &Source, error: &toml::de::Error) -> Problem {
    let reason = match error.message() {
        "duplicate key" => "the key or table is already set above; keep one of the two".to_owned(),
        message => message.replacen(", expected ", "; expected ", 1),
    };
    source.problem(start(error), format!("is not TOML: {reason}"))
}

fn wrong_key(source: &Source, path: &KeyPath, error: &toml::de::Error) -> Problem {
    let key = key(path);
    let message = unknown_key(path, error.message()).unwrap_or_else(|| wrong_type(&key, error.message()));
    source.place(key, start(error)..start(error)).problem(message)
}

fn start(error: &toml::de::Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// The path as a reader of the file would write it: without what [`Spanned`] adds to it.
fn key(path: &KeyPath) -> String {
    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => key = format!("{key}[{index}]"),
            Segment::Map { key: name } if name.starts_with("$__serde_spanned") => {}
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(name);
            }
            Segment::Unknown => key.push_str(".?"),
        }
    }
    key
}

/// Understands serde's "unknown field `x`, expected one of `y`, `z`".
fn unknown_key(path: &KeyPath, message: &str) -> Option<String> {
    let Some(Segment::Map { key }) = path.iter().next_back() else {
        return None;
    };
    let expected = message.strip_prefix(&format!("unknown field `{key}`, expected "))?;
    // Every second piece stands between backticks.
    let known: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    Some(format!("unknown key; {}", instead(key, "keys", &known)))
}

/// Understands serde's "invalid type: x, expected y".
fn wrong_type(key: &str, message: &str) -> String {
    let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let found = match found {
        "map" => "a table or a date",
        "sequence" => "a list",
        other => other,
    };
    let expected = match (key, expected) {
        ("rule", "a sequence") => "[[rule]], in double brackets",
        ("webhook", "a sequence") => "[[webhook]], in double brackets",
        (_, "a sequence") => "a list of strings, such as [\"…\"]",
        (key, _)
            if matches!(
                key.rsplit_once('.'),
                Some((
                    _,
                    "stalled_for"
                        | "grace"
                        | "report_after"
                        | "min_process_age"
                        | "group_wait"
                        | "group_interval"
                        | "repeat_interval"
                        | "timeout"
                        | "retry_min"
                        | "retry_max"
                        | "max_age"
                ))
            ) =>
        {
            DURATION
        }
        (key, "a table") if key.ends_with(".stalled_share") => {
            "a table such as { share = \"80%\", over = \"5m\" }"
        }
        (key, "a table") if key.ends_with(".culprit") => "culprit.comm = \"…\"",
        (key, "a table") if key.ends_with(".reader") => "reader.state = \"…\"",
        (_, "a boolean") => "true or false",
        (_, other) => other,
    };
    format!("wrong type, {found}; write {expected}")
}

/// What a duration looks like, for messages.
pub(super) const DURATION: &str = "hours, minutes and seconds in quotes, such as \"60s\" or \"1m 30s\"";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn unknown_keys_and_wrong_types_are_told_with_what_would_be_right() {
        for (text, expected) in [
            (
                "[[rule]]\nstalled_fr = '60s'",
                "2:1: rule[0].stalled_fr: unknown key; did you mean `stalled_for`?",
            ),
            ("[rules]", "1:2: rules: unknown key; did you mean `rule`?"),
            (
                "[elsewhere]",
                "1:2: elsewhere: unknown key; known keys: `observe`, `rule`, `protect`, `state`, `limits`, \
                 `api`, `metrics`, `webhook`, `spool`",
            ),
            (
                "[webhook]\nname = 'x'",
                "1:1: webhook: wrong type, a table or a date; write [[webhook]], in double brackets",
            ),
            (
                "[[webhook]]\ngroup_wait = 5",
                "2:14: webhook[0].group_wait: wrong type, integer `5`; \
                 write hours, minutes and seconds in quotes, such as \"60s\" or \"1m 30s\"",
            ),
            (
                "[state]\n'a`b' = 1",
                "2:1: state.a`b: unknown key; known keys: `dir`, `rotate_mib`, `keep_files`, `keep_for`",
            ),
            (
                "[[rule]]\n[[rule]]\nmatch = { command = 'x' }",
                "3:11: rule[1].match.command: unknown key; did you mean `comm`?",
            ),
            (
                "[[rule]]\nmatch.pid = 'x'",
                "2:7: rule[0].match.pid: unknown key; known keys: `comm`, `thread`, `exe`, `cmdline`, `user`, \
                 `group`, `parent`, `ancestor`, `cgroup`, `unit`, `container`, `channel`, `stream`, \
                 `culprit`, `reader`, `deadlock`, `min_process_age`",
            ),
            (
                "[rule]\nname = 'x'",
                "1:1: rule: wrong type, a table or a date; write [[rule]], in double brackets",
            ),
            (
                "observe = 3",
                "1:11: observe: wrong type, integer `3`; write a table",
            ),
            (
                "[observe]\ncomm = 'ffmpeg'",
                "2:8: observe.comm: wrong type, string \"ffmpeg\"; write a list of strings, such as [\"…\"]",
            ),
            (
                "[protect]\nusers = ['root', 0]",
                "2:18: protect.users[1]: wrong type, integer `0`; write a string",
            ),
            (
                "[observe]\nreport_after = 5",
                "2:16: observe.report_after: wrong type, integer `5`; \
                 write hours, minutes and seconds in quotes, such as \"60s\" or \"1m 30s\"",
            ),
            (
                "[[rule]]\nstalled_for = 1.5",
                "2:15: rule[0].stalled_for: wrong type, floating point `1.5`; \
                 write hours, minutes and seconds in quotes, such as \"60s\" or \"1m 30s\"",
            ),
            (
                "[[rule]]\nallow_stderr_kill = 'a, expected b'",
                "2:21: rule[0].allow_stderr_kill: wrong type, string \"a, expected b\"; write true or false",
            ),
            (
                "[[rule]]\nmatch = 'x'",
                "2:9: rule[0].match: wrong type, string \"x\"; write a table",
            ),
        ] {
            assert_eq!(error(text), format!("a.toml:{expected}"), "{text}");
        }
    }

    #[test]
    fn what_is_not_toml_is_told_by_line_and_column() {
        for (text, expected) in [
            ("observe", "1:8: is not TOML: key with no value; expected `=`"),
            (
                "[observe]\ncomm = ['a'\n[x",
                "3:1: is not TOML: missing comma between array elements; expected `,`",
            ),
            (
                "[state]\n\n[state]",
                "3:2: is not TOML: the key or table is already set above; keep one of the two",
            ),
            (
                "a = 'x\nb = 1",
                "1:7: is not TOML: invalid literal string; expected `'`",
            ),
        ] {
            assert_eq!(error(text), format!("a.toml:{expected}"), "{text}");
        }
    }

    fn error(text: &str) -> String {
        File::parse(Source::new(Path::new("a.toml"), text))
            .unwrap_err()
            .to_string()
    }
}
