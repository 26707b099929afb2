//! The parent of many writers: starts each on a channel of its own, holds the reading ends, and
//! reads them or does not. One thread, one poll(2): nothing here waits for a writer.

use std::env;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tests::order::{Disturbance, Exit, Kind, Order, Report};
use tests::{clock, proc};

use crate::reading_end::{Channel, Habit, ReadingEnd, channel};

const PAGE: usize = 4096;
/// Ends a crowd whose test has forgotten it.
const LIFETIME: Duration = Duration::from_mins(15);
/// How often the writers are looked at until all are blocked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Which writers, on what, and how they are read.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of writers nobody reads.
    #[arg(long, default_value_t = 1)]
    stuck: usize,
    /// Number of writers of which a few bytes are taken at each tick, once they are blocked.
    #[arg(long, default_value_t = 0)]
    trickled: usize,
    /// Number of writers that are drained all the time.
    #[arg(long, default_value_t = 0)]
    healthy: usize,
    /// Comm of this parent.
    #[arg(long)]
    name: Option<String>,
    /// Comm of the writers.
    #[arg(long)]
    writer_name: Option<String>,
    /// What the writers write to.
    #[arg(long, value_enum, default_value_t = Channel::Pipe)]
    channel: Channel,
    /// Where FIFOs are made.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many bytes a trickle is.
    #[arg(long, default_value_t = 1)]
    trickle: usize,
    /// The time between two ticks.
    #[arg(long, value_parser = crate::duration, default_value = "50ms")]
    every: Duration,
    /// Pipes of one page.
    #[arg(long)]
    one_page: bool,
    /// Be killed when the thread that started this process ends.
    #[arg(long)]
    die_with_parent: bool,
    /// Further arguments of `stuck write`.
    #[arg(last = true)]
    write: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.die_with_parent {
        crate::write::die_with_parent()?;
    }
    if let Some(name) = &options.name {
        crate::set_name(name)?;
    }
    // A reading end and a pidfd a writer, and some for the process itself.
    let total = options.stuck + options.trickled + options.healthy;
    crate::limits::allow_fds(total * 2 + 64)?;
    let mut crowd = Crowd::default();
    let kinds = [
        (Kind::Stuck, options.stuck),
        (Kind::Trickled, options.trickled),
        (Kind::Healthy, options.healthy),
    ];
    let kinds = kinds
        .into_iter()
        .flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
    for (number, kind) in kinds.enumerate() {
        crowd
            .start(options, kind, number)
            .with_context(|| format!("writer {number}"))?;
    }
    crowd.serve(options)
    // Dropped here, the crowd kills and reaps what is left of itself.
}

