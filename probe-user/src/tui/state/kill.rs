//! Kills that somebody asks for here: the question before, and what came of each.

use std::{collections::HashMap, time::Duration};

use crate::{
    core::model::Mono,
    tui::model::{Event, Fate, Row},
};

/// A row whose kill is over is still shown for so long.
const LINGERS: Duration = Duration::from_secs(15);
/// How long after SIGTERM the agent waits for an exit or for progress; this is what is asked for.
pub const GRACE: Duration = Duration::from_secs(10);

/// The question whether to end a writer's process.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The writer, as it was when the question was asked.
    pub row: Row,
    /// Why the answer can only be no.
    pub impossible: Option<String>,
}

/// Whether processes may be ended from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rights {
    /// That is not known yet.
    #[default]
    Unknown,
    /// They may.
    Kill,
    /// They may not; why, and what would help.
    ReadOnly(String),
}

/// What came of a kill so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In words.
    pub text: String,
    /// Whether nothing more will come of it.
    pub is_over: bool,
    /// Whether the process has exited.
    pub succeeded: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    row: Row,
    outcome: Outcome,
    changed: Mono,
}

/// Kills that were asked for here, by stall.
#[derive(Clone, Debug, Default)]
pub struct Kills(HashMap<String, Asked>);

impl Kills {
    /// Somebody has said yes.
    pub fn ask(&mut self, row: Row, now: Mono) {
        let asked = Asked {
            outcome: under_way("asked the agent"),
            changed: now,
            row,
        };
        self.0.insert(asked.row.id.clone(), asked);
    }

    /// The agent has taken it on, or refuses.
    pub fn answer(&mut self, stall: &str, answer: Result<(), String>, now: Mono) {
        let outcome = match answer {
            Ok(()) => under_way("checking before it signals"),
            Err(why) => over(format!("refused: {why}")),
        };
        self.set(stall, outcome, now);
    }

    /// An event may be about one of them.
    pub fn observe(&mut self, event: &Event, now: Mono) {
        let Some(stall) = &event.stall else { return };
        let detail = event.detail.as_deref();
        let outcome = match event.kind.as_str() {
            "kill.planned" => under_way("on record"),
            "kill.sent" => under_way(&format!("{} sent", event.signal.as_deref().unwrap_or("signal"))),
            "kill.confirmed" => {
                let signal = event.signal.as_deref().unwrap_or("a signal");
                Outcome {
                    text: format!("ended by {signal}"),
                    is_over: true,
                    succeeded: true,
                }
            }
            "kill.failed" => over(format!("failed: {}", detail.unwrap_or("it is still there"))),
            "kill.skipped" => {
                let reason = event.reason.as_deref().unwrap_or("skipped");
                let detail = detail.map(|detail| format!(", {detail}")).unwrap_or_default();
                over(format!("let go: {reason}{detail}"))
            }
            _ => return,
        };
        self.set(&stall.id, outcome, now);
    }

    /// What came of the kill of a stall, if one was asked for here.
    #[must_use]
    pub fn outcome(&self, stall: &str) -> Option<&Outcome> {
        self.0.get(stall).map(|asked| &asked.outcome)
    }

    /// Adds rows that are gone, and whose end is still worth seeing; forgets the rest.
    pub fn linger(&mut self, rows: &mut Vec<Row>, now: Mono) {
        self.0
            .retain(|_, asked| now.since(asked.changed) < LINGERS || !asked.outcome.is_over);
        let mut gone: HashMap<&str, &Asked> = self.0.iter().map(|(id, asked)| (id.as_str(), asked)).collect();
        for row in rows.iter() {
            gone.remove(row.id.as_str());
        }
        let mut gone: Vec<Row> = gone.into_values().map(|asked| asked.row.clone()).collect();
        gone.sort_unstable_by_key(|row| row.tid);
        rows.extend(gone);
    }

    /// The connection is lost: what is under way will not be told.
    pub fn lose_sight(&mut self, now: Mono) {
        for asked in self.0.values_mut().filter(|asked| !asked.outcome.is_over) {
            asked.outcome = over("asked; the agent's answer was lost".to_owned());
            asked.changed = now;
        }
    }

    /// Why this one cannot be ended, as far as that is known without asking the agent.
    #[must_use]
    pub fn impossible(&self, row: &Row, rights: &Rights) -> Option<String> {
        const ALREADY: &str = "its process is being ended already";
        if let Rights::ReadOnly(why) = rights {
            return Some(why.clone());
        }
        if self.outcome(&row.id).is_some_and(|outcome| !outcome.is_over) {
            return Some(ALREADY.to_owned());
        }
        match &row.fate {
            Fate::Ending { .. } => Some(ALREADY.to_owned()),
            Fate::LeftAlone { reason, detail } if reason == "protected" => {
                let detail = detail.as_ref().map(|detail| format!(": {detail}"));
                Some(format!("it is protected{}", detail.unwrap_or_default()))
            }
            Fate::Due { unless, .. } if unless.as_deref() == Some("protected") => {
                Some("it is protected".to_owned())
            }
            Fate::Unknown
            | Fate::NoRule
            | Fate::Due { .. }
            | Fate::Alerted
            | Fate::LeftAlone { .. }
            | Fate::Held { .. }
            | Fate::Tried
            | Fate::Unsaid => None,
        }
    }

    fn set(&mut self, stall: &str, outcome: Outcome, now: Mono) {
        if let Some(asked) = self.0.get_mut(stall) {
            asked.outcome = outcome;
            asked.changed = now;
        }
    }
}

fn under_way(text: &str) -> Outcome {
    Outcome {
        text: text.to_owned(),
        is_over: false,
        succeeded: false,
    }
}

const fn over(text: String) -> Outcome {
    Outcome {
        text,
        is_over: true,
        succeeded: false,
    }
}
