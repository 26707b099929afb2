//! The title and the text that people read, by templates in Jinja's language.
//!
//! What can be wrong with a template is found when it is loaded, by trying it; should one
//! fail all the same, the usual texts take its place, for an alert is never lost to it.

use std::{sync::Arc, time::Duration};

use minijinja::{Environment, UndefinedBehavior};

use super::notification::Notification;
use crate::cli::text;

/// The usual title.
pub const TITLE: &str = "\
{% if status == 'resolved' %}Resolved: {% endif %}\
{% if alert == 'PipestallKillFailed' %}{{ count }} process{{ 'es' if count != 1 }} not ended\
{% elif alert == 'PipestallStalledWriters' %}{{ count }} stalled writer{{ 's' if count != 1 }}\
{% else %}pipestall: {{ worst[0].event.detail or worst[0].event.type }}{% endif %} on {{ node }}\
{% if unit %} in {{ unit }}{% endif %}";

/// The usual text.
pub const TEXT: &str = "\
{% for state, number in states|items %}{{ number }} {{ state }}{{ ', ' if not loop.last }}{% endfor %}\
{% if rule %} (rule {{ rule }}){% endif %}\
{% for one in worst %}
{% if one.event.stall %}{% set stall = one.event.stall -%}
{{ stall.comm }}[{{ stall.pid }}] on {{ stall.stream or stall.channel }} for {{ stall.age_seconds|age }}: {{ one.state }}\
{% else %}{{ one.event.type }}{{ ': ' ~ one.event.detail if one.event.detail }}{% endif %}\
{% endfor %}\
{% if count > worst|length %}
and {{ count - worst|length }} more{% endif %}";

/// So much work that no sensible template needs it.
const FUEL: u64 = 1_000_000;
/// Titles are a line in a list, and texts a message on a phone.
const TITLE_LENGTH: usize = 200;
const TEXT_LENGTH: usize = 8000;

/// The title and the text of one webhook.
#[derive(Clone, Debug)]
pub struct Templates {
    own: Arc<Environment<'static>>,
    usual: Arc<Environment<'static>>,
    /// One's own title and text, as they were written.
    sources: [Option<String>; 2],
}

impl PartialEq for Templates {
    fn eq(&self, other: &Self) -> bool {
        self.sources == other.sources
    }
}

/// A template, by the name of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The title.
    Title,
    /// The text.
    Text,
}

impl Which {
    /// Its key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Text => "text",
        }
    }
}

/// What people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// One line.
    pub title: String,
    /// Several.
    pub text: String,
}

impl Default for Templates {
    fn default() -> Self {
        let usual = Arc::new(environment());
        Self {
            own: Arc::clone(&usual),
            usual,
            sources: [None, None],
        }
    }
}

impl Templates {
    /// Templates of one's own; without one, the usual.
    ///
    /// # Errors
    /// Which is no template, and why.
    pub fn new(title: Option<&str>, text: Option<&str>) -> Result<Self, (Which, String)> {
        let usual = Self::default();
        let mut own = environment();
        for (which, source) in [(Which::Title, title), (Which::Text, text)] {
            if let Some(source) = source {
                own.add_template_owned(which.as_str(), source.to_owned())
                    .map_err(|error| (which, reason(&error)))?;
            }
        }
        Ok(Self {
            own: Arc::new(own),
            sources: [title, text].map(|source| source.map(str::to_owned)),
            ..usual
        })
    }

    /// Tries the templates.
    ///
    /// # Errors
    /// Which fails, and why.
    pub fn check(&self, notification: &Notification) -> Result<(), (Which, String)> {
        for which in [Which::Title, Which::Text] {
            render(&self.own, which, notification).map_err(|error| (which, reason(&error)))?;
        }
        Ok(())
    }

