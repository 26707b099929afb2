//! Slack's incoming webhooks: a header, the text, and one line of what belongs to it, so
//! that a phone shows all of it.

use serde_json::{Value, json};

use crate::alert::{notification::Notification, template::Words};

/// Slack's own limits, in characters: a message that breaks one is refused whole.
/// <https://docs.slack.dev/reference/block-kit/blocks/header-block>
const HEADER: usize = 150;
/// <https://docs.slack.dev/reference/block-kit/composition-objects/text-object>, which must not be
/// empty either.
const TEXT: usize = 3000;

pub(super) fn body(notification: &Notification, words: &Words) -> Value {
    let title = if words.title.is_empty() {
        notification.alert
    } else {
        &words.title
    };
    let context: Vec<_> = [
        notification.status.as_str(),
        notification.severity.as_str(),
        &notification.node,
        &notification.rule,
        &notification.unit,
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect();
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": fitted(title, HEADER, str::to_owned), "emoji": false },
    })];
    if !words.text.is_empty() {
        blocks.push(json!({
            "type": "section",
            "text": { "type": "mrkdwn", "text": lines(&words.text, TEXT), "verbatim": true },
        }));
    }
    blocks.push(json!({
        "type": "context",
        "elements": [{ "type": "mrkdwn", "text": lines(&context.join(" · "), TEXT), "verbatim": true }],
    }));
    // What a notification shows, and clients without blocks.
    json!({ "text": escape(title), "blocks": blocks })
}

/// What has a meaning in Slack's texts, as itself.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// How long a text is for Slack: in UTF-16, so that it fits whichever way it counts.
fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The text as it is written, or as much of it as fits, and an ellipsis. No character is cut in two
/// by it, nor what it is written as.
fn fitted(text: &str, most: usize, write: impl Fn(&str) -> String) -> String {
    let whole = write(text);
    if length(&whole) <= most {
        return whole;
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        let written = write(c.encode_utf8(&mut [0; 4]));
        used += length(&written);
        if used > most {
            break;
        }
        out.push_str(&written);
    }
    out.push('…');
    out
}

