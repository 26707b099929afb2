//! Serves the API and the metrics, on a thread and a runtime of its own: whatever clients
//! do, the loop that decides does not wait for them. It reaches that loop through
//! [`Control`] alone, and the alerts through their own [`Handle`].

mod access;
mod alerts;
mod connection;
mod exposition;
mod metrics;
mod openapi;
mod routes;
mod stream;

use std::{
    fs, io,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};

pub use self::openapi::document;
use self::{access::Access, routes::Shared};
use super::{control::Control, hub::Hub};
use crate::{
    alert::Handle,
    config::{Api, Metrics},
};

/// The sockets to serve on, bound and not yet served.
#[derive(Debug, Default)]
pub struct Sockets {
    api: Option<(UnixListener, Arc<Access>, SocketFile)>,
    metrics: Option<TcpListener>,
}

impl Sockets {
    /// Binds what the configuration asks for.
    ///
    /// # Errors
    /// An address or a path cannot be used, or a group does not exist.
    pub fn bind(api: Option<&Api>, metrics: Option<&Metrics>) -> Result<Self> {
        let api = api
            .map(|api| {
                let access = Access::new(api)?;
                let (listener, file) = bind_unix(&api.socket, access.group())?;
                anyhow::Ok((listener, Arc::new(access), file))
            })
            .transpose()?;
        let metrics = metrics
            .map(|metrics| {
                let listener = TcpListener::bind(metrics.listen)
                    .with_context(|| format!("cannot listen on {} for metrics", metrics.listen))?;
                listener.set_nonblocking(true)?;
                anyhow::Ok(listener)
            })
            .transpose()?;
        Ok(Self { api, metrics })
    }

    /// Serves from a thread of its own, until the process ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn serve(
        self,
        control: Control,
        hub: Hub,
        journal: PathBuf,
        alerts: Option<Handle>,
    ) -> Result<Serving> {
        let Self { api, metrics } = self;
        if api.is_none() && metrics.is_none() {
            return Ok(Serving { _file: None });
        }
        let (listener, file) = match api {
            Some((listener, access, file)) => (Some((listener, access)), Some(file)),
            None => (None, None),
        };
        let shared = Arc::new(Shared::new(control, hub, journal, alerts));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // For reading the journal: as many as there may be streams.
            .max_blocking_threads(access::STREAMS)
            .build()
            .context("cannot start the API's event loop")?;
        thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || {
                let served = runtime.block_on(connection::serve(listener, metrics, shared));
                if let Err(error) = served {
                    tracing::error!("the API has stopped: {error:#}");
                }
            })
            .context("cannot start the API's thread")?;
        Ok(Serving { _file: file })
    }
}

/// What is served; dropping it removes the socket's file.
#[derive(Debug)]
pub struct Serving {
    _file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds a socket that only its owner and, if there is one, a group may connect to.
fn bind_unix(path: &Path, group: Option<u32>) -> Result<(UnixListener, SocketFile)> {
    let context = || format!("cannot listen on {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(context)?;
    }
    remove_stale(path)?;
    let listener = {
        // Nobody but us until its group is set.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(mask);
        bound.with_context(context)?
    };
    let file = SocketFile(path.to_owned());
    if let Some(gid) = group {
        std::os::unix::fs::chown(path, None, Some(gid)).with_context(context)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(context)?;
    }
    listener.set_nonblocking(true).with_context(context)?;
    Ok((listener, file))
}

/// Removes a socket that a killed agent left, and nothing else.
fn remove_stale(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("cannot look at {}", path.display()))?,
    };
    if !found.file_type().is_socket() {
        bail!(
            "{} is there and no socket; name another in [api] socket",
            path.display()
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(anyhow!(
            "another agent serves on {}; give each its own [api] socket",
            path.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot remove the stale {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
}
