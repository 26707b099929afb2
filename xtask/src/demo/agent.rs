//! Runs the agent, and follows each writer's story through its events.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::writers::Writers;
use crate::interrupt::{Interrupt, PATIENCE};
use crate::shell;

/// A running agent; it is ended with its guard.
pub(super) struct Agent {
    child: Child,
    events: Receiver<(Instant, Value)>,
    started: Instant,
    dir: PathBuf,
}

/// What the agent's events say of one writer.
#[derive(Default)]
pub(super) struct Story {
    pub(super) channel: String,
    /// When the verdict fell, and the stall's age then.
    planned: Option<(Instant, f64)>,
    confirmed: Option<Instant>,
    /// Whether its channel does not prove the age that it had before the agent came.
    pub(super) doubted: bool,
    killed: bool,
    failure: Option<String>,
}

impl Agent {
    /// Starts `pipestall run` with this configuration, its files in `dir`.
    pub(super) fn start(pipestall: &Path, dir: &Path, config: &str) -> Result<Self> {
        let state = dir.join("state");
        fs::create_dir(&state)?;
        let file = dir.join("pipestall.toml");
        fs::write(
            &file,
            format!("{config}\n[state]\ndir = \"{}\"\n", state.display()),
        )?;

        let log = File::create(dir.join("agent.log"))?;
        let mut command = Command::new(pipestall);
        command
            .args(["run", "--json", "--config"])
            .arg(file)
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().context("cannot start the agent")?;
        let stdout = child.stdout.take().context("the agent has no stdout")?;
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send((shell::now(), event)).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            events,
            started: shell::now(),
            dir: dir.to_owned(),
        })
    }

    /// Shows the events as they come, until each writer has ended or patience has.
    pub(super) fn watch(&mut self, writers: &Writers, interrupt: &Interrupt) -> Result<Vec<Story>> {
        let pids: Vec<_> = writers.list().iter().map(|writer| writer.pid).collect();
        let mut stories: Vec<_> = pids.iter().map(|_| Story::default()).collect();
        while stories.iter().any(|story| story.confirmed.is_none()) {
            interrupt.check()?;
            if self.started.elapsed() > PATIENCE {
                break;
            }
            let (time, event) = match self.events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => bail!("the agent ended:\n{}", self.log()),
            };
            let pid = event["stall"]["pid"].as_u64();
            let story = pids
                .iter()
                .zip(&mut stories)
                .find(|(ours, _)| Some(u64::from(**ours)) == pid);
            // Other processes on this machine may stall as well; no rule matches them.
            if story.is_some() || pid.is_none() {
                println!(
                    "   {:>6.3} s  {}",
                    time.duration_since(self.started).as_secs_f64(),
                    describe(&event)
                );
            }
            if let Some((_, story)) = story {
                story.follow(time, &event);
            }
        }
        Ok(stories)
    }

    /// Stops the agent, as Ctrl-C would, and tells how much it has on record.
    pub(super) fn stop(mut self) -> Result<String> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).context("cannot signal the agent")?;
        let start = shell::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < PATIENCE, "the agent does not stop on SIGINT");
            thread::sleep(Duration::from_millis(20));
        };
        ensure!(
            status.success(),
            "the agent ended badly ({status}):\n{}",
            self.log()
        );
        let journal =
            fs::read_to_string(self.dir.join("state/journal.ndjson")).context("the agent kept no journal")?;
        Ok(format!(
            "{} events in the agent's journal",
            journal.lines().count()
        ))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What fails here has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Story {
    fn follow(&mut self, time: Instant, event: &Value) {
        let stall = &event["stall"];
        stall["channel"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut self.channel);
        self.doubted |= stall["age_is_maximum"] == true;
        match event["type"].as_str().unwrap_or_default() {
            "kill.planned" => self.planned = stall["age_seconds"].as_f64().map(|age| (time, age)),
            "kill.sent" => self.killed |= event["signal"] == "SIGKILL",
            "kill.confirmed" => self.confirmed = Some(time),
            "kill.failed" | "kill.skipped" => self.failure = Some(describe(event)),
            _ => {}
        }
    }

    /// The age at which it was acted on, and the time from the threshold to its exit.
    pub(super) fn ended(&self, threshold: Duration) -> Option<(f64, Duration)> {
        let (planned, age) = self.planned?;
        let late = Duration::try_from_secs_f64(age).ok()?.saturating_sub(threshold);
        Some((age, late + self.confirmed?.duration_since(planned)))
    }

    /// Whether SIGTERM was not enough.
    pub(super) fn needed_kill(&self) -> bool {
        self.killed
    }

    /// Why it did not end.
    pub(super) fn failure(&self) -> &str {
        self.failure.as_deref().unwrap_or("the agent did not end it")
    }
}

/// An event in one line for people.
fn describe(event: &Value) -> String {
    let Some(kind) = event["type"].as_str() else {
        return event.to_string();
    };
    let stall = &event["stall"];
    let mut words = vec![format!("{kind:<15}")];
    if let Some(pid) = stall["pid"].as_u64() {
        words.push(format!("{pid:>7}"));
    }
    if let (true, Some(age)) = (
        kind.starts_with("stall.") || kind == "kill.planned",
        stall["age_seconds"].as_f64(),
    ) {
        words.push(format!("age {age:.3} s"));
    }
    if kind == "stall.detected" {
        words.extend(["channel", "stream"].map(|key| stall[key].as_str().unwrap_or_default().to_owned()));
    }
    words.extend(
        ["rule", "signal", "reason"]
            .iter()
            .filter_map(|key| Some(event[*key].as_str()?.to_owned())),
    );
    if let Some(took) = event["took_ms"].as_f64() {
        words.push(format!("{took:.0} ms after the first signal"));
    }
    words.join(" ").trim_end().to_owned()
}
