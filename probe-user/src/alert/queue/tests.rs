use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::alert::occurrence::Severity;

const RETRY: Retry = Retry {
    min: Duration::from_secs(1),
    max: Duration::from_mins(5),
};

fn at(millis: u64) -> Timestamp {
    later(Timestamp::UNIX_EPOCH, Duration::from_millis(millis))
}

fn entry(number: Number, subjects: &[u64]) -> Entry {
    Entry {
        number,
        message: format!("msg_{number}"),
        webhook: "ops".into(),
        incident: format!("incident-{}", subjects.first().unwrap_or(&0)),
        severity: Severity::Warning,
        title: "t".into(),
        made: at(0),
        attempts: 0,
        next_try: at(0),
        refused: false,
        last_error: None,
        subjects: subjects.to_vec(),
        body: Arc::from(&b"{}"[..]),
    }
}

fn queue(entries: &[(Number, &[u64])]) -> Queue {
    let mut queue = Queue::new(RETRY);
    for (number, subjects) in entries {
        queue.push(entry(*number, subjects));
    }
    queue
}

fn start_all(queue: &mut Queue, now: Timestamp) -> Vec<Number> {
    std::iter::from_fn(|| queue.start(now).map(|entry| entry.number)).collect()
}

fn failed() -> Outcome {
    Outcome::failed("x".into())
}

#[test]
fn messages_about_different_writers_go_at_once_and_about_one_in_order() {
    let mut queue = queue(&[(1, &[10]), (2, &[20]), (3, &[10, 20]), (4, &[20]), (5, &[30])]);
    assert_eq!(start_all(&mut queue, at(0)), [1, 2, 5]);
    queue.finish(1, Outcome::Delivered, at(1));
    assert!(start_all(&mut queue, at(1)).is_empty());
    queue.finish(2, Outcome::Delivered, at(1));
    assert_eq!(start_all(&mut queue, at(1)), [3]);
    queue.finish(3, Outcome::Delivered, at(2));
    assert_eq!(start_all(&mut queue, at(2)), [4]);
}

#[test]
fn what_fails_is_tried_again_later_and_holds_up_only_its_own_writer() {
    let mut queue = queue(&[(1, &[10]), (2, &[10]), (3, &[20])]);
    assert_eq!(start_all(&mut queue, at(0)), [1, 3]);
    queue.finish(1, failed(), at(0));
    queue.finish(3, Outcome::Delivered, at(0));
    assert!(start_all(&mut queue, at(999)).is_empty());
    let due = queue.due().unwrap();
    assert!((at(1000)..=at(2000)).contains(&due), "{due}");
    assert_eq!(start_all(&mut queue, due), [1]);
    assert_eq!(queue.entries()[&1].attempts, 1);
    queue.finish(1, Outcome::Delivered, due);
    assert_eq!(start_all(&mut queue, due), [2]);
    let counts = queue.counts();
    assert_eq!((counts.delivered, counts.failed), (2, 1));
}

#[test]
fn delays_grow_to_their_limit_and_differ() {
    let delays: Vec<_> = (0..20).map(|attempt| RETRY.delay(attempt)).collect();
    for (attempt, delay) in (0..).zip(&delays) {
        let base = RETRY.min.saturating_mul(1 << attempt.min(20)).min(RETRY.max / 2);
        assert!(*delay >= base && *delay <= RETRY.max, "{attempt}: {delay:?}");
    }
    let mut some: Vec<_> = (0..50).map(|_| RETRY.delay(3)).collect();
    some.dedup();
    assert!(some.len() > 10, "jitter");
    assert!(RETRY.delay(u32::MAX) <= RETRY.max);
}

