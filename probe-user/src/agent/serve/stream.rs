//! Events as they happen, as server-sent events: first those of the journal that the client
//! has missed, then the rest.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State as Stated, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as Message, KeepAlive},
    },
};
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::routes::{Shared, problem};
use crate::agent::{
    hub::{Delivery, Subscription},
    journal::{self, Line},
};

/// Events that wait for a client before it loses any.
const QUEUE: usize = 1024;
/// Those of them that are under way already.
const AHEAD: usize = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Begin after the event of that number, as far as the journal has what follows; without
    /// it, begin with what happens next. The header `Last-Event-ID` means the same
    after: Option<u64>,
}

/// Events as server-sent events: `id` is the number, `event` the type, `data` the event. Of
/// those that a client does not take in time, `event: lost` says how many: `{"missed":3}`
#[utoipa::path(get, path = "/v1/events", params(EventsQuery),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    Stated(shared): Stated<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let last_id = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = query.after.or(last_id);
    let Some(place) = shared.usage.stream() else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many event streams; end one of them",
        );
    };
    // Before the journal is read, so that nothing falls between the two.
    let subscription = shared.hub.subscribe(QUEUE);
    let (sender, messages) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _place = place;
        feed(&shared, subscription, after, &sender).await;
    });
    let messages = unfold(messages, async |mut messages| {
        let message: Message = messages.recv().await?;
        Some((Ok::<_, Infallible>(message), messages))
    });
    Sse::new(messages)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// Sends until the client or the agent is gone.
async fn feed(
    shared: &Shared,
    mut subscription: Subscription,
    after: Option<u64>,
    to: &mpsc::Sender<Message>,
) {
    let mut last = match after {
        Some(after) => {
            let Some(last) = replay(shared, after, u64::MAX, to).await else {
                return;
            };
            last
        }
        None => 0,
    };
    let mut replayed = after.is_some();
    loop {
        let delivery = tokio::select! {
            () = to.closed() => return,
            delivery = subscription.next() => delivery,
        };
        let Some(Delivery { mut missed, event }) = delivery else {
            return;
        };
        let seq = event.event.seq;
        if seq <= last {
            continue;
        }
        if missed > 0 && std::mem::take(&mut replayed) {
            // The queue ran over while the journal was read, which has what is missing.
            let Some(caught_up) = replay(shared, last, seq, to).await else {
                return;
            };
            missed = missed.min(seq - 1 - caught_up);
            last = caught_up;
        }
        replayed = false;
        if missed > 0 {
            let notice = Message::default()
                .event("lost")
                .data(format!("{{\"missed\":{missed}}}"));
            if to.send(notice).await.is_err() {
                return;
            }
        }
        if seq > last
            && to
                .send(message(seq, &event.event.kind, &event.json))
                .await
                .is_err()
        {
            return;
        }
        last = seq;
    }
}

/// Sends what the journal has after one number and before another; returns the last number
/// sent, or `None` if the client is gone.
async fn replay(shared: &Shared, after: u64, before: u64, to: &mpsc::Sender<Message>) -> Option<u64> {
    let (dir, to) = (shared.journal.clone(), to.clone());
    let read = spawn_blocking(move || {
        let mut last = Some(after);
        let read = journal::read_after(&dir, after, |Line { seq, kind, json }| {
            if seq >= before {
                return false;
            }
            if to.blocking_send(message(seq, kind, json)).is_err() {
                last = None;
                return false;
            }
            last = Some(seq);
            true
        });
        if let Err(error) = read {
            tracing::warn!("the journal cannot be read for a client: {error}");
        }
        last
    });
    read.await.ok()?
}

fn message(seq: u64, kind: &str, json: &str) -> Message {
    Message::default().id(seq.to_string()).event(kind).data(json)
}
