//! Shows the main job on this machine: real stuck writers, what `ps` says of them, an agent that ends them.
//!
//! Knows the program by its command line, its configuration file and its events only.

mod agent;
mod writers;

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::agent::{Agent, Story};
use self::writers::{Writer, Writers};
use crate::build::{self, Profile};
use crate::interrupt::Interrupt;
use crate::shell;

pub(crate) use self::writers::write_forever;

/// What the agent's rules say. Long enough for the agent to watch a writer for the five seconds that it insists on.
const STALLED_FOR: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(1);

/// Runs the demo with the program `with`, or builds it first.
pub(crate) fn run(with: Option<PathBuf>) -> Result<()> {
    let pipestall = match with {
        Some(pipestall) => pipestall,
        None => build::pipestall(Profile::Release)?,
    };
    if shell::is_root() {
        return show(&pipestall, &Interrupt::on_signals()?);
    }
    let this = env::current_exe().context("cannot tell where xtask runs from")?;
    let mut again = build::with_privileges(&this);
    ensure!(
        again.get_program() == "sudo",
        "the demo loads kernel programs: run it as root, or install sudo"
    );
    shell::run(again.args(["demo", "--with"]).arg(pipestall))
}

fn show(pipestall: &Path, interrupt: &Interrupt) -> Result<()> {
    println!("\n1. Writers, and readers that never read\n");
    let writers = Writers::start(interrupt)?;
    for writer in writers.list() {
        println!("   {:>7}  {}", writer.pid, writer.setting);
    }

    println!("\n2. What `pipestall ps` says of them\n");
    let ages = find(pipestall, &writers, interrupt)?;
    shell::run(Command::new(pipestall).args(["ps", "--comm", writers.comm()]))?;

    println!("\n3. An agent that ends them\n");
    let config = config(&writers);
    println!("{}", indented(&config));
    let mut agent = Agent::start(pipestall, writers.dir(), &config)?;
    let stories = agent.watch(&writers, interrupt)?;
    let recorded = agent.stop()?;

    println!("\n4. What came of it\n");
    let ended = summarize(&writers, &ages, &stories, &recorded);
    let count = writers.list().len();
    ensure!(ended == count, "of {count} stuck writers, only {ended} ended");
    Ok(())
}

/// Waits until `ps` reports each writer, and returns the ages it tells.
fn find(pipestall: &Path, writers: &Writers, interrupt: &Interrupt) -> Result<Vec<f64>> {
    let mut command = Command::new(pipestall);
    command.args(["ps", "--json", "--comm", writers.comm()]);
    interrupt.wait_for("`pipestall ps` does not find the stuck writers", || {
        let output = command.output().context("cannot run pipestall")?;
        std::io::stderr().write_all(&output.stderr)?;
        ensure!(
            output.status.success(),
            "`{}` failed ({})",
            shell::describe(&command),
            output.status
        );
        let stalls: Vec<Value> = serde_json::from_slice(&output.stdout).context("`ps --json` is no array")?;
        let age_of =
            |writer: &Writer| stalls.iter().find(|stall| stall["pid"] == writer.pid)?["age_seconds"].as_f64();
        Ok(writers.list().iter().map(age_of).collect())
    })
}

/// A configuration that sees the demo's own children only, and a rule for each.
fn config(writers: &Writers) -> String {
    let comm = writers.comm();
    let rule = |Writer { parent, .. }: &Writer| {
        format!(
            "\n[[rule]]\n\
             name = \"demo-{parent}\"\n\
             match = {{ comm = \"{comm}\", parent = \"{parent}\", stream = \"stdout\" }}\n\
             stalled_for = \"{stalled_for}s\"\n\
             action = \"kill\"\n\
             grace = \"{grace}s\"\n\
             mode = \"enforce\"\n",
            stalled_for = STALLED_FOR.as_secs(),
            grace = GRACE.as_secs(),
        )
    };
    let rules: String = writers.list().iter().map(rule).collect();
    format!("[observe]\ncomm = [\"{comm}\"]\nreport_after = \"2s\"\n{rules}")
}

/// Prints a table of the writers' ends; returns how many there were.
fn summarize(writers: &Writers, ages: &[f64], stories: &[Story], recorded: &str) -> usize {
    println!("       pid  channel  under            found at  signalled at  threshold to exit");
    let mut ended = 0;
    for ((writer, found_at), story) in writers.list().iter().zip(ages).zip(stories) {
        let Writer { pid, parent, .. } = writer;
        let channel = &story.channel;
        print!("   {pid:>7}  {channel:<7}  {parent:<15} {found_at:>7.1} s");
        match story.ended(STALLED_FOR) {
            Some((age, took)) if !writer.is_running() => {
                ended += 1;
                println!("  {age:>10.3} s  {:>14} ms", took.as_millis());
            }
            _ => println!("  still there: {}", story.failure()),
        }
    }
    println!("\n   found {}, ended {ended}; {recorded}", ages.len());
    if stories.iter().any(Story::needed_kill) {
        let grace = GRACE.as_millis();
        println!("   {grace} ms of that are the rule's grace: an ffmpeg that is stuck in write");
        println!("   does not act on SIGTERM, so SIGKILL had to follow.");
    }
    for (writer, story) in writers.list().iter().zip(stories) {
        if story.doubted {
            println!(
                "   {}'s channel does not prove that nothing was taken before the",
                writer.pid
            );
            println!(
                "   agent came, so the agent has watched it for all of {} s itself.",
                STALLED_FOR.as_secs()
            );
        }
    }
    ended
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| {
            if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("   {line}\n")
            }
        })
        .collect()
}
