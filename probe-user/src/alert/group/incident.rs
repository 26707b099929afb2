//! One incident: who is in it, in which state, and what has been told of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Grouping;
use crate::alert::{
    notification::{Notification, Status, WORST, Worst},
    occurrence::{Class, Occurrence},
    time::later,
};

/// What alerts can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Label {
    /// The rule that decides.
    Rule,
    /// The systemd unit.
    Unit,
    /// The user.
    User,
    /// The container.
    Container,
    /// The parent's command.
    Parent,
    /// The command.
    Comm,
    /// The kind of channel.
    Channel,
    /// The writer itself: an alert each.
    Writer,
}

impl Label {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Rule,
        Self::Unit,
        Self::User,
        Self::Container,
        Self::Parent,
        Self::Comm,
        Self::Channel,
        Self::Writer,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Unit => "unit",
            Self::User => "user",
            Self::Container => "container",
            Self::Parent => "parent",
            Self::Comm => "comm",
            Self::Channel => "channel",
            Self::Writer => "writer",
        }
    }

    fn of(self, occurrence: &Occurrence) -> String {
        let Some(stall) = &occurrence.stall else {
            return String::new();
        };
        let value = match self {
            Self::Rule => occurrence.rule.as_deref(),
            Self::Unit => stall.unit.as_deref(),
            Self::User => stall.user.as_deref(),
            Self::Container => stall.container.as_deref(),
            Self::Parent => stall.parent.as_deref(),
            Self::Comm => Some(stall.comm.as_str()),
            Self::Channel => Some(stall.channel.as_str()),
            Self::Writer => Some(occurrence.subject()),
        };
        value.unwrap_or_default().to_owned()
    }
}

/// What the alerts of an incident have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What it is about, and so how bad.
    pub class: Class,
    /// The machine.
    pub node: String,
    /// The rest.
    pub labels: Vec<(Label, String)>,
}

impl Key {
    pub(super) fn new(by: &[Label], occurrence: &Occurrence) -> Self {
        Self {
            class: Class::of(&occurrence.kind),
            node: occurrence.node.clone(),
            labels: by.iter().map(|label| (*label, label.of(occurrence))).collect(),
        }
    }

    fn label(&self, wanted: Label) -> String {
        let found = self.labels.iter().find(|(label, _)| *label == wanted);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// A writer in an incident, or something that the agent said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// What has become of it.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is over.
    pub ended: bool,
    /// Whether its beginning or its end is still to be told.
    pub fresh: bool,
    /// Whether the agent has not seen it since it was started.
    pub doubted: bool,
    /// The last event about it, as JSON.
    pub event: String,
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its name, for receivers: that of its first event.
    pub id: String,
    pub(super) class: Class,
    opened: Timestamp,
    since: Timestamp,
    count: u64,
    /// Those that are over and told, by their last state.
    gone: BTreeMap<String, u64>,
    tellings: u64,
    last: Option<Timestamp>,
    doubt: Option<Timestamp>,
    /// Kept apart, for there may be thousands.
    #[serde(skip)]
    pub members: BTreeMap<String, Member>,
    #[serde(skip)]
    fresh: usize,
    #[serde(skip)]
    firing: usize,
}

/// What an event says of a writer: its state, and whether that is its end, if it says so.
fn standing(occurrence: &Occurrence) -> (String, Option<bool>) {
    let reason = occurrence.reason.as_deref().unwrap_or("unknown");
    match occurrence.kind.as_str() {
        "stall.detected" => ("stalled".to_owned(), Some(false)),
        "kill.planned" => ("about to be killed".to_owned(), None),
        "kill.sent" => ("signalled".to_owned(), None),
        "kill.confirmed" => ("killed".to_owned(), Some(true)),
        "kill.failed" => ("kill failed".to_owned(), None),
        "kill.skipped" => (format!("left alone: {reason}"), None),
        "stall.ended" if reason == "exited" => ("exited".to_owned(), Some(true)),
        "stall.ended" => ("recovered".to_owned(), Some(true)),
        other => (other.to_owned(), None),
    }
}

impl Incident {
    pub(super) fn new(key: &Key, occurrence: &Occurrence, now: Timestamp) -> Self {
        Self {
            id: occurrence.id.clone(),
            class: key.class,
            opened: now,
            since: occurrence.began(),
            count: 0,
            gone: BTreeMap::new(),
            tellings: 0,
            last: None,
            doubt: None,
            members: BTreeMap::new(),
            fresh: 0,
            firing: 0,
        }
    }

    /// Counts what is not kept, and forgives a clock that has been set back meanwhile.
    pub(super) fn restore(&mut self, now: Timestamp) {
        self.fresh = self.members.values().filter(|member| member.fresh).count();
        self.firing = self.members.values().filter(|member| !member.ended).count();
        self.opened = self.opened.min(now);
        self.last = self.last.map(|last| last.min(now));
    }

    pub(super) fn add(&mut self, subject: &str, occurrence: &Occurrence) {
        let (state, ended) = standing(occurrence);
        let event = occurrence.event.to_string();
        let Some(mut member) = self.take(subject) else {
            self.count += 1;
            self.since = self.since.min(occurrence.began());
            let member = Member {
                state,
                since: occurrence.began(),
                ended: ended == Some(true),
                fresh: true,
                doubted: false,
                event,
            };
            self.put(subject, member);
            return;
        };
        let was_over = member.ended;
        match ended {
            Some(false) if was_over => {
                self.count += 1;
                member.state = state;
                member.since = occurrence.began();
                member.ended = false;
                member.fresh = true;
            }
            // Seen again; what has been done about it is still the better word.
            Some(false) => {}
            Some(true) => {
                member.state = state;
                member.ended = true;
                member.fresh |= !was_over;
            }
            None => member.state = state,
        }
        member.doubted = false;
        member.event = event;
        self.put(subject, member);
    }

