//! The ways to follow writers, and the programs that each attaches.

use std::fmt;

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{FEntry, FExit, KProbe, Program, ProgramError},
};

use super::{
    ProbeError,
    load::{attach_tracepoint, refused},
};
use crate::probe::{
    layout::{Layout, WRITE_FUNCTIONS},
    symbols::functions_among,
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

    /// Loads its programs and attaches them, for as long as the object lives.
    pub(super) fn attach(self, ebpf: &mut Ebpf, btf: &AyaBtf, layout: &Layout) -> Result<(), ProbeError> {
        match self {
            Self::Sched => ["sched_switch", "sched_process_exit"]
                .into_iter()
                .try_for_each(|name| attach_tracepoint(ebpf, name, btf))
                .map_err(|e| refused("the tracer (tp_btf)", &e)),
            Self::Fentry => functions(&layout.write_functions)?
                .into_iter()
                .try_for_each(|(kind, function)| fentry(ebpf, btf, kind, function))
                .and_then(|()| attach_tracepoint(ebpf, "sched_process_exit", btf))
                .map_err(|e| refused("the tracer (fentry)", &e)),
            Self::Kprobe => functions(&symbols(layout))?
                .into_iter()
                .try_for_each(|(kind, function)| {
                    kprobe(ebpf, &format!("{kind}_probe"), function)?;
                    kprobe(ebpf, &format!("{kind}_return"), function)
                })
                .and_then(|()| kprobe(ebpf, "thread_exit", "do_exit"))
                .map_err(|e| refused("the tracer (kprobe)", &e)),
            Self::Scan => Ok(()),
        }
    }
}

impl fmt::Display for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The functions to attach to, and the programs that are for their kind.
fn functions(known: &[&'static str]) -> Result<Vec<(&'static str, &'static str)>, ProbeError> {
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

/// What breakpoints can be set on. The types leave out what the compiler has changed, and what is in a module.
fn symbols(layout: &Layout) -> Vec<&'static str> {
    functions_among(&WRITE_FUNCTIONS).unwrap_or_else(|_| layout.write_functions.clone())
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
