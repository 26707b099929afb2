//! The loop's answers to what others ask of it.

use std::sync::Arc;

use anyhow::Result;
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    Agent,
    control::{Request, Requests},
    reload::{Fresh, Origin},
    state::{ProgramRun, Row, STALLED, State},
};
use crate::{
    api::{Looks, Lost, Reloaded, RuleState, Status, explanation::ExplanationView},
    clock,
    config::summary,
    core::{
        machine::{Asked, Outlook, Refusal, Settings},
        matcher::Subject,
        model::{Mono, Stall, StallId},
        rule::{Mode, Policy},
    },
    event::{HistogramView, Name, ShareView, StallView, rfc3339, stall_name},
    probe::{kernel::Kernel, process::ancestry},
};

/// Whoever asks for the state gets what a look shows that is not older than this.
const LOOK_WITHIN: std::time::Duration = std::time::Duration::from_millis(500);

/// Who waits for what.
pub(super) struct Answers {
    pub(super) requests: Option<Requests>,
    pub(super) reading: JoinSet<Reading>,
    origin: Option<Origin>,
    observed: Vec<String>,
    started: jiff::Timestamp,
    waiting: Vec<oneshot::Sender<Arc<State>>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            requests: None,
            reading: JoinSet::new(),
            origin: None,
            observed: Vec::new(),
            started: clock::wall(),
            waiting: Vec::new(),
        }
    }
}

/// A configuration that was read, for whom.
pub(super) struct Reading {
    by: String,
    fresh: Result<Fresh, String>,
    answer: Option<oneshot::Sender<Result<Reloaded, String>>>,
}

impl Answers {
    pub(super) fn new(requests: Requests, origin: Origin, observed: Vec<String>) -> Self {
        Self {
            requests: Some(requests),
            origin: Some(origin),
            observed,
            ..Self::default()
        }
    }

    pub(super) const fn can_reload(&self) -> bool {
        self.origin.is_some()
    }
}

impl Agent {
    pub(super) fn take_request(&mut self, request: Request) {
        let now = clock::now();
        match request {
            Request::State(answer) => {
                self.machine.handle_refresh(LOOK_WITHIN, now);
                self.answers.waiting.push(answer);
            }
            Request::Explain { stall, answer } => {
                let _ = answer.send(self.explain(&stall, now));
            }
            Request::Kill {
                stall,
                by,
                grace,
                answer,
            } => {
                let begun = match self.stall(&stall).map(|stall| stall.id) {
                    Some(stall) => self.machine.handle_asked(Asked { stall, by, grace }, now),
                    None => Err(Refusal::NoStall),
                };
                let last = self.outputs.stamp.last();
                let _ = answer.send(begun.map(|()| last));
            }
            Request::Reload { by, answer } => self.read_anew(by, Some(answer)),
        }
    }

    /// The stall of that name.
    fn stall(&self, name: &str) -> Option<&Stall> {
        // By its number, so that of ten thousand no other is given its name.
        let id = StallId(name.rsplit_once("-s")?.1.parse().ok()?);
        let mut stalls = self.machine.stalls();
        stalls.find(|stall| stall.id == id && stall_name(stall) == name)
    }

    /// Why each rule does or does not match a stall.
    fn explain(&self, name: &str, now: Mono) -> Result<ExplanationView, Refusal> {
        let stall = self.stall(name).ok_or(Refusal::NoStall)?;
        let facts = stall.facts.as_deref().ok_or(Refusal::Unknown)?;
        let policy = &self.machine.settings().policy;
        let subject = Subject::stalled(stall, facts);
        let mut explanation = policy.explain(subject, Some(stall));
        if let Some(decision) = &mut explanation.decision {
            // Here, it is known since when the stall has been watched.
            decision.due = Some(decision.rule.crossing(stall)).filter(|due| *due < Mono::NEVER);
        }
        let view = StallView::new(stall, now, clock::wall());
        Ok(ExplanationView::new(subject, &explanation, now).with_stall(Some(view)))
    }

