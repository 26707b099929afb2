//! The one loop that owns the state: it performs the machine's effects in their
//! order, and sleeps until the machine's deadline or an event.
//!
//! It decides nothing. `run` and `watch` are this loop with and without rules.

pub mod hook;
pub mod journal;
pub mod printer;

use std::{collections::BTreeMap, io, os::fd::AsRawFd, pin::pin, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    task::{AbortHandle, JoinSet},
};

use self::{hook::Hooks, journal::Journal, printer::Printer};
use crate::{
    alert::Alerts,
    clock,
    core::{
        kill::KillId,
        machine::{Effect, Machine, Opened, Sent, Settings},
        model::{ChannelKind, Mono, Process},
        report::{Report, Signal, Snapshot},
        rule::Hook,
    },
    enforce::Handle,
    event::{Event, HistogramView, StallView, Stamp},
    probe::{
        kernel::{Kernel, Losses, Notes},
        pressure,
        process::Reader,
    },
};

/// Where events go.
pub struct Outputs {
    /// The durable record, if one is kept.
    pub journal: Option<Journal>,
    /// Standard output, for as long as it takes events.
    pub printer: Option<Printer>,
    /// Who is told, if anybody is.
    pub alerts: Option<Alerts>,
    /// Numbers events.
    pub stamp: Stamp,
}

impl Outputs {
    fn send(&mut self, event: &Event) -> Result<()> {
        let line = serde_json::to_string(event)?;
        if let Some(journal) = &mut self.journal {
            journal.append(&line);
        }
        if let Some(alerts) = &mut self.alerts {
            alerts.send(event.seq, &line);
        }
        match self
            .printer
            .as_mut()
            .map_or(Ok(()), |printer| printer.print(event, line))
        {
            Ok(()) => Ok(()),
            Err(error) => self.stop_printing(error),
        }
    }

    /// What is printed is a convenience where a journal is kept, and else the purpose.
    fn stop_printing(&mut self, error: io::Error) -> Result<()> {
        const WHAT: &str = "cannot write to standard output";
        let Some(journal) = &mut self.journal else {
            return Err(error).context(WHAT);
        };
        log::warn!("{WHAT}: {error}; events go to the journal alone");
        self.printer = None;
        let degraded = self
            .stamp
            .agent("agent.degraded", Some(format!("{WHAT}: {error}")));
        let line = serde_json::to_string(&degraded)?;
        journal.append(&line);
        if let Some(alerts) = &mut self.alerts {
            alerts.send(degraded.seq, &line);
        }
        Ok(())
    }

    /// What the alerts cannot do.
    async fn complaint(alerts: &mut Option<Alerts>) -> String {
        match alerts {
            Some(alerts) => alerts.complaint().await,
            None => std::future::pending().await,
        }
    }

    fn commit(&mut self) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), Journal::commit)
    }

    fn flush(&mut self) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), Journal::flush)
    }
}

/// The running agent.
pub struct Agent {
    machine: Machine,
    kernel: Kernel,
    channels: Vec<ChannelKind>,
    reader: Reader,
    handles: BTreeMap<KillId, Watched>,
    exits: JoinSet<KillId>,
    hooks: Hooks,
    hooked: JoinSet<(KillId, String)>,
    outputs: Outputs,
    lost: Losses,
}

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
    Complaint(String),
    Log,
    Stop,
}

impl Agent {
    /// Puts an agent together; it has not looked at anything yet.
    #[must_use]
    pub fn new(kernel: Kernel, settings: Settings, channels: Vec<ChannelKind>, outputs: Outputs) -> Self {
        Self {
            machine: Machine::new(settings, clock::now()),
            kernel,
            channels,
            reader: Reader::default(),
            handles: BTreeMap::new(),
            exits: JoinSet::new(),
            hooks: Hooks::default(),
            hooked: JoinSet::new(),
            outputs,
            lost: Losses::default(),
        }
    }

