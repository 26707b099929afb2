//! Reads the configuration anew, whole, before anything of it is used.

use std::{path::PathBuf, time::Duration};

use super::journal::Keep;
use crate::{
    config::{Api, Config, Metrics, State},
    probe::kernel::{Kernel, Options},
};

/// What the agent was started with, and what of it is in force.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The configuration's file.
    pub path: PathBuf,
    /// How the kernel side is loaded.
    pub options: Options,
    /// From which age on the tracer notes that a writer wakes.
    pub notify_after: Duration,
    /// What is served.
    pub api: Option<Api>,
    /// What is served to others.
    pub metrics: Option<Metrics>,
    /// What is kept.
    pub state: State,
}

/// A configuration that is valid, and the kernel side for it where it takes another.
pub struct Fresh {
    /// The configuration.
    pub config: Config,
    /// Loaded and attached.
    pub kernel: Option<Kernel>,
}

impl Origin {
    /// Reads the file, and loads the kernel side anew if what it filters has changed: its
    /// constants are part of its programs.
    ///
    /// # Errors
    /// What is wrong with the file, or why the kernel side cannot be loaded.
    pub fn load(&self) -> Result<Fresh, String> {
        let config = Config::load(&self.path).map_err(|error| error.to_string())?;
        let options = self.options_for(&config);
        let notify_after = config.policy.smallest_threshold();
        let is_the_same = options.filter == self.options.filter
            && options.count_blocked == self.options.count_blocked
            && notify_after == self.notify_after;
        let kernel = if is_the_same {
            None
        } else {
            let loaded = super::privilege::while_loading(|| Kernel::tracer(&options, notify_after));
            Some(loaded.map_err(|error| error.to_string())?)
        };
        Ok(Fresh { config, kernel })
    }

    /// How the kernel side is loaded for a configuration.
    fn options_for(&self, config: &Config) -> Options {
        Options {
            filter: config.observe.filter,
            count_blocked: !config.policy.windows().is_empty(),
            ..self.options.clone()
        }
    }

    /// Takes a configuration for the one in force; says what of it takes a restart.
    pub fn adopt(&mut self, config: &Config) -> Vec<String> {
        self.options = self.options_for(config);
        self.notify_after = config.policy.smallest_threshold();
        let mut restart = Vec::new();
        for (changed, key) in [
            (self.api != config.api, "[api]"),
            (self.metrics != config.metrics, "[metrics]"),
            (self.state.dir != config.state.dir, "[state] dir"),
        ] {
            if changed {
                restart.push(format!("{key} has changed, which takes a restart"));
            }
        }
        restart
    }
}

impl From<&State> for Keep {
    fn from(state: &State) -> Self {
        Self {
            rotate_bytes: state.rotate_bytes,
            files: state.keep_files,
            age: state.keep_for,
        }
    }
}
