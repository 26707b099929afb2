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
    let layout = Btf::parse(&bytes)
        .map_err(LayoutError::from)
        .and_then(|btf| Layout::resolve(&btf))
        .map_err(|error| ProbeError::Layout {
            path: path.to_owned(),
            error,
        })?;
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

/// Creates the maps and fills in the load-time constants, of which `tool` is this process as the kernel numbers it.
pub(super) fn create(
    prepared: &Prepared,
    options: &Options,
    tracer: Tracer,
    notify_after: Option<Duration>,
    tool: u32,
) -> Result<Ebpf, ProbeError> {
    // First: the scanner, too, reads what a tracer of functions goes by.
    tracer.is_served(&prepared.layout)?;
    // Before 5.11 maps count against this limit; raising it may fail where it does not matter.
    let no_limit = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, no_limit);

    let log_level = u8::from(options.kernel_log) * LOG_DEBUG;
    let is_traced = tracer != Tracer::Scan;
    let adopt = u64::from(is_traced);
    let by_function = u64::from(tracer.is_by_function());
    let counts = options.count_blocked && tracer.counts_blocked();
    let count_blocked = u64::from(counts);
    let trace_writes = u64::from(options.trace_writes);
    // Where nobody can tell, no program that asks is loaded.
    let has_prev_state = u64::from(prepared.layout.switch_has_prev_state == Ok(true));
    let has_task_pt_regs = u64::from(prepared.layout.has_task_pt_regs);
    let stack_size = stack_size();
    let notify_after_ns = notify_after.map_or(u64::MAX, |wait| {
        u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
    });
    let filter = Filter(options.filter);
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(&prepared.btf))
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .override_global("SELF_TGID", &tool, true)
        .override_global("ADOPT", &adopt, true)
        .override_global("COUNT_BLOCKED", &count_blocked, true)
        .override_global("TRACE_WRITES", &trace_writes, true)
        .override_global("BY_FUNCTION", &by_function, true)
        .override_global("HAS_TASK_PT_REGS", &has_task_pt_regs, true)
        .override_global("STACK_SIZE", &stack_size, true)
        .override_global("SWITCH_HAS_PREV_STATE", &has_prev_state, true)
        .override_global("NOTIFY_AFTER_NS", &notify_after_ns, true)
        .override_global("COMM_FILTER", &filter, true)
        .map_max_entries("CALLS", if options.trace_writes { MAX_TRACKED } else { 1 })
        .map_max_entries("WRITTEN", if options.trace_writes { MAX_WRITTEN } else { 1 })
        .map_max_entries("TRACKED", if is_traced { MAX_TRACKED } else { 1 })
        .map_max_entries("PAST", if counts { MAX_TRACKED } else { 1 });
    for (symbol, value) in prepared.layout.constants() {
        loader.override_global(symbol, value, true);
    }
    loader.load(OBJECT).map_err(|error| refused_load(&error))
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
