//! Accepts connections and speaks HTTP on them, within limits of time and number.

use std::{net::TcpListener, os::unix::net::UnixListener, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};

use super::{
    access::{Access, Peer, Place, Role, Usage},
    routes::{self, Shared},
};

/// For all of a request's headers, and between two requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// What is read ahead of a connection.
const BUFFER: usize = 16 * 1024;
const HEADERS: usize = 64;
/// A connection to the metrics is served for so long, then told to end…
const METRICS_FOR: Duration = Duration::from_mins(10);
/// …and ended.
const FAREWELL: Duration = Duration::from_secs(10);
/// After a failed accept, which the next one would repeat at once.
const BREATHER: Duration = Duration::from_millis(100);

/// Stands for whoever comes over TCP, who is nobody in particular.
const SOMEONE: u32 = u32::MAX;

/// Serves until the process ends.
pub(super) async fn serve(
    api: Option<(UnixListener, Arc<Access>)>,
    metrics: Option<TcpListener>,
    shared: Arc<Shared>,
) -> Result<()> {
    let usage = shared.usage.clone();
    let api = {
        let (shared, usage) = (Arc::clone(&shared), usage.clone());
        async move {
            match api {
                Some((listener, access)) => serve_api(listener, access, shared, usage).await,
                None => std::future::pending().await,
            }
        }
    };
    let metrics = async move {
        match metrics {
            Some(listener) => serve_metrics(listener, shared, usage).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = api => ended,
        ended = metrics => ended,
    }
}

async fn serve_api(
    listener: UnixListener,
    access: Arc<Access>,
    shared: Arc<Shared>,
    usage: Usage,
) -> Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot wait on the API's socket")?;
    let app = routes::api(shared);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(BREATHER).await;
            continue;
        };
        let Ok(credentials) = stream.peer_cred() else {
            continue;
        };
        let peer = access.peer(credentials.uid(), credentials.gid());
        let Some(place) = usage.connect(peer.uid) else {
            continue;
        };
        let app = app.clone().layer(Extension(peer));
        tokio::spawn(async move {
            let _ = speak(stream, app, place).await;
        });
    }
}

async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>, usage: Usage) -> Result<()> {
    let listener =
        tokio::net::TcpListener::from_std(listener).context("cannot wait on the metrics' socket")?;
    let peer = Peer {
        uid: SOMEONE,
        role: Role::Reader,
    };
    let app = routes::metrics(shared).layer(Extension(peer));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(BREATHER).await;
            continue;
        };
        let Some(place) = usage.connect(SOMEONE) else {
            continue;
        };
        let app = app.clone();
        tokio::spawn(async move {
            let _ = timeout(METRICS_FOR + FAREWELL, speak(stream, app, place)).await;
        });
    }
}

async fn speak<S>(stream: S, app: Router, _place: Place) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await
}