/// As many whole lines as fit once they are escaped.
fn lines(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for line in text.lines() {
        let escaped = escape(line);
        let length = length(&escaped) + 1;
        if used + length + 1 > most {
            if out.is_empty() {
                return fitted(line, most, escape);
            }
            out.push('…');
            return out;
        }
        used += length;
        out.push_str(&escaped);
        out.push('\n');
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::alert::{
        group::{Grouping, Groups, Label},
        occurrence::tests::event,
        template::Templates,
        webhook::Format,
    };

    fn sample(title: &str, text: &str) -> Value {
        let words = Words {
            title: title.into(),
            text: text.into(),
        };
        body(&Notification::sample("host", Timestamp::UNIX_EPOCH), &words)
    }

    #[test]
    fn a_message_is_a_header_a_text_and_what_belongs_to_it() {
        let body = sample("2 < 3", "a & b\n<!channel>");
        assert_eq!(body["text"], "2 &lt; 3");
        assert_eq!(body["blocks"][0]["text"]["text"], "2 < 3");
        assert_eq!(body["blocks"][1]["text"]["text"], "a &amp; b\n&lt;!channel&gt;");
        assert_eq!(
            body["blocks"][2]["elements"][0]["text"],
            "firing · warning · host · sample · sample.service"
        );
    }

    #[test]
    fn what_is_too_long_for_slack_is_cut_between_lines() {
        let line = "<".repeat(100);
        let body = sample(&"t".repeat(300), &vec![line; 40].join("\n"));
        let header = body["blocks"][0]["text"]["text"].as_str().unwrap();
        assert_eq!(header.chars().count(), 150);
        let text = body["blocks"][1]["text"]["text"].as_str().unwrap();
        assert!(
            text.chars().count() <= 3000 && text.ends_with("&lt;\n…"),
            "{text}"
        );
        let long = sample("t", &"x".repeat(5000));
        assert_eq!(
            long["blocks"][1]["text"]["text"]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            3000
        );
    }

    #[test]
    fn what_is_cut_is_cut_between_characters_and_what_they_are_written_as() {
        for (text, most, expected) in [
            ("ab", 2, "ab"),
            ("abc", 2, "a…"),
            ("a&b", 7, "a&amp;b"),
            ("a&bc", 7, "a&amp;…"),
            ("a&bc", 6, "a…"),
            // Two units each in UTF-16.
            ("🔥🔥", 4, "🔥🔥"),
            ("🔥🔥🔥", 4, "🔥…"),
        ] {
            assert_eq!(fitted(text, most, escape), expected, "{text} in {most}");
        }
    }

    #[test]
    fn what_belongs_to_it_is_escaped_once() {
        let mut sample = Notification::sample("a&b", Timestamp::UNIX_EPOCH);
        sample.rule = "<r>".into();
        let words = Words {
            title: "t".into(),
            text: String::new(),
        };
        let context = &body(&sample, &words)["blocks"][1]["elements"][0]["text"];
        assert_eq!(context, "firing · warning · a&amp;b · &lt;r&gt; · sample.service");
    }

    #[test]
    fn an_empty_text_is_no_block_and_an_empty_title_the_alerts_name() {
        let body = sample("", "");
        assert_eq!(body["blocks"].as_array().unwrap().len(), 2);
        assert_eq!(body["blocks"][0]["text"]["text"], "PipestallStalledWriters");
        assert_eq!(body["text"], "PipestallStalledWriters");
    }

    /// The texts of a block.
    fn texts(block: &Value) -> Vec<&str> {
        let inner = block["elements"].as_array().into_iter().flatten();
        std::iter::once(&block["text"])
            .chain(inner)
            .filter_map(|text| text["text"].as_str())
            .collect()
    }

    /// As documented: <https://docs.slack.dev/reference/block-kit/blocks>, and for the length of
    /// messages <https://api.slack.com/changelog/2018-04-truncating-really-long-messages>.
    fn assert_within_limits(body: &Value) {
        let blocks = body["blocks"].as_array().unwrap();
        assert!((1..=50).contains(&blocks.len()));
        for block in blocks {
            let most = match block["type"].as_str().unwrap() {
                "header" => 150,
                "section" | "context" => 3000,
                other => panic!("a block of a kind whose limits are not known: {other}"),
            };
            assert!(
                block["elements"]
                    .as_array()
                    .is_none_or(|all| (1..=10).contains(&all.len()))
            );
            let texts = texts(block);
            assert!(!texts.is_empty());
            for text in texts {
                let length = text.encode_utf16().count();
                assert!((1..=most).contains(&length), "{length} of {most}: {text}");
            }
        }
        // Longer ones may be split.
        let text = body["text"].as_str().unwrap();
        assert!((1..=4000).contains(&text.encode_utf16().count()));
    }

    #[test]
    fn the_largest_incident_keeps_slacks_limits_whatever_it_is_called() {
        let every_event = "{% for one in worst %}{{ one.event }}\n{% endfor %}";
        for what in ["x", "&<>", "🔥", "\u{202e}\n\t"] {
            let told = incident(534, what);
            for templates in [
                Templates::default(),
                Templates::new(Some("{{ rule }}{{ unit }}"), Some(every_event)).unwrap(),
                Templates::new(Some(""), Some(" ")).unwrap(),
            ] {
                let (words, wrong) = templates.write(&told);
                assert_eq!(wrong, None);

                let body = Format::Slack.body(&told, &words);

                assert_within_limits(&serde_json::from_slice(&body).unwrap());
                assert!(body.len() < 64 << 10, "{} bytes", body.len());
            }
        }
    }

    /// What is told of so many writers whose names are long, the worst ten's most of all.
    fn incident(count: u64, what: &str) -> Notification {
        let grouping = Grouping {
            by: vec![Label::Rule, Label::Unit],
            wait: Duration::ZERO,
            interval: Duration::from_secs(1),
            repeat: Duration::from_hours(4),
            send_resolved: true,
        };
        let mut groups = Groups::new("chat".into(), grouping);
        let name = what.repeat(2000);
        let mut more = json!({ "node": name, "rule": name, "stall": { "unit": name } });
        for seq in 1..=count {
            let size = if seq <= 10 { 20_000 } else { 10 };
            for key in ["comm", "exe"] {
                more["stall"][key] = what.repeat(size).into();
            }
            more["stall"]["cmdline"] = json!([what.repeat(size)]);
            let stall = format!("{seq}-abc-{seq}");
            let event = event(seq, "stall.detected", &stall, &more);
            groups.handle(&event, true, Timestamp::UNIX_EPOCH);
        }
        let mut told = groups.flush(Timestamp::UNIX_EPOCH, |_| false);
        assert_eq!((told.len(), told[0].count), (1, count));
        told.remove(0)
    }
}
