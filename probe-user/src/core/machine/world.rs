//! A simulated machine to run the core in: writers that block, drain and die at
//! given times, a tracer that notes what a real one would, and a shell that
//! performs effects at once.

mod task;

use std::{collections::BTreeMap, time::Duration};

pub(super) use self::task::{Happening, Task};
use super::*;
use crate::core::{
    model::{Channel, WriterId},
    pace::{Limits, Pace},
    reader::{End, Person, Readership, State},
    report::{KillReport, Signal},
    rule::{Action, Match, Mode, Pattern, Policy, Protect, Rule},
};

/// Who reads from those that no reader was given to.
const SLEEPER: (u32, State) = (99, State::Sleeping);

/// The observer starts here, so that stalls can be older.
pub(super) const START: Duration = Duration::from_secs(1000);

pub(super) fn at(time: Duration) -> Mono {
    Mono::from_nanos(0).after(START + time)
}

pub(super) fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

/// A rule that kills what is called `ffmpeg` after three seconds, with one of grace.
pub(super) fn rule() -> Rule {
    Rule {
        name: "test".into(),
        matches: Match {
            comm: Some(Pattern::parse("ffmpeg*").unwrap()),
            ..Match::default()
        },
        stalled_for: Some(seconds(3.0)),
        stalled_share: None,
        action: Action::Kill,
        grace: seconds(1.0),
        mode: Mode::Enforce,
        pace: Pace::default(),
        pre_kill: None,
        allow_stderr_kill: false,
        hold_when_reader_stopped: true,
    }
}

pub(super) fn policy(rules: Vec<Rule>) -> Policy {
    Policy {
        rules,
        limits: Limits::default(),
        protect: Protect::default(),
        report_after: seconds(1.0),
    }
}

/// What the machine asked for, with the time, in short.
pub(super) type Trace = Vec<(Duration, String)>;

/// A `kill.planned`.
pub(super) struct Plan {
    pub(super) stall: StallId,
    /// How long the writer had got nowhere; `None` if it is gone.
    pub(super) idle: Option<Duration>,
}

