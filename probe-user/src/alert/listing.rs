//! The messages in the spool as people see them, and choose among them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    occurrence::Severity,
    queue::{Entry, Number},
};

/// A message in the spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AlertMessage)]
pub struct Message {
    /// Its number, by which it is chosen.
    pub number: Number,
    /// Its name, as the receiver knows it.
    pub id: String,
    /// The webhook.
    pub webhook: String,
    /// `queued`; `held` while its webhook gets nothing; or `refused` by the receiver.
    pub state: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it says.
    pub title: String,
    /// When it was made.
    #[schema(value_type = String)]
    pub made: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next; none if it is held or was refused.
    #[schema(value_type = Option<String>)]
    pub next_try: Option<Timestamp>,
    /// What came of the last attempt, or why it is held.
    pub last_error: Option<String>,
}

impl Message {
    /// What is to be seen of a message, whose webhook may get nothing for a reason.
    #[must_use]
    pub fn new(entry: &Entry, held: Option<&str>) -> Self {
        let state = match held {
            _ if entry.refused => "refused",
            Some(_) => "held",
            None => "queued",
        };
        Self {
            number: entry.number,
            id: entry.message.clone(),
            webhook: entry.webhook.clone(),
            state: state.to_owned(),
            severity: entry.severity,
            title: entry.title.clone(),
            made: entry.made,
            attempts: entry.attempts,
            next_try: (state == "queued").then_some(entry.next_try),
            last_error: entry.last_error.clone().or_else(|| held.map(str::to_owned)),
        }
    }
}

/// Which messages are meant: `{"numbers": [1, 2]}` or `"all"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ChosenAlerts)]
pub enum Chosen {
    /// Those of these numbers.
    Numbers(Vec<Number>),
    /// All of them.
    All,
}

/// There are no messages of these numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown(pub Vec<Number>);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(Number::to_string).collect();
        write!(
            f,
            "there is no message {}; nothing is changed, see pipestall alerts list",
            numbers.join(", ")
        )
    }
}

impl std::error::Error for Unknown {}
