//! All webhooks together: events go in at one end, messages come out at the other, and what
//! must not be forgotten in between is told as changes.
//!
//! A state machine without clock or I/O.

mod asked;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    group::{Groups, Incident, Key, Touched},
    occurrence::Occurrence,
    outcome::Outcome,
    queue::{Entry, Number, Queue},
    spool::{Change, Left, encode},
    time::later,
    webhook::{Limits, Retry, Webhook},
};

/// Messages to a webhook that is not configured any more are kept like others, but not sent.
const STRAY: &str = "no webhook of this name is configured";

const STRAY_RETRY: Retry = Retry {
    min: std::time::Duration::from_secs(1),
    max: std::time::Duration::from_mins(5),
};

/// A webhook with what it has to do.
#[derive(Debug)]
struct Post {
    webhook: Webhook,
    groups: Groups,
}

/// What is complained of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Template,
    Refused,
    Gone,
    TooOld,
    TooMany,
}

/// What came of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is taken in.
    Yes,
    /// It had been taken in before.
    Known,
    /// Lines before it are missing.
    Gap,
    /// It is no event.
    Unreadable,
}

/// The webhooks, their incidents and their messages.
#[derive(Debug)]
pub struct Desk {
    posts: BTreeMap<String, Post>,
    queues: BTreeMap<String, Queue>,
    limits: Limits,
    /// The number of the last event that was taken in.
    cursor: u64,
    cursor_moved: bool,
    next: Number,
    /// Messages whose body is not kept yet.
    new: BTreeSet<Number>,
    complaints: Vec<String>,
    /// What has been complained of: once, until it is good again, for a complaint makes an alert.
    said: BTreeSet<(String, Fault)>,
    /// Incidents of webhooks that are not configured any more, to be forgotten.
    stale: Vec<Change>,
}

impl Desk {
    /// Goes on with what an earlier run has left. Without any, events up to `last` are history.
    #[must_use]
    pub fn new(webhooks: Vec<Webhook>, limits: Limits, left: Left, last: u64, now: Timestamp) -> Self {
        let mut desk = Self {
            posts: BTreeMap::new(),
            queues: BTreeMap::new(),
            limits,
            // A journal that ends sooner lost its end with the power; its numbers are used again.
            cursor: left.cursor.map_or(last, |cursor| cursor.min(last)),
            cursor_moved: true,
            next: left.entries.last().map_or(1, |entry| entry.number + 1),
            new: BTreeSet::new(),
            complaints: Vec::new(),
            said: BTreeSet::new(),
            stale: Vec::new(),
        };
        desk.configure(webhooks, limits);
        for (name, incidents) in left.incidents {
            match desk.posts.get_mut(&name) {
                Some(post) => post.groups.restore(incidents, now),
                None => desk.stale.extend(forgotten(&name, &incidents)),
            }
        }
        for entry in left.entries {
            desk.queue(&entry.webhook.clone()).restore(entry, now);
        }
        desk
    }

    /// Takes other webhooks. Those whose name stays go on with what they have; whoever was
    /// disabled is tried again.
    pub fn configure(&mut self, webhooks: Vec<Webhook>, limits: Limits) {
        self.limits = limits;
        self.said.clear();
        let mut old = std::mem::take(&mut self.posts);
        for queue in self.queues.values_mut() {
            queue.disable(STRAY);
        }
        for webhook in webhooks {
            let name = webhook.name.clone();
            let groups = match old.remove(&name) {
                Some(post) => post.groups.regrouped(webhook.grouping.clone()),
                None => Groups::new(name.clone(), webhook.grouping.clone()),
            };
            self.queues
                .entry(name.clone())
                .or_insert_with(|| Queue::new(webhook.retry))
                .enable(webhook.retry);
            self.posts.insert(name, Post { webhook, groups });
        }
        for (name, post) in &old {
            self.stale.extend(forgotten(name, post.groups.incidents()));
        }
    }

