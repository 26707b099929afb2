//! The one loop that owns the state: it performs the machine's effects in their
//! order, and sleeps until the machine's deadline or an event.
//!
//! It decides nothing. `run` and `watch` are this loop with and without rules. Whoever
//! else wants to know or to have something done asks over a bounded queue, and hears of
//! events over one of its own: nobody can make the loop wait.

mod ahead;
mod answers;
pub mod control;
pub mod counts;
pub mod hook;
pub mod hub;
pub mod journal;
pub mod outputs;
pub mod printer;
pub mod privilege;
pub mod reload;
pub mod serve;
pub mod service;
pub mod state;
mod wake;

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    task::{AbortHandle, JoinSet},
};

pub use self::outputs::Outputs;
pub(crate) use self::wake::watch;
use self::{
    ahead::Ahead,
    answers::{Answers, Reading},
    control::{Request, Requests},
    counts::Counts,
    hook::Hooks,
    outputs::Trouble,
    reload::Origin,
    service::Manager,
    wake::{Ears, hung_up, log_ready, next_request, sleep_until},
};
use crate::{
    clock,
    core::{
        kill::KillId,
        machine::{Effect, Machine, Opened, Sent, Settings},
        model::{ChannelKind, Facts, Mono, Process},
        report::{Report, Signal, Snapshot},
        rule::Hook,
    },
    enforce::{Handle, make_room_for_handles},
    event::{HistogramView, StallView},
    probe::{
        kernel::{Kernel, Losses, Notes, ProbeError},
        pressure,
        process::Reader,
        readers::People,
    },
};

/// How soon a journal that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The running agent.
pub struct Agent {
    machine: Machine,
    kernel: Kernel,
    /// What the kernel sides before this one have counted.
    blocked_before: Vec<u64>,
    lost_before: Losses,
    channels: Vec<ChannelKind>,
    /// Whether this process is in a pid namespace of its own.
    foreign_pids: bool,
    reader: Reader,
    handles: BTreeMap<KillId, Watched>,
    /// How many handles there may be.
    room: usize,
    /// A look that could not be taken for want of descriptors or memory.
    shortage: Option<Shortage>,
    exits: JoinSet<KillId>,
    hooks: Hooks,
    hooked: JoinSet<(KillId, String)>,
    outputs: Outputs,
    lost: Losses,
    counts: Counts,
    manager: Manager,
    answers: Answers,
    /// When to try again to write the journal.
    retry: Option<Mono>,
}

/// Looks that fail, one after the other.
#[derive(Clone, Copy)]
struct Shortage {
    since: Mono,
    /// When the next is tried.
    again: Mono,
}

/// How soon a look is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long looks may fail: an observer that sees nothing is no observer.
const BLIND_FOR: Duration = Duration::from_secs(10);

/// A handle, and the task that waits for its process to exit.
struct Watched {
    handle: Arc<AsyncFd<Handle>>,
    waiter: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A process that is let go may live on for years; the descriptor must not.
        self.waiter.abort();
    }
}

/// What woke the loop.
enum Wake {
    Deadline,
    Notes,
    Exit(Option<KillId>),
    Hooked(Option<(KillId, String)>),
    Log,
    Asked(Request),
    Hangup,
    Read(Option<Box<Reading>>),
    Trouble(Trouble),
    Stop,
}

impl Agent {
    /// Puts an agent together; it has not looked at anything yet.
    #[must_use]
    pub fn new(kernel: Kernel, settings: Settings, channels: Vec<ChannelKind>, outputs: Outputs) -> Self {
        Self {
            machine: Machine::new(settings, clock::now()),
            kernel,
            blocked_before: Vec::new(),
            lost_before: Losses::default(),
            channels,
            foreign_pids: false,
            reader: Reader::default(),
            handles: BTreeMap::new(),
            room: make_room_for_handles(),
            shortage: None,
            exits: JoinSet::new(),
            hooks: Hooks::default(),
            hooked: JoinSet::new(),
            outputs,
            lost: Losses::default(),
            counts: Counts::default(),
            manager: Manager::default(),
            answers: Answers::default(),
            retry: None,
        }
    }

