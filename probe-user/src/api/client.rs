//! Asks an agent over its unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::JoinSet, time::timeout};

use super::Problem;

/// An agent that has not answered within this is not well.
const WITHIN: Duration = Duration::from_secs(10);
/// Answers are no larger, in bytes: some hundred thousand stalls.
const ANSWER: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is not there, or was left by an agent that is gone.
    #[error("no agent listens on {0}")]
    Nobody(PathBuf),
    /// The socket's file lets this user not in.
    #[error("{0} is not for this user; be root, or in the group that [api] group names")]
    NotForUs(PathBuf),
    /// There is no way to it.
    #[error("cannot connect to {0}: {1}")]
    Unreachable(PathBuf, io::Error),
    /// It says no.
    #[error("the agent refuses: {1}")]
    Refused(StatusCode, String),
    /// What it says is of no use.
    #[error("{0}")]
    Unwell(String),
}

/// A connection to an agent.
pub type Connection = SendRequest<Full<Bytes>>;

/// Asks once, and understands the answer.
///
/// # Errors
/// There is no agent, it does not answer, or it says no.
pub async fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, ClientError> {
    // Ended with this request: the task that drives its connection.
    let mut tasks = JoinSet::new();
    let mut connection = connect(socket, &mut tasks).await?;
    let response = answer(&mut connection, request(method, path, body)?).await?;
    let status = response.status();
    let body = self::body(response).await?;
    if !status.is_success() {
        return Err(ClientError::Refused(status, reason(status, &body)));
    }
    understood(&body, path)
}

/// Understands an answer's body.
///
/// # Errors
/// It is not what is expected there.
pub fn understood<T: DeserializeOwned>(body: &[u8], path: &str) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| {
        ClientError::Unwell(format!(
            "the agent's {path} is not understood ({error}); is it another version?"
        ))
    })
}

/// Connects; what drives the connection is one of `tasks`.
///
/// # Errors
/// There is no agent, or no way to it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other errors speak for themselves"
)]
pub async fn connect(socket: &Path, tasks: &mut JoinSet<()>) -> Result<Connection, ClientError> {
    let unreachable = |error| ClientError::Unreachable(socket.to_owned(), error);
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::Nobody(socket.to_owned())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotForUs(socket.to_owned()),
            _ => unreachable(error),
        })?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(io::Error::other(error)))?;
    tasks.spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// A request with a body of JSON, or none.
///
/// # Errors
/// The path is none.
pub fn request(method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
        .body(Full::new(body.into()))
        .map_err(|error| ClientError::Unwell(format!("cannot ask for {path}: {error}")))
}

/// Sends a request, and waits for what it is answered with.
///
/// # Errors
/// The agent does not answer.
pub async fn answer(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    let answered = timeout(WITHIN, async {
        connection.ready().await?;
        connection.send_request(request).await
    });
    answered
        .await
        .map_err(|_| late())?
        .map_err(|error| ClientError::Unwell(format!("the agent does not answer: {error}")))
}

/// Reads an answer's body.
///
/// # Errors
/// It does not come, or not whole.
pub async fn body(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER).collect();
    let body = timeout(WITHIN, body).await.map_err(|_| late())?;
    Ok(body
        .map_err(|error| ClientError::Unwell(format!("the agent's answer broke off: {error}")))?
        .to_bytes())
}

/// What an error's answer says.
#[must_use]
pub fn reason(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.error,
        Err(_) => status.to_string(),
    }
}

fn late() -> ClientError {
    ClientError::Unwell(format!(
        "the agent has not answered within {} s",
        WITHIN.as_secs()
    ))
}
