//! A running `pipestall run` or `pipestall watch`, and its events as they come.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::clock;
use crate::config::Config;
use crate::family::Family;
use crate::message::Event;
use crate::pidfd::PidFd;
use crate::scratch::Scratch;
use crate::{binary, proc, wait};

/// The program, running.
#[derive(Debug)]
pub struct Agent {
    family: Family,
    /// The program itself, which is not the child where strace is.
    pid: u32,
    pidfd: PidFd,
    lines: Receiver<(Duration, Event)>,
    seen: Vec<Seen>,
    stderr: Arc<Mutex<String>>,
}

/// An event, and when its line was read.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// What.
    pub event: Event,
}

impl std::ops::Deref for Seen {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.event
    }
}

impl Agent {
    /// Starts `pipestall run --json` on this configuration and waits until it watches.
    #[track_caller]
    pub fn run(config: &Config, scratch: &Scratch) -> Self {
        Self::run_with(&[], config, scratch)
    }

    /// The same, with more options.
    #[track_caller]
    pub fn run_with(options: &[&str], config: &Config, scratch: &Scratch) -> Self {
        Self::start(
            command(&["run", "--json"])
                .args(options)
                .arg("--config")
                .arg(config.file(scratch)),
        )
    }

    /// Starts `pipestall watch --json` and waits until it watches.
    #[track_caller]
    pub fn watch(arguments: &[&str]) -> Self {
        Self::start(command(&["watch", "--json"]).args(arguments))
    }

    /// Starts `pipestall run --json` under strace, which writes what it sees to `trace`.
    #[track_caller]
    pub fn run_under(
        strace: &Path,
        options: &[&str],
        trace: &Path,
        config: &Config,
        scratch: &Scratch,
    ) -> Self {
        let trace = trace.to_str().expect("a path of text");
        let options = [&["-f", "-qq"], options, &["-o", trace]].concat();
        Self::start_under(strace, &options, &config.file(scratch))
    }

    /// Starts `pipestall run --json` on a configuration's file, under strace with these options.
    #[track_caller]
    pub fn start_under(strace: &Path, options: &[&str], config: &Path) -> Self {
        let mut command = Command::new(strace);
        command
            .args(options)
            .arg("--")
            .arg(binary::pipestall())
            .args(["run", "--json"])
            .args(binary::tracer_arguments())
            .arg("--config")
            .arg(config);
        let mut agent = Self::spawn(&mut command);
        agent.pid = proc::await_child(agent.family.pid(), "pipestall");
        agent.pidfd = PidFd::open(agent.pid).expect("a pidfd of the program under strace");
        agent.await_event("agent.started", |_| true);
        agent
    }

