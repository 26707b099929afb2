//! Takes the README's picture of `top`: from the running program, on a real terminal, with an agent
//! and real stuck ffmpegs, whose rule only says what it would do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tests::agent::Agent;
use tests::config::Config;
use tests::ffmpeg::{into_fifo, piped_into_sleep, under_node};
use tests::scratch::Scratch;
use tests::tmux::Terminal;
use tests::{binary, need, wait};

/// Columns and lines.
const SIZE: (u16, u16) = (100, 28);

/// Takes a picture of `pipestall top` as it runs.
#[derive(Debug, Parser)]
#[command(name = "screenshot")]
struct Cli {
    /// Where to put it, as SVG
    file: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let needs = need::bpf().and_then(|()| Ok((need::tmux()?, need::ffmpeg()?, need::node()?)));
    let (tmux, ffmpeg, node) = match needs {
        Ok(needs) => needs,
        Err(why) => {
            eprintln!("skipped: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let scratch = Scratch::new();
    let held: Vec<_> = (0..3).map(|_| under_node(&node, &ffmpeg, &scratch)).collect();
    let piped = piped_into_sleep(&ffmpeg);
    let fifo = into_fifo(&ffmpeg, &scratch);
    let config = Config::new("ffmpeg", "node", &scratch.path("state"))
        .stalled_for("45s")
        .served(&scratch, "");
    let _agent = Agent::run(&config, &scratch);
    let terminal = Terminal::open(&tmux, SIZE.0, SIZE.1);
    terminal.run(&format!(
        "clear; {} top --socket {}",
        binary::pipestall().display(),
        Config::socket(&scratch).display()
    ));
    let stuck = held.len() + 2;
    terminal.await_text(&format!("{stuck} stalled"));
    // The one that is looked at closer is under Node, where the rule applies.
    terminal.press(&["/"]);
    terminal.press(&["-l", "parent=*"]);
    terminal.press(&["Enter", "Enter"]);
    let chosen = wait::until("a writer that the rule is for", Duration::from_secs(20), || {
        let screen = terminal.screen();
        let found = screen
            .lines()
            .any(|line| line.starts_with("fate") && line.contains("would kill in"));
        if !found {
            terminal.press(&["Tab", "Tab", "Tab", "j", "Enter"]);
        }
        found.then_some(screen)
    });
    println!("{chosen}");
    drop((piped, fifo));
    match save(&terminal.styled(), &cli.file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("screenshot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn save(screen: &str, file: &PathBuf) -> Result<()> {
    let picture = anstyle_svg::Term::new()
        .min_width_px(u16::MAX.into())
        .render_svg(screen);
    std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))
}
