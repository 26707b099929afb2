//! Loads the kernel programs and turns their records into looks and notes.
//!
//! It knows the object's maps and programs by name, and nothing of rules.

mod decode;
mod load;
mod notes;
pub mod tracer;
pub mod trial;
pub mod written;

use std::{
    error::Error,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
    programs::{Iter, Program},
};
use aya_log::EbpfLogger;
use probe_ebpf::{histogram, pattern::CommFilter, record::DecodeError};

pub use self::notes::Notes;
use self::{
    decode::{Clocks, decode},
    load::{Constants, Creator, Prepared, give_back, load_iter, load_walk, prepare, refused},
    tracer::Tracer,
};
use super::{layout::LayoutError, readers::OpenFiles};
use crate::core::model::Look;

/// Where kernels show their type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The iterators, by their names in the object.
const SCANNER: &str = "scan";
const FILE_WALK: &str = "walk_files";

/// What to load, and for whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel's type information.
    pub btf: PathBuf,
    /// Which commands to look at.
    pub filter: CommFilter,
    /// Whether the tracer counts how long each writer is blocked, across its writes.
    pub count_blocked: bool,
    /// Whether the programs log what they see.
    pub kernel_log: bool,
    /// How to follow writers, for whoever does; `None` takes the first that the kernel allows.
    pub tracer: Option<Tracer>,
    /// Whether each call that writes is counted; it takes a tracer of functions.
    pub trace_writes: bool,
}

impl Options {
    /// Nothing but the looks at these commands, on the running kernel.
    #[must_use]
    pub fn new(filter: CommFilter) -> Self {
        Self {
            btf: KERNEL_BTF.into(),
            filter,
            count_blocked: false,
            kernel_log: false,
            tracer: None,
            trace_writes: false,
        }
    }
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

    /// Whether the same may work again once there are descriptors or memory to be had.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Read { error, .. } if is_shortage(error))
    }
}

/// The kernel side: the scanner, and the tracer where it is attached.
pub struct Kernel {
    ebpf: Ebpf,
    tracer: Tracer,
    clocks: Clocks,
    traces_writes: bool,
    walks_files: bool,
    /// Whether a look has worked: whatever stops a later one, the kernel can do it.
    looked: bool,
    buffer: Vec<u8>,
}

