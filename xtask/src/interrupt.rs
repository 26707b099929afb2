//! Ctrl-C and requests to terminate, which tasks that start processes or leave files answer by cleaning up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell;

/// How long to wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a signal has asked to stop.
#[derive(Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn on_signals() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot handle signals")?;
        }
        Ok(Self(flag))
    }

    /// # Errors
    /// One has.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted; all it had started is ended");
        }
        Ok(())
    }

    /// Asks `poll` until it has something; `failure` is the error when it takes too long.
    pub(crate) fn wait_for<T>(
        &self,
        failure: &str,
        mut poll: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = shell::now();
        loop {
            self.check()?;
            if let Some(it) = poll()? {
                return Ok(it);
            }
            ensure!(start.elapsed() < PATIENCE, "{failure}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}
