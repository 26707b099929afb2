//! The world that the machine is shown: see [`crate::replay`] for what is honest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use probe_ebpf::pattern::COMM_LEN;

use super::Survey;
use crate::{
    config::Observe,
    core::{
        kill::KillId,
        machine::{Effect, Machine, Note, Opened, Sent, Settings},
        model::{DrainToken, Look, Mono, Process, Sighting, WriterId},
        report::{KillReport, Report, RuleRef, Signal},
        rule::{Action, Mode, Policy},
        tracker::{Channels, Ended, compare},
    },
    recording::{Frame, Recording},
};

/// What came of a replay.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the machine said, and when.
    pub reports: Vec<(Mono, Report)>,
    /// Kills that were under way when the recording ended.
    pub under_way: usize,
    /// Processes of which the machine wanted to know more, and nothing was recorded.
    pub unknown: usize,
}

/// Runs a policy over a recording, from its first look to its last.
#[must_use]
pub fn run(recording: Recording<'_>, survey: &Survey, observe: &Observe, policy: &Policy) -> Outcome {
    let mut simulation: Option<Simulation<'_>> = None;
    let mut notes = Vec::new();
    for frame in recording {
        match frame {
            Frame::Note(at, note) => notes.push((at, note)),
            Frame::Look(mut look) => {
                look.sightings.retain(|sighting| is_observed(observe, sighting));
                let between = std::mem::take(&mut notes);
                match &mut simulation {
                    Some(simulation) => simulation.go_on(between, look),
                    none => *none = Some(Simulation::begin(survey, policy.clone(), look)),
                }
            }
            Frame::Facts(..) | Frame::Readers(..) | Frame::Clocks(_) | Frame::End(_) => {}
        }
    }
    simulation.map_or_else(Outcome::default, |simulation| Outcome {
        under_way: simulation.machine.kills_under_way(),
        unknown: simulation.unknown.len(),
        reports: simulation.reports,
    })
}

/// Whether an agent with this configuration would be shown the writer at all.
fn is_observed(observe: &Observe, sighting: &Sighting) -> bool {
    let mut comm = [0; COMM_LEN];
    let len = sighting.comm.len().min(COMM_LEN - 1);
    comm[..len].copy_from_slice(&sighting.comm.as_bytes()[..len]);
    observe.channels.contains(&sighting.channel.kind) && observe.filter.matches(comm)
}

struct Simulation<'a> {
    survey: &'a Survey,
    machine: Machine,
    now: Mono,
    /// The latest recorded look.
    look: Look,
    /// Where each writer was last seen by it, or by the one before.
    last: BTreeMap<WriterId, Sighting>,
    /// The recorded look that comes next.
    next: Option<Look>,
    /// Processes that a simulated signal has ended.
    ended: BTreeSet<Process>,
    /// Processes that have exited for themselves.
    exited: BTreeSet<Process>,
    /// What is being ended, and how far its rule goes.
    targets: BTreeMap<KillId, Process>,
    actions: BTreeMap<Process, Action>,
    /// What the configuration says of rules that act here as if they enforced.
    modes: BTreeMap<String, Mode>,
    unknown: BTreeSet<Process>,
    reports: Vec<(Mono, Report)>,
}

impl<'a> Simulation<'a> {
    fn begin(survey: &'a Survey, mut policy: Policy, look: Look) -> Self {
        let modes = policy
            .rules
            .iter_mut()
            .map(|rule| {
                (
                    rule.name.clone(),
                    std::mem::replace(&mut rule.mode, Mode::Enforce),
                )
            })
            .collect();
        let settings = Settings {
            policy,
            ..Settings::default()
        };
        let mut machine = Machine::new(settings, survey.header.began.mono.min(look.at));
        // No recording has it, and what is asked is whom the rules mean.
        machine.handle_pressure(Some(0.0));
        let mut simulation = Self {
            survey,
            machine,
            now: look.at,
            last: by_writer(&look),
            look,
            next: None,
            ended: BTreeSet::new(),
            exited: BTreeSet::new(),
            targets: BTreeMap::new(),
            actions: BTreeMap::new(),
            modes,
            unknown: BTreeSet::new(),
            reports: Vec::new(),
        };
        simulation.perform();
        simulation
    }

    /// Lets time pass up to the next recorded look.
    fn go_on(&mut self, notes: Vec<(Mono, Note)>, look: Look) {
        let at = look.at.max(self.now);
        self.next = Some(look);
        for (when, note) in notes {
            self.run_until(when.min(at));
            self.now = self.now.max(when.min(at));
            self.hear(note);
        }
        self.run_until(at);
        self.now = at;
        if let Some(look) = self.next.take() {
            // One look may miss a writer that a signal has woken; two do not.
            let before = self.look.at;
            self.last.retain(|_, sighting| sighting.at >= before);
            self.last.extend(by_writer(&look));
            self.look = look;
        }
        self.machine.handle_look(self.seen(), self.now);
        self.perform();
        // What is due at this very moment.
        self.run_until(at.after(Duration::from_nanos(1)));
    }

    fn run_until(&mut self, until: Mono) {
        // A day of looks that were asked for each second. Where there are more, the recorder was
        // stopped for long, as an agent would have been: what is due then is due at once.
        const STEPS: u32 = 100_000;
        for _ in 0..STEPS {
            let Some(deadline) = self.machine.poll_deadline().filter(|due| *due < until) else {
                return;
            };
            self.now = self.now.max(deadline);
            self.machine.handle_deadline(self.now);
            self.perform();
        }
    }