    /// Answers those who wait for the state, once what they asked for is done.
    pub(super) fn answer(&mut self) {
        if self.answers.waiting.is_empty() {
            return;
        }
        let state = Arc::new(self.state());
        for answer in std::mem::take(&mut self.answers.waiting) {
            let _ = answer.send(Arc::clone(&state));
        }
    }

    /// Reads the configuration on another thread.
    pub(super) fn read_anew(
        &mut self,
        by: String,
        answer: Option<oneshot::Sender<Result<Reloaded, String>>>,
    ) {
        let Some(origin) = self.answers.origin.clone() else {
            return;
        };
        self.manager.reloading();
        let alerts = self.outputs.alerts();
        self.answers.reading.spawn(async move {
            let loaded = tokio::task::spawn_blocking(move || origin.load()).await;
            let mut fresh = loaded.unwrap_or_else(|error| Err(error.to_string()));
            // The last that may refuse: what it takes, it goes by at once.
            if let (Ok(Fresh { config, .. }), Some(alerts)) = (&fresh, alerts)
                && let Err(error) = alerts.configure(config.webhooks.clone(), config.spool).await
            {
                fresh = Err(format!("{error:#}"));
            }
            Reading { by, fresh, answer }
        });
    }

    /// Goes by what was read, or says what is wrong with it; returns the kernel side for it where
    /// it takes another.
    pub(super) fn take_reading(&mut self, reading: Reading) -> Result<Option<Kernel>> {
        let Reading { by, fresh, answer } = reading;
        let (outcome, kernel) = match fresh {
            Ok(Fresh { config, kernel }) => (Ok(self.go_by(config)), kernel),
            Err(why) => (Err(why), None),
        };
        let detail = match &outcome {
            Ok(reloaded) => {
                let count = reloaded.rules;
                let parts = [&[format!("{by}: {count} rules in force")], &*reloaded.restart].concat();
                parts.join("; ")
            }
            Err(why) => format!("{by}: refused, and the configuration before stays in force: {why}"),
        };
        if outcome.is_ok() {
            tracing::info!("reload: {detail}");
        } else {
            tracing::warn!("reload: {detail}");
        }
        let mut event = self.outputs.stamp.agent("agent.reloaded", Some(detail));
        event.what.reason = outcome.is_err().then(|| Name::from("refused"));
        self.outputs.send(event)?;
        self.manager.ready();
        if let Some(answer) = answer {
            let _ = answer.send(outcome);
        }
        Ok(kernel)
    }

    fn go_by(&mut self, config: crate::config::Config) -> Reloaded {
        let mut restart = self
            .answers
            .origin
            .as_mut()
            .map(|origin| origin.adopt(&config))
            .unwrap_or_default();
        if self.outputs.alerts().is_none() && !config.webhooks.is_empty() {
            restart.push("the first [[webhook]] takes a restart".to_owned());
        }
        let crate::config::Config {
            observe,
            mut policy,
            state,
            warnings,
            ..
        } = config;
        policy.protect.pids = ancestry();
        self.answers.observed = observe.comm;
        self.sight.set_channels(observe.channels);
        if let Some(journal) = self.outputs.journal() {
            journal.set_keep((&state).into());
        }
        let rules = policy.rules.len() as u64;
        let settings = Settings {
            policy,
            ..self.machine.settings().clone()
        };
        self.machine.reload(settings);
        Reloaded {
            rules,
            warnings,
            restart,
        }
    }