    /// Writes the title and the text; with them, what is wrong with a template that fails.
    #[must_use]
    pub fn write(&self, notification: &Notification) -> (Words, Option<String>) {
        let mut failed = None;
        let mut one = |which| {
            render(&self.own, which, notification).unwrap_or_else(|error| {
                failed = Some(format!("{}: {}", which.as_str(), reason(&error)));
                render(&self.usual, which, notification).unwrap_or_else(|_| notification.alert.to_owned())
            })
        };
        let title = one(Which::Title);
        let title = text::one_line(title.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
        let body: Vec<_> = one(Which::Text).trim().lines().map(text::one_line).collect();
        let words = Words {
            title: text::cut(&title, TITLE_LENGTH),
            text: text::cut(&body.join("\n"), TEXT_LENGTH),
        };
        (words, failed)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("age", |seconds: f64| {
        text::age(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    });
    for (which, source) in [(Which::Title, TITLE), (Which::Text, TEXT)] {
        // They are tried by a test, and `write` makes do without.
        let _ = environment.add_template(which.as_str(), source);
    }
    environment
}

fn render(
    environment: &Environment<'_>,
    which: Which,
    notification: &Notification,
) -> Result<String, minijinja::Error> {
    environment.get_template(which.as_str())?.render(notification)
}

/// What is wrong, in one line and without the template's name, which is its key.
fn reason(error: &minijinja::Error) -> String {
    let mut reason = error.kind().to_string();
    if let Some(detail) = error.detail() {
        reason = format!("{reason}: {detail}");
    }
    match error.line() {
        Some(line) if line > 1 => format!("{reason} (line {line})"),
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::alert::{notification::Status, occurrence::Severity};

    fn sample() -> Notification {
        Notification::sample("host", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_usual_words_say_what_is_stalled_where_and_how_badly() {
        let (words, failed) = Templates::default().write(&sample());
        assert_eq!(failed, None);
        assert_eq!(words.title, "1 stalled writer on host in sample.service");
        assert_eq!(
            words.text,
            "1 stalled (rule sample)\nsample[1] on stdout for 1m01s: stalled"
        );
    }

    #[test]
    fn the_usual_words_count_what_is_not_listed() {
        let mut many = sample();
        (many.count, many.status) = (534, Status::Resolved);
        many.states = [("killed".to_owned(), 530), ("recovered".to_owned(), 4)].into();
        let (words, failed) = Templates::default().write(&many);
        assert_eq!(failed, None);
        assert_eq!(
            words.title,
            "Resolved: 534 stalled writers on host in sample.service"
        );
        assert_eq!(
            words.text,
            "530 killed, 4 recovered (rule sample)\nsample[1] on stdout for 1m01s: stalled\nand 533 more"
        );
    }

    #[test]
    fn the_agents_own_words_come_first_in_what_it_says_of_itself() {
        let (words, failed) =
            Templates::default().write(&Notification::sample_of_agent("host", Timestamp::UNIX_EPOCH));
        assert_eq!(failed, None);
        assert_eq!(words.title, "pipestall: a sample on host");
        assert_eq!(words.text, "1 agent.degraded\nagent.degraded: a sample");
    }

    #[test]
    fn ones_own_templates_see_all_that_is_told() {
        let templates = Templates::new(
            Some("{{ severity }} {{ labels.rule }}\n{{ worst[0].event.stall.cmdline|join(' ') }}"),
            None,
        )
        .unwrap();
        templates.check(&sample()).unwrap();
        let (words, _) = templates.write(&sample());
        assert_eq!(words.title, "warning sample sample -i pipe:0 pipe:1");
        assert_eq!(sample().severity, Severity::Warning);
    }

    #[test]
    fn what_is_wrong_with_a_template_is_found_when_it_is_loaded() {
        for (text, expected) in [
            ("{{ count", "syntax error: unexpected end of input"),
            ("{{ cuont }}", "undefined value"),
            ("{{ worst[0].event.stall.pdi }}", "undefined value"),
            ("{{ count|agee }}", "unknown filter: filter agee is unknown"),
            (
                "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
                "ran out of fuel",
            ),
        ] {
            let wrong = Templates::new(None, Some(text)).and_then(|templates| templates.check(&sample()));
            let (which, why) = wrong.unwrap_err();
            assert_eq!(which, Which::Text);
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn an_alert_is_told_in_the_usual_words_where_a_template_fails() {
        let templates = Templates::new(Some("{{ worst[0].event.stall.pid }}"), None).unwrap();
        let agent = Notification::sample_of_agent("host", Timestamp::UNIX_EPOCH);
        let (words, failed) = templates.write(&agent);
        assert_eq!(words.title, "pipestall: a sample on host");
        assert!(failed.is_some_and(|why| why.starts_with("title: undefined value")));
    }

    #[test]
    fn what_a_process_calls_itself_cannot_move_a_cursor() {
        let mut evil = sample();
        evil.worst[0].event["stall"]["comm"] = "a\u{1b}[2J\nb".into();
        let (words, _) = Templates::new(Some("{{ worst[0].event.stall.comm }}"), None)
            .unwrap()
            .write(&evil);
        assert_eq!(words.title, "a\\u{1b}[2J b");
        assert!(words.text.contains("a\\u{1b}[2J\nb[1]"));
    }
}
