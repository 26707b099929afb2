//! Hands events to whoever subscribes, without ever waiting for them.
//!
//! Each subscriber has a queue of its own. What does not fit is lost to that subscriber
//! alone, and it is told how many, at the place where they are missing.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::event::Event;

/// An event that has been written to the journal, where one is kept.
#[derive(Debug)]
pub struct Published {
    /// The event.
    pub event: Event,
    /// The same as its line in the journal.
    pub json: String,
}

/// Where events come from. Clones share their subscribers.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Subscriber {
    queue: mpsc::Sender<Delivery>,
    missed: u64,
}

/// An event, and how many before it did not fit.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// How many were lost since the delivery before.
    pub missed: u64,
    /// The event.
    pub event: Arc<Published>,
}

/// One subscriber's queue. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription(mpsc::Receiver<Delivery>);

impl Subscription {
    /// The next event; `None` once the agent has stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }

    /// The same, for a thread without a runtime.
    pub fn next_blocking(&mut self) -> Option<Delivery> {
        self.0.blocking_recv()
    }
}

impl Hub {
    /// Everything that is published from now on, as long as no more than `capacity` events wait.
    #[must_use]
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        let (queue, events) = mpsc::channel(capacity.max(1));
        self.lock().push(Subscriber { queue, missed: 0 });
        Subscription(events)
    }

    /// Hands an event to all subscribers.
    pub fn publish(&self, event: &Arc<Published>) {
        self.lock().retain_mut(|subscriber| {
            let delivery = Delivery {
                missed: subscriber.missed,
                event: Arc::clone(event),
            };
            match subscriber.queue.try_send(delivery) {
                Ok(()) => subscriber.missed = 0,
                Err(TrySendError::Full(_)) => {
                    subscriber.missed += 1;
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                Err(TrySendError::Closed(_)) => return false,
            }
            true
        });
    }

    /// Ends all subscriptions once their queues are empty.
    pub fn close(&self) {
        self.lock().clear();
    }

    /// How many events subscribers have lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How many subscribers there are, and how many events wait for them.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        let subscribers = self.lock();
        let queued = subscribers
            .iter()
            .map(|s| s.queue.max_capacity() - s.queue.capacity())
            .sum();
        (subscribers.len(), queued)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stamp;

    fn published(stamp: &mut Stamp) -> Arc<Published> {
        let event = stamp.agent("agent.started", None);
        let json = serde_json::to_string(&event).unwrap();
        Arc::new(Published { event, json })
    }

    fn taken(subscription: &mut Subscription) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| subscription.0.try_recv().ok())
            .map(|delivery| (delivery.missed, delivery.event.event.seq))
            .collect()
    }

    #[test]
    fn who_is_slow_loses_events_and_is_told_where_and_others_lose_none() {
        let (hub, mut stamp) = (Hub::default(), Stamp::after(0));
        let (mut slow, mut quick) = (hub.subscribe(2), hub.subscribe(100));
        for _ in 0..5 {
            hub.publish(&published(&mut stamp));
        }
        assert_eq!(taken(&mut slow), [(0, 1), (0, 2)]);
        hub.publish(&published(&mut stamp));
        assert_eq!(taken(&mut slow), [(3, 6)]);
        assert_eq!(taken(&mut quick), (1..=6).map(|seq| (0, seq)).collect::<Vec<_>>());
        assert_eq!(hub.lost(), 3);
    }

    #[test]
    fn who_has_gone_is_forgotten_and_a_closed_hub_ends_the_rest() {
        let (hub, mut stamp) = (Hub::default(), Stamp::after(0));
        drop(hub.subscribe(1));
        let mut stays = hub.subscribe(1);
        hub.publish(&published(&mut stamp));
        assert_eq!(hub.queued(), (1, 1));
        hub.close();
        assert_eq!(stays.next_blocking().map(|d| d.event.event.seq), Some(1));
        assert!(stays.next_blocking().is_none());
    }
}
