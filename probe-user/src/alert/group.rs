//! Makes incidents of events, for one webhook: many stalls of one cause are one alert.
//!
//! A state machine without clock or I/O. It works as Alertmanager's users know it: an
//! incident is first told `group_wait` after it began, what is new of it no sooner than
//! `group_interval` after that, and again each `repeat_interval` while it lasts.
//! Two things differ: what is over before it was ever told is told all the same, for a
//! process may have been ended; and what the agent says of itself is told once.

mod incident;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

pub use self::incident::{Incident, Key, Label, Member};
use super::{notification::Notification, occurrence::Occurrence, time::later};

/// How long after a start of the agent a writer that is still stalled has to be seen again.
const SETTLE: Duration = Duration::from_mins(1);

/// How alerts are grouped, and how often they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// What the alerts of an incident have in common, besides node and severity.
    pub by: Vec<Label>,
    /// From an incident's first event until it is told.
    pub wait: Duration,
    /// The least time until what is new of it is told.
    pub interval: Duration,
    /// After how long it is told again though nothing is new.
    pub repeat: Duration,
    /// Whether its end is told.
    pub send_resolved: bool,
}

/// What has changed, and so has to be kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// An incident without its members; it may be gone.
    Incident(Key),
    /// A member of an incident; it may be gone.
    Member(Key, String),
}

/// The incidents of one webhook.
#[derive(Debug)]
pub struct Groups {
    webhook: String,
    settings: Grouping,
    incidents: BTreeMap<Key, Incident>,
    /// In which incidents a writer is.
    places: BTreeMap<String, BTreeSet<Key>>,
    touched: BTreeSet<Touched>,
}

impl Groups {
    /// No incidents yet. `webhook` makes the messages' names differ from those of others.
    #[must_use]
    pub const fn new(webhook: String, settings: Grouping) -> Self {
        Self {
            webhook,
            settings,
            incidents: BTreeMap::new(),
            places: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The same incidents, told by other settings. What they are grouped by holds for new ones.
    #[must_use]
    pub fn regrouped(self, settings: Grouping) -> Self {
        Self { settings, ..self }
    }

    /// Goes on with incidents of an earlier run; nothing of it counts as changed.
    pub fn restore(&mut self, mut incidents: BTreeMap<Key, Incident>, now: Timestamp) {
        for (key, incident) in &mut incidents {
            incident.restore(now);
            for subject in incident.members.keys() {
                self.places
                    .entry(subject.clone())
                    .or_default()
                    .insert(key.clone());
            }
        }
        self.incidents = incidents;
    }

    /// The incidents, as they are.
    #[must_use]
    pub const fn incidents(&self) -> &BTreeMap<Key, Incident> {
        &self.incidents
    }

    /// What has changed since this was last asked.
    pub fn touched(&mut self) -> BTreeSet<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// Takes an event in. Only one that is `wanted` makes or adds to an incident; every one
    /// tells what became of the writers that are known.
    pub fn handle(&mut self, occurrence: &Occurrence, wanted: bool, now: Timestamp) {
        if occurrence.kind == "agent.started" {
            self.doubt(now);
        }
        let subject = occurrence.subject();
        if occurrence.kind == "stall.ended" {
            // It carries no rule, and begins nothing: an incident's end is told by itself.
            for key in self.places.get(subject).cloned().unwrap_or_default() {
                self.change(&key, subject, |incident| incident.end(subject, occurrence));
            }
            return;
        }
        let key = Key::new(&self.settings.by, occurrence);
        let others: Vec<_> = self
            .places
            .get(subject)
            .into_iter()
            .flatten()
            .filter(|place| **place != key)
            .cloned()
            .collect();
        for other in others {
            // A writer is in one incident of a class: the one of the rule that decides now. What is
            // known of its end is known of it in every class.
            self.change(&other, subject, |incident| {
                if other.class == key.class {
                    incident.lose(subject, occurrence);
                } else {
                    incident.update(subject, occurrence);
                }
            });
        }
        let known = self
            .incidents
            .get(&key)
            .is_some_and(|incident| incident.members.contains_key(subject));
        if !known && !wanted {
            return;
        }
        if !self.incidents.contains_key(&key) {
            self.incidents
                .insert(key.clone(), Incident::new(&key, occurrence, now));
            self.touched.insert(Touched::Incident(key.clone()));
        }
        self.places
            .entry(subject.to_owned())
            .or_default()
            .insert(key.clone());
        self.change(&key, subject, |incident| incident.add(subject, occurrence));
    }

    /// When [`Self::flush`] is next due.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.incidents
            .values()
            .filter_map(|incident| incident.due(&self.settings))
            .min()
    }

    /// Tells what is due. An incident of which something `is_queued` is not repeated.
    pub fn flush(&mut self, now: Timestamp, is_queued: impl Fn(&str) -> bool) -> Vec<Notification> {
        let due: Vec<_> = self
            .incidents
            .iter()
            .filter(|(_, incident)| incident.due(&self.settings).is_some_and(|due| due <= now))
            .map(|(key, _)| key.clone())
            .collect();
        let mut told = Vec::new();
        for key in due {
            let Some(incident) = self.incidents.get_mut(&key) else {
                continue;
            };
            self.touched.insert(Touched::Incident(key.clone()));
            for subject in incident.settle(now) {
                self.touched.insert(Touched::Member(key.clone(), subject));
            }
            if incident.due(&self.settings).is_none_or(|due| due > now) {
                continue;
            }
            let queued = is_queued(&incident.id);
            told.extend(incident.tell(&key, &self.webhook, &self.settings, queued, now));
            for subject in incident.told(now) {
                self.touched.insert(Touched::Member(key.clone(), subject.clone()));
                if !incident.members.contains_key(&subject) {
                    forget(&mut self.places, &subject, &key);
                }
            }
            if incident.members.is_empty() {
                self.incidents.remove(&key);
            }
        }
        told
    }

    /// The agent has been started anew: which writers are still stalled is to be seen.
    fn doubt(&mut self, now: Timestamp) {
        let until = later(now, SETTLE);
        for (key, incident) in &mut self.incidents {
            if !key.class.lasts() {
                continue;
            }
            for subject in incident.doubt(until) {
                self.touched.insert(Touched::Member(key.clone(), subject));
            }
            self.touched.insert(Touched::Incident(key.clone()));
        }
    }

    fn change(&mut self, key: &Key, subject: &str, change: impl FnOnce(&mut Incident)) {
        if let Some(incident) = self.incidents.get_mut(key) {
            change(incident);
            self.touched.insert(Touched::Incident(key.clone()));
            self.touched
                .insert(Touched::Member(key.clone(), subject.to_owned()));
        }
    }
}

fn forget(places: &mut BTreeMap<String, BTreeSet<Key>>, subject: &str, key: &Key) {
    if let Some(keys) = places.get_mut(subject) {
        keys.remove(key);
        if keys.is_empty() {
            places.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests;
