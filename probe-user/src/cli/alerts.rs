//! `pipestall alerts`

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::{run::block_on, text};
use crate::{
    alert::{
        desk::Desk,
        listing::{Chosen, Message, Unknown},
        queue::Number,
        spool::{self, Spool, SpoolError},
        time::between,
    },
    api::{
        AlertMessages, AlertsChanged,
        client::{self, ClientError},
    },
    clock,
    config::Config,
};

/// Arguments of `alerts`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A message stays in the spool until its receiver has taken it, for [spool] max_age at the
most. One that the receiver refused (with 400, say) is not tried again by itself. One is
held while its webhook gets nothing, because it is gone (410) or not configured any more:
load the configuration anew, or drop it.

An agent that runs is asked over the socket that [api] socket names: root and the group
that [api] group names may list, root and the group that [api] operators names may do the
rest. Where none runs, the spool in [state] dir is read and changed, which takes root.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the messages that are still to be delivered, and those that were refused
    List(List),
    /// Try messages again now, refused ones too; at the agent's next start if it does not run
    Retry(Which),
    /// Give messages up, for good
    Drop(Which),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration, for its [state] dir and its [api] socket
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// Ask the agent behind this socket, and read no configuration
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Some of the messages.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct Which {
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
    /// Print a JSON object with the number of `messages`
    #[arg(long)]
    json: bool,
}

/// Who holds the messages.
enum Holder<T> {
    /// An agent, which has answered.
    Agent(T),
    /// No agent: they are in the spool that this configuration names.
    Spool(Box<Config>),
}

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(false);
    match &args.command {
        Command::List(list) => {
            let messages = match ask::<AlertMessages>(&list.place, Method::GET, "/v1/alerts", Vec::new())? {
                Holder::Agent(answer) => answer.messages,
                Holder::Spool(config) => open(*config)?.map_or_else(Vec::new, |(_, desk)| desk.messages()),
            };
            if list.json {
                return super::print(&format!("{}\n", serde_json::to_string_pretty(&messages)?));
            }
            super::print(&table(&messages))
        }
        Command::Retry(which) => change(which, "/v1/alerts/retry", "to be tried again", |desk, chosen| {
            desk.retry(chosen, clock::wall())
        }),
        Command::Drop(which) => change(which, "/v1/alerts/drop", "given up", Desk::discard),
    }
}

fn change(
    which: &Which,
    path: &str,
    done: &str,
    change: impl FnOnce(&mut Desk, &Chosen) -> Result<usize, Unknown>,
) -> Result<()> {
    let chosen = if which.all {
        Chosen::All
    } else {
        Chosen::Numbers(which.numbers.clone())
    };
    let count = match ask::<AlertsChanged>(&which.place, Method::POST, path, serde_json::to_vec(&chosen)?)? {
        Holder::Agent(answer) => answer.messages,
        Holder::Spool(config) => {
            let opened = open(*config)?;
            let (spool, mut desk) = opened.context("there is no message: the spool has never been used")?;
            let count = change(&mut desk, &chosen)?;
            spool.commit(&desk.changes())?;
            count as u64
        }
    };
    if which.json {
        let changed = AlertsChanged { messages: count };
        return super::print(&format!("{}\n", serde_json::to_string(&changed)?));
    }
    let s = if count == 1 { "" } else { "s" };
    super::print(&format!("{count} message{s} {done}\n"))
}

/// Asks the agent that holds the messages, if one does.
fn ask<T: DeserializeOwned>(place: &Place, method: Method, path: &str, body: Vec<u8>) -> Result<Holder<T>> {
    if let Some(socket) = &place.socket {
        let asking = async { Ok(client::ask(socket, method, path, body).await?) };
        return block_on(asking).map(Holder::Agent);
    }
    let config = Box::new(Config::load(&place.config)?);
    let Some(api) = &config.api else {
        return Ok(Holder::Spool(config));
    };
    match block_on(async { Ok(client::ask(&api.socket, method, path, body).await) })? {
        Ok(answer) => Ok(Holder::Agent(answer)),
        // None runs, or one that alerts nobody and so holds nothing.
        Err(ClientError::Nobody(_) | ClientError::Refused(StatusCode::CONFLICT, _)) => {
            Ok(Holder::Spool(config))
        }
        Err(error) => Err(error.into()),
    }
}

/// The spool with what is in it; none if none was ever written.
fn open(config: Config) -> Result<Option<(Spool, Desk)>> {
    let path = spool::path(&config.state.dir);
    let is_there = path
        .try_exists()
        .with_context(|| format!("cannot look for the spool {}", path.display()))?;
    if !is_there {
        return Ok(None);
    }
    let spool = match Spool::open(&config.state.dir) {
        Err(error @ SpoolError::InUse(_)) => {
            let why = match &config.api {
                Some(api) => format!("and none listens on {}; use --socket", api.socket.display()),
                None => "which serves no API; give it an [api]".to_owned(),
            };
            return Err(anyhow!("{error}, {why}, or stop the agent first"));
        }
        opened => opened?,
    };
    let left = spool.load()?;
    let last = left.cursor.unwrap_or(0);
    let desk = Desk::new(config.webhooks, config.spool, left, last, clock::wall());
    Ok(Some((spool, desk)))
}

fn table(messages: &[Message]) -> String {
    if messages.is_empty() {
        return "no messages: all is delivered\n".to_owned();
    }
    let now = clock::wall();
    let mut table = String::new();
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
            text::cut(&message.state, 8),
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
