//! What who looks after alerts asks of the desk: how webhooks fare, and what becomes of messages.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Desk;
use crate::alert::{
    listing::{Chosen, Message, Unknown},
    queue::{Number, Queue},
    status::{Status, WebhookStatus},
    time::between,
};

impl Desk {
    /// How each webhook fares.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        let webhooks = self.queues.iter().map(|(name, queue)| {
            let oldest = queue.entries().values().find(|entry| !entry.refused);
            let (queued, refused) = queue.lengths();
            let counts = queue.counts();
            let post = self.posts.get(name);
            WebhookStatus {
                name: name.clone(),
                format: post.map(|post| post.webhook.format.as_str()),
                incidents: post.map_or(0, |post| post.groups.incidents().len()),
                queued,
                refused,
                oldest_seconds: oldest.map(|entry| between(entry.made, now).as_secs_f64()),
                delivered_total: counts.delivered,
                failed_total: counts.failed,
                refused_total: counts.refused,
                dropped_total: counts.dropped,
                down: queue.is_down(),
                disabled: queue.disabled().map(str::to_owned),
                last_error: queue.last_error().map(|(_, why)| why.clone()),
                last_error_at: queue.last_error().map(|(at, _)| *at),
            }
        });
        Status {
            webhooks: webhooks.collect(),
            last_event: self.cursor,
            spool_entries: self.queues.values().map(|queue| queue.entries().len()).sum(),
            spool_bytes: self.queues.values().map(Queue::size).sum(),
            ..Status::default()
        }
    }

    /// The messages that are still to be delivered or were refused, by number.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        let mut messages: Vec<_> = self
            .queues
            .values()
            .flat_map(|queue| {
                let entries = queue.entries().values();
                entries.map(|entry| Message::new(entry, queue.disabled()))
            })
            .collect();
        messages.sort_by_key(|message| message.number);
        messages
    }

    /// Tries messages again now; returns how many.
    ///
    /// # Errors
    /// One of them is not there; nothing is changed.
    pub fn retry(&mut self, chosen: &Chosen, now: Timestamp) -> Result<usize, Unknown> {
        self.change(chosen, |queue, number| queue.retry_now(number, now))
    }

    /// Gives messages up; returns how many.
    ///
    /// # Errors
    /// One of them is not there; nothing is changed.
    pub fn discard(&mut self, chosen: &Chosen) -> Result<usize, Unknown> {
        self.change(chosen, Queue::discard)
    }

    fn change(
        &mut self,
        chosen: &Chosen,
        change: impl Fn(&mut Queue, Number) -> bool,
    ) -> Result<usize, Unknown> {
        let known = |number: &Number| {
            let mut queues = self.queues.values();
            queues.any(|queue| queue.entries().contains_key(number))
        };
        let numbers: BTreeSet<Number> = match chosen {
            Chosen::Numbers(numbers) => numbers.iter().copied().collect(),
            Chosen::All => {
                let queues = self.queues.values();
                queues.flat_map(|queue| queue.entries().keys().copied()).collect()
            }
        };
        let unknown: Vec<_> = numbers.iter().filter(|number| !known(number)).copied().collect();
        if !unknown.is_empty() {
            return Err(Unknown(unknown));
        }
        for number in &numbers {
            self.queues.values_mut().any(|queue| change(queue, *number));
        }
        Ok(numbers.len())
    }
}
