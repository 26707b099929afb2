//! Warnings of this program, and what the kernel programs log, on standard error.

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // aya logs its own doings at debug level; those of the kernel programs carry their target.
        metadata.level() <= Level::Warn || metadata.target().starts_with("pipestall_probe")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let source = if record.target().starts_with("pipestall_probe") {
                "kernel"
            } else {
                "pipestall"
            };
            anstream::eprintln!("{source}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Installs the logger.
pub fn init(kernel_log: bool) {
    static LOGGER: Stderr = Stderr;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(if kernel_log {
            LevelFilter::Debug
        } else {
            LevelFilter::Warn
        });
    }
}
