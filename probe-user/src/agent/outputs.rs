//! Where events go: the journal first, then whoever listens.

use std::{io, sync::Arc};

use anyhow::{Context as _, Result};

use super::{
    hub::{Hub, Published},
    journal::Journal,
    printer::Printer,
};
use crate::{
    alert::{self, Alerts},
    event::{Event, Stamp},
};

/// An incident's events go out in batches of so many.
const BATCH: usize = 256;

/// What one of those who are told cannot do.
pub(super) enum Trouble {
    /// Standard output cannot be written to any more.
    Printer,
    /// Alerts say what.
    Alerts(String),
}

/// Where events go.
pub struct Outputs {
    journal: Option<Journal>,
    printer: Option<Printer>,
    alerts: Option<Alerts>,
    hub: Hub,
    /// Numbers events.
    pub(super) stamp: Stamp,
    /// Those that are not written yet, and that nobody else has heard of.
    fresh: Vec<Arc<Published>>,
    /// Why the journal cannot be written.
    broken: Option<String>,
    /// What the printer lost, once it has stopped.
    unprinted: u64,
    /// Whether any event has gone out: before the first, an error is the caller's to tell.
    said_anything: bool,
}

impl Outputs {
    /// To the durable record and standard output, each if there is one, and to subscribers.
    #[must_use]
    pub fn new(journal: Option<Journal>, printer: Option<Printer>, hub: Hub, stamp: Stamp) -> Self {
        Self {
            journal,
            printer,
            alerts: None,
            hub,
            stamp,
            fresh: Vec::new(),
            broken: None,
            unprinted: 0,
            said_anything: false,
        }
    }

    /// And to alerts, if there are any.
    #[must_use]
    pub fn telling(self, alerts: Option<Alerts>) -> Self {
        Self { alerts, ..self }
    }

    /// A way to ask the alerts, if there are any.
    pub(super) fn alerts(&self) -> Option<alert::Handle> {
        self.alerts.as_ref().map(Alerts::handle)
    }

    /// Takes in an event; it goes out with the next [`Self::flush`] or [`Self::commit`].
    pub(super) fn send(&mut self, event: Event) -> Result<()> {
        let json = serde_json::to_string(&event)?;
        if let Some(journal) = &mut self.journal {
            journal.append(event.seq, &json);
        }
        self.fresh.push(Arc::new(Published { event, json }));
        if self.fresh.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was taken in, then hands it to whoever listens. Whether the journal could be
    /// written is for [`Self::broken`] to tell.
    ///
    /// # Errors
    /// There is no journal, and standard output fails.
    pub(super) fn flush(&mut self) -> Result<()> {
        if !self.fresh.is_empty() || self.broken.is_some() {
            let written = self.journal.as_mut().map_or(Ok(()), Journal::flush);
            self.settle(&written)?;
        }
        self.publish()
    }

    /// Writes what was taken in, and waits until it is on disk.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub(super) fn commit(&mut self) -> Result<()> {
        let written = self.journal.as_mut().map_or(Ok(()), Journal::commit);
        self.settle(&written)?;
        self.publish()
    }

    /// Why the journal cannot be written, if it cannot.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_mut()
    }

    pub(super) const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Events that were lost: to standard output, to subscribers, and to the journal.
    pub(super) fn lost(&self) -> (u64, u64, u64) {
        let printed = self.printer.as_ref().map_or(self.unprinted, Printer::lost);
        (
            printed,
            self.hub.lost(),
            self.journal.as_ref().map_or(0, Journal::lost),
        )
    }

    /// What waits to be written, in bytes.
    pub(super) fn pending(&self) -> usize {
        self.journal.as_ref().map_or(0, Journal::pending)
    }

    /// Says when the journal stops taking events, and when it takes them again.
    fn settle(&mut self, written: &Result<()>) -> Result<()> {
        match (written, self.broken.take()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(_)) => {
                let lost = self.journal.as_ref().map_or(0, Journal::lost);
                let detail = format!("the journal can be written again; {lost} events were lost so far");
                tracing::warn!("{detail}");
                let event = self.stamp.agent("agent.recovered", Some(detail));
                self.send(event)
            }
            (Err(error), was) => {
                let why = format!("{error:#}");
                if was.is_none() {
                    let detail = format!("{why}; nothing is ended until it can be");
                    if self.said_anything {
                        tracing::warn!("{detail}");
                    }
                    let event = self.stamp.agent("agent.degraded", Some(detail));
                    self.send(event)?;
                }
                self.broken = Some(why);
                Ok(())
            }
        }
    }

    fn publish(&mut self) -> Result<()> {
        let fresh = std::mem::take(&mut self.fresh);
        self.said_anything |= !fresh.is_empty();
        let printer = self.printer.as_mut();
        let outcome = printer.map_or(Ok(()), |printer| printer.print(&fresh));
        for published in fresh {
            self.hub.publish(&published);
            if let Some(alerts) = &mut self.alerts {
                alerts.send(published.event.seq, &published.json);
            }
        }
        outcome.or_else(|error| self.stop_printing(error))
    }

    /// Waits until any of those who are told fails.
    pub(super) async fn trouble(&mut self) -> Trouble {
        let Self { printer, alerts, .. } = self;
        let printer = async {
            match printer {
                Some(printer) => printer.failed().await,
                None => std::future::pending().await,
            }
        };
        let alerts = async {
            match alerts {
                Some(alerts) => alerts.complaint().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = printer => Trouble::Printer,
            what = alerts => Trouble::Alerts(what),
        }
    }

    /// Says so, and goes on without what has failed for good.
    ///
    /// # Errors
    /// It was standard output, and there is no journal either.
    pub(super) fn take_trouble(&mut self, trouble: Trouble) -> Result<()> {
        match (trouble, self.printer.as_ref().map(Printer::error)) {
            (Trouble::Printer, Some(error)) => self.stop_printing(error),
            (Trouble::Printer, None) => Ok(()),
            (Trouble::Alerts(what), _) => {
                let degraded = self.stamp.agent("agent.degraded", Some(what));
                self.send(degraded)
            }
        }
    }

    /// What is printed is a convenience where a journal is kept, and else the purpose.
    fn stop_printing(&mut self, error: io::Error) -> Result<()> {
        const WHAT: &str = "cannot write to standard output";
        self.unprinted = self.printer.take().map_or(0, |printer| printer.lost());
        if self.journal.is_none() {
            return Err(error).context(WHAT);
        }
        tracing::warn!("{WHAT}: {error}; events go to the journal alone");
        let degraded = self
            .stamp
            .agent("agent.degraded", Some(format!("{WHAT}: {error}")));
        self.send(degraded)
    }

    /// Makes everything durable and prints what is queued, within reason.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        self.commit()?;
        // What was said on the way out.
        self.commit()?;
        self.hub.close();
        if let Some(alerts) = self.alerts {
            alerts.finish();
        }
        let lost = self.printer.map_or(self.unprinted, Printer::finish);
        if lost > 0 {
            tracing::warn!("{lost} events were not printed: standard output was not read in time");
        }
        match self.broken {
            Some(why) => Err(anyhow::anyhow!(why)),
            None => Ok(()),
        }
    }
}
