//! What the guests of a machine are made with: its emulator, compiler and kernels, and what goes into their file system.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::Args;
use super::candidate::Candidate;
use super::guest::{self, Accelerator};
use super::initramfs::Initramfs;
use super::kernels::{Kernel, Line};
use super::machine::Machine;
use super::programs::{Compiler, Programs, busybox};
use super::steps::{Step, TESTS, Tracer};
use crate::interrupt::Interrupt;
use crate::setup;
use crate::test::Totals;

const APPLETS: [&str; 9] = [
    "sh", "sleep", "cat", "true", "false", "env", "head", "ls", "dmesg",
];

/// All of it, for one machine.
pub(super) struct Equipment {
    machine: Machine,
    qemu: PathBuf,
    pub(super) compiler: Compiler,
    kernels: Vec<Kernel>,
    busybox: PathBuf,
}

impl Equipment {
    /// Gets all of it. `Err` is why there can be no guest of this kind.
    pub(super) fn get(machine: Machine, args: &Args, totals: &mut Totals) -> Result<Self> {
        let qemu = machine.qemu()?;
        let compiler = Compiler::find(machine)?;
        let cache = setup::cache_dir()?;
        let mut kernels = Vec::new();
        for line in args.lines(machine) {
            match Kernel::get(line, machine, &cache, args.update) {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => {
                    println!("skipped: {error:#}");
                    totals.skip();
                }
            }
        }
        ensure!(!kernels.is_empty(), "no kernel can be had");
        let busybox = busybox(machine, &cache)?;
        Ok(Self {
            machine,
            qemu,
            compiler,
            kernels,
            busybox,
        })
    }

    /// The guests of each kernel, with these programs in them; the longest first, so that at the end none runs alone.
    pub(super) fn furnish(
        self,
        programs: &Programs,
        work: impl Fn(Line) -> Vec<Vec<Step>>,
        place: &TempDir,
        interrupt: &Interrupt,
    ) -> Result<Vec<Candidate>> {
        let place = place.path().join(self.machine.name());
        fs::create_dir_all(&place)?;
        let mut candidates = Vec::new();
        // Kernels that are given the same share it: it takes a quarter of a GiB.
        let mut packed: BTreeMap<Vec<(Tracer, String)>, PathBuf> = BTreeMap::new();
        for kernel in &self.kernels {
            for (number, steps) in work(kernel.line).into_iter().enumerate() {
                let name = place.join(format!("{}-{number}", kernel.line));
                let owed: Vec<_> = steps
                    .iter()
                    .map(|step| (step.tracer, step.name.clone()))
                    .collect();
                let initramfs = match packed.entry(owed.clone()) {
                    Entry::Occupied(same) => same.get().clone(),
                    Entry::Vacant(none) => {
                        furnish(programs, &self.busybox, &steps)?.write(&name)?;
                        none.insert(name.clone()).clone()
                    }
                };
                let mut console = name.into_os_string();
                console.push(".console");
                candidates.push(Candidate {
                    machine: self.machine,
                    qemu: self.qemu.clone(),
                    accelerator: Accelerator::Kvm,
                    kernel: kernel.clone(),
                    tests: steps.iter().all(Step::is_test),
                    steps: owed,
                    initramfs,
                    console: console.into(),
                });
            }
        }
        candidates.sort_by_key(|candidate| (candidate.tracers(), Reverse(candidate.steps.len())));
        let accelerator = guest::accelerator(self.machine, interrupt, || {
            candidates.first().context("no guest to try")?.boot()
        });
        for candidate in &mut candidates {
            candidate.accelerator = accelerator;
        }
        let how = match accelerator {
            Accelerator::Kvm => "by KVM",
            Accelerator::Emulation => "emulated",
        };
        eprintln!("vm: {} kernels on {}, {how}", self.kernels.len(), self.machine);
        Ok(candidates)
    }
}

fn furnish(programs: &Programs, busybox: &Path, steps: &[Step]) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    for (name, path) in &programs.helpers {
        let at = if name == "guest" {
            "init".to_owned()
        } else {
            format!("bin/{name}")
        };
        initramfs.file(&at, path)?;
    }
    for (name, path) in &programs.tests {
        let at = format!("{TESTS}{name}");
        if steps.iter().any(|step| step.command[0] == at) {
            initramfs.file(at.trim_start_matches('/'), path)?;
        }
    }
    initramfs.file("bin/busybox", busybox)?;
    for applet in APPLETS {
        initramfs.link(&format!("bin/{applet}"), "busybox");
    }
    initramfs.text(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/tmp:/bin/false\nnobody:x:65534:65534::/tmp:/bin/false\n",
    );
    initramfs.text("etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n");
    let mut lines = String::new();
    for step in steps {
        lines.push_str(&serde_json::to_string(step)?);
        lines.push('\n');
    }
    initramfs.text("etc/steps", &lines);
    Ok(initramfs)
}
