//! Takes passwords and tokens out of command lines before anything else sees them.
//!
//! What is secret cannot be known for certain; the usual places are caught, and a
//! configuration can add its own.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a secret.
pub const MARK: &str = "[redacted]";

/// Words that name a secret, as part of a name such as `api_key` or `X-Auth-Token`.
const NAMES: &str = r"(?:(?:pass(?:wd|word|phrase)?|pwd|token|secret|signature|sig|credentials?|auth|authorization|jwt|bearer|cookie|session(?:_?id)?|api_?key|access_?key|private_?key|stream_?key|key)(?:[-_.](?:id|key|value))?)";

/// The usual secrets. Where a pattern has a group `secret`, only that is taken out.
static USUAL: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        // https://user:SECRET@host
        r"(?i)[a-z][a-z0-9+.-]*://[^\s/?#@:]*:(?<secret>[^\s/?#]+)@".to_owned(),
        // ?token=SECRET, --api-key=SECRET, X_PASSWORD=SECRET, {"token":"SECRET"}
        format!(r#"(?i)(?:^|[^a-z])(?:[a-z0-9]+[-_.])*{NAMES}["']?\s*[=:]\s*["']?(?:(?:bearer|basic|token)\s+)?(?<secret>[^\s&;,"'#]+)"#),
        // Authorization: Bearer SECRET, wherever
        r"(?i)\b(?:bearer|basic)\s+(?<secret>[a-z0-9+/_.~=-]{8,})".to_owned(),
        // rtmp://host/application/STREAMKEY
        r"(?i)\brtmp[a-z]*://[^\s/]+/[^\s/]+/(?<secret>[^\s]+)".to_owned(),
        // JSON web tokens, and the secrets of webhooks
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*".to_owned(),
        r"\bwhsec_[A-Za-z0-9+/=_-]+".to_owned(),
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});

/// An option whose value is the next argument: `--token SECRET`.
static OPTION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"(?i)^--?(?:[a-z0-9]+[-_.])*{NAMES}$")).ok());

/// Which patterns are taken out.
#[derive(Clone, Debug)]
pub struct Redaction {
    /// Whether the usual secrets are.
    pub usual: bool,
    /// What else is.
    pub patterns: Vec<Regex>,
}

impl PartialEq for Redaction {
    fn eq(&self, other: &Self) -> bool {
        let patterns = |it: &Self| it.patterns.iter().map(Regex::to_string).collect::<Vec<_>>();
        self.usual == other.usual && patterns(self) == patterns(other)
    }
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            usual: true,
            patterns: Vec::new(),
        }
    }
}

