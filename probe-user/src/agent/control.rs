//! How others reach the loop that owns the state: they ask over a bounded queue, and it
//! answers when it comes to it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::state::State;
use crate::{
    api::{Reloaded, explanation::ExplanationView},
    core::machine::Refusal,
};

/// Requests that may wait.
const QUEUE: usize = 16;

/// What is asked of the owner.
#[derive(Debug)]
pub enum Request {
    /// The state, as of a look that is not older than a moment.
    State(oneshot::Sender<Arc<State>>),
    /// Why each rule does or does not match a stall.
    Explain {
        /// The stall's name.
        stall: String,
        /// The explanation, or why there is none.
        answer: oneshot::Sender<Result<ExplanationView, Refusal>>,
    },
    /// A kill, by the protocol.
    Kill {
        /// The stall's name.
        stall: String,
        /// Who asks, for the record.
        by: String,
        /// How long after SIGTERM an exit or progress is awaited.
        grace: Duration,
        /// The number of the last event before it, or why not.
        answer: oneshot::Sender<Result<u64, Refusal>>,
    },
    /// A reload of the configuration.
    Reload {
        /// Who asks, for the record.
        by: String,
        /// What is new, or what is wrong with the file.
        answer: oneshot::Sender<Result<Reloaded, String>>,
    },
}

/// The owner's loop is over.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

/// The way to the owner.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Request>);

/// The owner's end of it.
pub type Requests = mpsc::Receiver<Request>;

/// A way to the owner, and its end of it.
#[must_use]
pub fn channel() -> (Control, Requests) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Control(sender), receiver)
}

impl Control {
    /// Asks for the state.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn state(&self) -> Result<Arc<State>, Stopped> {
        self.ask(Request::State).await
    }

    /// Asks why each rule does or does not match a stall.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn explain(&self, stall: String) -> Result<Result<ExplanationView, Refusal>, Stopped> {
        self.ask(|answer| Request::Explain { stall, answer }).await
    }

    /// Asks for a kill.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn kill(
        &self,
        stall: String,
        by: String,
        grace: Duration,
    ) -> Result<Result<u64, Refusal>, Stopped> {
        self.ask(|answer| Request::Kill {
            stall,
            by,
            grace,
            answer,
        })
        .await
    }

    /// Asks for a reload.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn reload(&self, by: String) -> Result<Result<Reloaded, String>, Stopped> {
        self.ask(|answer| Request::Reload { by, answer }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.0.send(request(answer)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}
