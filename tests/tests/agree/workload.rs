//! Crowds of writers, and what is done to them by chance, which a seed tells.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use probe_user::core::model::{Mono, WriterId};

use tests::crowd::{Channel, Crowd, Plan};
use tests::eye::{self, seconds};
use tests::order::{Disturbance, Order};

/// Several crowds, and what was done to them.
pub(crate) struct Workload {
    pub(crate) rng: Rng,
    parts: Vec<Part>,
    log: Vec<(Mono, Order)>,
    pub(crate) stops: Vec<Stop>,
    /// Writers that were made to exit, and when.
    pub(crate) ends: BTreeMap<u32, Mono>,
    pub(crate) signals: usize,
}

/// A crowd.
struct Part {
    crowd: Crowd,
    has_signals: bool,
    /// Whether looks alone cannot follow its writers.
    is_for_tracers: bool,
}

/// A time for which a writer was stopped.
pub(crate) struct Stop {
    pub(crate) pid: u32,
    pub(crate) from: Mono,
    /// Until when, or when that is due.
    pub(crate) to: Mono,
    is_over: bool,
}

impl Workload {
    pub(crate) fn start(comm: &str, seed: u64) -> Self {
        const PIPE: [&str; 3] = ["write", "writev", "pwritev2"];
        const ANY_ON_PIPE: [&str; 7] = [
            "write", "writev", "pwritev2", "splice", "tee", "vmsplice", "sendfile",
        ];
        const SOCKET: [&str; 5] = ["write", "writev", "sendto", "sendmsg", "sendmmsg"];
        const ANY: [&str; 5] = ["700", "4096", "32768", "65536", "300000"];
        // As much as a slot of a pipe holds: the call that blocks begins on a full one, as long as the
        // reader takes whole slots.
        const SLOT: [&str; 1] = ["4096"];
        // A call of these blocks before it has sent anything, so that a signal finds none half done.
        const SMALL: [&str; 2] = ["700", "4096"];
        let mut rng = Rng::with_seed(seed);
        let mut writing = |channel, count, how: &[&str], chunk: &[&str]| {
            let (how, chunk) = (how[rng.usize(..how.len())], chunk[rng.usize(..chunk.len())]);
            let plan = Plan::stuck(count).on(channel).writers_named(comm);
            plan.writing(&["--catch-term", "--how", how, "--chunk", chunk])
        };
        // Seldom enough that two looks in a row do not both find them awake.
        let alarmed = writing(Channel::Pipe, 2, &ANY_ON_PIPE, &ANY).writing(&["--alarm", "3"]);
        let plans = [
            (writing(Channel::Pipe, 3, &PIPE, &SLOT), true, false),
            (alarmed, true, false),
            (writing(Channel::Fifo, 3, &PIPE, &SLOT), true, false),
            (writing(Channel::Fifo, 1, &ANY_ON_PIPE, &ANY), true, false),
            (writing(Channel::Unix, 3, &SOCKET, &ANY), false, false),
            (writing(Channel::Unix, 2, &SOCKET, &SMALL), false, false),
            // A socket's token can come back by chance: looks alone take a writer that ran for one
            // that got on.
            (writing(Channel::Unix, 3, &SOCKET, &SMALL), true, true),
        ];
        let parts = plans.into_iter().map(|(plan, has_signals, is_for_tracers)| Part {
            crowd: plan.start(),
            has_signals,
            is_for_tracers,
        });
        Self {
            parts: parts.collect(),
            rng,
            log: Vec::new(),
            stops: Vec::new(),
            ends: BTreeMap::new(),
            signals: 0,
        }
    }

