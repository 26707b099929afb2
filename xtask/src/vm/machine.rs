//! The machines that guests are: what each tool calls them, and how QEMU makes one.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::guest::Accelerator;
use super::kernels::{LINES, Line};
use crate::setup;
use crate::toolchain::on_path;

/// A kind of processor, and the board around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Machine {
    #[value(name = "x86_64")]
    X86,
    #[value(name = "aarch64")]
    Arm,
}

/// All of them, in the order of the table.
pub(super) const MACHINES: [Machine; 2] = [Machine::X86, Machine::Arm];

impl Machine {
    /// What this program runs on, if guests are made for it.
    pub(super) fn host() -> Option<Self> {
        MACHINES
            .into_iter()
            .find(|machine| machine.name() == std::env::consts::ARCH)
    }

    /// Whether programs for it can be built here.
    pub(super) fn can_be_had(self) -> bool {
        self == Self::Arm || Self::host() == Some(self)
    }

    /// What Rust calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    pub(super) fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// What Debian calls it.
    pub(super) const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// The kernels that are tried unless some are named: each takes its minutes.
    pub(super) fn usual_lines(self) -> &'static [Line] {
        match self {
            Self::X86 => &LINES,
            Self::Arm => &[LINES[1], LINES[3]],
        }
    }

    /// What is kept for its guests.
    pub(super) fn home(self, cache: &Path) -> PathBuf {
        cache.join("vm").join(self.name())
    }

    /// The emulator, installed if that is possible.
    pub(super) fn qemu(self) -> Result<PathBuf> {
        let (program, package) = match self {
            Self::X86 => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm => ("qemu-system-aarch64", "qemu-system-arm"),
        };
        if on_path(program).is_none() {
            setup::attempt(setup::apt_install(&[package]));
        }
        on_path(program).with_context(|| format!("there is no {program}: install Debian's {package}"))
    }

    /// The board and its processors.
    pub(super) const fn board(self, accelerator: Accelerator) -> &'static [&'static str] {
        // Room for what a dozen test programs are translated to: when it is full, all is translated anew.
        // With a thread for each processor, one may run a breakpoint that another has taken out of the kernel's
        // code already, as it does with each program that comes and goes; the kernel dies of it.
        match (self, accelerator) {
            (Self::X86, Accelerator::Kvm) => &["-accel", "kvm", "-cpu", "host"],
            // Without the fast string instructions, which the kernel takes for copying wherever it is told of them:
            // emulated they go byte by byte, and take a quarter of all the time.
            (Self::X86, Accelerator::Emulation) => &[
                "-accel",
                "tcg,thread=single,tb-size=1024",
                "-cpu",
                "max,erms=off,fsrm=off",
            ],
            (Self::Arm, Accelerator::Kvm) => &[
                "-machine",
                "virt,gic-version=max",
                "-accel",
                "kvm",
                "-cpu",
                "host",
            ],
            // A processor that signs no pointers: emulating that takes most of the time.
            (Self::Arm, Accelerator::Emulation) => &[
                "-machine",
                "virt,gic-version=3",
                "-accel",
                "tcg,thread=single,tb-size=1024",
                "-cpu",
                "cortex-a72",
            ],
        }
    }

    /// Two serial lines, to the character devices `console` and `results`.
    pub(super) const fn serial_lines(self) -> &'static [&'static str] {
        match self {
            Self::X86 => &["-serial", "chardev:console", "-serial", "chardev:results"],
            // The board has but one.
            Self::Arm => &[
                "-serial",
                "chardev:console",
                "-device",
                "pci-serial,chardev=results",
            ],
        }
    }

    /// The kernel's command line: where it writes, and where its first process does. A panic ends QEMU. A program
    /// that is always at the same addresses is translated once, and not each time that it runs.
    pub(super) const fn parameters(self) -> &'static str {
        match self {
            // A kernel's check of its timer counts ticks while others count on the processor, and gives up on a
            // busy machine.
            Self::X86 => {
                "console=ttyS0 RESULTS=/dev/ttyS1 quiet oops=panic panic=-1 no_timer_check norandmaps rdinit=/init"
            }
            Self::Arm => {
                "console=ttyAMA0 RESULTS=/dev/ttyS0 quiet oops=panic panic=-1 norandmaps rdinit=/init"
            }
        }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