    fn queue(&mut self, webhook: &str) -> &mut Queue {
        self.queues.entry(webhook.to_owned()).or_insert_with(|| {
            let mut queue = Queue::new(STRAY_RETRY);
            queue.disable(STRAY);
            queue
        })
    }

    /// The number of the last event that was taken in.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Goes on after this event, whatever was before it.
    pub const fn skip_to(&mut self, seq: u64) {
        self.cursor = seq;
        self.cursor_moved = true;
    }

    /// Takes in a line of the journal.
    pub fn take(&mut self, seq: u64, line: &str, now: Timestamp) -> Taken {
        if seq <= self.cursor {
            return Taken::Known;
        }
        if seq > self.cursor + 1 {
            return Taken::Gap;
        }
        self.skip_to(seq);
        let Ok(occurrence) = Occurrence::parse(line) else {
            return Taken::Unreadable;
        };
        for Post { webhook, groups } in self.posts.values_mut() {
            let told = occurrence.clone().redacted(&webhook.redaction);
            groups.handle(&told, webhook.wants(&told.kind), now);
        }
        Taken::Yes
    }

    /// Writes the messages that are due, and gives up what is too old or too much.
    pub fn tick(&mut self, now: Timestamp) {
        for (name, post) in &mut self.posts {
            let Some(queue) = self.queues.get_mut(name) else {
                continue;
            };
            for notification in post.groups.flush(now, |incident| queue.holds(incident)) {
                let (words, wrong) = post.webhook.templates.write(&notification);
                if let Some(wrong) = wrong
                    && self.said.insert((name.clone(), Fault::Template))
                {
                    self.complaints.push(format!(
                        "webhook {name}: the template {wrong}; the usual words are sent"
                    ));
                }
                let body = post.webhook.format.body(&notification, &words);
                queue.push(Entry::new(self.next, name, &notification, &words, body));
                self.new.insert(self.next);
                self.next += 1;
            }
        }
        self.keep_limits(now);
    }

    fn keep_limits(&mut self, now: Timestamp) {
        let (mut old, mut many) = (0_u64, 0_u64);
        for queue in self.queues.values_mut() {
            let is_old = |entry: &&Entry| later(entry.made, self.limits.age) < now;
            // The first is the oldest, so this ends at once where nothing is too old.
            let numbers: Vec<_> = queue
                .entries()
                .values()
                .take_while(is_old)
                .map(|entry| entry.number)
                .collect();
            for number in numbers {
                old += u64::from(!queue.is_flying(number) && queue.discard(number));
            }
        }
        while self.queues.values().map(Queue::size).sum::<u64>() > self.limits.size {
            // The newest of the worst is what remains.
            let candidates = self.queues.iter().flat_map(|(name, queue)| {
                queue
                    .entries()
                    .values()
                    .filter(|entry| !queue.is_flying(entry.number))
                    .map(move |entry| (entry.severity, entry.number, name))
            });
            let Some((_, number, name)) = candidates.min() else {
                break;
            };
            let name = name.clone();
            many += u64::from(self.queue(&name).discard(number));
        }
        for (count, fault, why) in [
            (old, Fault::TooOld, "not delivered within [spool] max_age"),
            (many, Fault::TooMany, "the spool is full ([spool] max_mib)"),
        ] {
            if count > 0 {
                self.say(
                    "",
                    fault,
                    format!("messages are being dropped, {count} for now: {why}"),
                );
            }
        }
    }

    fn say(&mut self, webhook: &str, fault: Fault, what: String) {
        if self.said.insert((webhook.to_owned(), fault)) {
            self.complaints.push(what);
        }
    }

