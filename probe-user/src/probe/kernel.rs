//! Loads the kernel programs and turns their records into looks and notes.
//!
//! It knows the object's maps and programs by name, and nothing of rules.

mod decode;
mod load;
pub mod trial;

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::Iter,
};
use aya_log::EbpfLogger;
use probe_ebpf::{
    histogram,
    pattern::CommFilter,
    record::{self, DecodeError, KIND_EXITED},
};

use self::{
    decode::decode,
    load::{attach_tracepoint, create, load_iter, prepare, refused},
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
    traced: bool,
    buffer: Vec<u8>,
}

impl Kernel {
    /// Loads the scanner alone.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn scanner(options: &Options) -> Result<Self, ProbeError> {
        Self::load(options, None)
    }

    /// Loads the scanner and attaches the tracer. Stalls of at least `notify_after` are
    /// noted when their writer wakes.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn tracer(options: &Options, notify_after: Duration) -> Result<Self, ProbeError> {
        Self::load(options, Some(notify_after))
    }

    fn load(options: &Options, notify_after: Option<Duration>) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        let mut ebpf = create(&prepared, options, notify_after)?;
        load_iter(&mut ebpf, &prepared.btf).map_err(|e| refused("the scanner (iter/task)", &e))?;
        if notify_after.is_some() {
            for name in ["sched_switch", "sched_process_exit"] {
                attach_tracepoint(&mut ebpf, name, &prepared.btf)
                    .map_err(|e| refused("the tracer (tp_btf)", &e))?;
            }
        }
        Ok(Self {
            ebpf,
            traced: notify_after.is_some(),
            buffer: Vec::new(),
        })
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
        decode(&self.buffer, self.traced)
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

    /// How many writers the tracer follows, and how many it can.
    #[must_use]
    pub fn tracked(&self) -> (u64, u64) {
        // The object's only variable without a value of its own.
        let followed = self
            .ebpf
            .map(".bss")
            .and_then(|map| Array::<_, u64>::try_from(map).ok())
            .and_then(|array| array.get(&0, 0).ok());
        (followed.unwrap_or(0), u64::from(probe_ebpf::MAX_TRACKED))
    }

    /// How the programs have run, where the kernel counts that (`kernel.bpf_stats_enabled`): name,
    /// runs and time. It says so of a program's descriptor (`bpf_prog_show_fdinfo`,
    /// kernel/bpf/syscall.c).
    #[must_use]
    pub fn runs(&self) -> Vec<(&'static str, u64, Duration)> {
        let run = |name: &'static str| {
            let fd = self.ebpf.program(name)?.fd().ok()?.as_fd().as_raw_fd();
            let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let field = |key: &str| -> Option<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse().ok()
            };
            let count = field("run_cnt:").filter(|count| *count > 0)?;
            Some((name, count, Duration::from_nanos(field("run_time_ns:")?)))
        };
        ["scan", "sched_switch", "sched_process_exit"]
            .into_iter()
            .filter_map(run)
            .collect()
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
