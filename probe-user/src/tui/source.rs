//! Where the data comes from: an agent's API, or looks of our own. Either sends messages and is
//! otherwise left alone.

pub mod api;
pub mod standalone;

use tokio::sync::mpsc;

use self::{api::Api, standalone::Standalone};
use super::state::Message;

/// Messages that wait for the loop before the source does.
const QUEUE: usize = 256;

/// A source that has not been started.
pub enum Source {
    /// An agent, by its socket.
    Api(Api),
    /// Our own looks, without rules.
    Standalone(Box<Standalone>),
}

/// A source that has been started.
pub struct Started {
    /// What it says.
    pub messages: mpsc::Receiver<Message>,
    asks: mpsc::Sender<Ask>,
}

/// Something that is asked of the source; a message answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To end the process of this stall.
    Kill(String),
    /// Why each rule does or does not match this stall.
    Explain(String),
}

impl Source {
    /// Starts it, on the current runtime or on a thread of its own.
    #[must_use]
    pub fn start(self) -> Started {
        let (sender, messages) = mpsc::channel(QUEUE);
        let (asks, asked) = mpsc::channel(QUEUE);
        match self {
            Self::Api(api) => drop(tokio::spawn(api.run(sender, asked))),
            Self::Standalone(standalone) => standalone.start(sender),
        }
        Started { messages, asks }
    }
}

impl Started {
    /// Asks for something; a message says what came of it. False if nobody takes it.
    #[must_use]
    pub fn ask(&self, what: Ask) -> bool {
        self.asks.try_send(what).is_ok()
    }
}
