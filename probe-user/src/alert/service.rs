//! The thread that alerts run on: its own runtime, so that nothing it waits for holds up
//! anything else.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    deliver::Courier,
    desk::{Desk, Taken},
    listing::{Chosen, Message, Unknown},
    outcome::Outcome,
    queue::Number,
    source::{self, Line},
    spool::{self, Change, Left, Spool, SpoolError},
    status::Status,
    time::{Steady, between, later},
    webhook::{Limits, Webhook},
};

/// So many events are taken in between two commits.
const BATCH: usize = 512;
/// How often a spool that failed is tried again.
const REOPEN: Duration = Duration::from_secs(5);
/// How often it is said at the most that the spool fails.
const QUIET: Duration = Duration::from_mins(10);
/// For how long messages are still delivered at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// For how long events that are missing may still come to the journal.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often they are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What can be asked of running alerts.
#[derive(Debug)]
pub(super) enum Ask {
    List(oneshot::Sender<Vec<Message>>),
    Retry(Chosen, oneshot::Sender<Result<usize, Unknown>>),
    Drop(Chosen, oneshot::Sender<Result<usize, Unknown>>),
    Configure(Vec<Webhook>, Limits, oneshot::Sender<Result<()>>),
}

/// What the service shares with the agent.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) status: Mutex<Status>,
    pub(super) late: AtomicU64,
    /// The last event that did not fit the way from the agent.
    pub(super) overflow: AtomicU64,
}

pub(super) struct Service {
    desk: Desk,
    couriers: BTreeMap<String, Arc<Courier>>,
    dir: PathBuf,
    spool: Option<Spool>,
    spool_error: Option<String>,
    reopen: Option<Timestamp>,
    quiet: Option<Timestamp>,
    /// Until when events that are missing may still come.
    missing: Option<Timestamp>,
    lost: u64,
    flights: JoinSet<(String, Number, Outcome)>,
    lines: mpsc::Receiver<Line>,
    waiting: Vec<Line>,
    asks: mpsc::Receiver<Ask>,
    complaints: mpsc::UnboundedSender<String>,
    shared: Arc<Shared>,
    clock: Steady,
}

/// The ends that the service holds.
pub(super) struct Ends {
    pub(super) lines: mpsc::Receiver<Line>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) complaints: mpsc::UnboundedSender<String>,
    pub(super) shared: Arc<Shared>,
}

/// Gets the ways to all receivers ready.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn couriers(webhooks: &[Webhook]) -> Result<BTreeMap<String, Arc<Courier>>> {
    webhooks
        .iter()
        .map(|webhook| Ok((webhook.name.clone(), Arc::new(Courier::new(webhook)?))))
        .collect()
}

/// Opens the spool, anew where it is damaged; a file system that fails is said, and tried again.
///
/// A new one holds at once that the journal up to `last` is history: who is ended before the
/// first turn has told nobody, and the next start must know what is to be told.
fn open(dir: &Path, last: u64) -> Result<(Option<Spool>, Left, Option<String>), SpoolError> {
    let begin = |spool: &Spool| spool.commit(&[Change::Cursor(last)]);
    let opened = Spool::open(dir).and_then(|spool| {
        let left = spool.load()?;
        if left.cursor.is_none() {
            begin(&spool)?;
        }
        Ok((spool, left))
    });
    match opened {
        Ok((spool, left)) => Ok((Some(spool), left, None)),
        Err(error @ SpoolError::Damaged(..)) => {
            let (spool, aside) = Spool::replace(dir)?;
            begin(&spool)?;
            let said = format!("{error}; it is now {}, and a new one is begun", aside.display());
            Ok((Some(spool), Left::default(), Some(said)))
        }
        Err(error @ SpoolError::Failed(..)) => Ok((None, Left::default(), Some(error.to_string()))),
        Err(error) => Err(error),
    }
}

impl Service {
    /// # Errors
    /// The spool is another process's, or a receiver's secrets cannot be read.
    pub(super) fn new(
        webhooks: Vec<Webhook>,
        limits: Limits,
        dir: &Path,
        last: u64,
        ends: Ends,
    ) -> Result<Self> {
        let couriers = couriers(&webhooks)?;
        let (spool, left, said) = open(dir, last)?;
        let clock = Steady::start();
        let reopen = spool.is_none().then(|| later(clock.now(), REOPEN));
        if let Some(said) = &said {
            let _ = ends.complaints.send(said.clone());
        }
        Ok(Self {
            desk: Desk::new(webhooks, limits, left, last, clock.now()),
            couriers,
            dir: dir.to_owned(),
            spool_error: said.filter(|_| spool.is_none()),
            spool,
            reopen,
            quiet: None,
            missing: None,
            lost: 0,
            flights: JoinSet::new(),
            lines: ends.lines,
            waiting: Vec::new(),
            asks: ends.asks,
            complaints: ends.complaints,
            shared: ends.shared,
            clock,
        })
    }

