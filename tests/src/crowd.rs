//! A parent of bundled writers, for the tests that need many, or one under conditions that a real
//! program does not offer. The reading ends are the parent's, so a rule can match by parent.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::clock;
use crate::family::Family;
use crate::order::{Exit, Kind, Order, Report};
use crate::scratch::Scratch;
use crate::{binary, names, proc, wait};

/// What writers write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// An anonymous pipe.
    Pipe,
    /// A named pipe.
    Fifo,
    /// A unix stream socket.
    Unix,
}

impl Channel {
    /// Names it as the program does.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Fifo => "fifo",
            Self::Unix => "unix",
        }
    }
}

/// Each write-class syscall that blocks on a pipe or a socket, with what it blocks on.
pub const WAYS_TO_WRITE: [(Channel, &str); 14] = [
    (Channel::Pipe, "write"),
    (Channel::Pipe, "writev"),
    (Channel::Pipe, "pwritev2"),
    (Channel::Pipe, "splice"),
    (Channel::Pipe, "sendfile"),
    (Channel::Pipe, "tee"),
    (Channel::Pipe, "vmsplice"),
    (Channel::Unix, "write"),
    (Channel::Unix, "writev"),
    (Channel::Unix, "sendto"),
    (Channel::Unix, "sendmsg"),
    (Channel::Unix, "sendmmsg"),
    (Channel::Unix, "splice"),
    (Channel::Unix, "sendfile"),
];

const PAGE: usize = 4096;

/// A crowd to be started.
#[derive(Debug)]
pub struct Plan {
    stuck: usize,
    trickled: usize,
    healthy: usize,
    channel: Channel,
    every: Duration,
    one_page: bool,
    name: String,
    writer_name: String,
    write: Vec<String>,
    user: Option<u32>,
}

/// A running crowd.
#[derive(Debug)]
pub struct Crowd {
    family: Family,
    orders: ChildStdin,
    reports: Receiver<Report>,
    seen: Vec<Report>,
    name: String,
    writer_name: String,
    /// A moment at most some milliseconds after the last stuck writer blocked.
    ready: Duration,
    /// Holds the FIFOs, if any.
    _dir: Scratch,
}

impl Plan {
    /// Plans a crowd of writers nobody reads, with names of its own.
    pub fn stuck(count: usize) -> Self {
        Self {
            stuck: count,
            trickled: 0,
            healthy: 0,
            channel: Channel::Pipe,
            every: Duration::from_millis(50),
            one_page: false,
            name: names::unique("par"),
            writer_name: names::unique("wri"),
            write: Vec::new(),
            user: None,
        }
    }

    /// Adds writers that are drained all the time, under the same names.
    #[must_use]
    pub fn and_healthy(self, healthy: usize) -> Self {
        Self { healthy, ..self }
    }

    /// Sets what is written to.
    #[must_use]
    pub fn on(self, channel: Channel) -> Self {
        Self { channel, ..self }
    }

    /// Adds writers of which one byte is taken so often, once they are blocked. Healthy writers
    /// of the same crowd are drained as often.
    #[must_use]
    pub fn and_trickled(self, trickled: usize, every: Duration) -> Self {
        Self {
            trickled,
            every,
            ..self
        }
    }

    /// Plans a writer that is blocked but for `pause` in each `period`: its pipe holds one page,
    /// which is taken whole once a period, and after each page that it writes it sleeps.
    pub fn crawling(period: Duration, pause: Duration) -> Self {
        let pause = format!("{}ms", pause.as_millis());
        let plan = Self {
            one_page: true,
            ..Self::stuck(0)
        };
        plan.and_trickled(1, period)
            .writing(&["--chunk", &PAGE.to_string(), "--pause", &pause])
    }

    /// Sets the writers' comm, for rules that match several crowds.
    #[must_use]
    pub fn writers_named(self, name: &str) -> Self {
        Self {
            writer_name: name.to_owned(),
            ..self
        }
    }

    /// Sets the parent's comm, for rules that match several crowds.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Tells the parent's comm.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells the writers' comm.
    pub fn writer_name(&self) -> &str {
        &self.writer_name
    }

