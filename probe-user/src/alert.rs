//! Alerts: events, told to people and machines by webhooks.
//!
//! ```text
//! event ─ Sink ─► desk: occurrence ─ redact ─► group ─► template, format ─► queue ─► deliver ─► receiver
//!                  └──────────────── changes ─► spool (what a restart goes on with)
//! ```
//!
//! It runs on a thread of its own. The agent hands each event over without ever waiting;
//! what does not fit is read from the journal, which is also where a restart goes on. A
//! message is in the spool before it is sent, and goes out of it when the receiver has it.
//!
//! It must not know the kernel's side, nor decide anything about a stall.

pub mod deliver;
pub mod desk;
pub mod format;
pub mod group;
pub mod listing;
pub mod notification;
pub mod occurrence;
pub mod outcome;
pub mod queue;
pub mod redact;
pub mod secret;
mod service;
pub mod source;
pub mod spool;
pub mod status;
pub mod target;
pub mod template;
pub mod time;
pub mod webhook;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use self::{
    listing::{Chosen, Message, Unknown},
    service::{Ask, Ends, Service, Shared},
    source::Line,
    status::Status,
    webhook::{Limits, Webhook},
};

/// So many events may be on their way from the agent.
const WAY: usize = 4096;

/// How long the agent waits at its end until what it said is kept.
const AT_THE_END: Duration = Duration::from_secs(2);

/// The agent's end of the way to the alerts. It never blocks.
#[derive(Debug)]
pub struct Sink {
    lines: mpsc::Sender<Line>,
    shared: Arc<Shared>,
    is_gone: bool,
}

impl Sink {
    /// Hands an event's line over. One that does not fit is found in the journal, by its number.
    pub fn send(&mut self, seq: u64, line: &str) {
        match self.lines.try_send((seq, line.to_owned())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.shared.overflow.store(seq, Ordering::Relaxed),
            Err(TrySendError::Closed(_)) => {
                if !std::mem::replace(&mut self.is_gone, true) {
                    log::error!("alerts have stopped; events go to the journal alone");
                }
            }
        }
    }
}

/// Running alerts.
#[derive(Debug)]
pub struct Alerts {
    sink: Option<Sink>,
    handle: Handle,
    complaints: mpsc::UnboundedReceiver<String>,
    done: std::sync::mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

/// A way to ask running alerts, for as many as want one.
#[derive(Clone, Debug)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
}

impl Alerts {
    /// Starts them. `last` is the number of the journal's last event.
    ///
    /// # Errors
    /// The spool is another process's, or a webhook's secrets or certificates cannot be read.
    pub fn start(webhooks: Vec<Webhook>, limits: Limits, dir: &Path, last: u64) -> Result<Self> {
        let (lines, lines_end) = mpsc::channel(WAY);
        let (asks, asks_end) = mpsc::channel(16);
        let (complaints_end, complaints) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            status: Mutex::default(),
            late: AtomicU64::new(0),
            overflow: AtomicU64::new(0),
        });
        let ends = Ends {
            lines: lines_end,
            asks: asks_end,
            complaints: complaints_end,
            shared: Arc::clone(&shared),
        };
        let service = Service::new(webhooks, limits, dir, last, ends)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the alerts' event loop")?;
        let (finished, done) = std::sync::mpsc::channel();
        let thread = thread::Builder::new()
            .name("alerts".to_owned())
            .spawn(move || {
                runtime.block_on(service.run(last));
                // A look-up that hangs is not waited for.
                runtime.shutdown_background();
                drop(finished);
            })
            .context("cannot start the alerts' thread")?;
        Ok(Self {
            sink: Some(Sink {
                lines,
                shared: Arc::clone(&shared),
                is_gone: false,
            }),
            handle: Handle { asks, shared },
            complaints,
            done,
            thread,
        })
    }

    /// Hands an event's line over, without waiting.
    pub fn send(&mut self, seq: u64, line: &str) {
        if let Some(sink) = &mut self.sink {
            sink.send(seq, line);
        }
    }

    /// What the alerts cannot do, to be made an event of.
    pub async fn complaint(&mut self) -> String {
        match self.complaints.recv().await {
            Some(complaint) => complaint,
            None => std::future::pending().await,
        }
    }

    /// A way to ask them.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Lets them keep what they were told, within reason. What is still to be delivered is
    /// delivered after the next start.
    pub fn finish(mut self) {
        self.sink = None;
        // Only its end ever comes through this channel.
        if self.done.recv_timeout(AT_THE_END) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            log::warn!("alerts did not come to an end in time; the rest is told after the next start");
        } else if self.thread.join().is_err() {
            log::error!("alerts ended by a fault of their own");
        }
    }
}

impl Handle {
    /// How the webhooks fare.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The messages in the spool.
    ///
    /// # Errors
    /// The alerts have stopped.
    pub async fn list(&self) -> Result<Vec<Message>> {
        self.ask(Ask::List).await
    }

    /// Tries messages again now; returns how many, or which of them are not there.
    ///
    /// # Errors
    /// The alerts have stopped.
    pub async fn retry(&self, chosen: Chosen) -> Result<Result<usize, Unknown>> {
        self.ask(|to| Ask::Retry(chosen, to)).await
    }

    /// Gives messages up; returns how many, or which of them are not there. While the spool can be
    /// written, that is on disk then.
    ///
    /// # Errors
    /// The alerts have stopped.
    pub async fn discard(&self, chosen: Chosen) -> Result<Result<usize, Unknown>> {
        self.ask(|to| Ask::Drop(chosen, to)).await
    }

    /// Takes other webhooks; if anything is wrong with them, the old ones stay.
    ///
    /// # Errors
    /// The alerts have stopped, or a webhook's secrets or certificates cannot be read.
    pub async fn configure(&self, webhooks: Vec<Webhook>, limits: Limits) -> Result<()> {
        self.ask(|to| Ask::Configure(webhooks, limits, to)).await?
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T> {
        let (to, answer) = oneshot::channel();
        let stopped = || anyhow!("alerts have stopped");
        self.asks.send(ask(to)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}
