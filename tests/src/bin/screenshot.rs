//! Takes the README's picture of `top`: from the running program, on a real terminal, with an agent
//! and real stuck ffmpegs, whose rule only says what it would do.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tests::agent::Agent;
use tests::config::Config;
use tests::ffmpeg::{piped_into_sleep, under_node};
use tests::scratch::Scratch;
use tests::tmux::Terminal;
use tests::{binary, need};

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
    let piped: Vec<_> = (0..2).map(|_| piped_into_sleep(&ffmpeg)).collect();
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
    // The oldest is under Node, where the rule applies.
    let all = held.len() + piped.len();
    terminal.await_text(&format!("{all} stalled"));
    terminal.press(&["g", "Enter"]);
    // Long enough for a history to be seen.
    println!("{}", terminal.await_text("9 s seen"));
    match save(&terminal.styled(), &cli.file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("screenshot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn save(screen: &str, file: &PathBuf) -> Result<()> {
    let picture = anstyle_svg::Term::new().render_svg(screen);
    std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))
}