    /// As [`Self::add`] for one that is known, but begins nothing anew.
    pub(super) fn update(&mut self, subject: &str, occurrence: &Occurrence) {
        let is_news = standing(occurrence).1 != Some(false);
        if is_news && self.members.contains_key(subject) {
            self.add(subject, occurrence);
        }
    }

    pub(super) fn end(&mut self, subject: &str, occurrence: &Occurrence) {
        self.over(
            subject,
            &standing(occurrence).0,
            Some(occurrence.event.to_string()),
        );
    }

    pub(super) fn lose(&mut self, subject: &str, occurrence: &Occurrence) {
        let by = occurrence.rule.as_deref().unwrap_or("no rule");
        self.over(subject, &format!("now under {by}"), None);
    }

    /// It is over, unless it was before.
    fn over(&mut self, subject: &str, state: &str, event: Option<String>) {
        let Some(mut member) = self.take(subject) else {
            return;
        };
        if !member.ended {
            state.clone_into(&mut member.state);
            member.ended = true;
            member.fresh = true;
            member.event = event.unwrap_or(member.event);
        }
        self.put(subject, member);
    }

    pub(super) fn doubt(&mut self, until: Timestamp) -> Vec<String> {
        self.doubt = Some(until);
        let open = self.members.iter_mut().filter(|(_, member)| !member.ended);
        open.map(|(subject, member)| {
            member.doubted = true;
            subject.clone()
        })
        .collect()
    }

    /// Ends those that were in doubt for long enough.
    pub(super) fn settle(&mut self, now: Timestamp) -> Vec<String> {
        if self.doubt.is_none_or(|until| until > now) {
            return Vec::new();
        }
        self.doubt = None;
        let doubted: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.doubted && !member.ended)
            .map(|(subject, _)| subject.clone())
            .collect();
        for subject in &doubted {
            self.over(subject, "gone when the agent was started", None);
        }
        doubted
    }

    pub(super) fn due(&self, settings: &Grouping) -> Option<Timestamp> {
        let telling = match self.last {
            None => Some(later(self.opened, settings.wait)),
            Some(last) if self.fresh > 0 => Some(later(last, settings.interval)),
            Some(last) if self.firing > 0 && self.class.lasts() => Some(later(last, settings.repeat)),
            Some(_) => None,
        };
        telling.into_iter().chain(self.doubt).min()
    }

    /// What is to be told now, if anything.
    pub(super) fn tell(
        &mut self,
        key: &Key,
        webhook: &str,
        settings: &Grouping,
        is_queued: bool,
        now: Timestamp,
    ) -> Option<Notification> {
        let is_first = self.tellings == 0;
        let is_news = |member: &Member| member.fresh && (!member.ended || settings.send_resolved);
        if !is_first && !self.members.values().any(is_news) {
            let is_repeat = self.fresh == 0;
            if !is_repeat || is_queued {
                return None;
            }
        }
        let id = format!("msg_{}_{}_{webhook}", self.id, self.tellings);
        self.tellings += 1;
        let mut states = self.gone.clone();
        for member in self.members.values() {
            *states.entry(member.state.clone()).or_default() += 1;
        }
        let mut worst: Vec<_> = self.members.values().collect();
        worst.sort_by_key(|member| (member.ended, member.since));
        worst.truncate(WORST);
        Some(Notification {
            id,
            incident: self.id.clone(),
            alert: self.class.name(),
            status: if self.firing > 0 {
                Status::Firing
            } else {
                Status::Resolved
            },
            severity: self.class.severity(),
            node: key.node.clone(),
            rule: key.label(Label::Rule),
            unit: key.label(Label::Unit),
            labels: key
                .labels
                .iter()
                .map(|(label, value)| (label.as_str(), value.clone()))
                .collect(),
            since: self.since,
            time: now,
            count: self.count,
            firing: self.firing as u64,
            states,
            worst: worst
                .into_iter()
                .map(|member| Worst {
                    state: member.state.clone(),
                    event: serde_json::from_str(&member.event).unwrap_or(Value::Null),
                })
                .collect(),
            class: self.class,
            subjects: self.members.keys().cloned().collect(),
        })
    }

    /// What there was to tell has been told; who is over, or is only said once, is let go.
    /// Returns those whose record has changed.
    pub(super) fn told(&mut self, now: Timestamp) -> Vec<String> {
        self.last = Some(now);
        let mut changed = Vec::new();
        let lasts = self.class.lasts();
        for (subject, member) in &mut self.members {
            if member.fresh {
                member.fresh = false;
                changed.push(subject.clone());
            }
        }
        self.fresh = 0;
        for subject in &changed {
            let is_over = |member: &&Member| member.ended || !lasts;
            if let Some(state) = self
                .members
                .get(subject)
                .filter(is_over)
                .map(|member| member.state.clone())
            {
                self.take(subject);
                *self.gone.entry(state).or_default() += 1;
            }
        }
        changed
    }

    fn take(&mut self, subject: &str) -> Option<Member> {
        let member = self.members.remove(subject)?;
        self.fresh -= usize::from(member.fresh);
        self.firing -= usize::from(!member.ended);
        Some(member)
    }

    fn put(&mut self, subject: &str, member: Member) {
        self.fresh += usize::from(member.fresh);
        self.firing += usize::from(!member.ended);
        self.members.insert(subject.to_owned(), member);
    }
}