    /// Starts the program and waits until it watches.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut agent = Self::spawn(command);
        agent.await_event("agent.started", |_| true);
        agent
    }

    fn spawn(command: &mut Command) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut family = Family::start(command);
        let stdout = family.child().stdout.take().expect("stdout is piped");
        let complaints = family.child().stderr.take().expect("stderr is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event =
                    Event::parse(&line).unwrap_or_else(|error| panic!("not an event: {error}: {line}"));
                if sender.send((clock::mono(), event)).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        thread::spawn({
            let stderr = Arc::clone(&stderr);
            move || keep(complaints, &stderr)
        });
        let pid = family.pid();
        let pidfd = PidFd::open(pid).expect("a pidfd of a child");
        Self {
            family,
            pid,
            pidfd,
            lines,
            seen: Vec::new(),
            stderr,
        }
    }

    /// Tells the program's pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        self.pidfd.signal(signal).expect("a signal to the agent");
    }

    /// Tells when it said that it watches.
    #[track_caller]
    pub fn started(&mut self) -> Duration {
        self.await_event("agent.started", |_| true).at
    }

    /// Waits for the first event of a type, past ones included, for which `is_it` holds.
    #[track_caller]
    pub fn await_event(&mut self, kind: &str, is_it: impl Fn(&Event) -> bool) -> Seen {
        self.await_event_within(wait::PATIENCE, kind, is_it)
    }

    /// Waits for an event at most so long.
    #[track_caller]
    pub fn await_event_within(
        &mut self,
        within: Duration,
        kind: &str,
        is_it: impl Fn(&Event) -> bool,
    ) -> Seen {
        let deadline = clock::mono() + within * wait::slowness();
        loop {
            // Whether it still runs is asked before its events are taken, so that none is missed.
            let over = clock::mono() >= deadline || self.pidfd.exited(Duration::ZERO);
            self.take_events();
            if let Some(seen) = self
                .seen
                .iter()
                .find(|seen| seen.kind == kind && is_it(&seen.event))
            {
                return seen.clone();
            }
            let hope = !over || self.lines_remain();
            assert!(hope, "no such {kind} within {within:?}\n{}", self.account());
            let left = deadline
                .saturating_sub(clock::mono())
                .min(Duration::from_millis(100));
            if let Ok((at, event)) = self.lines.recv_timeout(left) {
                self.seen.push(Seen { at, event });
            }
        }
    }

    /// Lists all events so far.
    pub fn events(&mut self) -> &[Seen] {
        self.take_events();
        &self.seen
    }

    /// Lists the events about a process so far.
    pub fn events_of(&mut self, pid: u32) -> Vec<Seen> {
        self.events()
            .iter()
            .filter(|seen| seen.is_of(pid))
            .cloned()
            .collect()
    }

    /// Tells what the program wrote to stderr.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the program to exit by itself.
    #[track_caller]
    pub fn await_exit(&mut self, within: Duration) -> ExitStatus {
        match self.family.exited(within) {
            Some(status) => status,
            None => panic!("the agent does not exit within {within:?}\n{}", self.account()),
        }
    }

    /// Interrupts the program, expects exit code 0, and returns all its events.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Seen> {
        self.pidfd.signal(Signal::INT).expect("SIGINT to the agent");
        let status = self.await_exit(wait::PATIENCE);
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.account());
        self.take_the_rest();
        std::mem::take(&mut self.seen)
    }

    fn take_events(&mut self) {
        let new = self.lines.try_iter().map(|(at, event)| Seen { at, event });
        self.seen.extend(new);
    }

    /// Takes what a program that has exited left in its pipe.
    fn take_the_rest(&mut self) {
        while self.lines_remain() {}
    }

    /// Takes a line that is still on its way, and says whether there was one.
    fn lines_remain(&mut self) -> bool {
        let line = self.lines.recv_timeout(Duration::from_millis(200));
        line.map(|(at, event)| self.seen.push(Seen { at, event })).is_ok()
    }

    /// What happened, for the message of a failed test.
    fn account(&self) -> String {
        let events = self.seen.iter().map(|seen| {
            let Seen { at, event } = seen;
            let age = event.stall.as_ref().map(|stall| stall.age_seconds);
            format!(
                "{at:?} {} pid {:?} age {age:?} reason {:?}\n",
                event.kind,
                event.pid(),
                event.reason
            )
        });
        format!(
            "events:\n{}stderr:\n{}",
            events.collect::<String>(),
            self.stderr()
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            self.take_events();
            eprintln!("the agent, for a test that failed:\n{}", self.account());
        }
    }
}

/// Picks the events about a process.
pub fn of(events: &[Seen], pid: u32) -> impl Iterator<Item = &Seen> {
    events.iter().filter(move |seen| seen.is_of(pid))
}

/// Collects the processes that events of a type are about.
pub fn pids(events: &[Seen], kind: &str) -> BTreeSet<u32> {
    events
        .iter()
        .filter(|seen| seen.kind == kind)
        .filter_map(|seen| seen.pid())
        .collect()
}

/// Reads a journal.
#[track_caller]
pub fn journal(path: &Path) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let event = |line| Event::parse(line).unwrap_or_else(|error| panic!("not an event: {error}: {line}"));
    text.lines().map(event).collect()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::pipestall());
    command.args(arguments).args(binary::tracer_arguments());
    command
}

fn keep(mut from: impl Read, to: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..len]);
        to.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
    }
}
