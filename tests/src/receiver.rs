//! A receiver of webhooks that is as hostile as a test wants: it fails, hangs, breaks off, never
//! comes to an end, sends elsewhere, and lies about who it is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::background::Background;
use crate::{clock, wait};

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This status, and a short body.
    Status(u16),
    /// This status, and these words.
    Say(u16, String),
    /// This status, and a header.
    With(u16, &'static str, String),
    /// Nothing, ever.
    Hang,
    /// The connection is reset.
    Reset,
    /// This status, and a body without end.
    Endless(u16),
    /// This status, and a connection that breaks off within the body.
    Cut(u16),
}

impl Answer {
    /// Says whether the receiver has taken the message, as the sender must understand it.
    pub fn takes(&self) -> bool {
        match self {
            Self::Status(status)
            | Self::Say(status, _)
            | Self::With(status, ..)
            | Self::Endless(status)
            | Self::Cut(status) => (200..300).contains(status),
            Self::Hang | Self::Reset => false,
        }
    }
}

/// A request that came whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// The path and the query.
    pub path: String,
    /// The headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// What it was answered with.
    pub answer: Answer,
}

impl Request {
    /// Reads the body.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Reads a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }
}

type Judge = Box<dyn FnMut(&Request) -> Answer + Send>;

struct Shared {
    judge: Mutex<Judge>,
    requests: Mutex<Vec<Request>>,
}

/// A running receiver; it ends with its guard.
pub struct Receiver {
    address: SocketAddr,
    is_tls: bool,
    shared: Arc<Shared>,
    _background: Background,
}

impl Receiver {
    /// Starts one that answers as `judge` says. Of a request that is judged, the answer is not
    /// known yet.
    pub fn start(judge: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        Self::serve(Box::new(judge), None)
    }

    /// Starts one that speaks TLS, and takes everything.
    pub fn start_tls(config: ServerConfig) -> Self {
        Self::serve(
            Box::new(|_| Answer::Status(204)),
            Some(TlsAcceptor::from(Arc::new(config))),
        )
    }

    fn serve(judge: Judge, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("its mode");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            judge: Mutex::new(judge),
            requests: Mutex::default(),
        });
        let is_tls = tls.is_some();
        let background = Background::run({
            let shared = Arc::clone(&shared);
            move || accept(listener, tls, shared)
        });
        Self {
            address,
            is_tls,
            shared,
            _background: background,
        }
    }

    /// Tells where it is, by its address or, with TLS, by the name in certificates.
    pub fn url(&self) -> String {
        if self.is_tls {
            format!("https://localhost:{}", self.address.port())
        } else {
            format!("http://{}", self.address)
        }
    }

    /// Tells its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lists the requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Counts the requests so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// Waits until the requests are as wanted and returns them.
    #[track_caller]
    pub fn await_requests(
        &self,
        what: &str,
        within: Duration,
        are_enough: impl Fn(&[Request]) -> bool,
    ) -> Vec<Request> {
        wait::until(what, within, || {
            let requests = lock(&self.shared.requests);
            are_enough(&requests).then(|| requests.clone())
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = stream.into_std() else { continue };
        // Kept apart, to reset the connection by.
        let Ok(raw) = stream.try_clone() else { continue };
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
            continue;
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => connection(TokioIo::new(stream), raw, shared).await,
                Some(tls) => {
                    // Whoever does not trust it breaks off here.
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(TokioIo::new(stream), raw, shared).await;
                    }
                }
            }
        });
    }
}

async fn connection<S>(stream: S, raw: TcpStream, shared: Arc<Shared>)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let raw = Arc::new(raw);
    let service =
        service_fn(|request: HttpRequest<Incoming>| answer(request, Arc::clone(&raw), Arc::clone(&shared)));
    // How a connection ends is the sender's business.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(stream, service)
        .await;
}

async fn answer(
    request: HttpRequest<Incoming>,
    raw: Arc<TcpStream>,
    shared: Arc<Shared>,
) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut request = Request {
        at: clock::mono(),
        path: parts.uri.to_string(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        answer: Answer::Hang,
    };
    request.answer = lock(&shared.judge)(&request);
    let answer = request.answer.clone();
    lock(&shared.requests).push(request);
    let with = |status: u16, body| {
        let response = Response::builder().status(status).body(body);
        response.map_err(io::Error::other)
    };
    let short = || BoxBody::new(Full::from("{\"it\":\"says\"}").map_err(never));
    match answer {
        Answer::Status(status) => with(status, short()),
        Answer::Say(status, words) => with(status, BoxBody::new(Full::from(words).map_err(never))),
        Answer::With(status, name, value) => {
            let mut response = with(status, short())?;
            let value = value.parse().map_err(io::Error::other)?;
            response.headers_mut().insert(name, value);
            Ok(response)
        }
        Answer::Hang => std::future::pending().await,
        Answer::Reset => {
            reset_on_close(&raw);
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Answer::Endless(status) => with(status, BoxBody::new(Flood { breaks_off: false })),
        Answer::Cut(status) => {
            reset_on_close(&raw);
            with(status, BoxBody::new(Flood { breaks_off: true }))
        }
    }
}

/// With no time to linger, closing sends a reset (socket(7), `SO_LINGER`).
fn reset_on_close(raw: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(raw, Some(Duration::ZERO));
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// A body of ever the same bytes.
struct Flood {
    breaks_off: bool,
}

impl Body for Flood {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        static FLOOD: [u8; 4096] = [b'x'; 4096];
        if self.breaks_off {
            return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())));
        }
        // Others want their turn too.
        context.waker().wake_by_ref();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FLOOD)))))
    }
}
