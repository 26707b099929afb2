//! What the loop waits for: descriptors, signals, requests, and time.

use std::os::fd::AsRawFd;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{Interest, unix::AsyncFd};

use super::control::{Request, Requests};
use crate::{
    clock,
    core::model::Mono,
    probe::kernel::{Kernel, Notes},
};

/// The kernel side's descriptors.
pub(super) struct Ears {
    pub(super) notes: AsyncFd<Notes>,
    pub(super) log: Option<AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>>,
}

impl Ears {
    pub(super) fn of(kernel: &mut Kernel, kernel_log: bool) -> Result<Self> {
        let notes = kernel
            .take_notes()
            .context("the kernel object has no ring buffer")?;
        let log = if kernel_log {
            kernel.take_log().map(watch).transpose()?
        } else {
            None
        };
        Ok(Self {
            notes: watch(notes)?,
            log,
        })
    }
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch<T: AsRawFd>(inner: T) -> Result<AsyncFd<T>> {
    // SAFETY: what is registered here are handles, the ring buffer and the log; each owns
    // its one descriptor and returns it for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(|error| anyhow!("cannot wait on a descriptor: {error}"))
}

pub(super) async fn log_ready(
    log: &mut Option<AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>>,
) -> std::io::Result<()> {
    match log {
        Some(log) => {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

pub(super) async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

pub(super) async fn next_request(requests: &mut Option<Requests>) -> Option<Request> {
    match requests {
        Some(requests) => requests.recv().await,
        None => None,
    }
}

pub(super) async fn sleep_until(deadline: Option<Mono>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now())).await,
        None => std::future::pending().await,
    }
}
