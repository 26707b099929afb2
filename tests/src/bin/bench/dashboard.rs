//! What the dashboard takes: for one frame of very many stalls, and of a core while it is left
//! running beside an agent.

use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use probe_user::core::model::{Facts, Mono};
use probe_user::tui::model::{Fate, Row as Stalled, Snapshot};
use probe_user::tui::run::discard;
use probe_user::tui::source::Source;
use probe_user::tui::source::api::Api;
use probe_user::tui::state::{Message, State};
use probe_user::tui::view::{self, Look};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tests::agent::Agent;
use tests::config::Config;
use tests::crowd::Plan;
use tests::scratch::Scratch;
use tests::{binary, clock, names, need, proc, tmux};

use crate::report::{Report, Row};
use crate::{Effort, idle, limits, load};

/// As large as a screen gets.
const SCREEN: (u16, u16) = (200, 60);
/// After the first frames.
const SETTLE: Duration = Duration::from_secs(3);

/// What changes by itself is drawn so often.
const TICK: Duration = Duration::from_millis(250);
/// For an agent to tell of all of them, on a machine that is busy with them.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    frames(effort, report)?;
    of_an_agent(effort, report)?;
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

/// Does what the dashboard's loop does, on a runtime like its own, with an agent that has so many
/// stalls: takes in what comes, and draws four times a second.
fn of_an_agent(effort: Effort, report: &mut Report) -> Result<()> {
    report.progress("the dashboard with an agent's 10,000 stalls");
    let name = names::unique("many");
    let _stuck = load::threads(limits::DASHBOARD_ROWS, &name)?;
    let scratch = Scratch::new();
    let parent = proc::comm(process::id()).context("this process has a name")?;
    let config = Config::new(&name, &parent, &scratch.path("state"))
        .stalled_for("1h")
        .report_after("1s")
        .served(&scratch, "");
    let _agent = Agent::run(&config, &scratch);
    let mut seen = Seen::default();
    let api = Api::new(Config::socket(&scratch));
    tests::api::runtime().block_on(seen.follow(api, effort.of(15, 5)))?;

    let (fastest, median) = summary(&mut seen.frames);
    let name = "top: a frame of an agent's 10,000";
    report.add(
        Row::of(name, fastest, "ms")
            .with_median(median)
            .at_most(limits::FRAME_MS),
    );
    let slowest = seen.frames.last().copied().unwrap_or_default();
    report.add(Row::of("  the slowest of them", slowest, "ms"));
    let (fastest, median) = summary(&mut seen.answers);
    report.add(Row::of("  from asking until it is drawn", fastest, "ms").with_median(median));
    Ok(())
}

/// What somebody at the dashboard sees, in milliseconds.
#[derive(Default)]
struct Seen {
    /// Taking in what came since the last frame, all stalls among it, and drawing.
    frames: Vec<f64>,
    /// From asking an agent to having drawn the answer.
    answers: Vec<f64>,
}

impl Seen {
    /// Follows an agent for so many of its snapshots.
    async fn follow(&mut self, api: Api, snapshots: u32) -> Result<()> {
        let mut terminal = Terminal::new(TestBackend::new(SCREEN.0, SCREEN.1))?;
        let mut state = State::new(SCREEN.0, SCREEN.1);
        let mut source = Source::Api(api).start();
        let mut ticks = tokio::time::interval(TICK);
        let mut taking = Duration::ZERO;
        let (mut asked, mut complete) = (None, 0);
        let deadline = clock::mono() + PATIENCE;
        while complete < snapshots {
            ensure!(
                clock::mono() < deadline,
                "only {complete} snapshots with all stalls came"
            );
            tokio::select! {
                message = source.messages.recv() => {
                    let message = message.context("the source has ended")?;
                    if let Message::Snapshot(snapshot) = &message
                        && snapshot.rows.len() >= usize::try_from(limits::DASHBOARD_ROWS)?
                    {
                        asked = Some(snapshot.at);
                        complete += 1;
                    }
                    let begin = clock::mono();
                    drop(state.update(message, probe_user::clock::now()));
                    discard(state.take_spent());
                    taking += clock::lapse(begin, clock::mono());
                }
                _ = ticks.tick() => {
                    let begin = clock::mono();
                    terminal.draw(|frame| {
                        view::draw(frame, &state, probe_user::clock::now(), Look::FULL);
                    })?;
                    let drawing = clock::lapse(begin, clock::mono());
                    let whole = std::mem::take(&mut taking) + drawing;
                    // The others show what was there before.
                    if let Some(asked) = asked.take() {
                        let took = probe_user::clock::now().since(asked);
                        self.frames.push(whole.as_secs_f64() * 1e3);
                        self.answers.push(took.as_secs_f64() * 1e3);
                    }
                }
            }
        }
        Ok(())
    }
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
