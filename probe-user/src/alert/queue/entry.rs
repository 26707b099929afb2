//! One message on its way to one receiver.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{notification::Notification, occurrence::Severity, template::Words};

/// A message's place in the spool.
pub type Number = u64;

/// What a message takes besides its body, in bytes, about.
const OVERHEAD: u64 = 512;

/// A message. Its name and its body are made once, and are the same each time that it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the spool.
    pub number: Number,
    /// Its name, for the receiver.
    pub message: String,
    /// The webhook.
    pub webhook: String,
    /// The incident that it tells of.
    pub incident: String,
    /// How bad that is.
    pub severity: Severity,
    /// What it says, in a line.
    pub title: String,
    /// When it was made.
    pub made: Timestamp,
    /// How often it has been tried.
    pub attempts: u32,
    /// When it is tried next.
    pub next_try: Timestamp,
    /// Whether the receiver will never take it.
    pub refused: bool,
    /// What came of the last attempt.
    pub last_error: Option<String>,
    /// The writers that it is about, hashed.
    pub subjects: Vec<u64>,
    /// The request's body; kept apart.
    #[serde(skip, default = "nothing")]
    pub body: Arc<[u8]>,
}

fn nothing() -> Arc<[u8]> {
    Arc::from([])
}

impl Entry {
    /// A message that tells a notification.
    #[must_use]
    pub fn new(
        number: Number,
        webhook: &str,
        notification: &Notification,
        words: &Words,
        body: Vec<u8>,
    ) -> Self {
        let mut subjects: Vec<_> = notification
            .subjects
            .iter()
            .map(|subject| hash(subject))
            .collect();
        subjects.sort_unstable();
        subjects.dedup();
        Self {
            number,
            message: notification.id.clone(),
            webhook: webhook.to_owned(),
            incident: notification.incident.clone(),
            severity: notification.severity,
            title: words.title.clone(),
            made: notification.time,
            attempts: 0,
            next_try: notification.time,
            refused: false,
            last_error: None,
            subjects,
            body: body.into(),
        }
    }

    /// What it takes, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.body.len() as u64 + 8 * self.subjects.len() as u64 + OVERHEAD
    }
}

/// A writer's name as a number that is the same in every run (FNV-1a): two that share one only wait
/// for one another.
#[must_use]
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
