//! Creates the object's maps with the running kernel's constants, and loads its programs.

use std::{cell::OnceCell, io, path::Path, time::Duration};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfError, EbpfLoader, Endianness, Pod,
    programs::{BtfTracePoint, Iter, ProgramError},
};
use probe_ebpf::{MAX_TRACKED, MAX_WRITTEN, fields::User, pattern::CommFilter};

use super::{FILE_WALK, Options, ProbeError, tracer::Tracer};
use crate::probe::{
    btf::Btf,
    layout::{Layout, LayoutError, WRITE_FUNCTIONS},
    symbols::functions_among,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pipestall-probe"));

/// The fixed parts of what every load needs.
pub(super) struct Prepared {
    pub(super) layout: Layout,
    pub(super) btf: AyaBtf,
    symbols: OnceCell<Vec<&'static str>>,
}

impl Prepared {
    /// What breakpoints can be set on. The types leave out what the compiler has changed, and what is in a module.
    pub(super) fn symbols(&self) -> &[&'static str] {
        self.symbols.get_or_init(|| {
            functions_among(&WRITE_FUNCTIONS).unwrap_or_else(|_| self.layout.write_functions.clone())
        })
    }
}

pub(super) fn prepare(path: &Path) -> Result<Prepared, ProbeError> {
    check_privilege()?;
    let bytes = std::fs::read(path).map_err(|error| ProbeError::NoBtf {
        path: path.to_owned(),
        error,
    })?;
    let useless = |error| ProbeError::Layout {
        path: path.to_owned(),
        error,
    };
    let types = Btf::parse(&bytes).map_err(|error| useless(error.into()))?;
    let layout = Layout::resolve(&types).map_err(useless)?;
    let btf = AyaBtf::parse(&bytes, Endianness::default()).map_err(|error| ProbeError::Refused {
        what: "its type information",
        error: error.to_string(),
    })?;
    Ok(Prepared {
        layout,
        btf,
        symbols: OnceCell::new(),
    })
}

/// A refusal by the kernel says little; what is missing is better named beforehand.
fn check_privilege() -> Result<(), ProbeError> {
    use rustix::thread::CapabilitySet as Set;
    let held = rustix::thread::capabilities(None).map_or(Set::empty(), |sets| sets.effective);
    if held.contains(Set::SYS_ADMIN) {
        return Ok(());
    }
    for (set, name) in [(Set::BPF, "CAP_BPF"), (Set::PERFMON, "CAP_PERFMON")] {
        if !held.contains(set) {
            return Err(ProbeError::NoPrivilege(name));
        }
    }
    Ok(())
}

/// Creates objects, one after the other. There is one for all that are tried: aya's loader reads all of the kernel's
/// types when it is made, whether it is given others or not.
pub(super) struct Creator<'a> {
    pub(super) prepared: &'a Prepared,
    loader: EbpfLoader<'a>,
}

impl<'a> Creator<'a> {
    pub(super) fn new(prepared: &'a Prepared) -> Self {
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&prepared.btf));
        Self { prepared, loader }
    }

    /// Creates an object's maps and fills in its constants; none of its programs is loaded yet.
    pub(super) fn create(&mut self, constants: &'a Constants) -> Result<Ebpf, ProbeError> {
        // First: the scanner, too, reads what a tracer of functions goes by.
        constants.tracer.is_served(&self.prepared.layout)?;
        // Before 5.11 maps count against this limit; raising it may fail where it does not matter.
        let no_limit = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, no_limit);
        self.loader
            .override_global("AYA_LOG_LEVEL", &constants.log_level, true)
            .override_global("SELF_TGID", &constants.tool, true)
            .override_global("COMM_FILTER", &constants.filter, true);
        for (symbol, value) in &constants.words {
            self.loader.override_global(symbol, value, true);
        }
        for (map, size) in constants.sizes {
            self.loader.map_max_entries(map, size);
        }
        self.loader.load(OBJECT).map_err(|error| refused_load(&error))
    }
}