    /// Has a reader, a signal, or the end of the world, happen to a writer.
    pub(crate) fn disturb(&mut self, now: Mono) {
        let part = self.rng.usize(..self.parts.len());
        let Part {
            crowd, has_signals, ..
        } = &self.parts[part];
        let has_signals = *has_signals;
        let mut living = crowd.stuck();
        living.retain(|pid| !self.ends.contains_key(pid));
        let pid = living[self.rng.usize(..living.len())];
        let is_stopped = self.stops.iter().any(|stop| stop.pid == pid && !stop.is_over);
        let order = match self.rng.u32(..20) {
            0 if living.len() > 1 => Order::Kill { pid },
            1 if living.len() > 1 => Order::Close { pid },
            2..=5 => Order::Take { pid, bytes: 1 },
            6..=7 if has_signals => Order::Signal {
                pid,
                signal: Disturbance::Handled,
            },
            8..=9 if has_signals && !is_stopped => Order::Signal {
                pid,
                signal: Disturbance::Stop,
            },
            10..=15 => Order::Take {
                pid,
                bytes: 4096 * self.rng.usize(1..100),
            },
            _ => Order::Take {
                pid,
                bytes: self.rng.usize(1..400_000),
            },
        };
        match order {
            Order::Kill { .. } | Order::Close { .. } => {
                self.ends.insert(pid, now);
            }
            Order::Signal { signal, .. } => {
                self.signals += 1;
                if signal == Disturbance::Stop {
                    self.stops.push(Stop {
                        pid,
                        from: now,
                        to: now.after(Duration::from_millis(self.rng.u64(1..40))),
                        is_over: false,
                    });
                }
            }
            Order::Drain { .. } | Order::Take { .. } | Order::Count { .. } => {}
        }
        self.log.push((now, order));
        self.parts[part].crowd.order(order);
    }

    /// Lets those go on that have been stopped until then.
    pub(crate) fn go_on(&mut self, until: Mono) {
        let now = eye::now();
        for stop in self
            .stops
            .iter_mut()
            .filter(|stop| !stop.is_over && stop.to <= until)
        {
            (stop.is_over, stop.to) = (true, now);
            let order = Order::Signal {
                pid: stop.pid,
                signal: Disturbance::Continue,
            };
            let mut parts = self.parts.iter_mut();
            let part = parts.find(|part| part.crowd.stuck().contains(&stop.pid));
            part.expect("a writer of some crowd").crowd.order(order);
            self.log.push((now, order));
        }
    }

    /// Waits until everyone has exited who was made to.
    pub(crate) fn settle(&mut self) {
        self.go_on(Mono::NEVER);
        for part in &mut self.parts {
            for pid in part.crowd.stuck() {
                if self.ends.contains_key(&pid) {
                    part.crowd.await_exit(pid);
                }
            }
        }
    }

    pub(crate) fn is_for_tracers(&self, writer: WriterId) -> bool {
        let mut parts = self.parts.iter().filter(|part| part.is_for_tracers);
        parts.any(|part| part.crowd.stuck().contains(&writer.process.tgid))
    }

    /// Whether a writer was sent a signal within a time.
    pub(crate) fn was_signalled(&self, writer: WriterId, from: Mono, to: Mono) -> bool {
        let pid = writer.process.tgid;
        let is_signal = |order: &Order| matches!(order, Order::Signal { pid: its, .. } if *its == pid);
        self.within(from, to).any(is_signal)
    }

    /// Whether anything was to be taken of what a writer had written, within a time.
    pub(crate) fn was_drained(&self, writer: WriterId, from: Mono, to: Mono) -> bool {
        let pid = writer.process.tgid;
        let is_take = |order: &Order| matches!(order, Order::Take { pid: its, .. } if *its == pid);
        self.within(from, to).any(is_take)
    }

    fn within(&self, from: Mono, to: Mono) -> impl Iterator<Item = &Order> {
        let log = self.log.iter().filter(move |(at, _)| from <= *at && *at <= to);
        log.map(|(_, order)| order)
    }

    /// Writes out the orders about some writers.
    pub(crate) fn told_of(&self, which: impl Fn(u32) -> bool) -> String {
        let mut text = String::new();
        for (at, order) in &self.log {
            let (Order::Drain { pid }
            | Order::Take { pid, .. }
            | Order::Close { pid }
            | Order::Kill { pid }
            | Order::Signal { pid, .. }
            | Order::Count { pid }) = order;
            if which(*pid) {
                let _ = writeln!(text, "        {:.4} {order:?}", seconds(*at));
            }
        }
        text
    }
}
