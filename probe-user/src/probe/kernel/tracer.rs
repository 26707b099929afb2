//! The ways to follow writers, and the programs that each attaches.

use std::fmt;

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{FEntry, FExit, KProbe, Program, ProgramError},
};
use probe_ebpf::fields::User;

use super::{
    ProbeError,
    load::{Prepared, attach_tracepoint, lacking, refused},
};
use crate::{
    core::model::{ChannelKind, channel_name},
    probe::layout::Layout,
};

/// A way to follow writers between looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tracer {
    /// By their sleeps: `sched_switch`.
    Sched,
    /// By the entry and exit of the functions that write, through trampolines.
    Fentry,
    /// By the same, through breakpoints.
    Kprobe,
    /// Not at all: looks alone.
    Scan,
}

impl Tracer {
    /// In the order of preference: what costs the least first, of what shows the most.
    pub const ALL: [Self; 4] = [Self::Sched, Self::Fentry, Self::Kprobe, Self::Scan];

    /// Its name in options and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sched => "sched",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Scan => "scan",
        }
    }

    /// Whether it sees calls of functions, and not each sleep.
    #[must_use]
    pub const fn is_by_function(self) -> bool {
        match self {
            Self::Fentry | Self::Kprobe => true,
            Self::Sched | Self::Scan => false,
        }
    }

    /// Whether it tells time asleep from time spent copying.
    pub(super) const fn counts_blocked(self) -> bool {
        matches!(self, Self::Sched)
    }

    /// In the order that they are tried in: one that does not see all channels comes after those that do.
    pub(super) fn in_order(prepared: &Prepared) -> impl Iterator<Item = Self> {
        let followers = || Self::ALL.into_iter().filter(|tracer| *tracer != Self::Scan);
        let sees_all = move |tracer: &Self| tracer.gap(prepared).is_none();
        followers()
            .filter(sees_all)
            .chain(followers().filter(move |tracer| !sees_all(tracer)))
            .chain([Self::Scan])
    }

    /// What it does not see of channels, for want of a function to attach to.
    pub(super) fn gap(self, prepared: &Prepared) -> Option<String> {
        let known = self.functions(prepared)?;
        let unseen: Vec<_> = [ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix]
            .into_iter()
            .filter(|kind| !known.iter().any(|function| writes_to(function, *kind)))
            .map(channel_name)
            .collect();
        (!unseen.is_empty()).then(|| {
            format!(
                "{self} finds no function that writes to {}: such writers may be followed by looks alone",
                unseen.join(", ")
            )
        })
    }

    /// The functions that it can attach to; none if it takes none.
    fn functions(self, prepared: &Prepared) -> Option<&[&'static str]> {
        match self {
            Self::Fentry => Some(&prepared.layout.write_functions),
            Self::Kprobe => Some(prepared.symbols()),
            Self::Sched | Self::Scan => None,
        }
    }

    /// Whether the kernel's types have what its programs need.
    ///
    /// # Errors
    /// What they lack.
    pub(super) fn is_served(self, layout: &Layout) -> Result<(), ProbeError> {
        let served = match self {
            Self::Sched => layout.switch_has_prev_state.clone().map(|_| ()),
            Self::Fentry | Self::Kprobe => layout.serves(User::Functions),
            Self::Scan => Ok(()),
        };
        served.map_err(|lack| lacking(self.what(), &lack))
    }

    /// Loads its programs and attaches them, for as long as the object lives.
    pub(super) fn attach(self, ebpf: &mut Ebpf, prepared: &Prepared) -> Result<(), ProbeError> {
        let btf = &prepared.btf;
        let functions = self.functions(prepared).map(to_attach).transpose()?;
        let mut functions = functions.unwrap_or_default().into_iter();
        let attached = match self {
            Self::Sched => ["sched_switch", "sched_process_exit"]
                .into_iter()
                .try_for_each(|name| attach_tracepoint(ebpf, name, btf)),
            Self::Fentry => functions
                .try_for_each(|(kind, function)| fentry(ebpf, btf, kind, function))
                .and_then(|()| attach_tracepoint(ebpf, "sched_process_exit", btf)),
            Self::Kprobe => functions
                .try_for_each(|(kind, function)| {
                    kprobe(ebpf, &format!("{kind}_probe"), function)?;
                    kprobe(ebpf, &format!("{kind}_return"), function)
                })
                .and_then(|()| kprobe(ebpf, "thread_exit", "do_exit")),
            Self::Scan => Ok(()),
        };
        attached.map_err(|e| refused(self.what(), &e))
    }

    /// Its name in refusals.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Sched => "the tracer (tp_btf)",
            Self::Fentry => "the tracer (fentry)",
            Self::Kprobe => "the tracer (kprobe)",
            Self::Scan => "the scanner (iter/task)",
        }
    }
}

impl fmt::Display for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether what is written to channels of a kind goes through a function.
fn writes_to(function: &str, kind: ChannelKind) -> bool {
    match kind {
        ChannelKind::Pipe => matches!(function, "pipe_write" | "anon_pipe_write"),
        ChannelKind::Fifo => matches!(function, "pipe_write" | "fifo_pipe_write"),
        ChannelKind::Unix => function == "unix_stream_sendmsg",
    }
}

/// The functions to attach to, and the programs that are for their kind.
fn to_attach(known: &[&'static str]) -> Result<Vec<(&'static str, &'static str)>, ProbeError> {
    let found: Vec<_> = known
        .iter()
        .map(|function| match *function {
            "fifo_pipe_write" => ("fifo", *function),
            "unix_stream_sendmsg" => ("unix", *function),
            _ => ("pipe", *function),
        })
        .collect();
    if found.iter().any(|(kind, _)| *kind == "pipe") {
        Ok(found)
    } else {
        Err(ProbeError::Refused {
            what: "a tracer of functions",
            error: "neither its types nor its symbols have pipe_write".to_owned(),
        })
    }
}

fn fentry(ebpf: &mut Ebpf, btf: &AyaBtf, kind: &str, function: &str) -> Result<(), ProgramError> {
    let entry: &mut FEntry = find(ebpf, &format!("{kind}_entry"))?;
    entry.load(function, btf)?;
    entry.attach()?;
    let exit: &mut FExit = find(ebpf, &format!("{kind}_exit"))?;
    exit.load(function, btf)?;
    exit.attach().map(|_| ())
}

fn kprobe(ebpf: &mut Ebpf, name: &str, function: &str) -> Result<(), ProgramError> {
    let program: &mut KProbe = find(ebpf, name)?;
    program.load()?;
    program.attach(function, 0).map(|_| ())
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}