impl Redaction {
    /// Takes secrets out of every command line in an event.
    pub fn apply(&self, event: &mut Value) {
        match event {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Value::Array(arguments) = value
                        && name == "cmdline"
                    {
                        self.arguments(arguments);
                    } else {
                        self.apply(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn arguments(&self, arguments: &mut [Value]) {
        let mut is_secret = false;
        for argument in arguments {
            let Value::String(text) = argument else { continue };
            let names_next = self.usual && OPTION.as_ref().is_some_and(|option| option.is_match(text));
            if is_secret && !text.starts_with('-') {
                MARK.clone_into(text);
            } else {
                *text = self.text(text);
            }
            is_secret = names_next;
        }
    }

    /// Takes secrets out of one text.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let usual: &[Regex] = if self.usual { &USUAL } else { &[] };
        let mut text = text.to_owned();
        for pattern in usual.iter().chain(&self.patterns) {
            if pattern.is_match(&text) {
                text = pattern.replace_all(&text, without_secret).into_owned();
            }
        }
        text
    }
}

fn without_secret(found: &Captures<'_>) -> String {
    let whole = found.get_match();
    let Some(secret) = found.name("secret") else {
        return MARK.to_owned();
    };
    let text = whole.as_str();
    let (from, to) = (secret.start() - whole.start(), secret.end() - whole.start());
    format!("{}{MARK}{}", &text[..from], &text[to..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redacted(redaction: &Redaction, arguments: &[&str]) -> Vec<String> {
        let mut event = json!({ "stall": { "cmdline": arguments } });
        redaction.apply(&mut event);
        serde_json::from_value(event["stall"]["cmdline"].take()).unwrap()
    }

    #[test]
    fn all_usual_patterns_are_regular_expressions() {
        assert_eq!(USUAL.len(), 6);
        assert!(OPTION.is_some());
    }

    #[test]
    fn the_usual_places_of_secrets_are_covered() {
        for (argument, expected) in [
            (
                "https://ann:hunter2@example.com/x",
                "https://ann:[redacted]@example.com/x",
            ),
            (
                "https://ann:hun:t@er2@example.com/x",
                "https://ann:[redacted]@example.com/x",
            ),
            ("https://h/v?token=abc&x=1", "https://h/v?token=[redacted]&x=1"),
            (
                "https://h/v?x=1&X-Amz-Signature=abc",
                "https://h/v?x=1&X-Amz-Signature=[redacted]",
            ),
            (
                "https://h/v?access_token=abc#f",
                "https://h/v?access_token=[redacted]#f",
            ),
            ("--token=abc", "--token=[redacted]"),
            ("--api-key=abc", "--api-key=[redacted]"),
            ("DB_PASSWORD=abc", "DB_PASSWORD=[redacted]"),
            ("-headers", "-headers"),
            (
                "Authorization: Bearer abc.def",
                "Authorization: Bearer [redacted]",
            ),
            (
                "X-Auth-Token: abc\r\nAccept: */*",
                "X-Auth-Token: [redacted]\r\nAccept: */*",
            ),
            ("{\"password\":\"abc\"}", "{\"password\":\"[redacted]\"}"),
            (
                "rtmp://127.0.0.1:1935/live/s3cr3t",
                "rtmp://127.0.0.1:1935/live/[redacted]",
            ),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.c2ln", "[redacted]"),
        ] {
            assert_eq!(redacted(&Redaction::default(), &[argument]), [expected]);
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        let arguments = [
            "ffmpeg",
            "-i",
            "pipe:0",
            "-threads",
            "4",
            "-c",
            "copy",
            "-movflags",
            "frag_keyframe+empty_moov",
            "-f",
            "mp4",
            "pipe:1",
            "-keyint_min",
            "48",
            "-map",
            "0:a",
            "https://example.com/watch?v=1&author=ann",
            "-metadata",
            "title=A: b",
            "-x264-params",
            "keyint=48:scenecut=0",
            "-y",
            "-monkey=1",
            "rtmp://host/live",
        ];
        assert_eq!(redacted(&Redaction::default(), &arguments), arguments);
    }

    #[test]
    fn the_argument_after_an_option_that_names_a_secret_is_one() {
        assert_eq!(
            redacted(
                &Redaction::default(),
                &["--password", "hunter2", "-token", "-v", "--api_key", "k", "x"]
            ),
            ["--password", MARK, "-token", "-v", "--api_key", MARK, "x"]
        );
    }

    #[test]
    fn a_configuration_adds_patterns_or_takes_the_usual_ones_away() {
        let own = Redaction {
            usual: false,
            patterns: vec![
                Regex::new(r"id-(?<secret>\d+)").unwrap(),
                Regex::new("/home/\\w+").unwrap(),
            ],
        };
        assert_eq!(
            redacted(&own, &["id-123", "/home/ann/x", "--token=abc"]),
            ["id-[redacted]", "[redacted]/x", "--token=abc"]
        );
    }

    #[test]
    fn command_lines_are_found_wherever_they_are_in_an_event() {
        let mut event = json!({ "stall": { "chain": [{ "cmdline": ["--token=a"] }], "cmdline": [] }, "x": ["--token=b"] });
        Redaction::default().apply(&mut event);
        assert_eq!(event["stall"]["chain"][0]["cmdline"][0], "--token=[redacted]");
        assert_eq!(event["x"][0], "--token=b");
    }

    proptest! {
        #[test]
        fn a_secret_in_a_usual_place_never_stays(secret in "[A-Za-z0-9+/_.~-]{8,40}", place in 0..5_u8) {
            let argument = match place {
                0 => format!("https://u:{}@h/x", secret.replace('/', "_")),
                1 => format!("https://h/x?a=1&token={secret}"),
                2 => format!("--secret={secret}"),
                3 => format!("Authorization: Bearer {secret}"),
                _ => format!("rtmps://h/live/{secret}"),
            };
            let said = redacted(&Redaction::default(), &[&argument]);
            let kept = if place == 0 { secret.replace('/', "_") } else { secret };
            prop_assert!(!said[0].contains(&kept), "{}", said[0]);
        }
    }
}
