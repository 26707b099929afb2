//! Alerts: how fast single ones are spooled, sent and taken, and how few an incident makes.
//! The events never happened; journal, spool, signature and receiver are real.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use probe_user::agent::journal::Journal;
use probe_user::alert::Alerts;
use probe_user::config::Config;
use tests::config::webhook;
use tests::receiver::{Answer, Receiver};
use tests::scratch::Scratch;
use tests::{clock, invented, wait};

use crate::report::{Report, Row};
use crate::turns::median;
use crate::{Effort, limits};

const ALERTS: u64 = 1000;
const PATIENCE: Duration = Duration::from_mins(1);
const KEY: &str = "whsec_b25seS1mb3ItdGhlLWJlbmNobWFyay0wMTIzNDU=";

/// An event: its kind, its writer, and the reason.
type Invented = (&'static str, u64, Option<&'static str>);

/// Sends single alerts some times, and the incident once.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..effort.of(5, 2) {
        report.progress("1,000 alerts, one a writer");
        took.push(single()?);
    }
    let fastest = took.iter().copied().fold(f64::INFINITY, f64::min);
    let row = Row::of("1,000 alerts: spooled and taken", fastest, "ms");
    report.add(row.with_median(median(took)).at_most(limits::ALERTS_MS));
    report.progress("534 writers that stall and are ended, as one incident");
    let requests = incident()?;
    report.add(Row::of("534 stuck: requests to a webhook", requests, "").at_most(limits::INCIDENT_REQUESTS));
    Ok(())
}

fn single() -> Result<f64> {
    let events: Vec<Invented> = (1..=ALERTS)
        .map(|writer| ("stall.detected", writer, None))
        .collect();
    let lines = "group_by = [\"writer\"]\ngroup_wait = \"0s\"";
    run(lines, &[&events], |requests| requests as u64 >= ALERTS).map(|(took, _)| took)
}

/// Writers of one incident, detected together and ended within two seconds.
fn incident() -> Result<f64> {
    let writers = 1..=u64::from(limits::STUCK_WRITERS);
    let stalls: Vec<Invented> = writers
        .clone()
        .map(|writer| ("stall.detected", writer, None))
        .collect();
    let ends = |writer| {
        [
            ("kill.planned", writer, None),
            ("kill.sent", writer, None),
            ("kill.confirmed", writer, None),
            ("stall.ended", writer, Some("exited")),
        ]
    };
    let half = u64::from(limits::STUCK_WRITERS) / 2;
    let first: Vec<Invented> = (1..=half).flat_map(ends).collect();
    let second: Vec<Invented> = (half + 1..=*writers.end()).flat_map(ends).collect();
    let lines = "group_wait = \"500ms\"\ngroup_interval = \"2s\"";
    let (_, requests) = run(lines, &[&stalls, &first, &second], |requests| requests >= 2)?;
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    Ok(requests as f64)
}

/// Runs alerts on these events, a second between the parts; returns how many milliseconds passed
/// from the first event until the requests were enough and all was delivered, and their number.
fn run(lines: &str, parts: &[&[Invented]], are_enough: impl Fn(usize) -> bool) -> Result<(f64, usize)> {
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(204));
    let key = scratch.write("key", KEY);
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    let lines = format!(
        "format = \"standard\"\nsecret_file = {:?}\n{lines}",
        key.display().to_string()
    );
    let text = format!(
        "[state]\ndir = {:?}\n\n{}",
        scratch.path("state").display().to_string(),
        webhook("bench", &receiver.url(), &lines)
    );
    let config = Config::load(&scratch.write("bench.toml", &text))?;
    let (mut journal, last) = Journal::open(&config.state.dir, (&config.state).into())?;
    let mut alerts = Alerts::start(config.webhooks, config.spool, &config.state.dir, last)?;
    let handle = alerts.handle();

    let started = clock::mono();
    let mut seq = 0;
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            wait::till(clock::mono() + Duration::from_secs(1));
        }
        for (kind, writer, reason) in *part {
            seq += 1;
            let line = invented::line(seq, kind, *writer, *reason);
            journal.append(seq, &line);
            alerts.send(seq, &line);
            journal.flush()?;
        }
        journal.commit()?;
    }
    let done = wait::until_or_none(PATIENCE, || {
        let status = handle.status();
        let incidents: usize = status.webhooks.iter().map(|webhook| webhook.incidents).sum();
        let is_quiet = parts.len() == 1 || incidents == 0;
        (status.last_event >= seq && status.spool_entries == 0 && is_quiet && are_enough(receiver.count()))
            .then(clock::mono)
    });
    let done = done.with_context(|| format!("not all is delivered: {:?}", handle.status()))?;
    let status = handle.status();
    ensure!(status.lost_events_total == 0, "events are lost: {status:?}");
    alerts.finish();
    Ok((done.saturating_sub(started).as_secs_f64() * 1e3, receiver.count()))
}
