//! The kernel side used as a library: several observers of one workload, and what each says of it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use probe_ebpf::pattern::CommFilter;
use probe_user::core::model::{Channel, Mono, StallId, WriterId};
use probe_user::core::tracker::Tracker;
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{Kernel, Options, ProbeError};

use crate::clock;

/// An observer.
pub struct Eye {
    tracer: Tracer,
    kernel: Kernel,
    tracker: Tracker,
    open: BTreeMap<StallId, Stall>,
    closed: Vec<Stall>,
}

/// A stall, as an observer told of it.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    /// Who was stuck.
    pub writer: WriterId,
    /// On what.
    pub channel: Channel,
    /// Since when.
    pub since: Mono,
    /// When it was last seen.
    pub until: Mono,
}

impl Stall {
    /// Tells how long it was seen to last.
    pub fn lasted(&self) -> Duration {
        self.until.since(self.since)
    }

    /// Says whether another observer's is the same one, give or take so much time.
    pub fn agrees_with(&self, other: &Self, tolerance: Duration) -> bool {
        let apart = |one: Mono, other: Mono| one.since(other).max(other.since(one));
        self.writer == other.writer
            && self.channel == other.channel
            && apart(self.since, other.since) <= tolerance
            && apart(self.until, other.until) <= tolerance
    }
}

impl Display for Stall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = |moment: Mono| Duration::from_nanos(moment.as_nanos()).as_secs_f64();
        write!(
            f,
            "{} on {:?} {}: {:.3} to {:.3}",
            self.writer.tid,
            self.channel.kind,
            self.channel.inode,
            seconds(self.since),
            seconds(self.until)
        )
    }
}

impl Eye {
    /// Begins to observe the commands of a name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(tracer: Tracer, comm: &str, btf: &Path) -> Result<Self, ProbeError> {
        let filter = CommFilter::parse([comm]).unwrap_or_else(|(_, error)| panic!("{comm}: {error:?}"));
        let options = Options {
            btf: btf.to_owned(),
            tracer: Some(tracer),
            ..Options::new(filter)
        };
        Ok(Self {
            tracer,
            kernel: Kernel::tracer(&options, Duration::from_mins(1))?,
            tracker: Tracker::new(now()),
            open: BTreeMap::new(),
            closed: Vec::new(),
        })
    }

    /// Tells how it follows writers.
    pub fn tracer(&self) -> Tracer {
        self.tracer
    }

    /// Looks once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn look(&mut self) -> Result<(), ProbeError> {
        let (look, _) = self.kernel.look()?;
        let at = look.at;
        for (stall, _) in self.tracker.observe(look) {
            self.closed.extend(self.open.remove(&stall.id));
        }
        for stall in self.tracker.stalls().filter(|stall| stall.missing.is_none()) {
            let seen = Stall {
                writer: stall.last.writer,
                channel: stall.last.channel,
                since: stall.since,
                until: at,
            };
            self.open.insert(stall.id, seen);
        }
        Ok(())
    }

    /// Tells all that it saw, in order.
    pub fn stalls(self) -> Vec<Stall> {
        let mut all: Vec<_> = self.closed.into_iter().chain(self.open.into_values()).collect();
        all.sort_by_key(|stall| (stall.writer, stall.since));
        all
    }
}

/// The time now, as observers count it.
pub fn now() -> Mono {
    Mono::from_nanos(u64::try_from(clock::mono().as_nanos()).expect("a machine runs for less than centuries"))
}