    fn hear(&mut self, note: Note) {
        let (Note::Exited(writer) | Note::Woke(writer)) = note;
        let process = writer.process;
        if self.ended.contains(&process) {
            return;
        }
        self.machine.handle_note(note, self.now);
        let lives = |look: &Look| look.sightings.iter().any(|s| s.writer.process == process);
        if matches!(note, Note::Exited(_)) && !self.next.as_ref().is_some_and(lives) {
            self.exited.insert(process);
            let kill = self.targets.iter().find(|(_, target)| **target == process);
            if let Some(id) = kill.map(|(id, _)| *id) {
                self.machine.handle_exit(id, self.now);
            }
        }
        self.perform();
    }

    /// What a look shows now.
    fn seen(&self) -> Look {
        let mut look = if self.now <= self.look.at {
            self.look.clone()
        } else {
            self.seen_between()
        };
        look.sightings
            .retain(|sighting| !self.ended.contains(&sighting.writer.process));
        look
    }

    fn seen_between(&self) -> Look {
        let next = self.next.as_ref().unwrap_or(&self.look);
        let sightings = next.sightings.iter();
        let channels = Channels::of(&next.sightings);
        Look {
            at: self.now,
            traced: next.traced,
            sightings: sightings
                .filter_map(|later| self.seen_before(later, next.traced, &channels))
                .collect(),
            awake: None,
        }
    }

    /// What is known now of a writer that the next recorded look shows.
    fn seen_before(&self, later: &Sighting, traced: bool, channels: &Channels) -> Option<Sighting> {
        let now = self.now;
        let earlier = self.last.get(&later.writer);
        let change = earlier.map(|earlier| (earlier, compare(earlier, later, traced, channels)));
        if let Some((earlier, None)) = change {
            let at = earlier.at.max(now);
            return Some(Sighting {
                at,
                ..earlier.clone()
            });
        }
        let began = later.entered.zip(later.token_since);
        if traced && began.is_some_and(|(entered, token)| entered.max(token) <= now) {
            return Some(Sighting {
                at: now,
                counted: None,
                ..later.clone()
            });
        }
        match change {
            // A token like no other: whatever the reader took may have been taken now.
            Some((earlier, Some(Ended::Drained))) => Some(Sighting {
                at: earlier.at.max(now),
                token: DrainToken([u64::MAX, now.as_nanos()]),
                token_since: None,
                counted: None,
                ..earlier.clone()
            }),
            _ => None,
        }
    }

    fn perform(&mut self) {
        while let Some(effect) = self.machine.next_effect() {
            let now = self.now;
            match effect {
                Effect::Look => self.machine.handle_look(self.seen(), now),
                Effect::Identify(process) => {
                    let facts = self.survey.facts.get(&process).cloned();
                    if facts.is_none() {
                        self.unknown.insert(process);
                    }
                    self.machine.handle_facts(process, facts, now);
                }
                Effect::FindReaders(channels) => {
                    let found = self.survey.readership(&channels, now);
                    self.machine.handle_readers(found, now);
                }
                Effect::CheckReaders(processes) => {
                    let people = self.survey.people(&processes, now);
                    self.machine.handle_people(&processes, people, now);
                }
                Effect::Open(id, process) => {
                    self.targets.insert(id, process);
                    // Of one that has only left its write, the look that follows tells.
                    let opened = if self.is_gone(process) {
                        Opened::Exited
                    } else {
                        Opened::Ready
                    };
                    self.machine.handle_opened(id, opened, now);
                }
                // What a hook would do is not known, and changes nothing.
                Effect::Hook(id, ..) => self
                    .machine
                    .handle_hooked(id, "pre_kill: not run in a replay".to_owned()),
                Effect::Report(report) => self.report(*report),
                Effect::Commit => self.machine.handle_committed(),
                Effect::Signal(id, signal) => self.signal(id, signal),
                Effect::Release(id) => drop(self.targets.remove(&id)),
            }
        }
    }

    fn is_gone(&self, process: Process) -> bool {
        self.ended.contains(&process) || self.exited.contains(&process)
    }

    fn report(&mut self, mut report: Report) {
        if let Report::Kill(snapshot, rule, KillReport::Planned(_)) = &report {
            self.actions
                .insert(snapshot.stall.last.writer.process, rule.action);
        }
        if let Report::Kill(_, rule, _) | Report::StallDetected(_, Some(rule)) = &mut report {
            self.restore_mode(rule);
        }
        self.reports.push((self.now, report));
    }

    fn restore_mode(&self, rule: &mut RuleRef) {
        if let Some(mode) = self.modes.get(&rule.name) {
            rule.mode = *mode;
        }
    }

    fn signal(&mut self, id: KillId, signal: Signal) {
        let now = self.now;
        let Some(process) = self.targets.get(&id).copied().filter(|p| !self.is_gone(*p)) else {
            self.machine.handle_signalled(id, signal, Sent::Gone, now);
            return;
        };
        self.machine.handle_signalled(id, signal, Sent::Yes, now);
        let goes_no_further = self.actions.get(&process) == Some(&Action::Term);
        if signal == Signal::Kill || goes_no_further {
            self.ended.insert(process);
            let threads = self.last.keys().filter(|writer| writer.process == process);
            for writer in threads.copied().collect::<Vec<_>>() {
                self.machine.handle_note(Note::Exited(writer), now);
            }
            self.machine.handle_exit(id, now);
        }
    }
}

fn by_writer(look: &Look) -> BTreeMap<WriterId, Sighting> {
    look.sightings
        .iter()
        .map(|sighting| (sighting.writer, sighting.clone()))
        .collect()
}