    /// When something is next to be done.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let groups = self.posts.values().filter_map(|post| post.groups.due());
        groups.chain(self.queues.values().filter_map(Queue::due)).min()
    }

    /// The next message to be sent, if one is due.
    pub fn start(&mut self, now: Timestamp) -> Option<Entry> {
        self.queues
            .values_mut()
            .find_map(|queue| queue.start(now))
            .cloned()
    }

    /// What came of sending it.
    pub fn finish(&mut self, webhook: &str, number: Number, outcome: Outcome, now: Timestamp) {
        match &outcome {
            Outcome::Delivered => self
                .said
                .retain(|(of, fault)| *fault == Fault::Template || !(of.is_empty() || of == webhook)),
            Outcome::Refused(why) => self.say(
                webhook,
                Fault::Refused,
                format!("webhook {webhook} refused a message, which is kept (pipestall alerts list): {why}"),
            ),
            Outcome::Gone(why) => self.say(
                webhook,
                Fault::Gone,
                format!("webhook {webhook} gets nothing more until the configuration is loaded anew: {why}"),
            ),
            Outcome::Failed { .. } => {}
        }
        if let Some(queue) = self.queues.get_mut(webhook) {
            queue.finish(number, outcome, now);
        }
    }

    /// What is to be known by who looks after this, since this was last asked.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// What has changed since this was last asked.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.stale);
        if std::mem::take(&mut self.cursor_moved) {
            changes.push(Change::Cursor(self.cursor));
        }
        for (name, post) in &mut self.posts {
            for touched in post.groups.touched() {
                changes.push(kept(name, &post.groups, &touched));
            }
        }
        for queue in self.queues.values_mut() {
            for number in queue.touched() {
                let entry = queue.entries().get(&number);
                let is_new = self.new.remove(&number);
                match entry {
                    Some(entry) => {
                        changes.push(Change::Entry(number, Some(encode(entry))));
                        if is_new {
                            changes.push(Change::Body(number, Some(entry.body.clone())));
                        }
                    }
                    // What is gone before it was ever kept needs no forgetting.
                    None if is_new => {}
                    None => {
                        changes.push(Change::Entry(number, None));
                        changes.push(Change::Body(number, None));
                    }
                }
            }
        }
        changes
    }

    /// All there is, for a file that is written anew.
    pub fn image(&mut self) -> Vec<Change> {
        drop(self.changes());
        let mut image = vec![Change::Cursor(self.cursor)];
        for (name, post) in &self.posts {
            for (key, incident) in post.groups.incidents() {
                image.push(kept(name, &post.groups, &Touched::Incident(key.clone())));
                for subject in incident.members.keys() {
                    let touched = Touched::Member(key.clone(), subject.clone());
                    image.push(kept(name, &post.groups, &touched));
                }
            }
        }
        for entry in self.queues.values().flat_map(|queue| queue.entries().values()) {
            image.push(Change::Entry(entry.number, Some(encode(entry))));
            image.push(Change::Body(entry.number, Some(entry.body.clone())));
        }
        image
    }
}

/// The changes by which incidents are forgotten.
fn forgotten(webhook: &str, incidents: &BTreeMap<Key, Incident>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, incident) in incidents {
        changes.push(Change::Incident(webhook.to_owned(), name(key), None));
        for subject in incident.members.keys() {
            changes.push(Change::Member(
                webhook.to_owned(),
                name(key),
                subject.clone(),
                None,
            ));
        }
    }
    changes
}

/// An incident's key as the spool has it.
fn name(key: &Key) -> String {
    String::from_utf8(encode(key)).unwrap_or_default()
}

fn kept(webhook: &str, groups: &Groups, touched: &Touched) -> Change {
    match touched {
        Touched::Incident(key) => {
            let incident = groups.incidents().get(key);
            Change::Incident(webhook.to_owned(), name(key), incident.map(encode))
        }
        Touched::Member(key, subject) => {
            let incident = groups.incidents().get(key);
            let member = incident.and_then(|incident| incident.members.get(subject));
            Change::Member(webhook.to_owned(), name(key), subject.clone(), member.map(encode))
        }
    }
}

#[cfg(test)]
mod tests;
