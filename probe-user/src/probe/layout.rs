//! The running kernel's layout: a value for every load-time constant of the
//! kernel object, or the name of the field that the kernel lacks, and who goes without it.

use probe_ebpf::fields::{ABSENT, FIELDS, Field, User};

use super::btf::{Btf, BtfError, Param};

/// Why the kernel's types do not serve.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The type information itself is unusable.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A field that the programs cannot do without.
    #[error(
        "this kernel has no field {of}.{path}, which pipestall reads; please report the kernel's version"
    )]
    MissingField {
        /// The struct.
        of: &'static str,
        /// The field, the name of it that is newest.
        path: &'static str,
    },
    /// A tracepoint that the types do not tell of.
    #[error("this kernel's types do not tell what sched_switch passes; please report the kernel's version")]
    NoSwitch,
    /// A tracepoint with arguments that are not known.
    #[error(
        "this kernel's sched_switch passes ({0}), which pipestall does not know; please report the kernel's version"
    )]
    UnknownSwitch(String),
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Values in the order of [`FIELDS`].
    values: Vec<u64>,
    /// Whether `sched_switch` passes the previous task's state, or why nobody can tell.
    pub switch_has_prev_state: Result<bool, LayoutError>,
    /// Whether programs can ask for a task's saved registers (5.15 on).
    pub has_task_pt_regs: bool,
    /// Which of [`WRITE_FUNCTIONS`] the types tell of.
    pub write_functions: Vec<&'static str>,
}

/// The functions that write to pipes and unix sockets: renamed in 6.15 for anonymous pipes.
pub const WRITE_FUNCTIONS: [&str; 4] = [
    "pipe_write",
    "anon_pipe_write",
    "fifo_pipe_write",
    "unix_stream_sendmsg",
];

impl Layout {
    /// Resolves every field.
    ///
    /// # Errors
    /// One that the scanner needs is missing.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, LayoutError> {
        let layout = Self {
            values: FIELDS
                .iter()
                .map(|field| value(btf, field).unwrap_or(ABSENT))
                .collect(),
            switch_has_prev_state: switch_has_prev_state(btf),
            has_task_pt_regs: btf.has_enumerator("bpf_func_id", "BPF_FUNC_task_pt_regs"),
            write_functions: btf.functions(&WRITE_FUNCTIONS),
        };
        layout.serves(User::Scanner).map(|()| layout)
    }

    /// Whether the kernel has every field that these programs need.
    ///
    /// # Errors
    /// It lacks one.
    pub fn serves(&self, user: User) -> Result<(), LayoutError> {
        let mut fields = FIELDS.iter().zip(&self.values);
        match fields.find(|(field, value)| **value == ABSENT && field.needed_by.contains(&user)) {
            Some((field, _)) => Err(LayoutError::MissingField {
                of: field.of,
                path: field.paths[0],
            }),
            None => Ok(()),
        }
    }

    /// Each constant's symbol and value.
    pub fn constants(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FIELDS.iter().map(|f| f.symbol).zip(self.values.iter().copied())
    }
}

fn value(btf: &Btf<'_>, field: &Field) -> Option<u64> {
    field.paths.iter().find_map(|path| match path.split_once('+') {
        _ if path.is_empty() => btf.size_of(field.of),
        Some((path, plus)) => Some(btf.offset_of(field.of, path)? + plus.parse::<u64>().ok()?),
        None => btf.offset_of(field.of, path),
    })
}

/// `(void *, bool preempt, struct task_struct *prev, struct task_struct *next[, unsigned int prev_state])`:
/// the first is the tracepoint's own, and the last came with 5.18.
fn switch_has_prev_state(btf: &Btf<'_>) -> Result<bool, LayoutError> {
    let params = btf
        .prototype("btf_trace_sched_switch")
        .ok_or(LayoutError::NoSwitch)?;
    let is_task = |p: &Param| matches!(p, Param::StructPtr(name) if name == "task_struct");
    match &params[..] {
        [Param::Ptr, Param::Value, prev, next] if is_task(prev) && is_task(next) => Ok(false),
        [Param::Ptr, Param::Value, prev, next, Param::Value] if is_task(prev) && is_task(next) => Ok(true),
        _ => {
            let shown: Vec<_> = params.iter().map(ToString::to_string).collect();
            Err(LayoutError::UnknownSwitch(shown.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernels_fields_are_all_found() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            println!("skipped: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        let layout = Layout::resolve(&Btf::parse(&bytes).unwrap()).unwrap();
        assert_eq!(layout.values.len(), FIELDS.len());
        for user in [User::Scanner, User::Functions, User::Walk] {
            assert_eq!(layout.serves(user), Ok(()));
        }
        assert!(layout.switch_has_prev_state.is_ok());
        // Facts that hold on every 64-bit kernel.
        let value = |symbol| layout.constants().find(|(s, _)| *s == symbol).unwrap().1;
        assert_eq!(value("PIPE_TAIL").abs_diff(value("PIPE_HEAD")), 4);
        assert_eq!(value("BUF_LEN"), value("BUF_OFFSET") + 4);
        assert!(value("TASK_START") < 1 << 16);
    }
}
