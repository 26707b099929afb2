//! The paths of the API, and their answers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State as Stated, rejection::BytesRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::body::{Body as _, Bytes};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    access::{Peer, Role, Usage},
    alerts, metrics, openapi, stream,
};
use crate::{
    agent::{
        control::{Control, Stopped},
        hub::Hub,
        state::{STALLED, State},
    },
    alert,
    api::{
        KillBegun, KillRequest, Problem, Reloaded, RuleState, Rules, StallState, Stalls, Status,
        explanation::ExplanationView,
    },
    clock,
    core::machine::Refusal,
};

/// No request has a body that is larger.
const BODY: usize = 4096;
/// An answer takes no longer, its request's body included; streams begin within it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A loop that has not answered within this is not well.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// Readers within so long share one state.
const FRESH_FOR: Duration = Duration::from_millis(200);
/// How many stalls are listed unless a number is given.
const MOST: usize = 1000;
const GRACE: Duration = Duration::from_secs(10);
const GRACE_MOST: Duration = Duration::from_hours(1);

/// What all requests share.
pub(super) struct Shared {
    pub(super) control: Control,
    pub(super) hub: Hub,
    /// The journal's directory.
    pub(super) journal: PathBuf,
    /// The alerts, if anybody is told.
    pub(super) alerts: Option<alert::Handle>,
    pub(super) usage: Usage,
    state: Mutex<Option<Arc<State>>>,
}

impl Shared {
    pub(super) fn new(control: Control, hub: Hub, journal: PathBuf, alerts: Option<alert::Handle>) -> Self {
        Self {
            control,
            hub,
            journal,
            alerts,
            usage: Usage::default(),
            state: Mutex::new(None),
        }
    }

    /// The state, asked for once by all who ask at the same time.
    pub(super) async fn state(&self) -> Result<Arc<State>, Stopped> {
        let mut known = self.state.lock().await;
        if let Some(state) = known
            .as_ref()
            .filter(|state| clock::now().since(state.at) < FRESH_FOR)
        {
            return Ok(Arc::clone(state));
        }
        let state = self.control.state().await?;
        *known = Some(Arc::clone(&state));
        Ok(state)
    }
}

pub(super) type App = Stated<Arc<Shared>>;

/// Everything, for the socket.
pub(super) fn api(shared: Arc<Shared>) -> Router {
    let operators = Router::new()
        .route("/v1/stalls/{id}/kill", post(kill))
        .route("/v1/reload", post(reload))
        .route("/v1/alerts/retry", post(alerts::retry))
        .route("/v1/alerts/drop", post(alerts::discard))
        .layer(middleware::from_fn(only_operators));
    let readers = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stalls", get(stalls))
        .route("/v1/stalls/{id}", get(stall))
        .route("/v1/stalls/{id}/explain", get(explain))
        .route("/v1/rules", get(rules))
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/events", get(stream::events))
        .route("/v1/openapi.json", get(openapi::serve));
    finish(operators.merge(readers).merge(common()), shared)
}

/// What others than this machine's users may see.
pub(super) fn metrics(shared: Arc<Shared>) -> Router {
    finish(common(), shared)
}

fn common() -> Router<Arc<Shared>> {
    Router::new()
        .route("/metrics", get(metrics::serve))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

fn finish(router: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    router
        .fallback(async || {
            problem(
                StatusCode::NOT_FOUND,
                "there is no such path; see /v1/openapi.json",
            )
        })
        .method_not_allowed_fallback(async || {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "the path takes another method; see /v1/openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), gate))
        .with_state(shared)
}

/// An error's answer.
pub(super) fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into() })).into_response()
}

impl IntoResponse for Stopped {
    fn into_response(self) -> Response {
        problem(StatusCode::SERVICE_UNAVAILABLE, self.to_string())
    }
}

/// What holds for every request: who asks, how often, and for how long.
async fn gate(
    Stated(shared): App,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.role < Role::Reader {
        return problem(
            StatusCode::FORBIDDEN,
            "only root and the group named by [api] group may use this socket",
        );
    }
    if !shared.usage.request(peer.uid, clock::now()) {
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too many requests; wait a second");
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        return response;
    }
    if request.body().size_hint().lower() > BODY as u64 {
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a request's body has at most {BODY} bytes"),
        );
    }
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem(StatusCode::GATEWAY_TIMEOUT, "no answer within 10 s"),
    }
}

async fn only_operators(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    if peer.role < Role::Operator {
        return problem(
            StatusCode::FORBIDDEN,
            "only root and the group named by [api] operators may do this",
        );
    }
    next.run(request).await
}

