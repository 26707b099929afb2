//! The tasks of the simulated machine: what happens to them, what the tracer keeps of them, and
//! what a look shows.

use std::time::Duration;

use probe_ebpf::RESUME_WINDOW_NS;

use crate::core::{
    machine::Note,
    model::{
        Channel, ChannelKind, Counted, DrainToken, Mono, Process, Sighting, Stream, WriteSyscall, WriterId,
    },
};

/// Processes that got a pid anew start after this, and none of the others.
const REUSED: u64 = 1 << 32;

/// A process with one thread.
#[derive(Clone, Debug)]
pub(in crate::core::machine) struct Task {
    pub(in crate::core::machine) writer: WriterId,
    pub(in crate::core::machine) comm: &'static str,
    pub(in crate::core::machine) uid: u32,
    pub(in crate::core::machine) stream: Stream,
    pub(in crate::core::machine) dies_on_term: bool,
    pub(in crate::core::machine) alive: bool,
    /// What it is blocked on, if it is.
    pub(in crate::core::machine) blocked: Option<Blocked>,
    /// Leaves its write, or has it drained, when SIGTERM arrives.
    pub(in crate::core::machine) leaves_on_term: bool,
    pub(in crate::core::machine) exec: u32,
    pub(in crate::core::machine) ppid: u32,
    /// When it last got anywhere, or began.
    pub(in crate::core::machine) progressed: Mono,
    /// When anything last happened to it.
    pub(in crate::core::machine) disturbed: Mono,
    /// When it was blocked, from and to, as long as it is the same program.
    pub(in crate::core::machine) blocks: Vec<(Mono, Option<Mono>)>,
    count: Option<Count>,
    /// Until when a tracer holds it, so that it does not sleep.
    held: Option<Mono>,
}

#[derive(Clone, Debug)]
pub(in crate::core::machine) struct Blocked {
    pub(in crate::core::machine) since: Mono,
    drained: Option<Mono>,
    /// When it last had a CPU.
    ran: Mono,
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

/// What the tracer counts across writes.
#[derive(Clone, Debug)]
struct Count {
    since: Mono,
    awake: Duration,
    /// When it last left its write, if it is not in one.
    left: Option<Mono>,
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug)]
pub(in crate::core::machine) enum Happening {
    Block,
    Drain,
    /// Wakes and sleeps again, as a handled signal makes it; the tracer may note that it woke.
    Wake {
        noted: bool,
    },
    /// A tracer attaches to it, and lets it go after so long.
    Hold(Duration),
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
    /// The tracer loses what it knew.
    Lose,
    /// Its reader is stopped.
    StopReader,
}