#[test]
fn what_a_receiver_refuses_is_kept_and_holds_up_nothing() {
    let mut queue = queue(&[(1, &[10]), (2, &[10])]);
    assert_eq!(start_all(&mut queue, at(0)), [1]);
    queue.finish(1, Outcome::Refused("status 400".into()), at(0));
    assert_eq!(start_all(&mut queue, at(0)), [2]);
    assert!(queue.entries()[&1].refused);
    assert_eq!(queue.entries()[&1].last_error.as_deref(), Some("status 400"));
    queue.finish(2, Outcome::Delivered, at(1));
    assert_eq!(queue.due(), None);
    assert!(queue.retry_now(1, at(5)));
    assert_eq!(start_all(&mut queue, at(5)), [1]);
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_more_and_nothing_is_lost() {
    let mut queue = queue(&[(1, &[10]), (2, &[20])]);
    assert_eq!(queue.start(at(0)).map(|entry| entry.number), Some(1));
    queue.finish(1, Outcome::Gone("status 410".into()), at(0));
    assert_eq!(queue.due(), None);
    assert!(start_all(&mut queue, at(1_000_000)).is_empty());
    assert_eq!(queue.disabled(), Some("status 410"));
    assert_eq!(queue.entries().len(), 2);
}

#[test]
fn a_receiver_that_wants_to_be_left_alone_is() {
    let mut queue = queue(&[(1, &[10]), (2, &[20])]);
    queue.start(at(0));
    let wait = Some(Duration::from_mins(1));
    queue.finish(
        1,
        Outcome::Failed {
            why: "429".into(),
            wait,
        },
        at(0),
    );
    assert_eq!(queue.due(), Some(at(60_000)));
    assert!(start_all(&mut queue, at(59_999)).is_empty());
    assert_eq!(start_all(&mut queue, at(60_000)).len(), 2);
}

#[test]
fn a_receiver_that_only_fails_is_asked_about_one_message_at_a_time() {
    let entries: Vec<_> = (1..=40).map(|number| (number, [number])).collect();
    let mut queue = Queue::new(RETRY);
    for (number, subjects) in &entries {
        queue.push(entry(*number, subjects));
    }
    let flying = start_all(&mut queue, at(0));
    assert_eq!(flying.len(), AT_ONCE);
    for number in flying {
        queue.finish(number, failed(), at(0));
    }
    assert!(queue.is_down());
    let due = queue.due().unwrap();
    assert!(due >= at(1000), "{due}");
    assert_eq!(start_all(&mut queue, due).len(), 1);
    assert_eq!(queue.due(), None, "until that one has come back");
    let flying = *queue.flying.first().unwrap();
    queue.finish(flying, Outcome::Delivered, due);
    assert!(start_all(&mut queue, due).len() > 1);
}

#[test]
fn what_is_dropped_lets_those_behind_it_go() {
    let mut queue = queue(&[(1, &[10]), (2, &[10]), (3, &[10])]);
    assert!(queue.discard(2));
    assert!(!queue.discard(2));
    assert_eq!(start_all(&mut queue, at(0)), [1]);
    assert!(queue.discard(1));
    assert_eq!(start_all(&mut queue, at(0)), [3]);
    queue.finish(1, Outcome::Delivered, at(0));
    queue.finish(3, Outcome::Delivered, at(0));
    assert_eq!((queue.size(), queue.entries().len()), (0, 0));
    assert!(queue.chains.is_empty() && queue.behind.is_empty() && queue.incidents.is_empty());
    assert_eq!(queue.touched(), [1, 2, 3].into());
}

#[test]
fn an_earlier_runs_messages_keep_their_order() {
    let mut queue = Queue::new(RETRY);
    let mut first = entry(1, &[10]);
    first.next_try = at(1_000_000_000);
    queue.restore(first, at(0));
    queue.restore(entry(2, &[10]), at(0));
    let due = queue.due().unwrap();
    assert!(due <= later(at(0), RETRY.max), "a clock set back: {due}");
    assert_eq!(start_all(&mut queue, due), [1]);
    assert!(queue.touched().is_empty());
}

proptest! {
    #[test]
    fn whatever_happens_each_writer_is_told_in_order_and_everything_arrives(
        messages in prop::collection::vec(prop::collection::btree_set(0..6_u64, 0..4), 1..40),
        fates in prop::collection::vec(0..10_u8, 400),
    ) {
        let mut queue = Queue::new(RETRY);
        let about = |number: &Number| &messages[usize::try_from(*number).unwrap()];
        for (number, subjects) in (0..).zip(&messages) {
            queue.push(entry(number, &subjects.iter().copied().collect::<Vec<_>>()));
        }
        let mut now = at(0);
        let mut delivered: Vec<Number> = Vec::new();
        let mut flying: Vec<Number> = Vec::new();
        let mut fates = fates.into_iter();
        while !queue.entries().is_empty() {
            flying.extend(start_all(&mut queue, now));
            for (i, one) in flying.iter().enumerate() {
                for other in &flying[..i] {
                    prop_assert!(about(one).is_disjoint(about(other)));
                }
            }
            let Some(number) = flying.pop() else {
                now = queue.due().expect("something is due");
                continue;
            };
            // Once the fates are used up, all goes well.
            let outcome = match fates.next() {
                Some(0..=3) => failed(),
                Some(4) => Outcome::Failed { why: "429".into(), wait: Some(Duration::from_secs(3)) },
                _ => Outcome::Delivered,
            };
            if outcome == Outcome::Delivered {
                delivered.push(number);
            }
            queue.finish(number, outcome, now);
        }
        prop_assert_eq!(delivered.len(), messages.len());
        for subject in 0..6 {
            let told: Vec<_> = delivered.iter().filter(|number| about(number).contains(&subject)).collect();
            prop_assert!(told.is_sorted(), "{subject}: {told:?}");
        }
        prop_assert!(queue.chains.is_empty() && queue.behind.is_empty() && queue.size() == 0);
    }
}
