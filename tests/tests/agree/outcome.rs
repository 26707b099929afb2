//! Holds what several observers saw of one workload against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use probe_ebpf::record::ChannelKind;
use probe_user::core::model::{Mono, channel_name};
use probe_user::core::tracker::Ended;
use probe_user::probe::kernel::Losses;
use probe_user::probe::kernel::tracer::Tracer;

use tests::eye::{Eye, Stall, seconds};
use tests::wait;

use crate::Rounds;
use crate::workload::Workload;

/// What lasts for less may fall between two looks.
const COUNTS: Duration = Duration::from_millis(50);
/// How long what is to be taken takes.
const TAKING: Duration = Duration::from_millis(100);
/// What half of all stalls may be told apart by at most.
const USUAL_TOLERANCE: Duration = Duration::from_millis(100);
/// Of so many stalls on each kind of channel a tracer itself has to know since when.
const TRACED: usize = 3;
/// How many comparisons are needed, and how many exits and signals, for a run to say something.
const COMPARED: usize = 60;
const HAPPENED: usize = 3;
/// No more looks than these are few.
const FEW: usize = 3;
/// Differences that are shown with all that is known of them.
const SHOWN: usize = 4;
const KINDS: [ChannelKind; 3] = [ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix];

/// What observers say of each other.
pub(crate) struct Outcome {
    differences: Vec<String>,
    compared: usize,
    /// Left out: what a signal did is not for everyone to know.
    cut: usize,
    /// Of how many stalls each tracer knew by itself when they began, by kind of channel.
    traced: BTreeMap<(String, &'static str), usize>,
    tolerances: Vec<Duration>,
    ends: usize,
    signals: usize,
}

/// An observer, and all that it saw.
struct View<'a> {
    eye: &'a Eye,
    stalls: Vec<Stall>,
}

impl Outcome {
    /// Holds what each observer saw against what each other did.
    pub(crate) fn of(eyes: &[&Eye], rounds: &Rounds, workload: &Workload) -> Self {
        let views: Vec<_> = eyes
            .iter()
            .map(|eye| View {
                eye,
                stalls: eye.stalls(),
            })
            .collect();
        let mut outcome = Self {
            differences: Vec::new(),
            compared: 0,
            cut: 0,
            traced: BTreeMap::new(),
            tolerances: Vec::new(),
            ends: workload.ends.len(),
            signals: workload.signals,
        };
        for (i, view) in views.iter().enumerate() {
            if view.eye.tracer() != Tracer::Scan {
                for kind in KINDS.map(channel_name) {
                    outcome.traced.insert((view.eye.name().to_owned(), kind), 0);
                }
                outcome.compare_exits(view, workload);
            }
            let others: Vec<_> = (0..views.len()).filter(|j| *j != i).map(|j| &views[j]).collect();
            // What began before all had looked once, looks alone know less of.
            for (number, stall) in view.stalls.iter().enumerate() {
                if stall.since >= rounds.begin() {
                    let tolerances = view.tolerances(number, rounds);
                    outcome.compare(view, stall, tolerances, &others, (rounds, workload));
                    outcome.compare_end(view, stall, tolerances, workload);
                }
            }
        }
        outcome
    }