/// Whether what is reported can be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Works,
    Full,
    /// What is committed next just fits.
    Fills,
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Mono,
    pub(super) tasks: BTreeMap<u32, Task>,
    pub(super) reports: Vec<(Mono, Report)>,
    pub(super) signals: Vec<(Mono, WriterId, Signal)>,
    pub(super) idle_when_signalled: Vec<Duration>,
    /// The parent and the command of each at its first signal.
    pub(super) signalled: BTreeMap<WriterId, (u32, &'static str)>,
    pub(super) planned: Vec<Plan>,
    pub(super) commits: usize,
    /// Programs that are running.
    pub(super) hooks: Vec<KillId>,
    pub(super) looks: usize,
    /// Performed between the verdict and the opening of a handle.
    pub(super) before_open: Option<(u32, Happening)>,
    pub(super) before_signal: Option<(u32, Happening)>,
    /// Performed while the record is on its way to the disk.
    pub(super) before_commit: Option<(u32, Happening)>,
    /// Handles cannot be had.
    pub(super) out_of_handles: bool,
    /// Who should read what each task writes, by its pid, and what that one does; others are
    /// read by a process 99 that sleeps.
    pub(super) readers: BTreeMap<u32, (u32, State)>,
    pub(super) searches: usize,
    /// Nobody can be looked for.
    pub(super) blind: bool,
    pub(super) checks: usize,
    pub(super) disk: Disk,
    next_start: u64,
    next_token: u64,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            machine: Machine::new(settings, at(Duration::ZERO)),
            now: at(Duration::ZERO),
            tasks: BTreeMap::new(),
            reports: Vec::new(),
            signals: Vec::new(),
            idle_when_signalled: Vec::new(),
            signalled: BTreeMap::new(),
            planned: Vec::new(),
            commits: 0,
            hooks: Vec::new(),
            looks: 0,
            before_open: None,
            before_signal: None,
            before_commit: None,
            out_of_handles: false,
            readers: BTreeMap::new(),
            searches: 0,
            blind: false,
            checks: 0,
            disk: Disk::Works,
            next_start: 1,
            next_token: 1,
        }
    }

    pub(super) fn enforcing() -> Self {
        Self::new(Settings {
            policy: policy(vec![rule()]),
            ..Settings::default()
        })
    }

    /// Adds a process that writes to its stdout.
    pub(super) fn spawn(&mut self, pid: u32, comm: &'static str) -> &mut Task {
        self.next_start += 1;
        let task = Task::new(pid, self.next_start, comm, self.now);
        self.tasks.entry(pid).or_insert(task)
    }

    /// A task that was blocked this long before the observer started.
    pub(super) fn block_before_start(&mut self, pid: u32, age: Duration) {
        self.next_token += 1;
        let since = Mono::from_nanos(0).after(START.saturating_sub(age));
        let task = self.tasks.get_mut(&pid).unwrap();
        task.block_before(since, self.next_token);
    }

    /// Lets something happen, if it can.
    pub(super) fn happen(&mut self, pid: u32, what: Happening) {
        self.next_token += 1;
        let now = self.now;
        if let Happening::StopReader = what
            && let Some((_, state)) = self.readers.get_mut(&pid)
        {
            *state = State::Stopped;
        }
        if let Some(task) = self.tasks.get_mut(&pid)
            && let Some(note) = task.happen(what, now, self.next_token)
        {
            self.machine.handle_note(note, now);
        }
    }

    /// Lets time pass up to a moment, with everything due on the way.
    pub(super) fn run_until(&mut self, until: Mono) {
        self.perform();
        for _ in 0..1_000_000 {
            match self.machine.poll_deadline() {
                Some(deadline) if deadline <= until => {
                    self.now = self.now.max(deadline);
                    self.machine.handle_deadline(self.now);
                    self.perform();
                }
                _ => {
                    self.now = self.now.max(until);
                    return;
                }
            }
        }
        panic!("the machine does not come to rest: {:?}", self.machine);
    }

    pub(super) fn run(&mut self, wait: Duration) {
        self.run_until(self.now.after(wait));
    }

    fn perform(&mut self) {
        while let Some(effect) = self.machine.next_effect() {
            let now = self.now;
            match effect {
                Effect::Look => {
                    self.looks += 1;
                    self.tell_exits();
                    let look = self.look();
                    self.machine.handle_look(look, now);
                }
                Effect::Identify(process) => {
                    let task = self
                        .tasks
                        .values()
                        .find(|t| t.alive && t.writer.process == process);
                    let facts = task.map(|task| Facts {
                        parent: Some(task.ppid.to_string()),
                        user: Some("peertube".into()),
                        ..Facts::default()
                    });
                    self.machine.handle_facts(process, facts, now);
                }
                Effect::FindReaders(channels) => {
                    self.searches += 1;
                    if self.blind {
                        self.machine.handle_no_readers(now);
                        continue;
                    }
                    let found = self.readership(&channels);
                    self.machine.handle_readers(found, now);
                }
                Effect::CheckReaders(processes) => {
                    self.checks += 1;
                    let people = self.people(&processes);
                    self.tell_exits();
                    self.machine.handle_people(&processes, people, now);
                }
                Effect::Open(id, process) => {
                    if let Some((pid, what)) = self.before_open.take() {
                        self.happen(pid, what);
                    }
                    let opened = match self.tasks.get(&process.tgid) {
                        _ if self.out_of_handles => Opened::Later,
                        Some(task) if !task.alive => Opened::Exited,
                        Some(task) if task.writer.process != process => Opened::OtherProcess,
                        Some(_) => Opened::Ready,
                        None => Opened::Exited,
                    };
                    self.machine.handle_opened(id, opened, now);
                }
                Effect::Hook(id, ..) => self.hooks.push(id),
                Effect::Report(report) => self.hear(*report),
                Effect::Commit => {
                    self.commits += 1;
                    if let Some((pid, what)) = self.before_commit.take() {
                        self.happen(pid, what);
                    }
                    if self.disk != Disk::Full {
                        self.machine.handle_committed();
                    }
                    if self.disk != Disk::Works {
                        self.machine.handle_recording(false, now);
                    }
                }
                Effect::Signal(id, signal) => self.signal(id, signal),
                Effect::Release(_) => {}
            }
        }
    }

    fn hear(&mut self, report: Report) {
        if let Report::Kill(snapshot, _, KillReport::Planned(_)) = &report {
            let writer = snapshot.stall.last.writer;
            let idle = self.tasks.get(&writer.tid).and_then(|task| {
                if task.alive && task.writer == writer {
                    Some(self.now.since(task.progressed))
                } else {
                    // Gone in this very moment, after the look: what happens before an effect is
                    // carried out happens after it was decided.
                    (task.disturbed == self.now).then_some(Duration::MAX)
                }
            });
            self.planned.push(Plan {
                stall: snapshot.stall.id,
                idle,
            });
        }
        self.reports.push((self.now, report));
    }

    /// Each task writes to a channel that has its pid as its inode.
    fn readership(&self, channels: &[Channel]) -> Readership {
        let mut found = Readership::default();
        for channel in channels {
            let writer = u32::try_from(channel.inode).unwrap();
            let (reader, _) = self.readers.get(&writer).copied().unwrap_or(SLEEPER);
            let process = self.process(reader);
            let end = End {
                process,
                fd: 0,
                inherited: false,
            };
            found.ends.insert(*channel, vec![end]);
            found.people.extend(self.people(&[process]));
        }
        found
    }

    fn people(&self, processes: &[Process]) -> Vec<(Process, Person)> {
        let is_gone = |process: &Process| self.tasks.get(&process.tgid).is_some_and(|task| !task.alive);
        let state = |process: &Process| {
            if is_gone(process) {
                return State::Gone;
            }
            let known = self.readers.values().find(|(pid, _)| *pid == process.tgid);
            known.map_or(State::Sleeping, |(_, state)| *state)
        };
        let person = |process: &Process| Person {
            comm: "reader".into(),
            state: state(process),
            sleeps_in: None,
            at: self.now,
        };
        processes
            .iter()
            .map(|process| (*process, person(process)))
            .collect()
    }

    fn process(&self, pid: u32) -> Process {
        let unknown = Process { tgid: pid, start: 1 };
        self.tasks.get(&pid).map_or(unknown, |task| task.writer.process)
    }

    fn signal(&mut self, id: KillId, signal: Signal) {
        let now = self.now;
        if let Some((pid, what)) = self.before_signal.take() {
            self.happen(pid, what);
        }
        let writer = self.machine.kills[&id].stall.last.writer;
        let task = self
            .tasks
            .get_mut(&writer.tid)
            .filter(|t| t.alive && t.writer == writer);
        let Some(task) = task else {
            self.machine.handle_signalled(id, signal, Sent::Gone, now);
            return;
        };
        self.signals.push((now, writer, signal));
        self.idle_when_signalled.push(now.since(task.progressed));
        self.signalled.entry(writer).or_insert((task.ppid, task.comm));
        let dies = signal == Signal::Kill || task.dies_on_term;
        let leaves = task.leaves_on_term;
        self.machine.handle_signalled(id, signal, Sent::Yes, now);
        if dies {
            self.happen(writer.tid, Happening::Exit { noted: true });
            self.machine.handle_exit(id, now);
        } else if leaves {
            self.happen(writer.tid, Happening::Leave);
        }
    }

    /// Handles on processes that are gone become readable.
    pub(super) fn tell_exits(&mut self) {
        let gone: Vec<_> = self
            .machine
            .kills
            .iter()
            .filter(|(_, kill)| kill.step != Step::Opening)
            .filter(|(_, kill)| {
                !self
                    .tasks
                    .values()
                    .any(|t| t.alive && t.writer.process == kill.process())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.machine.handle_exit(id, self.now);
        }
    }

    fn look(&mut self) -> Look {
        let now = self.now;
        let awake = self.tasks.values().filter_map(|task| task.awake(now)).min();
        let sightings = self
            .tasks
            .values_mut()
            .filter_map(|task| task.sighting(now))
            .collect();
        Look {
            at: now,
            traced: true,
            sightings,
            awake,
        }
    }

    /// What was reported, in short: seconds since the start, and what.
    pub(super) fn trace(&self) -> Trace {
        let short = |report: &Report| match report {
            Report::StallDetected(s, rule) => {
                format!(
                    "detected {} {}",
                    s.stall.last.writer.tid,
                    rule.as_ref().map_or("-", |r| &r.name)
                )
            }
            Report::Degraded(_) => "degraded".to_owned(),
            Report::StallEnded(s, why) => format!("ended {} {}", s.stall.last.writer.tid, why.as_str()),
            Report::Kill(s, _, step) => {
                let step = match step {
                    KillReport::Planned(_) => "planned".to_owned(),
                    KillReport::Sent(signal) => format!("sent {}", signal.as_str()),
                    KillReport::Confirmed { .. } => "confirmed".to_owned(),
                    KillReport::Failed(_) => "failed".to_owned(),
                    KillReport::Skipped(why, _) => format!("skipped {}", why.as_str()),
                };
                format!("{step} {}", s.stall.last.writer.tid)
            }
        };
        self.reports
            .iter()
            .map(|(when, report)| (when.since(at(Duration::ZERO)), short(report)))
            .collect()
    }
}

/// Compares a trace to `(seconds, what)` pairs, and shows both where they differ.
#[track_caller]
pub(super) fn assert_trace(world: &World, expected: &[(f64, &str)]) {
    let expected: Trace = expected
        .iter()
        .map(|(s, what)| (seconds(*s), (*what).to_owned()))
        .collect();
    assert_eq!(world.trace(), expected);
}