/// The agent in numbers
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(Stated(shared): App) -> Result<Json<Status>, Stopped> {
    Ok(Json(shared.state().await?.status.clone()))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct StallsQuery {
    /// Leave out what has been blocked for less, such as `500ms`; `1s` if left out
    min: Option<String>,
    /// How many to list; 1000 if left out
    limit: Option<usize>,
}

/// The stalled writers and what becomes of them, the oldest first
#[utoipa::path(get, path = "/v1/stalls", params(StallsQuery), responses((status = 200, body = Stalls), (status = 400, body = Problem)))]
pub(super) async fn stalls(
    Stated(shared): App,
    query: Result<Query<StallsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let min = match query.min.as_deref().map(crate::cli::observe::duration) {
        None => STALLED,
        Some(Ok(min)) => min,
        Some(Err(error)) => return problem(StatusCode::BAD_REQUEST, format!("min: {error}")),
    };
    match shared.state().await {
        Ok(state) => Json(state.stalls(min, query.limit.unwrap_or(MOST))).into_response(),
        Err(stopped) => stopped.into_response(),
    }
}

/// One stalled writer
#[utoipa::path(get, path = "/v1/stalls/{id}", params(("id" = String, Path)), responses((status = 200, body = StallState), (status = 404, body = Problem)))]
pub(super) async fn stall(Stated(shared): App, Path(id): Path<String>) -> Response {
    match shared.state().await.map(|state| state.stall(&id)) {
        Ok(Some(stall)) => Json(stall).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, Refusal::NoStall.to_string()),
        Err(stopped) => stopped.into_response(),
    }
}

/// Why each rule does or does not match a stalled writer, with what each condition met
#[utoipa::path(get, path = "/v1/stalls/{id}/explain", params(("id" = String, Path)),
    responses((status = 200, body = ExplanationView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn explain(Stated(shared): App, Path(id): Path<String>) -> Response {
    match shared.control.explain(id).await {
        Ok(Ok(explanation)) => Json(explanation).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(stopped) => stopped.into_response(),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::NoStall => StatusCode::NOT_FOUND,
        Refusal::Protected(_) => StatusCode::FORBIDDEN,
        Refusal::UnderWay | Refusal::Unknown | Refusal::TooYoung { .. } => StatusCode::CONFLICT,
        Refusal::Unsupported(_) | Refusal::Unrecorded => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, refusal.to_string())
}

/// The rules and what they have done
#[utoipa::path(get, path = "/v1/rules", responses((status = 200, body = Rules)))]
pub(super) async fn rules(Stated(shared): App) -> Result<Json<Rules>, Stopped> {
    let rules: Vec<RuleState> = shared.state().await?.rules.clone();
    Ok(Json(Rules { rules }))
}

/// Ends a stalled writer's process, by the protocol of any rule: protection and every check
/// hold, the modes and paces of rules do not. Events say what comes of it
#[utoipa::path(post, path = "/v1/stalls/{id}/kill", params(("id" = String, Path)), request_body = Option<KillRequest>,
    responses((status = 202, body = KillBegun), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn kill(
    Stated(shared): App,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let grace = match body
        .map_err(|error| (error.status(), error.body_text()))
        .and_then(|body| grace(&body))
    {
        Ok(grace) => grace,
        Err((status, error)) => return problem(status, error),
    };
    let by = format!("asked for by {} over the API", peer.label());
    match shared.control.kill(id.clone(), by, grace).await {
        Err(stopped) => stopped.into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Ok(Ok(after)) => (StatusCode::ACCEPTED, Json(KillBegun { stall: id, after })).into_response(),
    }
}

fn grace(body: &[u8]) -> Result<Duration, (StatusCode, String)> {
    if body.is_empty() {
        return Ok(GRACE);
    }
    let wrong = |error: String| (StatusCode::BAD_REQUEST, error);
    let request: KillRequest = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let Some(text) = request.grace else {
        return Ok(GRACE);
    };
    let grace = crate::cli::observe::duration(&text).map_err(|error| wrong(format!("grace: {error}")))?;
    if grace > GRACE_MOST {
        return Err(wrong("grace: more than 1h".to_owned()));
    }
    Ok(grace)
}

/// Reads the configuration anew. One that is wrong changes nothing
#[utoipa::path(post, path = "/v1/reload",
    responses((status = 200, body = Reloaded), (status = 403, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn reload(Stated(shared): App, Extension(peer): Extension<Peer>) -> Response {
    let by = format!("asked for by {} over the API", peer.label());
    match shared.control.reload(by).await {
        Err(stopped) => stopped.into_response(),
        Ok(Err(why)) => problem(StatusCode::UNPROCESSABLE_ENTITY, why),
        Ok(Ok(reloaded)) => Json(reloaded).into_response(),
    }
}

/// Whether the loop that decides is alive
#[utoipa::path(get, path = "/healthz", responses((status = 200), (status = 503)))]
pub(super) async fn healthz(Stated(shared): App) -> Response {
    match tokio::time::timeout(ALIVE_WITHIN, shared.state()).await {
        Ok(Ok(_)) => "ok\n".into_response(),
        Ok(Err(stopped)) => stopped.into_response(),
        Err(_) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the loop that decides has not answered within 5 s",
        ),
    }
}

/// Whether it does all that it is configured to do
#[utoipa::path(get, path = "/readyz", responses((status = 200), (status = 503)))]
pub(super) async fn readyz(Stated(shared): App) -> Response {
    match tokio::time::timeout(ALIVE_WITHIN, shared.state()).await {
        Ok(Ok(state)) => match &state.status.paused {
            None => "ready\n".into_response(),
            Some(why) => problem(StatusCode::SERVICE_UNAVAILABLE, why.clone()),
        },
        Ok(Err(stopped)) => stopped.into_response(),
        Err(_) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the loop that decides has not answered within 5 s",
        ),
    }
}
