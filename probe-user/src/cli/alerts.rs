//! `pipestall alerts`

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;

use super::text;
use crate::{
    alert::{
        desk::Desk,
        queue::Number,
        spool::{self, Spool, SpoolError},
        status::Message,
        time::between,
    },
    clock,
    config::Config,
};

/// Arguments of `alerts`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A message stays in the spool until its receiver has taken it, for [spool] max_age at the
most. One that the receiver refused (with 400, say) is not tried again by itself.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the messages that are still to be delivered, and those that were refused
    List(List),
    /// Try messages again now, refused ones too; at the agent's next start if it does not run
    Retry(Chosen),
    /// Give messages up
    Drop(Chosen),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration, for its [state] dir
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Which messages.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct Chosen {
    #[command(flatten)]
    place: Place,
    /// The messages' numbers, as `alerts list` shows them
    #[arg(
        value_name = "NUMBER",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    numbers: Vec<Number>,
    /// All of them
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(false);
    match &args.command {
        Command::List(list) => {
            let messages = open(&list.place)?.map_or_else(Vec::new, |(_, desk)| desk.messages());
            if list.json {
                return super::print(&format!("{}\n", serde_json::to_string_pretty(&messages)?));
            }
            super::print(&table(&messages))
        }
        Command::Retry(some) => change(some, "to be tried again", |desk, number| {
            desk.retry(number, clock::wall())
        }),
        Command::Drop(some) => change(some, "given up", Desk::discard),
    }
}

/// The spool with what is in it; none if none was ever written.
fn open(place: &Place) -> Result<Option<(Spool, Desk)>> {
    let config = Config::load(&place.config)?;
    if !spool::path(&config.state.dir).exists() {
        return Ok(None);
    }
    let spool = Spool::open(&config.state.dir).map_err(|error| {
        let is_in_use = matches!(error, SpoolError::InUse(_));
        let error = anyhow::Error::from(error);
        if is_in_use {
            error.context("stop the agent first, for it holds its messages")
        } else {
            error
        }
    })?;
    let left = spool.load()?;
    let last = left.cursor.unwrap_or(0);
    let desk = Desk::new(config.webhooks, config.spool, left, last, clock::wall());
    Ok(Some((spool, desk)))
}

fn change(some: &Chosen, done: &str, change: impl Fn(&mut Desk, Number) -> bool) -> Result<()> {
    let opened = open(&some.place)?;
    let (spool, mut desk) = opened.context("there is no message: the spool has never been used")?;
    let numbers = if some.all {
        desk.messages().iter().map(|message| message.number).collect()
    } else {
        some.numbers.clone()
    };
    let unknown: Vec<_> = numbers
        .iter()
        .filter(|number| !change(&mut desk, **number))
        .map(Number::to_string)
        .collect();
    anyhow::ensure!(
        unknown.is_empty(),
        "there is no message {}; nothing is changed, see pipestall alerts list",
        unknown.join(", ")
    );
    spool.commit(&desk.changes())?;
    super::print(&format!("{} messages {done}\n", numbers.len()))
}

fn table(messages: &[Message]) -> String {
    let now = clock::wall();
    let mut table = String::new();
    if messages.is_empty() {
        return "no messages: all is delivered\n".to_owned();
    }
    let _ = writeln!(
        table,
        "{:>6}  {:<12} {:<8} {:>6} {:>5}  TITLE",
        "NUMBER", "WEBHOOK", "STATE", "AGE", "TRIES"
    );
    for message in messages {
        let _ = writeln!(
            table,
            "{:>6}  {:<12} {:<8} {:>6} {:>5}  {}",
            message.number,
            text::cut(&message.webhook, 12),
            message.state,
            text::age(between(message.made, now)),
            message.attempts,
            text::one_line(&message.title)
        );
        if let Some(error) = &message.last_error {
            let _ = writeln!(table, "        {}", text::one_line(error));
        }
    }
    table
}
