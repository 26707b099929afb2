//! Slack's incoming webhooks: a header, the text, and one line of what belongs to it, so
//! that a phone shows all of it.

use serde_json::{Value, json};

use crate::{
    alert::{notification::Notification, template::Words},
    cli::text::cut,
};

/// Slack's own limits, in characters.
const HEADER: usize = 150;
const SECTION: usize = 3000;

pub(super) fn body(notification: &Notification, words: &Words) -> Value {
    let context: Vec<_> = [
        notification.status.as_str(),
        notification.severity.as_str(),
        &notification.node,
        &notification.rule,
        &notification.unit,
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .map(escape)
    .collect();
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": cut(&words.title, HEADER), "emoji": false },
    })];
    if !words.text.is_empty() {
        blocks.push(json!({
            "type": "section",
            "text": { "type": "mrkdwn", "text": escaped_to(&words.text, SECTION), "verbatim": true },
        }));
    }
    blocks.push(json!({
        "type": "context",
        "elements": [{ "type": "mrkdwn", "text": escaped_to(&context.join(" · "), SECTION), "verbatim": true }],
    }));
    // What a notification shows, and clients without blocks.
    json!({ "text": escape(&words.title), "blocks": blocks })
}

/// What has a meaning in Slack's texts, as itself.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// As many whole lines as fit once they are escaped.
fn escaped_to(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for line in text.lines() {
        let line = escape(line);
        let length = line.chars().count() + 1;
        if used + length + 1 > most {
            if out.is_empty() {
                return cut(&line, most);
            }
            out.push('…');
            return out;
        }
        used += length;
        out.push_str(&line);
        out.push('\n');
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

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
    fn an_empty_text_is_no_block() {
        assert_eq!(sample("t", "")["blocks"].as_array().unwrap().len(), 2);
    }
}
