//! Standard Webhooks 1.0: the body, and the signature in the headers.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::alert::{notification::Notification, secret::Key, template::Words};

/// The message's name, the same each time that it is sent.
pub const ID: &str = "webhook-id";
/// When it was sent, in seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// One signature a key.
pub const SIGNATURE: &str = "webhook-signature";

pub(super) fn body(notification: &Notification, words: &Words) -> Value {
    let mut data = serde_json::to_value(notification).unwrap_or_default();
    data["title"] = words.title.as_str().into();
    data["text"] = words.text.as_str().into();
    json!({
        "type": format!("pipestall.{}", notification.status.as_str()),
        "timestamp": format!("{:.3}", notification.time),
        "data": data,
    })
}

/// The value of [`SIGNATURE`]: that of every key, so that a receiver may know the old or the new.
#[must_use]
pub fn signature(keys: &[Key], id: &str, sent: Timestamp, body: &[u8]) -> String {
    let signatures: Vec<_> = keys
        .iter()
        .filter_map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).ok()?;
            mac.update(format!("{id}.{}.", sent.as_second()).as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        })
        .collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::secret;

    #[test]
    fn a_signature_is_that_of_the_specifications_example() {
        // From the test of the reference libraries.
        let keys = secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let sent = Timestamp::from_second(1_614_265_330).unwrap();
        assert_eq!(
            signature(
                &keys,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                sent,
                b"{\"test\": 2432232314}"
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn every_key_signs() {
        let keys =
            secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
                .unwrap();
        let both = signature(&keys, "a", Timestamp::UNIX_EPOCH, b"x");
        let (one, other) = both.split_once(' ').unwrap();
        assert_eq!(one, signature(&keys[..1], "a", Timestamp::UNIX_EPOCH, b"x"));
        assert_eq!(other, signature(&keys[1..], "a", Timestamp::UNIX_EPOCH, b"x"));
        assert_ne!(one, other);
    }

    #[test]
    fn the_body_has_the_events_and_the_words() {
        let sample = Notification::sample("host", Timestamp::UNIX_EPOCH);
        let words = Words {
            title: "t".into(),
            text: "x".into(),
        };
        let body = body(&sample, &words);
        assert_eq!(body["type"], "pipestall.firing");
        assert_eq!(body["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(body["data"]["title"], "t");
        assert_eq!(body["data"]["severity"], "warning");
        assert_eq!(body["data"]["worst"][0]["event"]["stall"]["pid"], 1);
        assert_eq!(
            body["data"]["labels"],
            json!({ "rule": "sample", "unit": "sample.service" })
        );
    }
}