/// What an object is created with, so that it serves a tracer.
pub(super) struct Constants {
    pub(super) tracer: Tracer,
    log_level: u8,
    tool: u32,
    filter: Filter,
    words: Vec<(&'static str, u64)>,
    sizes: [(&'static str, u32); 4],
}

impl Constants {
    /// For looks alone.
    pub(super) fn of_looks(prepared: &Prepared, options: &Options) -> Self {
        Self::of(prepared, options, Tracer::Scan, None, std::process::id())
    }

    /// Stalls of at least `notify_after` are noted when their writer wakes; `tool` is this process as the kernel
    /// numbers it.
    pub(super) fn of(
        prepared: &Prepared,
        options: &Options,
        tracer: Tracer,
        notify_after: Option<Duration>,
        tool: u32,
    ) -> Self {
        let layout = &prepared.layout;
        let is_traced = tracer != Tracer::Scan;
        let counts = options.count_blocked && tracer.counts_blocked();
        let notify_after_ns = notify_after.map_or(u64::MAX, |wait| {
            u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
        });
        let mut words = vec![
            ("ADOPT", u64::from(is_traced)),
            ("COUNT_BLOCKED", u64::from(counts)),
            ("TRACE_WRITES", u64::from(options.trace_writes)),
            ("BY_FUNCTION", u64::from(tracer.is_by_function())),
            ("HAS_TASK_PT_REGS", u64::from(layout.has_task_pt_regs)),
            ("STACK_SIZE", stack_size()),
            // Where nobody can tell, no program that asks is loaded.
            (
                "SWITCH_HAS_PREV_STATE",
                u64::from(layout.switch_has_prev_state == Ok(true)),
            ),
            ("NOTIFY_AFTER_NS", notify_after_ns),
        ];
        words.extend(layout.constants());
        let sized = |map, size, is_used: bool| (map, if is_used { size } else { 1 });
        Self {
            tracer,
            log_level: u8::from(options.kernel_log) * LOG_DEBUG,
            tool,
            filter: Filter(options.filter),
            words,
            sizes: [
                sized("CALLS", MAX_TRACKED, options.trace_writes),
                sized("WRITTEN", MAX_WRITTEN, options.trace_writes),
                sized("TRACKED", MAX_TRACKED, is_traced),
                sized("PAST", MAX_TRACKED, counts),
            ],
        }
    }
}

/// `THREAD_SIZE`: a page at least on aarch64 (`arch/arm64/include/asm/memory.h`), where pages may be of 64 KiB,
/// and 16 KiB on x86-64 (`arch/x86/include/asm/page_64_types.h`). Kernels built with KASAN have more.
fn stack_size() -> u64 {
    const LEAST: usize = 16 << 10;
    LEAST.max(rustix::param::page_size()) as u64
}

/// aya-log's number for its debug level.
const LOG_DEBUG: u8 = 4;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Filter(CommFilter);

// SAFETY: the filter is `repr(C)` and all of its words are integers, without padding.
unsafe impl Pod for Filter {}

pub(super) fn load_iter(ebpf: &mut Ebpf, name: &str, over: &str, btf: &AyaBtf) -> Result<(), ProgramError> {
    let program: &mut Iter = ebpf
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load(over, btf)
}

pub(super) fn load_walk(ebpf: &mut Ebpf, prepared: &Prepared) -> Result<(), ProbeError> {
    const WHAT: &str = "the walk over open files (iter/task_file)";
    prepared
        .layout
        .serves(User::Walk)
        .map_err(|lack| lacking(WHAT, &lack))?;
    load_iter(ebpf, FILE_WALK, "task_file", &prepared.btf).map_err(|e| refused(WHAT, &e))
}

pub(super) fn attach_tracepoint(ebpf: &mut Ebpf, name: &str, btf: &AyaBtf) -> Result<(), ProgramError> {
    let program: &mut BtfTracePoint = ebpf
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load(name, btf)?;
    program.attach().map(|_| ())
}

/// Gives back to the kernel what reading the type information took: a dozen megabytes that the
/// allocator would keep for as long as the program runs.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A program that the kernel's types do not serve.
pub(super) fn lacking(what: &'static str, lack: &LayoutError) -> ProbeError {
    ProbeError::Refused {
        what,
        error: lack.to_string(),
    }
}

pub(super) fn refused(what: &'static str, error: &ProgramError) -> ProbeError {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return ProbeError::Refused {
            what,
            error: chain(error),
        };
    };
    // The log can be pages long: its end has the reason.
    let log = verifier_log.to_string();
    let mut tail: Vec<_> = log.lines().rev().take(12).collect();
    tail.reverse();
    let error = match tail[..] {
        [] => io_error.to_string(),
        _ => format!("{io_error}; the verifier says:\n{}", tail.join("\n")),
    };
    ProbeError::Refused { what, error }
}

fn refused_load(error: &EbpfError) -> ProbeError {
    // Creating a map takes nothing but the privilege, which root in a user namespace lacks.
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
        {
            return ProbeError::NoPrivilege("them over the machine: it may be root in a user namespace only");
        }
        cause = error.source();
    }
    ProbeError::Refused {
        what: "the object's maps",
        error: chain(error),
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
