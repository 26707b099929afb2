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
mod handles;
pub mod hook;
pub mod hub;
pub mod journal;
pub mod outputs;
pub mod printer;
pub mod privilege;
pub mod reload;
pub mod serve;
pub mod service;
mod sight;
pub mod state;
mod wake;

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

pub use self::outputs::Outputs;
pub(crate) use self::wake::watch;
use self::{
    ahead::Ahead,
    answers::{Answers, Reading},
    control::{Request, Requests},
    counts::Counts,
    handles::Handles,
    hook::Hooks,
    outputs::Trouble,
    reload::Origin,
    service::Manager,
    sight::{Looked, Sight},
    wake::{Ears, hung_up, log_ready, next_request, sleep_until},
};
use crate::{
    clock,
    core::{
        kill::KillId,
        machine::{Effect, Machine, Settings},
        model::{ChannelKind, Facts, Mono},
        report::{Report, Snapshot},
        rule::Hook,
    },
    event::{HistogramView, StallView},
    probe::{
        kernel::{Kernel, Notes},
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
    sight: Sight,
    reader: Reader,
    handles: Handles,
    hooks: Hooks,
    hooked: JoinSet<(KillId, String)>,
    outputs: Outputs,
    counts: Counts,
    manager: Manager,
    answers: Answers,
    /// When to try again to write the journal.
    retry: Option<Mono>,
}

/// What woke the loop.
enum Wake {
    Deadline,
    Notes,
    Exit(KillId),
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
            sight: Sight::new(kernel, channels),
            reader: Reader::default(),
            handles: Handles::new(),
            hooks: Hooks::default(),
            hooked: JoinSet::new(),
            outputs,
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
        let mut ears = Ears::of(&mut self.sight.kernel, kernel_log)?;

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
            let due = self.sight.again().or_else(|| self.next_turn());
            let deadline = pin!(sleep_until(due));
            let wake = tokio::select! {
                biased;
                _ = interrupted.recv() => Wake::Stop,
                _ = terminated.recv() => Wake::Stop,
                Some(id) = self.handles.next_exit() => Wake::Exit(id),
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
                Wake::Exit(id) => self.machine.handle_exit(id, clock::now()),
                Wake::Hooked(Some((id, outcome))) => self.machine.handle_hooked(id, outcome),
                Wake::Asked(request) => self.take_request(request),
                Wake::Trouble(trouble) => self.outputs.take_trouble(trouble)?,
                Wake::Hangup => self.read_anew("SIGHUP".to_owned(), None),
                Wake::Read(Some(reading)) => {
                    if let Some(fresh) = self.take_reading(*reading)? {
                        self.sight.replace_kernel(fresh);
                        ears = Ears::of(&mut self.sight.kernel, kernel_log)?;
                    }
                }
                Wake::Hooked(None) | Wake::Read(None) | Wake::Deadline | Wake::Log => {}
                Wake::Stop => break,
            }
            if self.sight.again().is_some() {
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
        let blocked = HistogramView::new(&self.sight.blocked());
        let written = self.sight.kernel.written();
        let stopping = self.outputs.stamp.stopping(blocked, &written);
        self.outputs.send(stopping)?;
        self.outputs.finish()
    }

    /// Performs effects until there are none: ahead of all ordinary work once a process is to be ended.
    fn perform(&mut self) -> Result<()> {
        let mut ahead = None;
        loop {
            while let Some(effect) = self.machine.next_effect() {
                // The last look before a signal comes after the commit.
                if matches!(effect, Effect::Open(..) | Effect::Commit | Effect::Signal(..)) {
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
                let facts = if self.sight.has_foreign_pids() {
                    // By the kernel's number `/proc` would tell of another process, or of none.
                    Some(Facts::default())
                } else {
                    self.reader.facts(process)
                };
                self.machine.handle_facts(process, facts, clock::now());
            }
            Effect::FindReaders(channels) => {
                match self.sight.kernel.open_files() {
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
            Effect::Open(id, process) => {
                let opened = self.handles.open(id, process);
                self.machine.handle_opened(id, opened, clock::now());
            }
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
            Effect::Signal(id, signal) => {
                let sent = self.handles.signal(id, signal);
                self.machine.handle_signalled(id, signal, sent, clock::now());
            }
            Effect::Release(id) => self.handles.release(id),
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let look = match self.sight.look()? {
            Looked::Taken(look, took) => {
                self.counts.look(took);
                look
            }
            // Nothing is decided until one can be taken.
            Looked::Later(news) => return news.map_or(Ok(()), |what| self.degraded(what)),
        };
        if self.machine.asks_for_pressure() {
            self.machine.handle_pressure(pressure::cpu());
        }
        // A process that was gone when the look was taken has exited, not made progress.
        self.tell_exits();
        self.machine.handle_look(look, clock::now());
        for what in self.sight.new_losses() {
            self.degraded(what.to_owned())?;
        }
        Ok(())
    }

    /// Tells the machine who has exited, ahead of what it decides next.
    fn tell_exits(&mut self) {
        for id in self.handles.exited() {
            self.machine.handle_exit(id, clock::now());
        }
    }

    fn degraded(&mut self, what: String) -> Result<()> {
        let event = self.outputs.stamp.agent("agent.degraded", Some(what));
        self.outputs.send(event)
    }

    fn hook(&mut self, id: KillId, hook: Hook, snapshot: &Snapshot) {
        let view = StallView::new(&snapshot.stall, snapshot.at, clock::wall());
        let input = serde_json::to_vec(&view).unwrap_or_default();
        let run = self.hooks.clone().run(hook, input);
        self.hooked.spawn(async move { (id, run.await) });
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