impl Task {
    pub(super) fn new(pid: u32, start: u64, comm: &'static str, now: Mono) -> Self {
        Self {
            writer: WriterId {
                tid: pid,
                process: Process { tgid: pid, start },
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
            progressed: now,
            disturbed: now,
            blocks: Vec::new(),
            count: None,
            held: None,
        }
    }

    /// It has been blocked since before there was a tracer.
    pub(super) fn block_before(&mut self, since: Mono, token: u64) {
        self.progressed = since;
        self.blocks.push((since, None));
        self.blocked = Some(Blocked {
            since,
            drained: None,
            ran: since,
            token,
            traced: None,
        });
    }

    /// Lets something happen at `now`, if it can; returns what the tracer notes. `fresh` is a
    /// number that was not used before.
    pub(super) fn happen(&mut self, what: Happening, now: Mono, fresh: u64) -> Option<Note> {
        if !self.alive {
            return None;
        }
        let is_progress = match (what, &mut self.blocked) {
            (Happening::Block, None) => {
                self.start_blocking(now, fresh);
                true
            }
            (Happening::Drain, Some(blocked)) => {
                blocked.token = fresh;
                blocked.drained = Some(now);
                true
            }
            (Happening::Wake { .. } | Happening::Hold(_), Some(blocked)) => {
                blocked.ran = now;
                if let Happening::Hold(time) = what {
                    self.held = Some(now.after(time));
                }
                if let Some(traced) = &mut blocked.traced
                    && traced.token != blocked.token
                {
                    traced.token = blocked.token;
                    traced.token_since = now;
                }
                false
            }
            (Happening::Leave, Some(_)) => {
                self.stop_blocking(now);
                true
            }
            (Happening::Exit { .. }, _) => {
                self.alive = false;
                true
            }
            (Happening::Exec(comm), blocked) => {
                self.exec += 1;
                self.comm = comm;
                // It ran, and the tracer saw it block again.
                if let Some(blocked) = blocked {
                    (blocked.since, blocked.ran) = (now, now);
                    blocked.traced = Some(Traced {
                        entered: Some(now),
                        token: blocked.token,
                        token_since: now,
                    });
                    self.blocks = vec![(now, None)];
                    self.count = Some(Count {
                        since: now,
                        awake: Duration::ZERO,
                        left: None,
                    });
                } else {
                    self.blocks.clear();
                    self.count = None;
                }
                true
            }
            (Happening::Orphan, _) => {
                self.ppid = 1;
                false
            }
            (Happening::Reuse, _) => {
                self.writer.process.start = REUSED + fresh;
                self.blocked = None;
                self.blocks.clear();
                self.count = None;
                true
            }
            (Happening::Lose, blocked) => {
                self.count = None;
                if let Some(blocked) = blocked {
                    blocked.traced = None;
                }
                false
            }
            (Happening::StopReader, _)
            | (Happening::Block, Some(_))
            | (Happening::Drain | Happening::Wake { .. } | Happening::Hold(_) | Happening::Leave, None) => {
                return None;
            }
        };
        self.disturbed = now;
        if is_progress {
            self.progressed = now;
        }
        if matches!(what, Happening::Exit { noted: true }) && self.blocked.is_some() {
            return Some(Note::Exited(self.writer));
        }
        matches!(what, Happening::Wake { noted: true }).then_some(Note::Woke(self.writer))
    }

    fn start_blocking(&mut self, now: Mono, token: u64) {
        self.blocked = Some(Blocked {
            since: now,
            drained: None,
            ran: now,
            token,
            traced: Some(Traced {
                entered: Some(now),
                token,
                token_since: now,
            }),
        });
        self.blocks.push((now, None));
        let count = self.count.get_or_insert(Count {
            since: now,
            awake: Duration::ZERO,
            left: None,
        });
        if let Some(left) = count.left.take() {
            count.awake += now.since(left);
        }
    }

    fn stop_blocking(&mut self, now: Mono) {
        self.blocked = None;
        if let Some((_, end)) = self.blocks.last_mut() {
            *end = Some(now);
        }
        if let Some(count) = &mut self.count {
            count.left = Some(now);
        }
    }

    /// For how long of the time before `now` it was blocked.
    pub(in crate::core::machine) fn blocked_within(&self, window: Duration, now: Mono) -> Duration {
        let start = now.before(window);
        let within = |(from, to): &(Mono, Option<Mono>)| to.unwrap_or(now).since((*from).max(start));
        self.blocks.iter().map(within).sum()
    }

    fn is_held(&self, now: Mono) -> bool {
        self.held.is_some_and(|until| now < until)
    }

    /// Since when it has got nowhere, as far as the tracer knows, if it is in its write and was asleep there until
    /// a moment ago.
    pub(super) fn awake(&self, now: Mono) -> Option<Mono> {
        let is_awake = self.alive && self.is_held(now);
        let blocked = self.blocked.as_ref().filter(|_| is_awake)?;
        if now.since(blocked.ran) > Duration::from_nanos(RESUME_WINDOW_NS) {
            return None;
        }
        let traced = blocked.traced.as_ref()?;
        traced.entered.max(Some(traced.token_since))
    }

    /// What a look shows of it. The scanner hands what it finds to the tracer.
    pub(super) fn sighting(&mut self, now: Mono) -> Option<Sighting> {
        let sleeps = self.alive && !self.is_held(now);
        let blocked = self.blocked.as_mut().filter(|_| sleeps)?;
        let mut counted = self.count.as_ref().map(|count| Counted {
            since: count.since,
            awake: count.awake,
        });
        let (entered, token_since) = if let Some(t) = &blocked.traced {
            (t.entered, (t.token == blocked.token).then_some(t.token_since))
        } else {
            blocked.traced = Some(Traced {
                entered: None,
                token: blocked.token,
                token_since: now,
            });
            self.count = Some(Count {
                since: now,
                awake: Duration::ZERO,
                left: None,
            });
            counted = None;
            (None, None)
        };
        Some(Sighting {
            writer: self.writer,
            at: now,
            channel: Channel {
                kind: ChannelKind::Pipe,
                dev: 1,
                inode: u64::from(self.writer.tid),
            },
            token: DrainToken([blocked.token, 0]),
            entered,
            token_since,
            last_ran: Some(blocked.ran),
            untouched: blocked.drained.is_none(),
            exec: self.exec,
            ppid: self.ppid,
            uid: self.uid,
            fd: 1,
            syscall: WriteSyscall::Write,
            stream: Some(self.stream),
            queued: Some(65_536),
            counted,
            comm: self.comm.into(),
            thread: self.comm.into(),
        })
    }
}
