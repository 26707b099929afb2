//! Tries whether the kernel takes a program, for `pipestall doctor`. Nothing stays attached.

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{FEntry, KProbe, Program, ProgramError},
};

use super::{
    Options, ProbeError, SCANNER,
    load::{attach_tracepoint, create, load_iter, prepare, refused},
};
use crate::probe::layout::Layout;

/// A loaded object, and what it was loaded with.
pub struct Trial {
    ebpf: Ebpf,
    btf: AyaBtf,
    /// The kernel's layout.
    pub layout: Layout,
}

impl Trial {
    /// Creates the object's maps, without any program.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn new(options: &Options) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        let ebpf = create(&prepared, options, None)?;
        Ok(Self {
            ebpf,
            btf: prepared.btf,
            layout: prepared.layout,
        })
    }

    /// The tracer on `sched_switch` and `sched_process_exit`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sched(&mut self) -> Result<(), ProbeError> {
        for name in ["sched_switch", "sched_process_exit"] {
            attach_tracepoint(&mut self.ebpf, name, &self.btf).map_err(|e| refused("tp_btf programs", &e))?;
        }
        Ok(())
    }

    /// The scanner.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn scan(&mut self) -> Result<(), ProbeError> {
        load_iter(&mut self.ebpf, SCANNER, "task", &self.btf).map_err(|e| refused("task iterators", &e))
    }

    /// A program at the entry of a kernel function.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fentry(&mut self, function: &str) -> Result<(), ProbeError> {
        let attach = |ebpf: &mut Ebpf, btf: &AyaBtf| -> Result<(), ProgramError> {
            let program: &mut FEntry = find(ebpf, "try_fentry")?;
            program.load(function, btf)?;
            program.attach().map(|_| ())
        };
        attach(&mut self.ebpf, &self.btf).map_err(|e| refused("fentry programs", &e))
    }

    /// A probe on a kernel function.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kprobe(&mut self, function: &str) -> Result<(), ProbeError> {
        let attach = |ebpf: &mut Ebpf| -> Result<(), ProgramError> {
            let program: &mut KProbe = find(ebpf, "try_kprobe")?;
            program.load()?;
            program.attach(function, 0).map(|_| ())
        };
        attach(&mut self.ebpf).map_err(|e| refused("kprobes", &e))
    }
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}