#[derive(Debug)]
struct Member {
    child: Child,
    pidfd: OwnedFd,
    end: ReadingEnd,
    kind: Kind,
    gone: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        if !self.gone {
            // Both fail only when the child is gone, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[derive(Debug, Default)]
struct Crowd {
    members: Vec<Member>,
    /// Bytes of orders not yet ended by a newline.
    orders: Vec<u8>,
    ready: bool,
}

impl Crowd {
    fn start(&mut self, options: &Options, kind: Kind, number: usize) -> Result<()> {
        let (read, write) = channel(options.channel, options.dir.as_deref(), number)?;
        if options.one_page {
            fcntl_setpipe_size(&write, PAGE).context("F_SETPIPE_SZ")?;
        }
        let mut command = Command::new(env::current_exe()?);
        command.args(["write", "--die-with-parent"]).stdin(Stdio::null());
        if let Some(name) = &options.writer_name {
            command.args(["--name", name]);
        }
        command.args(&options.write);
        if options.write.iter().any(|argument| argument == "--stderr") {
            command.stdout(Stdio::null()).stderr(write);
        } else {
            command.stdout(write);
        }
        let child = command.spawn()?;
        let pid = child.id();
        let raw = Pid::from_child(&child);
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).context("pidfd")?;
        let habit = if kind == Kind::Healthy {
            Habit::Drain
        } else {
            Habit::Silent
        };
        let end = ReadingEnd::new(read, habit)?;
        self.members.push(Member {
            child,
            pidfd,
            end,
            kind,
            gone: false,
        });
        say(Report::Started { pid, kind })
    }

    /// Reads, reaps and obeys until stdin ends.
    fn serve(&mut self, options: &Options) -> Result<()> {
        let end = clock::mono() + LIFETIME;
        let mut tick = clock::mono();
        loop {
            let now = clock::mono();
            if now >= end {
                return Ok(());
            }
            if now >= tick {
                self.members
                    .iter_mut()
                    .filter(|member| !member.gone)
                    .try_for_each(|one| one.end.tick())?;
                tick = now + options.every;
            }
            if !self.ready && self.all_as_they_should_be() {
                self.ready = true;
                let trickle = Habit::Trickle(options.trickle);
                self.of_kind(Kind::Trickled)
                    .for_each(|member| member.end.habit = trickle);
                say(Report::Ready)?;
            }
            let next = if self.ready {
                tick
            } else {
                tick.min(now + LOOK_EVERY)
            };
            let (input, exited) = self.wait(next.saturating_sub(clock::mono()))?;
            for number in exited {
                self.reap(number)?;
            }
            if input && !self.read_orders()? {
                return Ok(());
            }
        }
    }

    fn of_kind(&mut self, kind: Kind) -> impl Iterator<Item = &mut Member> {
        self.members
            .iter_mut()
            .filter(move |member| member.kind == kind && !member.gone)
    }

    fn all_as_they_should_be(&mut self) -> bool {
        let mut members = self.members.iter().filter(|member| !member.gone);
        members.all(|member| match member.kind {
            Kind::Stuck | Kind::Trickled => !proc::blocked_writes(member.child.id()).is_empty(),
            Kind::Healthy => member.end.drained > 0,
        })
    }

    /// Waits for orders, for exits, and at most this long. Says whether there are orders, and
    /// which members have exited.
    fn wait(&self, timeout: Duration) -> Result<(bool, Vec<usize>)> {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        let alive: Vec<usize> = (0..self.members.len())
            .filter(|number| !self.members[*number].gone)
            .collect();
        fds.extend(
            alive
                .iter()
                .map(|number| PollFd::new(&self.members[*number].pidfd, PollFlags::IN)),
        );
        match poll(&mut fds, Some(&Timespec::try_from(timeout)?)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, Vec::new())),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let exited = alive
            .into_iter()
            .zip(&ready[1..])
            .filter(|(_, ready)| **ready)
            .map(|(number, _)| number);
        Ok((ready[0], exited.collect()))
    }

    fn reap(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        let status = member.child.wait()?;
        member.gone = true;
        member.end.close();
        say(Report::Exited {
            pid: member.child.id(),
            exit: exit(status),
        })
    }

    /// Obeys what stdin holds, and says whether there may be more.
    fn read_orders(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let len = rustix::io::read(rustix::stdio::stdin(), &mut buffer)?;
        self.orders.extend_from_slice(&buffer[..len]);
        while let Some(end) = self.orders.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.orders.drain(..=end).collect();
            self.obey(serde_json::from_slice(&line).context("an order")?)?;
        }
        Ok(len > 0)
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        let (Order::Drain { pid }
        | Order::Take { pid, .. }
        | Order::Close { pid }
        | Order::Kill { pid }
        | Order::Signal { pid, .. }
        | Order::Count { pid }) = order;
        let number = self
            .members
            .iter()
            .position(|member| member.child.id() == pid)
            .with_context(|| format!("{pid} is none of mine"))?;
        let member = &mut self.members[number];
        match order {
            Order::Drain { .. } => member.end.habit = Habit::Drain,
            Order::Take { bytes, .. } => {
                member.end.take(bytes)?;
                say(Report::Drained {
                    pid,
                    bytes: member.end.drained,
                })?;
            }
            Order::Close { .. } => member.end.close(),
            Order::Count { .. } => say(Report::Drained {
                pid,
                bytes: member.end.drained,
            })?,
            Order::Kill { .. } | Order::Signal { .. } if member.gone => {}
            Order::Kill { .. } => {
                member.child.kill()?;
                self.reap(number)?;
            }
            Order::Signal { signal, .. } => {
                let signal = match signal {
                    Disturbance::Handled => Signal::TERM,
                    Disturbance::Stop => Signal::STOP,
                    Disturbance::Continue => Signal::CONT,
                };
                // It is not reaped yet, so the signal arrives or means nothing.
                pidfd_send_signal(&member.pidfd, signal).context("a signal to a writer")?;
            }
        }
        Ok(())
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

fn say(report: Report) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &report)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}