    /// Runs until the agent lets go of its end, and what it sent by then is kept.
    pub(super) async fn run(mut self, last: u64) {
        self.catch_up(last);
        let mut is_over = false;
        while !is_over {
            self.work();
            let due = self.due();
            let clock = self.clock;
            let wait = async move {
                match due {
                    Some(due) => sleep(between(clock.now(), due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.flights.join_next() => self.landed(done),
                count = self.lines.recv_many(&mut self.waiting, BATCH), if self.missing.is_none() => is_over = count == 0,
                Some(ask) = self.asks.recv() => self.answer(ask),
                () = wait => {}
            }
            // All that is there goes into one transaction.
            while let Some(done) = self.flights.try_join_next() {
                self.landed(done);
            }
        }
        // What is missing now can only be in the journal, and what does not go now goes after the
        // next start; but an agent's last words should not have to wait for that.
        let end = later(self.clock.now(), LAST_WORDS);
        loop {
            self.work();
            let left = between(self.clock.now(), end);
            match timeout(left, self.flights.join_next()).await {
                Ok(Some(done)) => self.landed(done),
                Ok(None) | Err(_) => break,
            }
        }
        self.keep(self.clock.now());
    }

    fn work(&mut self) {
        self.take_in();
        let now = self.clock.now();
        self.desk.tick(now);
        self.keep(now);
        while let Some(entry) = self.desk.start(now) {
            let Some(courier) = self.couriers.get(&entry.webhook).map(Arc::clone) else {
                continue;
            };
            self.flights.spawn(async move {
                let attempt = courier.send(&entry.message, entry.body).await;
                (entry.webhook, entry.number, attempt.outcome)
            });
        }
        for complaint in self.desk.complaints() {
            self.complain(complaint);
        }
        self.publish(now);
    }

    fn complain(&self, what: String) {
        log::warn!("{what}");
        // An agent that is gone has nobody to tell.
        let _ = self.complaints.send(what);
    }

    fn due(&self) -> Option<Timestamp> {
        let missing = self.missing.map(|_| later(self.clock.now(), LOOK));
        [self.desk.due(), self.reopen, missing]
            .into_iter()
            .flatten()
            .min()
    }

    fn landed(&mut self, done: Result<(String, Number, Outcome), tokio::task::JoinError>) {
        if let Ok((webhook, number, outcome)) = done {
            self.desk.finish(&webhook, number, outcome, self.clock.now());
        }
    }

    /// Takes in what the journal has of before this start.
    fn catch_up(&mut self, last: u64) {
        while self.desk.cursor() < last {
            let before = self.desk.cursor();
            let next = self.read_journal(last);
            if self.desk.cursor() == before {
                self.give_up(next.unwrap_or(last + 1) - 1);
            }
            // What is taken in must not be kept in memory alone for long.
            let now = self.clock.now();
            self.desk.tick(now);
            self.keep(now);
        }
    }

    /// Takes lines from the journal, up to a number and to the first that is missing, as many as
    /// one transaction should have; returns the number after what is missing.
    fn read_journal(&mut self, to: u64) -> Option<u64> {
        let lines = match source::after(&self.dir, self.desk.cursor(), BATCH) {
            Ok(lines) => lines,
            Err(error) => {
                if self.missing.is_none() {
                    log::warn!("alerts cannot read the journal: {error}");
                }
                return None;
            }
        };
        for (seq, line) in lines {
            if seq > to {
                break;
            }
            if self.take(seq, &line) == Taken::Gap {
                return Some(seq);
            }
        }
        None
    }

    fn take(&mut self, seq: u64, line: &str) -> Taken {
        let taken = self.desk.take(seq, line, self.clock.now());
        if taken == Taken::Unreadable {
            self.lost += 1;
            self.complain(format!(
                "event {seq} of the journal cannot be understood; no alert tells it"
            ));
        }
        taken
    }

    /// Events are nowhere.
    fn give_up(&mut self, to: u64) {
        let count = to.saturating_sub(self.desk.cursor());
        self.lost += count;
        self.desk.skip_to(to);
        self.complain(format!(
            "{count} events are missing from the journal; no alert tells them"
        ));
    }

    /// Takes in what came from the agent. Where something is missing, its way was full for a
    /// moment: the journal has it, or will have once the agent has written it.
    fn take_in(&mut self) {
        let mut lines = std::mem::take(&mut self.waiting).into_iter();
        while let Some((seq, line)) = lines.next() {
            while self.take(seq, &line) == Taken::Gap {
                let before = self.desk.cursor();
                let next = self.read_journal(seq - 1);
                let found = self.desk.cursor() - before;
                if found > 0 {
                    self.shared.late.fetch_add(found, Ordering::Relaxed);
                    self.missing = None;
                    continue;
                }
                let now = self.clock.now();
                if now < *self.missing.get_or_insert_with(|| later(now, PATIENCE)) {
                    self.waiting.push((seq, line));
                    self.waiting.extend(lines);
                    return;
                }
                self.missing = None;
                self.give_up(next.unwrap_or(seq) - 1);
            }
        }
        let overflow = self.shared.overflow.load(Ordering::Relaxed);
        if self.desk.cursor() >= overflow || !self.lines.is_empty() {
            self.missing = None;
            return;
        }
        // The last ones did not fit, and nothing comes after them that would show it.
        let before = self.desk.cursor();
        self.read_journal(overflow);
        let found = self.desk.cursor() - before;
        self.shared.late.fetch_add(found, Ordering::Relaxed);
        if found > 0 {
            self.missing = None;
        }
        let now = self.clock.now();
        if self.desk.cursor() < overflow && now >= *self.missing.get_or_insert_with(|| later(now, PATIENCE)) {
            self.missing = None;
            self.give_up(overflow);
        }
    }

    /// Makes durable what has changed. While that fails, alerts go on from memory; what the file
    /// then lacks is in the journal, and told again should this process end before it is back.
    fn keep(&mut self, now: Timestamp) {
        if self.reopen.is_some_and(|at| at <= now) {
            self.spool_again(now);
        }
        let Some(spool) = &self.spool else { return };
        if let Err(error) = spool.commit(&self.desk.changes()) {
            self.spool = None;
            self.reopen = Some(later(now, REOPEN));
            self.spool_error = Some(error.to_string());
            // A disk that is full by a hair comes and goes, and what is said makes an alert itself.
            if self.quiet.is_none_or(|until| until <= now) {
                self.quiet = Some(later(now, QUIET));
                self.complain(format!(
                    "{error}; alerts go on from memory until it can be written again"
                ));
            }
        }
    }

    fn spool_again(&mut self, now: Timestamp) {
        self.reopen = Some(later(now, REOPEN));
        let image = self.desk.image();
        let written = Spool::open(&self.dir).and_then(|spool| {
            spool.rewrite(&image)?;
            Ok(spool)
        });
        match written {
            Ok(spool) => {
                self.spool = Some(spool);
                self.reopen = None;
                self.spool_error = None;
                log::warn!("the spool {} is written again", spool::path(&self.dir).display());
            }
            Err(error) => self.spool_error = Some(error.to_string()),
        }
    }

    fn answer(&mut self, ask: Ask) {
        let now = self.clock.now();
        // Whoever asked may have gone.
        match ask {
            Ask::List(to) => drop(to.send(self.desk.messages())),
            Ask::Retry(chosen, to) => {
                let done = self.desk.retry(&chosen, now);
                self.keep(now);
                drop(to.send(done));
            }
            Ask::Drop(chosen, to) => {
                let done = self.desk.discard(&chosen);
                // What is said to be gone must not come back.
                self.keep(now);
                drop(to.send(done));
            }
            Ask::Configure(webhooks, limits, to) => {
                let done = couriers(&webhooks).map(|couriers| {
                    self.couriers = couriers;
                    self.desk.configure(webhooks, limits);
                });
                drop(to.send(done));
            }
        }
    }

    fn publish(&self, now: Timestamp) {
        let mut status = self.desk.status(now);
        status.spool_error.clone_from(&self.spool_error);
        status.late_events_total = self.shared.late.load(Ordering::Relaxed);
        status.lost_events_total = self.lost;
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_first_run_begins_is_kept_before_it_is_told_anything() {
        let dir = tempfile::tempdir().unwrap();
        for last in [7, 9] {
            let (spool, _, said) = open(dir.path(), last).unwrap();
            assert!(spool.is_some() && said.is_none());
        }
        let left = Spool::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(left.cursor, Some(7));
    }
}
