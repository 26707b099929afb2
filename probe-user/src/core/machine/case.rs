//! What has been said and decided about a stall.

use std::collections::BTreeSet;

use crate::core::{model::Mono, report::Skipped};

/// How far a decision about a stall has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is none.
    #[default]
    Open,
    /// The rule wants the process ended, and its pace decides when.
    Wanted,
    /// What is to be done is done, or under way.
    Decided,
}

/// What has been done about a stall.
#[derive(Debug, Default)]
pub(super) struct Case {
    /// The first rule that matches, by its place; known once the facts are.
    pub(super) rule: Option<usize>,
    pub(super) reported: bool,
    pub(super) fate: Fate,
    /// The rules that have decided, by their places.
    pub(super) done: BTreeSet<usize>,
    /// When the rule's condition was first met.
    pub(super) crossed: Option<Mono>,
    /// Why it waits, and before when it is not to be asked for again.
    pub(super) hold: Option<(Skipped, Mono)>,
    /// Why it had to wait so far, as has been said.
    said: Vec<Skipped>,
}

impl Case {
    /// Nothing decided any more; what was reported need not be said again.
    pub(super) fn afresh(&self) -> Self {
        Self {
            reported: self.reported,
            ..Self::default()
        }
    }

    /// Lets it wait; returns whether that reason has been given before.
    pub(super) fn hold_until(&mut self, reason: Skipped, until: Mono) -> bool {
        self.hold = Some((reason, until));
        let said = self.said.contains(&reason);
        if !said {
            self.said.push(reason);
        }
        said
    }
}