    fn compare(
        &mut self,
        view: &View<'_>,
        stall: &Stall,
        tolerances: (Duration, Duration),
        others: &[&View<'_>],
        (rounds, workload): (&Rounds, &Workload),
    ) {
        let tolerance = tolerances.0.max(tolerances.1);
        if stall.lasted() <= COUNTS + tolerance {
            return;
        }
        let is_for_tracers = workload.is_for_tracers(stall.writer);
        let (from, to) = (stall.since.before(tolerance), stall.until.after(tolerance));
        // A signal makes a socket's writer use room that was made long before, in the middle of its call, and
        // return from it. A tracer of functions takes that for a drained byte, if it sees the return.
        let is_signalled = is_for_tracers && workload.was_signalled(stall.writer, from, to);
        let is_by_function = |view: &View<'_>| view.eye.tracer().is_by_function();
        let follows = |view: &View<'_>| !is_for_tracers || view.eye.tracer() != Tracer::Scan;
        let mut agreed = 0;
        for other in others.iter().filter(|other| follows(view) && follows(other)) {
            if [view, other]
                .into_iter()
                .any(|view| view.is_cut(stall, tolerance, rounds, workload))
                || is_signalled && (is_by_function(view) || is_by_function(other))
            {
                self.cut += 1;
                continue;
            }
            self.compared += 1;
            if other.has(stall, tolerances, rounds) {
                agreed += 1;
            } else {
                let shown = self.differences.len() < SHOWN;
                self.differences
                    .push(view.difference(stall, other, tolerances, shown.then_some(workload)));
            }
        }
        if agreed > 0 {
            self.tolerances.push(tolerance);
            let key = (view.eye.name().to_owned(), channel_name(stall.channel.kind));
            if let Some(traced) = self.traced.get_mut(&key).filter(|_| stall.traced) {
                *traced += 1;
            }
        }
    }

    /// Holds the end of a stall against what was done: only a reader ends it, whatever signals come, on all
    /// channels for who sees each sleep, else on those whose tokens do not come back.
    fn compare_end(
        &mut self,
        view: &View<'_>,
        stall: &Stall,
        (_, tolerance): (Duration, Duration),
        workload: &Workload,
    ) {
        let knows = view.eye.tracer() == Tracer::Sched || stall.channel.kind != ChannelKind::Unix;
        if !knows || stall.ended != Some(Ended::Drained) {
            return;
        }
        let from = stall.until.before(tolerance + TAKING * wait::slowness());
        if !workload.was_drained(stall.writer, from, stall.until.after(tolerance)) {
            let told = workload.told_of(|pid| pid == stall.writer.process.tgid);
            let name = view.eye.name();
            let trace = view.eye.trace(stall.writer, from, stall.until.after(tolerance));
            self.differences.push(format!(
                "nobody drained what {name} says was: {stall}\n{told}{trace}"
            ));
        }
    }

    /// Holds a tracer's notes of exits against what was done: one for each writer that was made to exit. When
    /// it came is compared with the stall that it ended.
    fn compare_exits(&mut self, view: &View<'_>, workload: &Workload) {
        let name = view.eye.name();
        let losses = view.eye.lost();
        if losses != Losses::default() {
            self.differences
                .push(format!("{name} has lost something: {losses:?}\n"));
        }
        let mut noted = BTreeSet::new();
        for (writer, at) in view.eye.exits() {
            let pid = writer.process.tgid;
            let is_due = workload.ends.get(&pid).is_some_and(|ordered| ordered <= at);
            let mut its = view
                .stalls
                .iter()
                .filter(|stall| stall.writer.process.tgid == pid);
            if !noted.insert(pid) || !is_due || !its.all(|stall| stall.writer == *writer) {
                let told = workload.told_of(|its| its == pid);
                self.differences.push(format!(
                    "{name} noted an exit of {writer:?} by {:.4}, again, too early or of another\n{told}",
                    seconds(*at)
                ));
            }
        }
        for pid in workload.ends.keys().filter(|pid| !noted.contains(pid)) {
            let told = workload.told_of(|its| its == *pid);
            self.differences
                .push(format!("{name} did not note the exit of {pid}\n{told}"));
        }
    }

    /// Tells what they do not agree on, and what a tracer has not done its part of.
    pub(crate) fn differences(&self) -> String {
        let mut text = String::new();
        for ((name, kind), traced) in self.traced.iter().filter(|(_, traced)| **traced < TRACED) {
            let _ = writeln!(
                text,
                "{name} itself told of {traced} stalls on a {kind} when they began"
            );
        }
        text + &self.differences.concat()
    }

    /// Tells what is missing for all this to say something.
    pub(crate) fn shortcomings(&self) -> String {
        let usual = self.usual_tolerance();
        if self.compared < COMPARED || self.ends < HAPPENED || self.signals < HAPPENED {
            "too little has happened\n".to_owned()
        } else if usual > USUAL_TOLERANCE * wait::slowness() {
            format!("half of all times are told to {usual:?} or worse\n")
        } else {
            String::new()
        }
    }

    /// What half of all compared stalls are told apart by at most.
    fn usual_tolerance(&self) -> Duration {
        let mut all = self.tolerances.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// Tells on one line what was compared, and how closely.
    pub(crate) fn summary(&self) -> String {
        let longest = self.tolerances.iter().max().copied().unwrap_or_default();
        let mut text = format!(
            "{} comparisons, {} left out, {} exits, {} signals, half within {:.0?}, all within {longest:.0?}; \
             when a stall began was told by",
            self.compared,
            self.cut,
            self.ends,
            self.signals,
            self.usual_tolerance()
        );
        for ((name, kind), traced) in &self.traced {
            let _ = write!(text, " {name} on {kind} {traced},");
        }
        text
    }
}

impl View<'_> {
    /// Whether it saw this stall of another's, as exactly as both of them can tell. Its own doubt counts where a
    /// busy machine had time for few looks only: no stall that is compared can have been missed among so few.
    fn has(&self, stall: &Stall, (begin, end): (Duration, Duration), rounds: &Rounds) -> bool {
        let doubt = |(from, to): (Mono, Mono)| {
            if rounds.within(from, to) <= FEW {
                rounds.tolerance(from, to)
            } else {
                Duration::ZERO
            }
        };
        let its = self.stalls.iter().enumerate();
        its.filter(|(_, its)| its.writer == stall.writer)
            .any(|(number, its)| {
                let (before, after) = self.gaps(number);
                stall.agrees_with(its, (begin.max(doubt(before)), end.max(doubt(after))))
            })
    }

    /// How exactly it is known when a stall began, and when it ended.
    fn tolerances(&self, number: usize, rounds: &Rounds) -> (Duration, Duration) {
        let (before, after) = self.gaps(number);
        (
            rounds.tolerance(before.0, before.1),
            rounds.tolerance(after.0, after.1),
        )
    }

    /// Between which looks a stall began, and between which it ended: those that showed it, and those that showed
    /// the one before and the one after.
    fn gaps(&self, number: usize) -> ((Mono, Mono), (Mono, Mono)) {
        let Stall {
            writer, first, until, ..
        } = self.stalls[number];
        let its = |number: usize| self.stalls.get(number).filter(|stall| stall.writer == writer);
        let before = number
            .checked_sub(1)
            .and_then(its)
            .map_or(first, |stall| stall.until);
        let after = its(number + 1).map_or(until, |stall| stall.first);
        ((before, first), (until, after))
    }

    /// Whether the observer took the writer for gone in the time of a stall when it was only stopped, or was
    /// awake at each of the few looks that a busy machine had time for: what is known of it after that is
    /// another for each way to follow writers.
    fn is_cut(&self, stall: &Stall, tolerance: Duration, rounds: &Rounds, workload: &Workload) -> bool {
        let its: Vec<_> = self
            .stalls
            .iter()
            .filter(|its| its.writer == stall.writer)
            .collect();
        let gone = |(i, left): (usize, &&Stall)| {
            let back = its.get(i + 1).map_or(Mono::NEVER, |next| next.first);
            (left.ended == Some(Ended::Left)).then_some((left.until, back))
        };
        its.iter().enumerate().filter_map(gone).any(|(from, to)| {
            let overlaps =
                |begin: Mono, end: Mono| begin <= to.after(tolerance) && from <= end.after(tolerance);
            let pid = stall.writer.process.tgid;
            let mut stops = workload.stops.iter().filter(|stop| stop.pid == pid);
            let is_short = rounds.within(from, to) <= FEW;
            overlaps(stall.since, stall.until) && (is_short || stops.any(|stop| overlaps(stop.from, stop.to)))
        })
    }

    /// Says that another does not have a stall, what it has instead, and all that is known of the
    /// writer if the workload is given.
    fn difference(
        &self,
        stall: &Stall,
        other: &View<'_>,
        tolerances: (Duration, Duration),
        workload: Option<&Workload>,
    ) -> String {
        const AROUND: Duration = Duration::from_millis(200);
        let Stall {
            writer, since, until, ..
        } = *stall;
        let (one, another) = (self.eye.name(), other.eye.name());
        let mut text = format!("{another} does not have {one}'s {stall}, within {tolerances:?}");
        let Some(workload) = workload else {
            return text + "\n";
        };
        text.push_str("; it has\n");
        let (from, to) = (since.before(AROUND), until.after(AROUND));
        let near = |its: &&Stall| its.writer == writer && its.until >= from && its.first <= to;
        for its in other.stalls.iter().filter(near) {
            let _ = writeln!(text, "        {its}");
        }
        text.push_str("    what was done to the writer:\n");
        text.push_str(&workload.told_of(|pid| pid == writer.process.tgid));
        text.push_str("    what was seen of it then:\n");
        text + &self.eye.trace(writer, from, to) + &other.eye.trace(writer, from, to)
    }
}
