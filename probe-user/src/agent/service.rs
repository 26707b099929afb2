//! What the service manager is told, where one listens: `sd_notify(3)`.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::core::model::Mono;

/// The status line changes no more often than this.
const BETWEEN_STATUS: Duration = Duration::from_secs(5);

/// The service manager.
#[derive(Debug, Default)]
pub struct Manager {
    /// How often it wants a sign of life.
    watchdog: Option<Duration>,
    fed: Mono,
    status: String,
    told: Mono,
}

impl Manager {
    /// The one that started this process, if one did.
    #[must_use]
    pub fn find() -> Self {
        Self {
            // Twice as often as it wants, as sd_watchdog_enabled(3) asks for.
            watchdog: sd_notify::watchdog_enabled().map(|within| within / 2),
            ..Self::default()
        }
    }

    /// Everything is up.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// A reload has begun; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// When [`Self::turn`] is next to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        Some(self.fed.after(self.watchdog?))
    }

    /// The loop that decides has come round: gives the sign of life that is due, and says how
    /// things are.
    pub fn turn(&mut self, now: Mono, status: impl FnOnce() -> String) {
        if self.deadline().is_some_and(|due| due <= now) {
            self.fed = now;
            tell(&[NotifyState::Watchdog]);
        }
        if now.since(self.told) >= BETWEEN_STATUS {
            self.told = now;
            let status = status();
            if status != self.status {
                tell(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
