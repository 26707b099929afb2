//! What the agent's API says, as JSON: the types that the server writes and that its
//! clients, the dashboard among them, read. They know neither side; [`client`] asks.

pub mod client;

pub mod explanation;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    alert::{listing::Message, status::Status as Alerts},
    event::{HistogramView, Name, ShareView, StallView},
};

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The host's name.
    pub node: String,
    /// Of the agent.
    pub version: String,
    /// The agent's pid.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// Now, RFC 3339.
    pub time: String,
    /// `enforce` if any rule may act, else `dry-run`; `observe` without rules.
    pub mode: Name,
    /// Why nothing is enforced now, whatever the rules say.
    pub paused: Option<String>,
    /// What does not work as it should.
    pub degraded: Vec<String>,
    /// How writers are followed between looks: `sched`, `fentry`, `kprobe`, or `scan`, by nothing but looks.
    pub tracer: Name,
    /// The commands that are observed.
    pub observed: Vec<String>,
    /// How many rules there are.
    pub rules: u64,
    /// Writers that have been blocked on an unchanged channel for a second or more.
    pub stalled: u64,
    /// The age of the oldest of them.
    pub oldest_seconds: f64,
    /// Processes that are being ended.
    pub kills_under_way: u64,
    /// Of the last hour.
    pub kills_last_hour: Kills,
    /// Since the start.
    pub kills: Kills,
    /// The number of the last event.
    pub last_event: u64,
    /// What was lost on the way.
    pub lost: Lost,
    /// How the looks go.
    pub looks: Looks,
    /// How long writers were blocked, as the kernel counted since the start.
    pub blocked_seconds: HistogramView,
    /// How alerts fare, if anybody is told.
    pub alerts: Option<Alerts>,
}

/// What came of kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kills {
    /// The process has exited.
    pub confirmed: u64,
    /// It has not, or could not be signalled.
    pub failed: u64,
    /// It was left alone.
    pub skipped: u64,
}

/// What was lost, and who has not heard of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// Notes of the tracer; looks make up for them.
    pub notes: u64,
    /// Writers that the tracer could not follow; looks know them.
    pub writers: u64,
    /// Events that standard output did not take in time.
    pub printed: u64,
    /// Events that subscribers did not take in time.
    pub streamed: u64,
    /// Events that the journal could not take.
    pub recorded: u64,
}

/// How the looks go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Looks {
    /// Since the start.
    pub count: u64,
    /// How long the last one took.
    pub took_seconds: f64,
    /// How long ago it was.
    pub age_seconds: f64,
    /// Writers in the tracer's table.
    pub tracked: u64,
    /// How many it can hold.
    pub capacity: u64,
}

/// `GET /v1/stalls`: the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stalls {
    /// Now, RFC 3339.
    pub time: String,
    /// How many there are, shown or not.
    pub total: u64,
    /// As many as were asked for.
    pub stalls: Vec<StallState>,
}

/// A stall, and what becomes of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StallState {
    /// The stall.
    pub stall: StallView,
    /// The rule that decides about it.
    pub rule: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a stall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Fate {
    /// Its process has not been read about yet.
    Unknown,
    /// No rule matches.
    NoRule,
    /// Its rule's condition is going to be met, if nothing changes.
    Due {
        /// From now; null where the rule asks for a share of the time, which may be any moment.
        in_seconds: Option<f64>,
        /// What the rule does then: `alert`, `term` or `kill`.
        action: Name,
        /// Whether it may: `dry-run` or `enforce`.
        mode: Name,
        /// Why it will not, if that is known already.
        unless: Option<Name>,
    },
    /// Its rule has said so, and does no more.
    Alerted,
    /// Its process is left alone.
    LeftAlone {
        /// Such as `dry-run`, `protected` or `unsupported`.
        reason: Name,
        /// In words.
        detail: Option<String>,
    },
    /// Its process is to be ended, and has to wait.
    Held {
        /// `budget`, `cooldown`, `pressure`, `blast-radius`, `reader-stopped`, `unrecorded`, `unsupported`,
        /// or `pile-up` where the rule waits for more.
        reason: Name,
        /// For so long, where that is known.
        for_seconds: Option<f64>,
    },
    /// Its process is being ended.
    Ending {
        /// `opening`, `hooking`, `confirming`, `recording`, `terminating` or `killing`.
        step: Name,
        /// Until the next step, where it has a time.
        for_seconds: Option<f64>,
    },
    /// Ending its process was tried, and it is still there.
    Tried,
}

/// `GET /v1/rules`: in their order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rules {
    /// The rules.
    pub rules: Vec<RuleState>,
}

/// A rule, and what it has done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuleState {
    /// Its name.
    pub name: String,
    /// `alert`, `term` or `kill`.
    pub action: Name,
    /// `dry-run` or `enforce`.
    pub mode: Name,
    /// From which age, if it asks for one.
    pub stalled_for_seconds: Option<f64>,
    /// From which share of the time, if it asks for one.
    pub stalled_share: Option<ShareView>,
    /// What it does to whom, on one line.
    pub summary: String,
    /// Stalls that it decides about now.
    pub matching: u64,
    /// Those of them that have to wait.
    pub held: u64,
    /// Since the start.
    pub kills: Kills,
}

/// Body of `POST /v1/stalls/{id}/kill`; may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// How long after SIGTERM an exit or progress is awaited, such as `5s`; `10s` if left out.
    pub grace: Option<String>,
}

/// The answer to `POST /v1/stalls/{id}/kill`: the kill has begun, and events say what comes of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KillBegun {
    /// The stall.
    pub stall: String,
    /// The last event before it.
    pub after: u64,
}

/// The answer to `POST /v1/reload`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// How many rules there are now.
    pub rules: u64,
    /// What is allowed and yet probably not meant.
    pub warnings: Vec<String>,
    /// What has changed and takes a restart.
    pub restart: Vec<String>,
}

/// `GET /v1/alerts`: by number, which is the order in which they were made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertMessages {
    /// Those that are still to be delivered, and those that were refused.
    pub messages: Vec<Message>,
}

/// The answer to `POST /v1/alerts/retry` and `/v1/alerts/drop`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertsChanged {
    /// How many messages that was.
    pub messages: u64,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// In words.
    pub error: String,
}
