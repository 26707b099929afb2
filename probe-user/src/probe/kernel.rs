//! Loads the kernel programs and turns their records into looks and notes.
//!
//! It knows the object's maps and programs by name, and nothing of rules.

mod decode;
mod load;
pub mod tracer;
pub mod trial;
pub mod written;

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::Iter,
};
use aya_log::EbpfLogger;
use probe_ebpf::{
    histogram,
    pattern::CommFilter,
    record::{self, DecodeError, KIND_EXITED},
};

use self::{
    decode::{Clocks, decode},
    load::{Prepared, create, load_iter, prepare, refused},
    tracer::Tracer,
};
use super::layout::LayoutError;
use crate::core::{
    machine::Note,
    model::{Look, Process, WriterId},
};

/// Where kernels show their type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What to load, and for whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel's type information.
    pub btf: PathBuf,
    /// Which commands to look at.
    pub filter: CommFilter,
    /// Whether the programs log what they see.
    pub kernel_log: bool,
    /// How to follow writers, for whoever does; `None` takes the first that the kernel allows.
    pub tracer: Option<Tracer>,
    /// Whether each call that writes is counted; it takes a tracer of functions.
    pub trace_writes: bool,
}

/// Why the kernel side cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no type information.
    #[error(
        "no kernel type information at {path}: {error}; pipestall needs a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// The type information does not serve.
    #[error("{path}: {error}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: LayoutError,
    },
    /// The process lacks the privilege.
    #[error("loading BPF programs takes root, or CAP_BPF and CAP_PERFMON; this process lacks {0}")]
    NoPrivilege(&'static str),
    /// The kernel turned a program down.
    #[error("the kernel refuses {what}: {error}")]
    Refused {
        /// The program, or the object.
        what: &'static str,
        /// Its answer.
        error: String,
    },
    /// Reading what a program wrote failed.
    #[error("reading {what} failed: {error}")]
    Read {
        /// The program's output.
        what: &'static str,
        /// What happened.
        error: io::Error,
    },
    /// The program wrote what this version does not know.
    #[error("the kernel object does not fit this program: {0}; rebuild both together")]
    Mismatch(&'static str),
}

impl ProbeError {
    /// Whether more privileges would help.
    #[must_use]
    pub const fn is_privilege(&self) -> bool {
        matches!(self, Self::NoPrivilege(_))
    }
}

/// The kernel side: the scanner, and the tracer where it is attached.
pub struct Kernel {
    ebpf: Ebpf,
    tracer: Tracer,
    clocks: Clocks,
    buffer: Vec<u8>,
}

impl Kernel {
    /// Loads the scanner alone.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn scanner(options: &Options) -> Result<Self, ProbeError> {
        Self::load(&prepare(&options.btf)?, options, Tracer::Scan, None)
    }

    /// Loads the scanner and attaches the tracer that the options name, or the first of all that the
    /// kernel takes. Stalls of at least `notify_after` are noted when their writer wakes.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn tracer(options: &Options, notify_after: Duration) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        let load = |tracer| Self::load(&prepared, options, tracer, Some(notify_after));
        if let Some(chosen) = options.tracer {
            return load(chosen);
        }
        let candidates = if options.trace_writes {
            &[Tracer::Fentry, Tracer::Kprobe][..]
        } else {
            &Tracer::ALL[..]
        };
        let (last, others) = candidates.split_last().unwrap_or((&Tracer::Scan, &[]));
        for tracer in others {
            match load(*tracer) {
                Err(ProbeError::Refused { what, error }) => {
                    log::warn!("not tracing by {tracer}: the kernel refuses {what}: {error}");
                }
                done => return done,
            }
        }
        load(*last)
    }

    fn load(
        prepared: &Prepared,
        options: &Options,
        tracer: Tracer,
        notify_after: Option<Duration>,
    ) -> Result<Self, ProbeError> {
        let mut ebpf = create(prepared, options, tracer, notify_after)?;
        load_iter(&mut ebpf, &prepared.btf).map_err(|e| refused("the scanner (iter/task)", &e))?;
        tracer.attach(&mut ebpf, &prepared.btf, &prepared.layout)?;
        Ok(Self {
            ebpf,
            tracer,
            clocks: Clocks::default(),
            buffer: Vec::new(),
        })
    }

    /// How writers are followed.
    #[must_use]
    pub const fn traced_by(&self) -> Tracer {
        self.tracer
    }

    /// Walks all tasks once.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn look(&mut self) -> Result<(Look, Observer), ProbeError> {
        let mut file = self.open_iterator()?;
        self.buffer.clear();
        read_all(&mut file, &mut self.buffer).map_err(|error| ProbeError::Read {
            what: "the scanner",
            error,
        })?;
        decode(&self.buffer, self.tracer != Tracer::Scan, &mut self.clocks)
    }

    /// The ring buffer of the tracer's notes; there is one, once.
    pub fn take_notes(&mut self) -> Option<Notes> {
        Some(Notes(RingBuf::try_from(self.ebpf.take_map("NOTES")?).ok()?))
    }

    /// What the kernel programs log, where that was asked for.
    pub fn take_log(&mut self) -> Option<EbpfLogger<&'static dyn log::Log>> {
        EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// Counts of blocked intervals for each slot of the histogram, over all CPUs.
    #[must_use]
    pub fn histogram(&self) -> Vec<u64> {
        self.sums("BLOCKED_NS", histogram::SLOTS)
    }

    /// What the tracer could not keep, counted: looks make up for it.
    #[must_use]
    pub fn lost(&self) -> Losses {
        let counts = self.sums("LOSSES", 2);
        Losses {
            notes: counts[0],
            entries: counts[1],
        }
    }

    fn sums(&self, map: &str, len: u32) -> Vec<u64> {
        let counters = self
            .ebpf
            .map(map)
            .and_then(|map| PerCpuArray::<_, u64>::try_from(map).ok());
        let sum = |i| {
            counters
                .as_ref()
                .and_then(|c| c.get(&i, 0).ok())
                .map_or(0, |cpus| cpus.iter().sum())
        };
        (0..len).map(sum).collect()
    }

    fn open_iterator(&mut self) -> Result<File, ProbeError> {
        let refused = |error: &dyn std::fmt::Display| ProbeError::Refused {
            what: "an iterator over its tasks",
            error: error.to_string(),
        };
        let program: &mut Iter = self
            .ebpf
            .program_mut("scan")
            .and_then(|program| program.try_into().ok())
            .ok_or(ProbeError::Mismatch("no scanner in it"))?;
        let link = program.attach().map_err(|e| refused(&e))?;
        let link = program.take_link(link).map_err(|e| refused(&e))?;
        link.into_file().map_err(|e| refused(&e))
    }
}