impl Kernel {
    /// Loads the scanner alone.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn scanner(options: &Options) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        let constants = Constants::of_looks(&prepared, options);
        Self::load(&mut Creator::new(&prepared), options, &constants)
    }

    /// Loads the scanner and attaches the tracer that the options name, or the first of all that the
    /// kernel takes. Stalls of at least `notify_after` are noted when their writer wakes.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn tracer(options: &Options, notify_after: Duration) -> Result<Self, ProbeError> {
        let kernel = Self::first_that_loads(options, notify_after);
        give_back();
        kernel
    }

    fn first_that_loads(options: &Options, notify_after: Duration) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        let tool = tool(&prepared, options)?;
        let constants = |tracer| Constants::of(&prepared, options, tracer, Some(notify_after), tool);
        let mut candidates: Vec<_> = match options.tracer {
            Some(chosen) => vec![constants(chosen)],
            None => Tracer::in_order(&prepared)
                .filter(|tracer| !options.trace_writes || tracer.is_by_function())
                .map(constants)
                .collect(),
        };
        let last = candidates.pop().unwrap_or_else(|| constants(Tracer::Scan));
        let mut creator = Creator::new(&prepared);
        for candidate in &candidates {
            match Self::load(&mut creator, options, candidate) {
                Err(error @ ProbeError::Refused { .. }) => {
                    log::warn!("not tracing by {}: {error}", candidate.tracer);
                }
                done => return done,
            }
        }
        Self::load(&mut creator, options, &last)
    }

    fn load<'a>(
        creator: &mut Creator<'a>,
        options: &Options,
        constants: &'a Constants,
    ) -> Result<Self, ProbeError> {
        let mut kernel = Self::looking(creator, options, constants)?;
        let (prepared, tracer) = (creator.prepared, constants.tracer);
        // Without it `/proc` is walked: slower, and it shows less.
        match load_walk(&mut kernel.ebpf, prepared) {
            Ok(()) => kernel.walks_files = true,
            Err(error) => log::warn!("{error}; readers are looked for in /proc"),
        }
        tracer.attach(&mut kernel.ebpf, prepared)?;
        if let Some(gap) = tracer.gap(prepared) {
            log::warn!("{gap}");
        }
        if options.count_blocked && !tracer.counts_blocked() {
            log::warn!("{tracer} does not count blocked time: no rule with stalled_share will act");
        }
        Ok(kernel)
    }

    /// Loads what it takes to look, and nothing else.
    fn looking<'a>(
        creator: &mut Creator<'a>,
        options: &Options,
        constants: &'a Constants,
    ) -> Result<Self, ProbeError> {
        let mut ebpf = creator.create(constants)?;
        load_iter(&mut ebpf, SCANNER, "task", &creator.prepared.btf)
            .map_err(|e| refused(Tracer::Scan.what(), &e))?;
        Ok(Self {
            ebpf,
            tracer: constants.tracer,
            clocks: Clocks::default(),
            traces_writes: options.trace_writes,
            walks_files: false,
            looked: false,
            buffer: Vec::new(),
        })
    }

    /// Goes on with what another kernel side of this machine has learned of its clocks.
    pub const fn keep_clocks_of(&mut self, other: &Self) {
        self.clocks = other.clocks;
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
        self.read(SCANNER, "the scanner")?;
        self.looked = true;
        decode(&self.buffer, self.tracer != Tracer::Scan, &mut self.clocks)
    }

    /// Walks all open files once.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn open_files(&mut self) -> Result<OpenFiles, ProbeError> {
        if !self.walks_files {
            return Ok(OpenFiles::from_proc());
        }
        self.read(FILE_WALK, "the walk over open files")?;
        OpenFiles::from_records(&self.buffer)
    }

    fn read(&mut self, program: &str, what: &'static str) -> Result<(), ProbeError> {
        let mut file = self.open_iterator(program)?;
        self.buffer.clear();
        read_all(&mut file, &mut self.buffer).map_err(|error| ProbeError::Read { what, error })
    }

    /// The ring buffer of the tracer's notes; there is one, once.
    pub fn take_notes(&mut self) -> Option<Notes> {
        Notes::of(self.ebpf.take_map("NOTES")?)
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
    pub fn runs(&self) -> Vec<(&str, u64, Duration)> {
        let run = |name, program: &Program| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let field = |key: &str| -> Option<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse().ok()
            };
            let count = field("run_cnt:").filter(|count| *count > 0)?;
            Some((name, count, Duration::from_nanos(field("run_time_ns:")?)))
        };
        self.ebpf
            .programs()
            .filter_map(|(name, program)| run(name, program))
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

    fn open_iterator(&mut self, name: &str) -> Result<File, ProbeError> {
        let looked = self.looked;
        let refused = |error: &(dyn Error + 'static)| match io_cause(error) {
            Some(error) if looked || is_shortage(&error) => ProbeError::Read {
                what: "an iterator",
                error,
            },
            _ => ProbeError::Refused {
                what: "an iterator over its tasks or files",
                error: error.to_string(),
            },
        };
        let program: &mut Iter = self
            .ebpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(ProbeError::Mismatch("no such iterator in it"))?;
        let link = program.attach().map_err(|e| refused(&e))?;
        let link = program.take_link(link).map_err(|e| refused(&e))?;
        link.into_file().map_err(|e| refused(&e))
    }
}

/// This process as the kernel numbers it. In a pid namespace of its own that number is another, and only a look
/// tells it.
fn tool(prepared: &Prepared, options: &Options) -> Result<u32, ProbeError> {
    if has_the_kernels_pids() {
        return Ok(std::process::id());
    }
    let constants = Constants::of_looks(prepared, options);
    let mut kernel = Kernel::looking(&mut Creator::new(prepared), options, &constants)?;
    kernel.look().map(|(_, observer)| observer.tgid)
}

/// Whether this process is in the initial pid namespace, as far as `/proc` tells.
#[must_use]
pub fn has_the_kernels_pids() -> bool {
    /// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`)
    const INITIAL: &str = "pid:[4026531836]";
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == INITIAL)
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

/// The system's answer behind an error.
fn io_cause(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    None
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error)
        .is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN))
}

/// Reads an iterator to its end.
fn read_all(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match file.read_to_end(buffer) {
            // "No record in the last million tasks" (kernel/bpf/bpf_iter.c) is no end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done.map(drop),
        }
    }
}

/// What bytes that are no record say about the object.
fn mismatch(error: DecodeError) -> ProbeError {
    ProbeError::Mismatch(error.as_str())
}
