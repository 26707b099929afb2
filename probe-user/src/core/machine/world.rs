//! A simulated machine to run the core in: writers that block, drain and die at
//! given times, a tracer that notes what a real one would, and a shell that
//! performs effects at once.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::core::{
    model::{Channel, ChannelKind, DrainToken, Sighting, Stream, WriteSyscall},
    pace::{Limits, Pace},
    report::KillReport,
    rule::{Action, Match, Mode, Pattern, Protect, Rule},
};

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
        stalled_for: seconds(3.0),
        action: Action::Kill,
        grace: seconds(1.0),
        mode: Mode::Enforce,
        pace: Pace::default(),
        pre_kill: None,
        allow_stderr_kill: false,
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

/// A process with one thread.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) writer: WriterId,
    pub(super) comm: &'static str,
    pub(super) uid: u32,
    pub(super) stream: Stream,
    pub(super) dies_on_term: bool,
    pub(super) alive: bool,
    /// What it is blocked on, if it is.
    pub(super) blocked: Option<Blocked>,
    /// Leaves its write, or has it drained, when SIGTERM arrives.
    pub(super) leaves_on_term: bool,
    pub(super) exec: u32,
    pub(super) ppid: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) since: Mono,
    pub(super) drained: Option<Mono>,
    token: u64,
    traced: Option<Traced>,
}

/// What the tracer's table holds.
#[derive(Clone, Debug)]
struct Traced {
    entered: Option<Mono>,
    token: u64,
    token_since: Mono,
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    Block,
    Drain,
    /// Wakes and sleeps again, as a handled signal makes it.
    Wake,
    Leave,
    Exit {
        noted: bool,
    },
    /// Exits, and a new process gets the pid.
    Reuse,
    /// Becomes another program that goes on with the same write.
    Exec(&'static str),
    /// Gets another parent.
    Orphan,
}

/// What the machine asked for, with the time, in short.
pub(super) type Trace = Vec<(Duration, String)>;

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Mono,
    pub(super) tasks: BTreeMap<u32, Task>,
    pub(super) reports: Vec<(Mono, Report)>,
    pub(super) signals: Vec<(Mono, WriterId, Signal)>,
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
    /// Nothing can be made durable.
    pub(super) disk_full: bool,
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
            commits: 0,
            hooks: Vec::new(),
            looks: 0,
            before_open: None,
            before_signal: None,
            before_commit: None,
            out_of_handles: false,
            disk_full: false,
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
        let task = Task {
            writer: WriterId {
                tid: pid,
                process: Process {
                    tgid: pid,
                    start: self.next_start,
                },
            },
            comm,
            uid: 1000,
            stream: Stream::Stdout,
            dies_on_term: true,
            alive: true,
            blocked: None,
            leaves_on_term: false,
            exec: 0,
            ppid: 99,
        };
        self.tasks.entry(pid).or_insert(task)
    }

    /// A task that was blocked this long before the observer started.
    pub(super) fn block_before_start(&mut self, pid: u32, age: Duration) {
        self.next_token += 1;
        let (token, since) = (
            self.next_token,
            Mono::from_nanos(0).after(START.saturating_sub(age)),
        );
        self.tasks.get_mut(&pid).unwrap().blocked = Some(Blocked {
            since,
            drained: None,
            token,
            traced: None,
        });
    }

    /// Lets something happen, if it can; says whether it was progress.
    pub(super) fn happen(&mut self, pid: u32, what: Happening) -> bool {
        let now = self.now;
        self.next_token += 1;
        let next_token = self.next_token;
        let Some(task) = self.tasks.get_mut(&pid).filter(|task| task.alive) else {
            return false;
        };
        match (what, &mut task.blocked) {
            (Happening::Block, None) => {
                let token = next_token;
                let traced = Some(Traced {
                    entered: Some(now),
                    token,
                    token_since: now,
                });
                task.blocked = Some(Blocked {
                    since: now,
                    drained: None,
                    token,
                    traced,
                });
            }
            (Happening::Drain, Some(blocked)) => {
                blocked.token = next_token;
                blocked.drained = Some(now);
            }
            (Happening::Wake, Some(blocked)) => {
                if let Some(traced) = &mut blocked.traced
                    && traced.token != blocked.token
                {
                    traced.token = blocked.token;
                    traced.token_since = now;
                }
                return false;
            }
            (Happening::Leave, Some(_)) => task.blocked = None,
            (Happening::Exit { noted }, _) => {
                task.alive = false;
                let writer = task.writer;
                if noted && task.blocked.is_some() {
                    self.machine.handle_note(Note::Exited(writer), now);
                }
            }
            (Happening::Exec(comm), _) => {
                task.exec += 1;
                task.comm = comm;
                // It ran, and the tracer saw it block again.
                if let Some(blocked) = &mut task.blocked {
                    blocked.since = now;
                    blocked.traced = Some(Traced {
                        entered: Some(now),
                        token: blocked.token,
                        token_since: now,
                    });
                }
            }
            (Happening::Orphan, _) => {
                task.ppid = 1;
                return false;
            }
            (Happening::Reuse, _) => {
                self.next_start += 1;
                task.writer.process.start = self.next_start;
                task.blocked = None;
            }
            _ => return false,
        }
        true
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
                Effect::Report(report) => self.reports.push((now, *report)),
                Effect::Commit => {
                    self.commits += 1;
                    if let Some((pid, what)) = self.before_commit.take() {
                        self.happen(pid, what);
                    }
                    if self.disk_full {
                        self.machine.handle_recording(false, now);
                    } else {
                        self.machine.handle_committed();
                    }
                }
                Effect::Signal(id, signal) => self.signal(id, signal),
                Effect::Release(_) => {}
            }
        }
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
        let sightings = self
            .tasks
            .values_mut()
            .filter(|task| task.alive)
            .filter_map(|task| {
                let (writer, comm, uid, stream) = (task.writer, task.comm, task.uid, task.stream);
                let (task_exec, task_ppid) = (task.exec, task.ppid);
                let blocked = task.blocked.as_mut()?;
                let (entered, token_since) = if let Some(t) = &blocked.traced {
                    (t.entered, (t.token == blocked.token).then_some(t.token_since))
                } else {
                    // The scanner hands what it finds to the tracer.
                    let found = Traced {
                        entered: None,
                        token: blocked.token,
                        token_since: now,
                    };
                    blocked.traced = Some(found);
                    (None, None)
                };
                Some(Sighting {
                    writer,
                    at: now,
                    channel: Channel {
                        kind: ChannelKind::Pipe,
                        dev: 1,
                        inode: u64::from(writer.tid),
                    },
                    token: DrainToken([blocked.token, 0]),
                    entered,
                    token_since,
                    last_ran: Some(blocked.since),
                    untouched: blocked.drained.is_none(),
                    exec: task_exec,
                    ppid: task_ppid,
                    uid,
                    fd: 1,
                    syscall: WriteSyscall::Write,
                    stream: Some(stream),
                    queued: Some(65_536),
                    comm: comm.to_owned(),
                    thread: comm.to_owned(),
                })
            })
            .collect();
        Look {
            at: now,
            traced: true,
            sightings,
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
