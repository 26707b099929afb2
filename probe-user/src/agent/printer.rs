//! Prints events without ever holding up the loop that makes them.
//!
//! Whoever reads pipestall's output may stop reading it, of all things. Lines go
//! through a bounded queue to a thread of their own; what does not fit is counted
//! and said.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use tokio::sync::Notify;

use crate::event::Event;

const QUEUE: usize = 4096;

/// How long the rest of the queue may take when the agent stops.
const AT_THE_END: Duration = Duration::from_secs(1);

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// The way to standard output.
pub struct Printer {
    format: Format,
    lines: SyncSender<String>,
    /// Why the thread stopped, if a write failed; its end is dropped when it stops.
    done: Receiver<io::Error>,
    failure: Arc<Notify>,
    lost: u64,
}

impl Printer {
    /// Starts the thread.
    #[must_use]
    pub fn start(format: Format) -> Self {
        let (lines, queue) = mpsc::sync_channel::<String>(QUEUE);
        let (finished, done) = mpsc::channel();
        let failure = Arc::new(Notify::new());
        let failed = Arc::clone(&failure);
        thread::spawn(move || {
            let mut out = std::io::stdout().lock();
            for line in queue {
                if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                    let _ = finished.send(error);
                    failed.notify_one();
                    break;
                }
            }
        });
        Self {
            format,
            lines,
            done,
            failure,
            lost: 0,
        }
    }

    /// Queues an event, of which `json` is the line.
    ///
    /// # Errors
    /// Standard output cannot be written to any more.
    pub fn print(&mut self, event: &Event, json: String) -> io::Result<()> {
        let line = match self.format {
            Format::Text => event.line(),
            Format::Json => json,
        };
        match self.lines.try_send(line) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.lost += 1;
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => Err(self.error()),
        }
    }

    /// Waits until standard output cannot be written to any more; [`Self::error`] then says why.
    pub async fn failed(&self) {
        self.failure.notified().await;
    }

    /// Why standard output cannot be written to any more.
    #[must_use]
    pub fn error(&self) -> io::Error {
        self.done
            .try_recv()
            .unwrap_or_else(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// How many events did not fit the queue.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Prints what is queued, within reason; returns how many events did not fit the queue.
    #[must_use]
    pub fn finish(self) -> u64 {
        let Self {
            lines, done, lost, ..
        } = self;
        drop(lines);
        // The thread drops its end when the queue is empty.
        let _ = done.recv_timeout(AT_THE_END);
        lost
    }
}
