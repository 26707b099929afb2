//! An HTTP proxy that knows one place: whatever it is asked for, it goes there. So a name that
//! nobody else can look up proves that a request came by way of it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::background::Background;

/// What a proxy was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// How, as in `CONNECT`.
    pub method: String,
    /// For what, as in `http://name/path` or `name:443`.
    pub target: String,
    /// By whom: `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// A running proxy; it ends with its guard.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _background: Background,
}

type Answer = io::Result<Response<BoxBody<Bytes, hyper::Error>>>;

impl Proxy {
    /// Starts one that leads to `place`.
    pub fn to(place: SocketAddr) -> Self {
        Self::start(Some(place))
    }

    /// Starts one that refuses everything with 407.
    pub fn refusing() -> Self {
        Self::start(None)
    }

    fn start(place: Option<SocketAddr>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("its mode");
        let address = listener.local_addr().expect("its address");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let background = Background::run({
            let asked = Arc::clone(&asked);
            move || accept(listener, place, asked)
        });
        Self {
            address,
            asked,
            _background: background,
        }
    }

    /// Tells its URL; `who` is nobody, or a user and a password as in `user:password@`.
    pub fn url(&self, who: &str) -> String {
        format!("http://{who}{}", self.address)
    }

    /// Lists what it was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: std::net::TcpListener, place: Option<SocketAddr>, asked: Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let asked = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Incoming>| {
            let header = request.headers().get("proxy-authorization");
            let authorization = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let one = Asked {
                method: request.method().to_string(),
                target: request.uri().to_string(),
                authorization,
            };
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            lead(request, place)
        });
        // How a connection ends is its two ends' business.
        tokio::spawn(
            server::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
    }
}

async fn lead(mut request: Request<Incoming>, place: Option<SocketAddr>) -> Answer {
    let Some(place) = place else {
        return answer(407);
    };
    let mut there = TcpStream::connect(place).await?;
    if request.method() == Method::CONNECT {
        tokio::spawn(async move {
            if let Ok(here) = hyper::upgrade::on(request).await {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(here), &mut there).await;
            }
        });
        return answer(200);
    }
    let (mut sender, connection) = client::handshake(TokioIo::new(there))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    // As whoever is not a proxy is asked.
    if let Some(path) = request.uri().path_and_query() {
        *request.uri_mut() = path.clone().into();
    }
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(response.map(BodyExt::boxed))
}

fn answer(status: u16) -> Answer {
    let nothing = Full::default().map_err(|never| match never {});
    Response::builder()
        .status(status)
        .body(BoxBody::new(nothing))
        .map_err(io::Error::other)
}
