//! An agent that serves its API, with what a test of it needs at hand.

use std::path::PathBuf;

use crate::agent::Agent;
use crate::api::Api;
use crate::config::Config;
use crate::crowd::Crowd;
use crate::scratch::Scratch;

/// See the module.
#[derive(Debug)]
pub struct Served {
    /// The agent.
    pub agent: Agent,
    /// A client of its API.
    pub api: Api,
    /// What it was started with.
    pub config: Config,
    /// Holds its configuration, state and socket.
    pub scratch: Scratch,
}

impl Served {
    /// An agent with nothing to do; further lines are of `[api]`, or begin tables of their own.
    #[track_caller]
    pub fn idle(lines: &str) -> Self {
        let scratch = Scratch::new();
        let config = Config::new("no-such-comm", "no-such-parent", &scratch.path("state"));
        Self::start(config.served(&scratch, lines), scratch)
    }

    /// An agent for a crowd, as configured further.
    #[track_caller]
    pub fn over(crowd: &Crowd, configure: impl FnOnce(Config) -> Config) -> Self {
        let scratch = Scratch::new();
        let config = Config::of(crowd, &scratch).served(&scratch, "");
        Self::start(configure(config), scratch)
    }

    #[track_caller]
    fn start(config: Config, scratch: Scratch) -> Self {
        Self {
            agent: Agent::run(&config, &scratch),
            api: Api::at(&Config::socket(&scratch)),
            config,
            scratch,
        }
    }

    /// Names the socket.
    pub fn socket(&self) -> PathBuf {
        Config::socket(&self.scratch)
    }
}
