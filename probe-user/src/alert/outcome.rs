//! What an answer means: pure, so that every case can be tried.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

use super::time::between;

/// No receiver holds up alerts for longer by what it says.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It may work later.
    Failed {
        /// Why it did not.
        why: String,
        /// How long the receiver wants to be left alone.
        wait: Option<Duration>,
    },
    /// The receiver will never take it.
    Refused(String),
    /// The receiver wants nothing more.
    Gone(String),
}

impl Outcome {
    /// That of an attempt without an answer.
    #[must_use]
    pub const fn failed(why: String) -> Self {
        Self::Failed { why, wait: None }
    }

    /// That of an answer: its status, its `Retry-After`, and the beginning of its body.
    #[must_use]
    pub fn of(status: u16, retry_after: Option<&str>, said: &str, now: Timestamp) -> Self {
        let why = if said.is_empty() {
            format!("status {status}")
        } else {
            format!("status {status}: {said}")
        };
        match status {
            200..=299 => Self::Delivered,
            410 => Self::Gone(why),
            300..=399 => Self::failed(format!(
                "{why}; redirects are not followed, set its url to where it is"
            )),
            // Too early, too slow, too much: these will pass.
            408 | 425 | 429 | 500..=599 => Self::Failed {
                why,
                wait: retry_after.and_then(|value| wait(value, now)),
            },
            400..=499 => Self::Refused(why),
            _ => Self::failed(why),
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn wait(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => between(now, DateTimeParser::new().parse_timestamp(value).ok()?),
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T08:00:00Z".parse().unwrap()
    }

    fn kind(status: u16) -> &'static str {
        match Outcome::of(status, None, "", now()) {
            Outcome::Delivered => "delivered",
            Outcome::Failed { .. } => "failed",
            Outcome::Refused(_) => "refused",
            Outcome::Gone(_) => "gone",
        }
    }

    #[test]
    fn each_status_means_one_thing() {
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 299][..], "delivered"),
            (&[301, 302, 307, 308, 304], "failed"),
            (&[400, 401, 403, 404, 405, 413, 415, 422, 451], "refused"),
            (&[408, 425, 429, 500, 501, 502, 503, 504, 599], "failed"),
            (&[410], "gone"),
            (&[100, 199, 600, 999], "failed"),
        ] {
            for status in statuses {
                assert_eq!(kind(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_receiver_says_how_long_it_wants_to_be_left_alone() {
        for (value, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Mon, 23 Nov 2026 08:01:30 GMT", Some(90)),
            ("Mon, 23 Nov 2026 07:00:00 GMT", Some(0)),
            ("999999999999", Some(3600)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let Outcome::Failed { wait, .. } = Outcome::of(429, Some(value), "", now()) else {
                panic!("{value}");
            };
            assert_eq!(wait, seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn what_the_receiver_said_is_told() {
        assert_eq!(
            Outcome::of(404, None, "no_service", now()),
            Outcome::Refused("status 404: no_service".into())
        );
    }
}
