//! Tries whether the kernel takes a program, for `pipestall doctor`. Nothing stays attached.

use std::time::Duration;

use super::{
    Options, ProbeError, SCANNER,
    load::{Prepared, create, load_iter, prepare, refused},
    tracer::Tracer,
};
use crate::probe::layout::Layout;

/// What programs are loaded with.
pub struct Trial {
    options: Options,
    prepared: Prepared,
}

impl Trial {
    /// Creates the object's maps, without any program.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn new(options: &Options) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        create(&prepared, options, Tracer::Scan, None)?;
        Ok(Self {
            options: options.clone(),
            prepared,
        })
    }

    /// The kernel's layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.prepared.layout
    }

    /// The scanner alone, or a way to follow writers alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attempt(&self, tracer: Tracer) -> Result<(), ProbeError> {
        let Prepared { layout, btf } = &self.prepared;
        let mut ebpf = create(&self.prepared, &self.options, tracer, Some(Duration::MAX))?;
        match tracer {
            Tracer::Scan => {
                load_iter(&mut ebpf, SCANNER, "task", btf).map_err(|e| refused("task iterators", &e))
            }
            Tracer::Sched | Tracer::Fentry | Tracer::Kprobe => tracer.attach(&mut ebpf, btf, layout),
        }
    }
}