    fn state(&mut self) -> State {
        let (at, time) = (clock::now(), clock::wall());
        let rows: Vec<Row> = self.machine.standings(at).map(Row::from).collect();
        let blocked = self.sight.blocked();
        State {
            status: self.status(at, time, &rows, &blocked),
            rules: self.rules(&rows),
            counts: self.counts.clone(),
            blocked,
            written: self.sight.kernel.written_by_kind(),
            queued: self.outputs.hub().queued(),
            unwritten: self.outputs.pending(),
            programs: self
                .sight
                .kernel
                .runs()
                .into_iter()
                .map(|(name, count, time)| ProgramRun {
                    name: name.to_owned(),
                    count,
                    time,
                })
                .collect(),
            at,
            time,
            rows,
        }
    }

    fn status(&self, at: Mono, time: jiff::Timestamp, rows: &[Row], blocked: &[u64]) -> Status {
        let ages = rows
            .iter()
            .map(|row| row.stall.age(at))
            .filter(|age| *age >= STALLED);
        let settings = self.machine.settings();
        let broken = self.outputs.broken();
        let lost = self.sight.lost();
        let (printed, streamed, recorded) = self.outputs.lost();
        let (tracked, capacity) = self.sight.kernel.tracked();
        let mut degraded: Vec<String> = broken.map(str::to_owned).into_iter().collect();
        degraded.extend(self.machine.lacks_pressure().map(str::to_owned));
        if lost.entries > 0 {
            degraded.push("more writers were blocked than the tracer can follow".to_owned());
        }
        if lost.notes > 0 {
            degraded.push("notes of the tracer were lost".to_owned());
        }
        Status {
            node: self.outputs.stamp.node().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: rfc3339(self.answers.started),
            time: rfc3339(time),
            mode: mode(&settings.policy),
            paused: settings.unsupported.or(broken).map(str::to_owned),
            degraded,
            tracer: self.sight.kernel.traced_by().as_str().into(),
            observed: self.answers.observed.clone(),
            rules: settings.policy.rules.len() as u64,
            stalled: ages.clone().count() as u64,
            oldest_seconds: clock::seconds(ages.max().unwrap_or_default()),
            kills_under_way: self.machine.kills_under_way() as u64,
            kills_last_hour: self.counts.last_hour(at),
            kills: self.counts.kills(),
            last_event: self.outputs.stamp.last(),
            lost: Lost {
                notes: lost.notes,
                writers: lost.entries,
                printed,
                streamed,
                recorded,
            },
            looks: Looks {
                count: self.counts.look_count(),
                took_seconds: self.counts.last_look.as_secs_f64(),
                age_seconds: clock::seconds(at.since(self.machine.last_look().unwrap_or(at))),
                tracked,
                capacity,
            },
            blocked_seconds: HistogramView::new(blocked),
            alerts: self.outputs.alerts().map(|alerts| alerts.status()),
        }
    }

    fn rules(&self, rows: &[Row]) -> Vec<RuleState> {
        let rules = &self.machine.settings().policy.rules;
        rules
            .iter()
            .map(|rule| {
                let own = rows
                    .iter()
                    .filter(|row| row.rule.as_ref().is_some_and(|(name, ..)| *name == rule.name));
                let held = |row: &&Row| matches!(row.outlook, Outlook::Held(..) | Outlook::Piling);
                let counts = self.counts.rules.get(&rule.name);
                RuleState {
                    name: rule.name.clone(),
                    action: rule.action.as_str().into(),
                    mode: rule.mode.as_str().into(),
                    stalled_for_seconds: rule.stalled_for.map(clock::seconds),
                    stalled_share: rule.stalled_share.map(|limit| ShareView::new(limit, None)),
                    summary: summary::rule(rule),
                    matching: own.clone().count() as u64,
                    held: own.filter(held).count() as u64,
                    kills: counts.map(|counts| counts.kills).unwrap_or_default(),
                }
            })
            .collect()
    }
}

fn mode(policy: &Policy) -> Name {
    let may = policy.rules.iter().any(|rule| rule.mode == Mode::Enforce);
    match policy.rules.is_empty() {
        true => "observe".into(),
        false if may => Mode::Enforce.as_str().into(),
        false => Mode::DryRun.as_str().into(),
    }
}