    /// Runs until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The kernel side or the durable record failed; nothing is signalled after that.
    pub async fn run(mut self, kernel_log: bool) -> Result<()> {
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminated = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let notes = self
            .kernel
            .take_notes()
            .context("the kernel object has no ring buffer")?;
        let mut notes = watch(notes)?;
        let mut log = if kernel_log {
            self.kernel.take_log().map(watch).transpose()?
        } else {
            None
        };

        let started = self.outputs.stamp.agent("agent.started", None);
        self.outputs.send(&started)?;
        self.perform()?;

        loop {
            let deadline = pin!(sleep_until(self.machine.poll_deadline()));
            let wake = tokio::select! {
                biased;
                _ = interrupted.recv() => Wake::Stop,
                _ = terminated.recv() => Wake::Stop,
                Some(exit) = self.exits.join_next() => Wake::Exit(exit.ok()),
                Some(hooked) = self.hooked.join_next() => Wake::Hooked(hooked.ok()),
                ready = notes.readable_mut() => { ready?.clear_ready(); Wake::Notes }
                () = deadline => Wake::Deadline,
                what = Outputs::complaint(&mut self.outputs.alerts) => Wake::Complaint(what),
                ready = log_ready(&mut log) => { ready?; Wake::Log }
            };
            match wake {
                Wake::Notes => self.take_notes(notes.get_mut())?,
                Wake::Exit(Some(id)) => self.machine.handle_exit(id, clock::now()),
                Wake::Hooked(Some((id, outcome))) => self.machine.handle_hooked(id, outcome),
                Wake::Complaint(what) => {
                    let degraded = self.outputs.stamp.agent("agent.degraded", Some(what));
                    self.outputs.send(&degraded)?;
                }
                Wake::Exit(None) | Wake::Hooked(None) | Wake::Deadline | Wake::Log => {}
                Wake::Stop => break,
            }
            // On every turn: a storm of notes must not hold up what is due.
            self.machine.handle_deadline(clock::now());
            self.perform()?;
        }
        self.stop()
    }

    fn stop(mut self) -> Result<()> {
        self.machine.handle_stop(clock::now());
        self.perform()?;
        let stopping = self
            .outputs
            .stamp
            .stopping(HistogramView::new(&self.kernel.histogram()));
        self.outputs.send(&stopping)?;
        self.outputs.commit()?;
        if let Some(alerts) = self.outputs.alerts {
            alerts.finish();
        }
        let lost = self.outputs.printer.map_or(0, Printer::finish);
        if lost > 0 {
            log::warn!("{lost} events were not printed: standard output was not read in time");
        }
        Ok(())
    }

    /// Performs effects until there are none.
    fn perform(&mut self) -> Result<()> {
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                Effect::Look => self.look()?,
                Effect::Identify(process) => {
                    let facts = self.reader.facts(process);
                    self.machine.handle_facts(process, facts, clock::now());
                }
                Effect::Open(id, process) => self.open(id, process),
                Effect::Hook(id, hook, snapshot) => self.hook(id, hook, &snapshot),
                Effect::Report(report) => self.report(&report)?,
                Effect::Commit => {
                    self.outputs.commit()?;
                    self.machine.handle_committed();
                }
                Effect::Signal(id, signal) => self.signal(id, signal),
                Effect::Release(id) => drop(self.handles.remove(&id)),
            }
        }
        self.outputs.flush()
    }

    fn look(&mut self) -> Result<()> {
        self.machine.handle_pressure(pressure::cpu());
        let (mut look, _) = self.kernel.look()?;
        look.sightings
            .retain(|sighting| self.channels.contains(&sighting.channel.kind));
        // A process that was gone when the look was taken has exited, not made progress.
        let gone: Vec<_> = self
            .handles
            .iter()
            .filter(|(_, watched)| watched.handle.get_ref().has_exited())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.machine.handle_exit(id, clock::now());
        }
        self.machine.handle_look(look, clock::now());
        self.report_losses()
    }

    /// Says once of each kind that the tracer lost something.
    fn report_losses(&mut self) -> Result<()> {
        let lost = self.kernel.lost();
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
                self.outputs.send(&degraded)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, id: KillId, process: Process) {
        let opened = match Handle::open(process).map(watch) {
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
        let event = self.outputs.stamp.report(report);
        self.outputs.send(&event)
    }

    fn take_notes(&mut self, notes: &mut Notes) -> Result<()> {
        while let Some(note) = notes.next_note()? {
            self.machine.handle_note(note, clock::now());
        }
        Ok(())
    }
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch<T: AsRawFd>(inner: T) -> Result<AsyncFd<T>> {
    // SAFETY: what is registered here are handles, the ring buffer and the log; each owns
    // its one descriptor and returns it for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(|error| anyhow!("cannot wait on a descriptor: {error}"))
}

async fn log_ready(
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

async fn sleep_until(deadline: Option<Mono>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now())).await,
        None => std::future::pending().await,
    }
}
