//! What the figures were measured on.

use std::fs;
use std::thread;

use anyhow::Result;
use serde::Serialize;

/// A description of this machine, as far as it explains the figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    /// Whether a hypervisor is underneath.
    is_virtual: bool,
    /// Runnable tasks over the last minute, at the start.
    load: f64,
}

impl Machine {
    /// Describes this machine.
    pub(crate) fn describe() -> Result<Self> {
        let uname = rustix::system::uname();
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            kernel: format!(
                "{} {}",
                uname.release().to_string_lossy(),
                uname.machine().to_string_lossy()
            ),
            cpu: field("model name")
                .or_else(|| field("CPU implementer"))
                .unwrap_or_else(|| "unknown CPU".to_owned()),
            cores: thread::available_parallelism()?.get(),
            is_virtual: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            load: load
                .split(' ')
                .next()
                .and_then(|one| one.parse().ok())
                .unwrap_or_default(),
        })
    }

    /// The description in one line.
    pub(crate) fn line(&self) -> String {
        let Self {
            kernel,
            cpu,
            cores,
            is_virtual,
            load,
        } = self;
        let vm = if *is_virtual { ", VM" } else { "" };
        format!("Linux {kernel}; {cpu}, {cores} cores{vm}; load {load:.2}")
    }
}
