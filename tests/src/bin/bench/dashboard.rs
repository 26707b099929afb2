//! What the dashboard takes: for one frame of very many stalls, and of a core while it is left
//! running beside an agent.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use probe_user::core::model::{Facts, Mono};
use probe_user::tui::model::{Fate, Row as Stalled, Snapshot};
use probe_user::tui::state::{Message, State};
use probe_user::tui::view::{self, Look};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tests::agent::Agent;
use tests::config::Config;
use tests::crowd::Plan;
use tests::scratch::Scratch;
use tests::{binary, clock, need, proc, tmux};

use crate::report::{Report, Row};
use crate::{Effort, idle, limits};

/// As large as a screen gets.
const SCREEN: (u16, u16) = (200, 60);
/// After the first frames.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    frames(effort, report)?;
    left_running(effort, report)
}

/// Draws frames as time passes, and takes in a snapshot before each.
fn frames(effort: Effort, report: &mut Report) -> Result<()> {
    report.progress("the dashboard's frames");
    let mut terminal = Terminal::new(TestBackend::new(SCREEN.0, SCREEN.1))?;
    let mut state = State::new(SCREEN.0, SCREEN.1);
    let (mut taken, mut drawn) = (Vec::new(), Vec::new());
    for second in 1..=u64::from(effort.of(60, 15)) {
        let now = Mono::from_nanos(second * 1_000_000_000);
        let snapshot = Box::new(snapshot(now, second));
        let begin = clock::mono();
        state.update(Message::Snapshot(snapshot), now);
        let between = clock::mono();
        terminal.draw(|frame| {
            view::draw(frame, &state, now, Look::FULL);
        })?;
        let end = clock::mono();
        taken.push(milliseconds(begin, between));
        drawn.push(milliseconds(begin, end));
    }
    let (fastest, median) = summary(&mut drawn);
    let name = "top: a frame of 10,000 new stalls";
    report.add(
        Row::of(name, fastest, "ms")
            .with_median(median)
            .at_most(limits::FRAME_MS),
    );
    let (fastest, median) = summary(&mut taken);
    report.add(Row::of("  sorting them, of that", fastest, "ms").with_median(median));
    Ok(())
}

/// Leaves it running on a terminal, with an agent that has that many stalls.
fn left_running(effort: Effort, report: &mut Report) -> Result<()> {
    let tmux = match need::tmux() {
        Ok(tmux) => tmux,
        Err(why) => {
            eprintln!("skipped: {why} (top left running)");
            return Ok(());
        }
    };
    report.progress("the dashboard with 1,000 stalls");
    let scratch = Scratch::new();
    let crowd = Plan::stuck(usize::try_from(limits::TOP_STALLS)?).start();
    let config = Config::of(&crowd, &scratch)
        .stalled_for("1h")
        .served(&scratch, "");
    let agent = Agent::run(&config, &scratch);
    let terminal = tmux::Terminal::open(&tmux, SCREEN.0, SCREEN.1);
    let socket = Config::socket(&scratch);
    terminal.run(&format!(
        "{} top --socket {}",
        binary::pipestall().display(),
        socket.display()
    ));
    terminal.await_text("1000 stalled");
    let shell = terminal.tells("pane_pid").parse().context("tmux tells no pid")?;
    let top = proc::await_child(shell, "pipestall");
    thread::sleep(SETTLE);
    let span = Duration::from_secs(effort.of(20, 8).into());
    let (start, before, agent_before) = (clock::mono(), idle::on_cpu(top)?, idle::on_cpu(agent.pid())?);
    thread::sleep(span);
    let (end, after, agent_after) = (clock::mono(), idle::on_cpu(top)?, idle::on_cpu(agent.pid())?);
    let lapse = clock::lapse(start, end).as_secs_f64();
    let percent = |from, to| clock::lapse(from, to).as_secs_f64() / lapse * 100.0;
    let name = "top with 1,000 stalls, of one core";
    report.add(Row::of(name, percent(before, after), "%").at_most(limits::TOP_PERCENT));
    report.add(Row::of(
        "  the agent beside it",
        percent(agent_before, agent_after),
        "%",
    ));
    Ok(())
}

/// Stalls that differ from the last ones in their ages, and so in their order.
fn snapshot(at: Mono, second: u64) -> Snapshot {
    let rows = (0..limits::DASHBOARD_ROWS).map(|i| {
        let facts = Facts {
            user: Some(format!("user{}", i % 50)),
            parent: Some("node".to_owned()),
            unit: Some(format!("peertube{}.service", i % 10)),
            ..Facts::default()
        };
        Stalled {
            id: format!("{i}-s"),
            pid: i,
            tid: i,
            comm: "ffmpeg".to_owned(),
            thread: "mux0:mp4".to_owned(),
            facts: Arc::new(facts),
            command: "ffmpeg -i pipe:0 -threads 4 -c copy -f mp4 pipe:1".to_owned(),
            channel: "unix".to_owned(),
            inode: i.into(),
            age: Duration::from_millis(u64::from(i.wrapping_mul(2_654_435_761) % 100_000) + second * 1000),
            queued: Some(219_264),
            rule: Some("orphaned-downloads".to_owned()),
            fate: Fate::Due {
                in_seconds: Some(f64::from(i)),
                action: "kill".to_owned(),
                mode: "enforce".to_owned(),
                unless: None,
            },
            ..Stalled::default()
        }
    });
    Snapshot {
        at,
        total: limits::DASHBOARD_ROWS.into(),
        rows: rows.collect(),
        ..Snapshot::default()
    }
}

fn milliseconds(from: Duration, to: Duration) -> f64 {
    clock::lapse(from, to).as_secs_f64() * 1e3
}

fn summary(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |i: usize| samples.get(i).copied().unwrap_or_default();
    (at(0), at(samples.len() / 2))
}