    /// Lets it be asked, reload its configuration, and tell the service manager.
    #[must_use]
    pub fn serving(mut self, requests: Requests, origin: Origin, observed: Vec<String>) -> Self {
        self.manager = Manager::find();
        self.answers = Answers::new(requests, origin, observed);
        self
    }

    /// Runs until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The kernel side failed, or there is no journal and standard output did.
    pub async fn run(mut self, kernel_log: bool) -> Result<()> {
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminated = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut hangup = self
            .answers
            .can_reload()
            .then(|| signal(SignalKind::hangup()).context("cannot handle SIGHUP"))
            .transpose()?;
        let mut ears = Ears::of(&mut self.kernel, kernel_log)?;

        let started = self.outputs.stamp.agent("agent.started", None);
        self.outputs.send(started)?;
        self.outputs.flush()?;
        self.perform()?;
        if let Some(why) = self.outputs.broken() {
            // Later, it is waited for; at the start, somebody is there to be told.
            bail!("{why}");
        }
        self.manager.ready();

        loop {
            let due = self.shortage.map(|shortage| shortage.again);
            let deadline = pin!(sleep_until(due.or_else(|| self.next_turn())));
            let wake = tokio::select! {
                biased;
                _ = interrupted.recv() => Wake::Stop,
                _ = terminated.recv() => Wake::Stop,
                Some(exit) = self.exits.join_next() => Wake::Exit(exit.ok()),
                Some(hooked) = self.hooked.join_next() => Wake::Hooked(hooked.ok()),
                ready = ears.notes.readable_mut() => { ready?.clear_ready(); Wake::Notes }
                () = deadline => Wake::Deadline,
                () = hung_up(&mut hangup) => Wake::Hangup,
                Some(read) = self.answers.reading.join_next() => Wake::Read(read.ok().map(Box::new)),
                Some(request) = next_request(&mut self.answers.requests) => Wake::Asked(request),
                trouble = self.outputs.trouble() => Wake::Trouble(trouble),
                ready = log_ready(&mut ears.log) => { ready?; Wake::Log }
            };
            match wake {
                Wake::Notes => self.take_notes(ears.notes.get_mut())?,
                Wake::Exit(Some(id)) => self.machine.handle_exit(id, clock::now()),
                Wake::Hooked(Some((id, outcome))) => self.machine.handle_hooked(id, outcome),
                Wake::Asked(request) => self.take_request(request),
                Wake::Trouble(trouble) => self.outputs.take_trouble(trouble)?,
                Wake::Hangup => self.read_anew("SIGHUP".to_owned(), None),
                Wake::Read(Some(reading)) => {
                    if let Some(fresh) = self.take_reading(*reading)? {
                        self.swap_kernel(fresh);
                        ears = Ears::of(&mut self.kernel, kernel_log)?;
                    }
                }
                Wake::Exit(None) | Wake::Hooked(None) | Wake::Read(None) | Wake::Deadline | Wake::Log => {}
                Wake::Stop => break,
            }
            if self.shortage.is_some() {
                self.look()?;
            }
            // On every turn: a storm of notes must not hold up what is due.
            let now = clock::now();
            self.machine.handle_deadline(now);
            self.perform()?;
            self.keep_house(now)?;
            self.answer();
        }
        self.stop()
    }

    /// When the loop must come round, whatever happens.
    fn next_turn(&mut self) -> Option<Mono> {
        self.machine
            .poll_deadline()
            .into_iter()
            .chain(self.retry)
            .chain(self.manager.deadline())
            .min()
    }

