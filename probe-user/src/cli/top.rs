//! `pipestall top`

use std::path::PathBuf;

use anyhow::Result;

use super::{observe::Commands, run::block_on};
use crate::{
    agent::state::STALLED,
    config::DEFAULT_SOCKET,
    probe::kernel::{KERNEL_BTF, Kernel, Options},
    tui::{
        self,
        source::{Source, api::Api, standalone::Standalone},
        terminal,
    },
};

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows what the agent knows: who is stalled and for how long, who does not read, what the
rules will do about it and when. Press ? for the keys; / filters by the words of a rule's
match (user=peertube comm=ffmpeg*); F9 asks the agent to end a writer, after a question.

  sudo pipestall top                       the agent of this host
  sudo pipestall top --standalone          no agent: looks by itself, ends nothing
  sudo pipestall top --standalone --all    the same, at every command

Reading takes the socket: root, or the group that [api] group names; ending a writer takes
root, or the group that [api] operators names. Connections that break are made again, and
the screen says how old its data is. NO_COLOR switches colors off; where the locale is not
UTF-8, ASCII is drawn.")]
pub struct Args {
    /// The agent's socket, as [api] socket names it
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, conflicts_with = "standalone")]
    socket: PathBuf,
    /// Look without an agent: no rules, nothing is ended
    #[arg(long)]
    standalone: bool,
    /// Draw with ASCII characters alone
    #[arg(long)]
    ascii: bool,
    #[command(flatten, next_help_heading = "With --standalone")]
    commands: Commands,
    /// The kernel's type information
    #[arg(long, value_name = "FILE", default_value = KERNEL_BTF)]
    btf: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(why) = terminal::missing(variable) {
        return Err(super::Usage(why.to_owned()).into());
    }
    let mut look = terminal::look(variable);
    look.unicode &= !args.ascii;
    let source = if args.standalone {
        let options = Options {
            btf: args.btf.clone(),
            ..Options::new(args.commands.filter()?)
        };
        let kernel = Kernel::tracer(&options, STALLED)?;
        Source::Standalone(Box::new(Standalone::new(kernel, args.commands.names())?))
    } else {
        Source::Api(Api::new(args.socket.clone()))
    };
    block_on(tui::run::run(source, look))
}
