//! The messages of running alerts: to be listed, tried again or given up.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequest, Request, State as Stated},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hyper::body::Bytes;

use super::{
    access::Peer,
    routes::{App, Shared, problem},
};
use crate::{
    alert::{
        Handle,
        listing::{Chosen, Unknown},
    },
    api::{AlertMessages, AlertsChanged, Problem},
};

/// The messages that are still to be delivered, and those that a receiver refused, by number
#[utoipa::path(get, path = "/v1/alerts",
    responses((status = 200, body = AlertMessages), (status = 409, body = Problem)))]
pub(super) async fn list(Stated(shared): App) -> Response {
    let Some(alerts) = &shared.alerts else {
        return nobody_is_told();
    };
    match alerts.list().await {
        Ok(messages) => Json(AlertMessages { messages }).into_response(),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// Tries messages again now, those that were refused too. If one is not there, none is
#[utoipa::path(post, path = "/v1/alerts/retry", request_body = Chosen,
    responses((status = 200, body = AlertsChanged), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn retry(Extension(peer): Extension<Peer>, Asked { alerts, chosen }: Asked) -> Response {
    told(alerts.retry(chosen).await, "to be tried again", &peer)
}

/// Gives messages up; while the spool can be written, that is on disk before it is answered. If one
/// is not there, none is
#[utoipa::path(post, path = "/v1/alerts/drop", request_body = Chosen,
    responses((status = 200, body = AlertsChanged), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn discard(Extension(peer): Extension<Peer>, Asked { alerts, chosen }: Asked) -> Response {
    told(alerts.discard(chosen).await, "given up", &peer)
}

fn nobody_is_told() -> Response {
    problem(
        StatusCode::CONFLICT,
        "this agent alerts nobody: its configuration had no [[webhook]] when it was started",
    )
}

/// A request about messages, and who can do what it asks.
pub(super) struct Asked {
    alerts: Handle,
    chosen: Chosen,
}

impl FromRequest<Arc<Shared>> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Response> {
        let alerts = shared.alerts.clone().ok_or_else(nobody_is_told)?;
        let body = Bytes::from_request(request, shared)
            .await
            .map_err(|error| problem(error.status(), error.body_text()))?;
        let chosen = serde_json::from_slice(&body).map_err(|error| {
            let message = format!("say which, {{\"numbers\": [1, 2]}} or \"all\": {error}");
            problem(StatusCode::BAD_REQUEST, message)
        })?;
        Ok(Self { alerts, chosen })
    }
}

fn told(done: anyhow::Result<Result<usize, Unknown>>, what: &str, peer: &Peer) -> Response {
    match done {
        Ok(Ok(count)) => {
            let by = peer.label();
            tracing::info!(messages = count, by, "alerts {what}");
            let messages = count as u64;
            Json(AlertsChanged { messages }).into_response()
        }
        Ok(Err(unknown)) => problem(StatusCode::NOT_FOUND, unknown.to_string()),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
