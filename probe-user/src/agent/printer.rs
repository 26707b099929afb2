//! Prints events without ever holding up the loop that makes them.
//!
//! Whoever reads pipestall's output may stop reading it, of all things. Events go
//! through a bounded queue to a thread of their own, which is woken once for all that
//! come together; what does not fit is counted and said.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use tokio::sync::Notify;

use super::hub::Published;

/// How many events may wait.
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

impl Format {
    fn lines(self, events: &[Arc<Published>]) -> String {
        let mut lines = String::new();
        for published in events {
            let _ = match self {
                Self::Text => writeln!(lines, "{}", published.event.line()),
                Self::Json => writeln!(lines, "{}", published.json),
            };
        }
        lines
    }
}

/// The way to standard output.
pub struct Printer {
    events: Sender<Vec<Arc<Published>>>,
    /// How many events have been handed over and not been printed.
    waiting: Arc<AtomicUsize>,
    /// Why the thread stopped, if a write failed; its end is dropped when it stops.
    done: Receiver<io::Error>,
    failure: Arc<Notify>,
    lost: u64,
}

impl Printer {
    /// Starts the thread.
    #[must_use]
    pub fn start(format: Format) -> Self {
        let (events, queue) = mpsc::channel::<Vec<Arc<Published>>>();
        let (finished, done) = mpsc::channel();
        let failure = Arc::new(Notify::new());
        let failed = Arc::clone(&failure);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        thread::spawn(move || {
            let mut out = std::io::stdout().lock();
            for events in queue {
                let lines = format.lines(&events);
                if let Err(error) = out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
                    let _ = finished.send(error);
                    failed.notify_one();
                    break;
                }
                left.fetch_sub(events.len(), Ordering::Relaxed);
            }
        });
        Self {
            events,
            waiting,
            done,
            failure,
            lost: 0,
        }
    }

    /// Queues events.
    ///
    /// # Errors
    /// Standard output cannot be written to any more.
    pub fn print(&mut self, events: &[Arc<Published>]) -> io::Result<()> {
        let room = QUEUE.saturating_sub(self.waiting.load(Ordering::Relaxed));
        let fitting = &events[..events.len().min(room)];
        self.lost += (events.len() - fitting.len()) as u64;
        if fitting.is_empty() {
            return Ok(());
        }
        self.waiting.fetch_add(fitting.len(), Ordering::Relaxed);
        self.events.send(fitting.to_vec()).map_err(|_| self.error())
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
            events, done, lost, ..
        } = self;
        drop(events);
        // The thread drops its end when the queue is empty.
        let _ = done.recv_timeout(AT_THE_END);
        lost
    }
}
