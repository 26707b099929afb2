//! Why each rule does or does not match the selected writer: asked of the source for as long as it
//! is shown, one question at a time.

use std::time::Duration;

use crate::{api::explanation::ExplanationView, core::model::Mono};

/// Whoever goes through the table quickly is told where they stop.
const PACE: Duration = Duration::from_millis(100);

/// What was answered.
pub type Told = Result<Box<ExplanationView>, String>;

/// The question, and the last answer.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    /// The stall that is being asked about.
    asked: Option<String>,
    /// When something was last asked.
    last: Option<Mono>,
    told: Option<(String, Told)>,
}

impl Reasons {
    /// What was told of a stall; `None` where nothing was yet.
    #[must_use]
    pub fn of(&self, stall: &str) -> Option<&Told> {
        let (of, told) = self.told.as_ref()?;
        (of == stall).then_some(told)
    }

    /// Whether to ask about this stall now; there may be `news` of it.
    pub fn ask(&mut self, stall: &str, news: bool, now: Mono) -> bool {
        let known = !news && self.of(stall).is_some();
        let quick = self.last.is_some_and(|last| now.since(last) < PACE);
        if known || quick || self.asked.is_some() {
            return false;
        }
        self.asked = Some(stall.to_owned());
        self.last = Some(now);
        true
    }

    /// The source has answered.
    pub fn answer(&mut self, stall: String, told: Told) {
        if self.asked.as_ref() == Some(&stall) {
            self.asked = None;
        }
        self.told = Some((stall, told));
    }

    /// The connection is lost: what was asked will not be answered.
    pub fn lose_sight(&mut self) {
        self.asked = None;
    }
}
