//! Tries whether the kernel takes a program, for `pipestall doctor`. Nothing stays attached.

use std::time::Duration;

use super::{
    Options, ProbeError, SCANNER,
    load::{Prepared, create, load_iter, prepare, refused},
    tracer::Tracer,
};

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
        create(&prepared, options, Tracer::Scan, None, std::process::id())?;
        Ok(Self {
            options: options.clone(),
            prepared,
        })
    }

    /// The functions that write, as far as the types tell of them.
    #[must_use]
    pub fn typed_functions(&self) -> &[&'static str] {
        &self.prepared.layout.write_functions
    }

    /// The ways to follow writers, in the order that they would be tried in.
    pub fn in_order(&self) -> impl Iterator<Item = Tracer> {
        Tracer::in_order(&self.prepared)
    }

    /// The scanner alone, or a way to follow writers alone; tells what such a tracer does not see.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attempt(&self, tracer: Tracer) -> Result<Option<String>, ProbeError> {
        let prepared = &self.prepared;
        let own = std::process::id();
        let mut ebpf = create(prepared, &self.options, tracer, Some(Duration::MAX), own)?;
        match tracer {
            Tracer::Scan => load_iter(&mut ebpf, SCANNER, "task", &prepared.btf)
                .map_err(|e| refused(Tracer::Scan.what(), &e))?,
            Tracer::Sched | Tracer::Fentry | Tracer::Kprobe => tracer.attach(&mut ebpf, prepared)?,
        }
        Ok(tracer.gap(prepared))
    }
}
