//! Tries what the kernel takes, for `pipestall doctor`. Nothing stays attached.

use super::{
    Kernel, Observer, Options, ProbeError,
    load::{Constants, Creator, prepare},
    tracer::Tracer,
};

/// What came of it.
pub struct Trial {
    /// The functions that write, as far as the types tell of them.
    pub typed_functions: Vec<&'static str>,
    /// The ways to follow writers, in the order that `auto` tries them in.
    pub attempts: Vec<Attempt>,
    /// This process as the scanner saw it, if that could look.
    pub observer: Option<Observer>,
}

/// What came of the scanner alone, or of a way to follow writers alone.
pub struct Attempt {
    /// Which.
    pub tracer: Tracer,
    /// What such a tracer does not see, or what the kernel says.
    pub outcome: Result<Option<String>, ProbeError>,
}

impl Trial {
    /// Tries each.
    ///
    /// # Errors
    /// None can be tried: see [`ProbeError`].
    pub fn run(options: &Options) -> Result<Self, ProbeError> {
        let prepared = prepare(&options.btf)?;
        let own = std::process::id();
        let all: Vec<_> = Tracer::in_order(&prepared)
            .map(|tracer| Constants::of(&prepared, options, tracer, None, own))
            .collect();
        let mut creator = Creator::new(&prepared);
        let mut observer = None;
        let mut attempts = Vec::new();
        for constants in &all {
            let tracer = constants.tracer;
            let outcome = match tracer {
                Tracer::Scan => Kernel::looking(&mut creator, options, constants).map(|mut kernel| {
                    observer = kernel.look().ok().map(|(_, observer)| observer);
                }),
                Tracer::Sched | Tracer::Fentry | Tracer::Kprobe => creator
                    .create(constants)
                    .and_then(|mut ebpf| tracer.attach(&mut ebpf, &prepared)),
            };
            let outcome = outcome.map(|()| tracer.gap(&prepared));
            attempts.push(Attempt { tracer, outcome });
        }
        Ok(Self {
            typed_functions: prepared.layout.write_functions.clone(),
            attempts,
            observer,
        })
    }
}