    /// Adds arguments of `stuck write`.
    #[must_use]
    pub fn writing(mut self, arguments: &[&str]) -> Self {
        self.write
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Runs parent and writers as another user, with a group of the same number.
    #[must_use]
    pub fn as_user(self, uid: u32) -> Self {
        Self {
            user: Some(uid),
            ..self
        }
    }

    /// Starts the crowd and waits until every stuck writer is blocked.
    #[track_caller]
    pub fn start(self) -> Crowd {
        let dir = Scratch::new();
        let stuck = match self.user {
            Some(_) => dir.for_everyone(&binary::stuck()),
            None => binary::stuck(),
        };
        let mut command = Command::new(stuck);
        command.arg("crowd").arg("--dir").arg(dir.path("."));
        command.args(["--name", &self.name, "--writer-name", &self.writer_name]);
        command.args(["--channel", self.channel.as_str()]);
        command.args([
            "--stuck",
            &self.stuck.to_string(),
            "--healthy",
            &self.healthy.to_string(),
        ]);
        command.args(["--trickled", &self.trickled.to_string()]);
        command.args(["--every", &format!("{}ms", self.every.as_millis())]);
        if self.one_page {
            command.args(["--one-page", "--trickle", &PAGE.to_string()]);
        }
        command
            .arg("--")
            .args(&self.write)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        let mut family = Family::start(&mut command);
        let orders = family.child().stdin.take().expect("stdin is piped");
        let stdout = family.child().stdout.take().expect("stdout is piped");
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let report = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let mut crowd = Crowd {
            family,
            orders,
            reports,
            seen: Vec::new(),
            name: self.name,
            writer_name: self.writer_name,
            ready: Duration::ZERO,
            _dir: dir,
        };
        crowd.await_report("the crowd is ready", |report| {
            (*report == Report::Ready).then_some(())
        });
        crowd.ready = clock::mono();
        crowd
    }
}

/// A crowd whose parent, who should read, is stopped until this is dropped.
pub struct Stopped<'a>(&'a Crowd);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

impl Crowd {
    /// Tells the parent's pid.
    pub fn pid(&self) -> u32 {
        self.family.pid()
    }

    /// Sends the parent, who should read, a signal.
    pub fn signal(&self, signal: Signal) {
        self.family.signal(signal);
    }

    /// Stops the parent until what is returned is dropped.
    #[track_caller]
    pub fn stopped(&self) -> Stopped<'_> {
        self.signal(Signal::STOP);
        proc::await_state(self.pid(), 'T');
        Stopped(self)
    }

    /// Tells the parent's comm.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells the writers' comm.
    pub fn writer_name(&self) -> &str {
        &self.writer_name
    }

    /// Tells when the last stuck writer had blocked, to some milliseconds.
    pub fn ready(&self) -> Duration {
        self.ready
    }

    /// Lists the writers nobody reads.
    pub fn stuck(&self) -> Vec<u32> {
        self.pids(Kind::Stuck)
    }

    /// Lists the writers of which a byte is taken now and then.
    pub fn trickled(&self) -> Vec<u32> {
        self.pids(Kind::Trickled)
    }

    /// Lists the writers that are drained.
    pub fn healthy(&self) -> Vec<u32> {
        self.pids(Kind::Healthy)
    }

    /// Tells the pid of the only writer that is not drained.
    #[track_caller]
    pub fn writer(&self) -> u32 {
        let writers = [self.stuck(), self.trickled()].concat();
        let [pid] = writers[..] else {
            panic!("one writer was expected: {:?}", self.seen)
        };
        pid
    }

    /// Gives an order.
    pub fn order(&mut self, order: Order) {
        let mut line = serde_json::to_vec(&order).expect("an order is JSON");
        line.push(b'\n');
        self.orders.write_all(&line).expect("the crowd takes orders");
    }

    /// Waits until a writer is gone and reaped, and tells how it ended.
    #[track_caller]
    pub fn await_exit(&mut self, writer: u32) -> Exit {
        self.await_report(&format!("exit of {writer}"), |report| exit_of(report, writer))
    }

    /// Tells how a writer ended, if it has ended.
    pub fn exit(&mut self, writer: u32) -> Option<Exit> {
        self.take_reports();
        self.seen.iter().find_map(|report| exit_of(report, writer))
    }

    /// Tells how many bytes this writer has got rid of.
    #[track_caller]
    pub fn drained(&mut self, writer: u32) -> u64 {
        self.take_reports();
        self.seen.retain(|report| count_of(report, writer).is_none());
        self.order(Order::Count { pid: writer });
        self.await_report(&format!("count of {writer}"), |report| count_of(report, writer))
    }

    fn pids(&self, wanted: Kind) -> Vec<u32> {
        let started = self.seen.iter().filter_map(|report| match *report {
            Report::Started { pid, kind } => (kind == wanted).then_some(pid),
            Report::Exited { .. } | Report::Ready | Report::Drained { .. } => None,
        });
        started.collect()
    }

    fn take_reports(&mut self) {
        self.seen.extend(self.reports.try_iter());
    }

    #[track_caller]
    fn await_report<T>(&mut self, what: &str, look: impl Fn(&Report) -> Option<T>) -> T {
        wait::until(what, wait::PATIENCE, || {
            self.take_reports();
            self.seen.iter().find_map(&look)
        })
    }
}

fn exit_of(report: &Report, writer: u32) -> Option<Exit> {
    if let Report::Exited { pid, exit } = *report {
        (pid == writer).then_some(exit)
    } else {
        None
    }
}

fn count_of(report: &Report, writer: u32) -> Option<u64> {
    if let Report::Drained { pid, bytes } = *report {
        (pid == writer).then_some(bytes)
    } else {
        None
    }
}
