//! Writes notifications as the bodies of requests: pure functions, one module a format.

pub mod alertmanager;
pub mod slack;
pub mod standard;

use super::{notification::Notification, template::Words, webhook::Format};

/// The content type of every format.
pub const CONTENT_TYPE: &str = "application/json";

impl Format {
    /// The body of the request that tells it.
    #[must_use]
    pub fn body(self, notification: &Notification, words: &Words) -> Vec<u8> {
        let body = match self {
            Self::Standard => standard::body(notification, words),
            Self::Alertmanager => alertmanager::body(notification, words),
            Self::Slack => slack::body(notification, words),
        };
        body.to_string().into_bytes()
    }
}
