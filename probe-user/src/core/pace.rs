//! How fast and how far enforcement may go: budgets, cool-downs, the blast radius
//! and the pressure gate.
//!
//! Here are the terms; `pacer` keeps count.

mod pacer;

use std::time::Duration;

pub use self::pacer::{Admission, NO_PRESSURE, Pacer, Ticket};
use super::model::Stall;

/// So many, in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: usize,
    /// The window.
    pub per: Duration,
}

/// What a rule counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// All that the rule matches.
    #[default]
    Rule,
    /// Those with the same parent.
    Parent,
    /// Those of the same systemd unit.
    Unit,
    /// Those of the same user.
    User,
}

/// A group that a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// See [`GroupBy::Rule`].
    Rule,
    /// See [`GroupBy::Parent`].
    Parent(u32),
    /// See [`GroupBy::Unit`]; `None` for processes of no unit.
    Unit(Option<String>),
    /// See [`GroupBy::User`].
    User(u32),
}

impl GroupBy {
    /// The group of a stall's process.
    #[must_use]
    pub fn group(self, stall: &Stall) -> Group {
        match self {
            Self::Rule => Group::Rule,
            Self::Parent => Group::Parent(stall.last.ppid),
            Self::Unit => Group::Unit(stall.facts.as_ref().and_then(|facts| facts.unit.clone())),
            Self::User => Group::User(stall.last.uid),
        }
    }
}

/// Stops a rule where what it ends keeps coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// What is counted together: parents or units.
    pub per: GroupBy,
    /// So many kills in a window…
    pub after: Rate,
    /// …stop the rule for this long.
    pub lasts: Duration,
}

/// A rule's pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// It acts only while at least this many stalls have crossed its threshold…
    pub pile_up: usize,
    /// …counted in this way…
    pub group_by: GroupBy,
    /// …and leaves this many, the youngest, alone.
    pub leave: usize,
    /// How many it may end.
    pub budget: Option<Rate>,
    /// When it must stop.
    pub cooldown: Option<Cooldown>,
    /// The share of time in which some task waits for a CPU, above which it holds: there,
    /// a slow reader is not a dead one. From 0 to 1, averaged over 10 s. It holds, too, where that
    /// share is not known.
    pub unless_cpu_pressure_over: Option<f64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pile_up: 1,
            group_by: GroupBy::Rule,
            leave: 0,
            budget: None,
            cooldown: None,
            unless_cpu_pressure_over: None,
        }
    }
}

/// Limits over all rules together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many processes may be ended.
    pub budget: Option<Rate>,
    /// How many different programs may be among them before enforcement stops for a window's
    /// length: a rule that starts to hit others than it is meant for shows in this.
    pub max_distinct: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        let max_distinct = Rate {
            count: 3,
            per: Duration::from_mins(10),
        };
        Self {
            budget: None,
            max_distinct: Some(max_distinct),
        }
    }
}