/// What the tracer could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Notes, to a full ring buffer.
    pub notes: u64,
    /// Writers, to a full table: they are known by looks alone.
    pub entries: u64,
}

/// The process that looked, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observer {
    /// Its pid in the kernel's initial namespace.
    pub tgid: u32,
}

/// The tracer's notes.
pub struct Notes(RingBuf<MapData>);

impl AsRawFd for Notes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Notes {
    /// The next note that has arrived.
    ///
    /// # Errors
    /// The bytes are no note of this version's.
    pub fn next_note(&mut self) -> Result<Option<Note>, ProbeError> {
        let Some(item) = self.0.next() else {
            return Ok(None);
        };
        let note = record::Note::from_bytes(&item).map_err(mismatch)?;
        let writer = WriterId {
            tid: note.pid,
            process: Process {
                tgid: note.tgid,
                start: note.start,
            },
        };
        Ok(Some(if note.kind == KIND_EXITED {
            Note::Exited(writer)
        } else {
            Note::Woke(writer)
        }))
    }
}

/// Reads an iterator to its end.
fn read_all(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<()> {
    // The kernel fills at most eight pages a read (kernel/bpf/bpf_iter.c).
    const STEP: usize = 32 * 1024;
    loop {
        let filled = buffer.len();
        buffer.resize(filled + STEP, 0);
        match file.read(&mut buffer[filled..]) {
            Ok(0) => {
                buffer.truncate(filled);
                return Ok(());
            }
            Ok(n) => buffer.truncate(filled + n),
            // "No record in the last million tasks" is no end.
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                buffer.truncate(filled);
            }
            Err(e) => {
                buffer.truncate(filled);
                return Err(e);
            }
        }
    }
}

/// What bytes that are no record say about the object.
fn mismatch(error: DecodeError) -> ProbeError {
    ProbeError::Mismatch(error.as_str())
}
