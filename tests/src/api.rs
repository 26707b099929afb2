//! A client of the agent's API.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// Where the API is.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
    runtime: Runtime,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What kind of body it says it is.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body, as JSON, of an answer with this status.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A runtime for a client.
///
/// # Panics
/// If there is none to be had.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

impl Api {
    /// The API behind a socket.
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            runtime: runtime(),
        }
    }

    /// Asks for a path.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask(&Method::GET, path, "")
    }

    /// Asks for something to be done.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&Method::POST, path, body)
    }

    /// Asks.
    #[track_caller]
    pub fn ask(&self, method: &Method, path: &str, body: &str) -> Answer {
        let asked = self.runtime.block_on(async {
            let asking = async {
                let stream = UnixStream::connect(&self.socket).await?;
                ask(stream, method.clone(), path, body).await
            };
            timeout(PATIENCE, asking).await
        });
        match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => panic!("{method} {path}: {error}"),
            Err(over) => panic!("{method} {path}: no answer within {PATIENCE:?}: {over}"),
        }
    }

    /// The JSON at a path.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        self.get(path).json(200)
    }

    /// Opens a stream of events.
    #[track_caller]
    pub fn events(&self, query: &str) -> Events<'_> {
        let stream = self.runtime.block_on(async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            let request = format!("GET /v1/events{query} HTTP/1.1\r\nHost: pipestall\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            io::Result::Ok(BufReader::new(stream))
        });
        Events {
            api: self,
            stream: stream.expect("a stream of events"),
        }
    }
}

/// An address that was free a moment ago.
///
/// # Panics
/// If there is none.
pub fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("an address").to_string()
}

/// Asks over TCP.
///
/// # Panics
/// If there is no answer.
#[track_caller]
pub fn get_tcp(address: &str, path: &str) -> Answer {
    try_get_tcp(address, path).unwrap_or_else(|| panic!("{path}: no answer within {PATIENCE:?}"))
}

/// Asks over TCP whoever may not be there yet.
pub fn try_get_tcp(address: &str, path: &str) -> Option<Answer> {
    runtime().block_on(async {
        let asking = async {
            let stream = TcpStream::connect(address).await?;
            ask(stream, Method::GET, path, "").await
        };
        timeout(PATIENCE, asking).await.ok()?.ok()
    })
}

async fn ask<S>(stream: S, method: Method, path: &str, body: &str) -> io::Result<Answer>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "pipestall")
        .body(Full::new(Bytes::from(body.to_owned())))
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let content_type = answer
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?;
    Ok(Answer {
        status,
        content_type,
        body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    })
}

/// A stream of events.
#[derive(Debug)]
pub struct Events<'a> {
    api: &'a Api,
    stream: BufReader<UnixStream>,
}

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// Its name.
    pub event: String,
    /// What it says.
    pub data: String,
}

impl Events<'_> {
    /// The next message; `None` if the stream has ended, or there is none within that time.
    pub fn next(&mut self, within: Duration) -> Option<Message> {
        let Self { api, stream } = self;
        api.runtime
            .block_on(async { timeout(within, read_message(stream)).await.ok().flatten() })
    }
}

async fn read_message(stream: &mut BufReader<UnixStream>) -> Option<Message> {
    let mut message = Message::default();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        // Lines of the answer's head and of its chunks' lengths are none of a message.
        match line.trim_end().split_once(": ") {
            Some(("id", id)) => id.clone_into(&mut message.id),
            Some(("event", event)) => event.clone_into(&mut message.event),
            Some(("data", data)) => data.clone_into(&mut message.data),
            _ if line == "\n" && !message.data.is_empty() => return Some(message),
            _ => {}
        }
    }
}