    /// What is due besides the machine's effects.
    fn keep_house(&mut self, now: Mono) -> Result<()> {
        if self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            self.outputs.commit()?;
            self.mind_the_journal(now);
            self.perform()?;
        }
        let machine = &self.machine;
        let kills = self.counts.kills();
        self.manager.turn(now, || {
            let stalled = machine
                .stalls()
                .filter(|stall| stall.age(now) >= state::STALLED)
                .count();
            format!(
                "{stalled} stalled; {} ended, {} failed",
                kills.confirmed, kills.failed
            )
        });
        Ok(())
    }

    /// Tells the machine whether the journal takes what it reports.
    fn mind_the_journal(&mut self, now: Mono) {
        let works = self.outputs.broken().is_none();
        if works != self.machine.is_recording() {
            self.machine.handle_recording(works, now);
        }
        self.retry = (!works).then(|| now.after(RETRY));
    }

    fn stop(mut self) -> Result<()> {
        self.manager.stopping();
        self.machine.handle_stop(clock::now());
        self.perform()?;
        let blocked = HistogramView::new(&self.blocked());
        let stopping = self.outputs.stamp.stopping(blocked, &self.kernel.written());
        self.outputs.send(stopping)?;
        self.outputs.finish()
    }

    /// Performs effects until there are none: ahead of all ordinary work once a process is to be ended.
    fn perform(&mut self) -> Result<()> {
        let mut ahead = None;
        loop {
            while let Some(effect) = self.machine.next_effect() {
                if matches!(effect, Effect::Open(..) | Effect::Signal(..)) {
                    ahead.get_or_insert_with(Ahead::of_ordinary_work);
                }
                self.carry_out(effect)?;
            }
            self.outputs.flush()?;
            if self.outputs.broken().is_none() == self.machine.is_recording() {
                return Ok(());
            }
            self.mind_the_journal(clock::now());
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Look => self.look()?,
            Effect::Identify(process) => {
                let facts = if self.foreign_pids {
                    // By the kernel's number `/proc` would tell of another process, or of none.
                    Some(Facts::default())
                } else {
                    self.reader.facts(process)
                };
                self.machine.handle_facts(process, facts, clock::now());
            }
            Effect::FindReaders(channels) => {
                match self.kernel.open_files() {
                    Ok(files) => {
                        let found = files.readership(&channels, &mut People::default());
                        self.machine.handle_readers(found, clock::now());
                    }
                    // A look would fail for the same reason, and says so.
                    Err(error) if error.is_shortage() => self.machine.handle_no_readers(clock::now()),
                    Err(error) => return Err(error.into()),
                }
            }
            Effect::CheckReaders(processes) => {
                let people = People::default().see_all(&processes);
                self.tell_exits();
                self.machine.handle_people(&processes, people, clock::now());
            }
            Effect::Open(id, process) => self.open(id, process),
            Effect::Hook(id, hook, snapshot) => self.hook(id, hook, &snapshot),
            Effect::Report(report) => self.report(&report)?,
            Effect::Commit => {
                self.outputs.commit()?;
                if self.outputs.broken().is_none() {
                    self.machine.handle_committed();
                } else {
                    self.mind_the_journal(clock::now());
                }
            }
            Effect::Signal(id, signal) => self.signal(id, signal),
            Effect::Release(id) => drop(self.handles.remove(&id)),
        }
        Ok(())
    }

    fn swap_kernel(&mut self, mut kernel: Kernel) {
        self.blocked_before = self.blocked();
        self.lost_before = self.lost();
        // Else its first look might say of a writer asleep that it has run.
        kernel.keep_clocks_of(&self.kernel);
        self.kernel = kernel;
    }

    /// Counts of blocked intervals, over all kernel sides so far.
    fn blocked(&self) -> Vec<u64> {
        let mut counts = self.kernel.histogram();
        for (count, before) in counts.iter_mut().zip(&self.blocked_before) {
            *count += before;
        }
        counts
    }

    fn lost(&self) -> Losses {
        let lost = self.kernel.lost();
        Losses {
            notes: lost.notes + self.lost_before.notes,
            entries: lost.entries + self.lost_before.entries,
        }
    }

    fn look(&mut self) -> Result<()> {
        if self
            .shortage
            .is_some_and(|shortage| clock::now() < shortage.again)
        {
            return Ok(());
        }
        let begun = clock::now();
        let (mut look, observer) = match self.kernel.look() {
            Ok(look) => look,
            Err(error) if error.is_shortage() => return self.look_again(error),
            Err(error) => return Err(error.into()),
        };
        self.counts.look(clock::now().since(begun));
        let foreign = observer.tgid != std::process::id();
        if foreign && !self.foreign_pids {
            log::warn!(
                "this process is in a pid namespace of its own: only what runs inside is seen, by name, and nothing \
                 is ended; run it with the host's pids (hostPID)"
            );
        }
        self.foreign_pids = foreign;
        self.shortage = None;
        if self.machine.asks_for_pressure() {
            self.machine.handle_pressure(pressure::cpu());
        }
        look.sightings
            .retain(|sighting| self.channels.contains(&sighting.channel.kind));
        // A process that was gone when the look was taken has exited, not made progress.
        self.tell_exits();
        self.machine.handle_look(look, clock::now());
        self.report_losses()
    }

    /// Tells the machine who has exited, ahead of what it decides next.
    fn tell_exits(&mut self) {
        let handles = self.handles.values().map(|watched| watched.handle.get_ref());
        let exited = Handle::have_exited(handles);
        let gone: Vec<_> = self
            .handles
            .keys()
            .zip(exited)
            .filter(|(_, exited)| *exited)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.machine.handle_exit(id, clock::now());
        }
    }

    /// A look could not be taken: nothing is decided until one can.
    fn look_again(&mut self, error: ProbeError) -> Result<()> {
        let now = clock::now();
        let since = self.shortage.map_or(now, |shortage| shortage.since);
        if now.since(since) >= BLIND_FOR {
            return Err(error.into());
        }
        if self.shortage.is_none() {
            let what = format!("{error}; trying again, and nothing is decided until it works");
            let degraded = self.outputs.stamp.agent("agent.degraded", Some(what));
            self.outputs.send(degraded)?;
        }
        self.shortage = Some(Shortage {
            since,
            again: now.after(LOOK_AGAIN),
        });
        Ok(())
    }

    /// Says once of each kind that the tracer lost something.
    fn report_losses(&mut self) -> Result<()> {
        let lost = self.lost();
        let said = std::mem::replace(&mut self.lost, lost);
        for (before, now, what) in [
            (
                said.notes,
                lost.notes,
                "notes of the tracer were lost: its ring buffer was full; looks make up for them",
            ),
            (
                said.entries,
                lost.entries,
                "more writers are blocked than the tracer can follow; looks alone know the rest",
            ),
        ] {
            if before == 0 && now > 0 {
                let degraded = self.outputs.stamp.agent("agent.degraded", Some(what.to_owned()));
                self.outputs.send(degraded)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, id: KillId, process: Process) {
        let handle = if self.handles.len() < self.room {
            Handle::open(process)
        } else {
            Err(Opened::Later)
        };
        let opened = match handle.map(watch) {
            Ok(Ok(handle)) => {
                let handle = Arc::new(handle);
                let exit = Arc::clone(&handle);
                let waiter = self.exits.spawn(async move {
                    let _ = exit.readable().await;
                    id
                });
                self.handles.insert(id, Watched { handle, waiter });
                Opened::Ready
            }
            Ok(Err(_)) => Opened::Later,
            Err(why) => why,
        };
        self.machine.handle_opened(id, opened, clock::now());
    }

    fn hook(&mut self, id: KillId, hook: Hook, snapshot: &Snapshot) {
        let view = StallView::new(&snapshot.stall, snapshot.at, clock::wall());
        let input = serde_json::to_vec(&view).unwrap_or_default();
        let run = self.hooks.clone().run(hook, input);
        self.hooked.spawn(async move { (id, run.await) });
    }

    fn signal(&mut self, id: KillId, signal: Signal) {
        let sent = match self.handles.get(&id) {
            Some(watched) => watched.handle.get_ref().signal(signal),
            None => Sent::Failed("its handle is closed".to_owned()),
        };
        self.machine.handle_signalled(id, signal, sent, clock::now());
    }

    fn report(&mut self, report: &Report) -> Result<()> {
        self.counts.report(report, clock::now());
        let event = self.outputs.stamp.report(report);
        self.outputs.send(event)
    }

    fn take_notes(&mut self, notes: &mut Notes) -> Result<()> {
        while let Some(note) = notes.next_note()? {
            self.machine.handle_note(note, clock::now());
        }
        Ok(())
    }
}
