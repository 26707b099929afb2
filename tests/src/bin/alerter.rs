//! `alerter`: the side of pipestall that alerts, fed with events that nobody has to suffer.
//!
//! It does what the agent does with each event, in the same order: its line goes to the journal
//! and to the alerts. What it says happened never did. Killed and started again, it goes on after
//! the journal's last event.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use probe_user::agent::journal::Journal;
use probe_user::alert::Alerts;
use probe_user::config::Config;
use tests::{clock, invented, wait};

#[derive(Debug, Parser)]
#[command(about = "Sends alerts about stalls that never happened")]
struct Arguments {
    /// The configuration.
    config: PathBuf,
    /// How many events there are to be in the journal.
    #[arg(long)]
    events: u64,
    /// How long to wait after each.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause: u64,
    /// How long all may take.
    #[arg(long, value_name = "S", default_value_t = 60)]
    within: u64,
}

fn main() -> Result<()> {
    let Arguments {
        config,
        events,
        pause,
        within,
    } = Arguments::parse();
    let config = Config::load(&config)?;
    let (mut journal, last) = Journal::open(&config.state.dir, (&config.state).into())?;
    let mut alerts = Alerts::start(config.webhooks, config.spool, &config.state.dir, last)?;
    let handle = alerts.handle();
    for seq in last + 1..=events {
        let line = invented::line(seq, "stall.detected", seq, None);
        journal.append(seq, &line);
        alerts.send(seq, &line);
        journal.flush()?;
        if pause > 0 {
            wait::till(clock::mono() + Duration::from_millis(pause));
        }
    }
    let delivered = wait::until_or_none(Duration::from_secs(within), || {
        let status = handle.status();
        (status.last_event >= events && status.spool_entries == 0).then_some(status)
    });
    let delivered = delivered.with_context(|| format!("not all is delivered: {:?}", handle.status()))?;
    ensure!(delivered.lost_events_total == 0, "events are lost: {delivered:?}");
    eprintln!(
        "{} events came by way of the journal",
        delivered.late_events_total
    );
    alerts.finish();
    Ok(())
}
