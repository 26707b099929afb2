//! Sends one message once, and says what came of it.

use std::{error::Error as _, fmt::Write as _, sync::Arc};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use reqwest::{
    Client, Response,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use url::Url;

use super::{
    format::{self, standard},
    outcome::Outcome,
    redact::{MARK, Redaction},
    secret::{self, Key},
    target,
    webhook::{Address, Format, Webhook},
};
use crate::{cli::text, clock};

/// So much of an answer is read: enough to know what is wrong, and to use the connection again.
const ANSWER: usize = 4096;
/// So much of it is told, in characters.
const SAID: usize = 200;

/// Sends messages to one receiver.
#[derive(Clone, Debug)]
pub struct Courier {
    client: Client,
    url: Url,
    url_is_secret: bool,
    keys: Vec<Key>,
    format: Format,
}

/// What came of an attempt, for who watches one.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it means.
    pub outcome: Outcome,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// The beginning of its body.
    pub said: String,
}

impl Courier {
    /// Reads the secrets and gets the way ready; nothing is sent.
    ///
    /// # Errors
    /// A secret or a certificate cannot be read, or the URL is not one to send to.
    pub fn new(webhook: &Webhook) -> Result<Self> {
        let ready = || -> Result<Self> {
            let target = &webhook.target;
            let url = target::url(target, webhook.format)?;
            Ok(Self {
                client: target::client(target, &url)?,
                url,
                url_is_secret: matches!(target.address, Address::Secret(_)),
                keys: webhook
                    .secret
                    .as_ref()
                    .map(secret::keys)
                    .transpose()?
                    .unwrap_or_default(),
                format: webhook.format,
            })
        };
        ready().with_context(|| format!("webhook {}", webhook.name))
    }

    /// Where messages go, without what may be a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        target::shown(&self.url)
    }

    /// Sends a message.
    pub async fn send(&self, message: &str, body: Arc<[u8]>) -> Attempt {
        let now = clock::wall();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, format::CONTENT_TYPE);
        if self.format == Format::Standard {
            request = request
                .header(standard::ID, message)
                .header(standard::TIMESTAMP, now.as_second().to_string())
                .header(
                    standard::SIGNATURE,
                    standard::signature(&self.keys, message, now, &body),
                );
        }
        match request.body(body.to_vec()).send().await {
            Ok(answer) => self.understand(answer, now).await,
            Err(error) => Attempt {
                outcome: Outcome::failed(self.without_secrets(&reason(error))),
                status: None,
                said: String::new(),
            },
        }
    }

    async fn understand(&self, mut answer: Response, now: Timestamp) -> Attempt {
        let status = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        // What cannot be read changes nothing: the status is the answer.
        while body.len() < ANSWER
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(&chunk[..chunk.len().min(ANSWER - body.len())]);
        }
        let said = String::from_utf8_lossy(&body);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = self.without_secrets(&text::cut(&text::one_line(&said), SAID));
        Attempt {
            outcome: Outcome::of(status, retry_after.as_deref(), &said, now),
            status: Some(status),
            said,
        }
    }

    /// A receiver may say what it was sent, its own URL too.
    fn without_secrets(&self, text: &str) -> String {
        let mut text = Redaction::default().text(text);
        if self.url_is_secret {
            for part in [self.url.path(), self.url.query().unwrap_or_default()] {
                if part.len() > 1 {
                    text = text.replace(part, MARK);
                }
            }
        }
        text
    }
}

/// Why there was no answer, without the URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reason = if error.is_timeout() {
        "timed out".to_owned()
    } else {
        error.to_string()
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !reason.contains(&cause_text) {
            let _ = write!(reason, ": {cause_text}");
        }
        source = cause.source();
    }
    reason
}
