//! What the agent sees: looks by the kernel side that is in force, and what all that ever were have
//! counted.

use std::time::Duration;

use anyhow::Result;

use crate::{
    clock,
    core::model::{ChannelKind, Look, Mono},
    probe::kernel::{Kernel, Losses, Observer, ProbeError},
};

/// How soon a look is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long looks may fail: an observer that sees nothing is no observer.
const BLIND_FOR: Duration = Duration::from_secs(10);

/// The kernel side, and what is kept of those before it.
pub(super) struct Sight {
    pub(super) kernel: Kernel,
    /// What the kernel sides before this one have counted.
    blocked_before: Vec<u64>,
    lost_before: Losses,
    /// What was told of losses.
    told: Losses,
    channels: Vec<ChannelKind>,
    foreign_pids: bool,
    /// A look that could not be taken for want of descriptors or memory.
    shortage: Option<Shortage>,
}

/// Looks that fail, one after the other.
#[derive(Clone, Copy)]
struct Shortage {
    since: Mono,
    /// When the next is tried.
    again: Mono,
}

/// What came of a look.
pub(super) enum Looked {
    /// What it showed, and how long it took.
    Taken(Look, Duration),
    /// Nothing yet, and what is to be told of that.
    Later(Option<String>),
}

impl Sight {
    /// Of these channels, and no others.
    pub(super) fn new(kernel: Kernel, channels: Vec<ChannelKind>) -> Self {
        Self {
            kernel,
            blocked_before: Vec::new(),
            lost_before: Losses::default(),
            told: Losses::default(),
            channels,
            foreign_pids: false,
            shortage: None,
        }
    }

    /// Goes on with another kernel side.
    pub(super) fn replace_kernel(&mut self, mut kernel: Kernel) {
        self.blocked_before = self.blocked();
        self.lost_before = self.lost();
        // Else its first look might say of a writer asleep that it has run.
        kernel.keep_clocks_of(&self.kernel);
        self.kernel = kernel;
    }

    /// Looks at these channels from now on.
    pub(super) fn set_channels(&mut self, channels: Vec<ChannelKind>) {
        self.channels = channels;
    }

    /// Whether this process is in a pid namespace of its own, as far as looks have shown.
    pub(super) const fn has_foreign_pids(&self) -> bool {
        self.foreign_pids
    }

    /// When a look that could not be taken is tried again.
    pub(super) fn again(&self) -> Option<Mono> {
        self.shortage.map(|shortage| shortage.again)
    }

    /// Looks, unless the last could not be taken and it is too soon to try again.
    ///
    /// # Errors
    /// The kernel side failed, or nothing could be seen for [`BLIND_FOR`].
    pub(super) fn look(&mut self) -> Result<Looked> {
        let begun = clock::now();
        if self.again().is_some_and(|again| begun < again) {
            return Ok(Looked::Later(None));
        }
        let (mut look, observer) = match self.kernel.look() {
            Ok(seen) => seen,
            Err(error) if error.is_shortage() => return self.fail(error),
            Err(error) => return Err(error.into()),
        };
        self.shortage = None;
        self.mind_the_namespace(observer);
        look.sightings
            .retain(|sighting| self.channels.contains(&sighting.channel.kind));
        Ok(Looked::Taken(look, clock::now().since(begun)))
    }

    fn fail(&mut self, error: ProbeError) -> Result<Looked> {
        let now = clock::now();
        let since = self.shortage.map_or(now, |shortage| shortage.since);
        if now.since(since) >= BLIND_FOR {
            return Err(error.into());
        }
        let news = self
            .shortage
            .is_none()
            .then(|| format!("{error}; trying again, and nothing is decided until it works"));
        self.shortage = Some(Shortage {
            since,
            again: now.after(LOOK_AGAIN),
        });
        Ok(Looked::Later(news))
    }

    fn mind_the_namespace(&mut self, observer: Observer) {
        let foreign = observer.tgid != std::process::id();
        if foreign && !self.foreign_pids {
            log::warn!(
                "this process is in a pid namespace of its own: only what runs inside is seen, by name, and nothing \
                 is ended; run it with the host's pids (hostPID)"
            );
        }
        self.foreign_pids = foreign;
    }

    /// Counts of blocked intervals, over all kernel sides so far.
    pub(super) fn blocked(&self) -> Vec<u64> {
        let mut counts = self.kernel.histogram();
        for (count, before) in counts.iter_mut().zip(&self.blocked_before) {
            *count += before;
        }
        counts
    }

    /// What tracers could not keep, over all kernel sides so far.
    pub(super) fn lost(&self) -> Losses {
        let lost = self.kernel.lost();
        Losses {
            notes: lost.notes + self.lost_before.notes,
            entries: lost.entries + self.lost_before.entries,
        }
    }

    /// Says once of each kind that the tracer lost something.
    pub(super) fn new_losses(&mut self) -> impl Iterator<Item = &'static str> + use<> {
        let lost = self.lost();
        let told = std::mem::replace(&mut self.told, lost);
        [
            (
                told.notes,
                lost.notes,
                "notes of the tracer were lost: its ring buffer was full; looks make up for them",
            ),
            (
                told.entries,
                lost.entries,
                "more writers are blocked than the tracer can follow; looks alone know the rest",
            ),
        ]
        .into_iter()
        .filter_map(|(before, now, what)| (before == 0 && now > 0).then_some(what))
    }
}
