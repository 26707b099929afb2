//! `pipestall doctor`: tries each way to observe, for real, and says what came of it.

use std::{fs, path::Path};

use anyhow::Result;
use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::observe::KernelArgs;
use crate::probe::{
    kernel::{Observer, Options, ProbeError, has_the_kernels_pids, tracer::Tracer, trial::Trial},
    layout::WRITE_FUNCTIONS,
    pressure,
    process::Reader,
    symbols::functions_among,
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each backend is tried for real, and nothing stays loaded. `run` and `watch` need scan, and
follow writers by the first of sched, fentry and kprobe that is usable and sees all channels,
else by one that does not, else by scan alone; `ps` needs scan, or else reads /proc. The exit
code is 0 whatever is found; scripts read \"backends\", \"can_enforce\" and the rest from --json.")]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kernel: KernelArgs,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    kernel: String,
    btf: Finding,
    lockdown: String,
    user: String,
    capabilities: Vec<Capability>,
    pids: Finding,
    cpu_pressure: Finding,
    /// The functions that write, by the kernel's symbols, which kprobe goes by.
    symbols: Vec<&'static str>,
    /// The same by its types, which fentry goes by.
    typed: Vec<&'static str>,
    backends: Vec<Backend>,
    run_uses: String,
    ps_uses: &'static str,
    can_enforce: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Finding {
    ok: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Capability {
    name: &'static str,
    held: bool,
    needed_for: &'static str,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    usable: bool,
    /// Why not, or what it is good for.
    detail: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let filter = probe_ebpf::pattern::CommFilter::default();
    let diagnosis = diagnose(&args.kernel.options(filter));
    if args.json {
        super::print(&format!("{}\n", serde_json::to_string_pretty(&diagnosis)?))
    } else {
        super::print(&diagnosis.text())
    }
}

fn diagnose(options: &Options) -> Diagnosis {
    let trial = Trial::run(options);
    let backends = backends(&trial);
    let usable = |tracer: Tracer| backends.iter().any(|b| b.name == tracer.as_str() && b.usable);
    let scan = usable(Tracer::Scan);
    let tracer = trial.as_ref().ok().and_then(|trial| {
        let mut attempts = trial.attempts.iter();
        attempts
            .find(|attempt| attempt.outcome.is_ok())
            .map(|attempt| attempt.tracer)
    });
    let pids = pids(trial.as_ref().ok().and_then(|trial| trial.observer));
    let capabilities = capabilities();
    let can_kill = capabilities.iter().any(|c| c.name == "CAP_KILL" && c.held);
    Diagnosis {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        btf: btf(&options.btf),
        lockdown: lockdown(),
        user: Reader::default()
            .user(rustix::process::getuid().as_raw())
            .unwrap_or_else(|| "?".to_owned()),
        capabilities,
        symbols: functions_among(&WRITE_FUNCTIONS).unwrap_or_default(),
        typed: trial
            .as_ref()
            .map_or_else(|_| Vec::new(), |trial| trial.typed_functions.clone()),
        run_uses: match tracer.filter(|_| scan) {
            Some(Tracer::Scan) => "scan alone: what signals keep waking looks younger than it is".to_owned(),
            Some(tracer) => format!("{tracer} for what happens, scan for what is"),
            None => "nothing: the agent cannot run here".to_owned(),
        },
        ps_uses: if scan { "scan" } else { "/proc" },
        can_enforce: scan && pids.ok && can_kill,
        pids,
        cpu_pressure: cpu_pressure(),
        backends,
    }
}

fn backends(trial: &Result<Trial, ProbeError>) -> Vec<Backend> {
    const GOOD_FOR: [(Tracer, &str); 4] = [
        (
            Tracer::Sched,
            "tp_btf/sched_switch: follows writers by their sleeps",
        ),
        (
            Tracer::Scan,
            "iter/task: finds every blocked writer, old ones too",
        ),
        (
            Tracer::Fentry,
            "follows writers by the functions that write, not through splice, tee and vmsplice",
        ),
        (
            Tracer::Kprobe,
            "as fentry; of many writers at once it does not see all exits (kretprobes are few)",
        ),
    ];
    let outcome = |tracer| -> Result<Option<&String>, String> {
        let attempts = &trial.as_ref().map_err(ToString::to_string)?.attempts;
        let attempt = attempts.iter().find(|attempt| attempt.tracer == tracer);
        let outcome = &attempt.ok_or("it was not tried")?.outcome;
        outcome.as_ref().map(Option::as_ref).map_err(ToString::to_string)
    };
    let mut found: Vec<_> = GOOD_FOR
        .into_iter()
        .map(|(tracer, good_for)| {
            let outcome = outcome(tracer);
            Backend {
                name: tracer.as_str(),
                usable: outcome.is_ok(),
                detail: match outcome {
                    Ok(None) => good_for.to_owned(),
                    Ok(Some(gap)) => format!("{good_for}; {gap}"),
                    Err(error) => error,
                },
            }
        })
        .collect();
    found.push(proc_backend());
    found
}

fn proc_backend() -> Backend {
    let readable = fs::read_to_string("/proc/self/syscall").is_ok();
    Backend {
        name: "/proc",
        usable: readable,
        detail: if readable {
            "for `ps` without privileges: no ages, own processes only".to_owned()
        } else {
            "/proc/PID/syscall is missing (CONFIG_HAVE_ARCH_TRACEHOOK)".to_owned()
        },
    }
}

fn btf(path: &Path) -> Finding {
    match fs::metadata(path) {
        Ok(meta) => Finding {
            ok: true,
            detail: format!("{} ({} KiB)", path.display(), meta.len() / 1024),
        },
        Err(error) => Finding {
            ok: false,
            detail: format!("{}: {error}", path.display()),
        },
    }
}

fn lockdown() -> String {
    let selected = fs::read_to_string("/sys/kernel/security/lockdown")
        .ok()
        .and_then(|text| {
            let (_, rest) = text.split_once('[')?;
            Some(rest.split_once(']')?.0.to_owned())
        });
    selected.unwrap_or_else(|| "unknown (no securityfs mounted, or no lockdown in the kernel)".to_owned())
}

fn capabilities() -> Vec<Capability> {
    let held = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    [
        ("CAP_BPF", CapabilitySet::BPF, "loading programs"),
        (
            "CAP_PERFMON",
            CapabilitySet::PERFMON,
            "reading kernel memory in them",
        ),
        (
            "CAP_SYS_PTRACE",
            CapabilitySet::SYS_PTRACE,
            "command lines of other users' processes",
        ),
        ("CAP_KILL", CapabilitySet::KILL, "ending other users' processes"),
        (
            "CAP_SYS_NICE",
            CapabilitySet::SYS_NICE,
            "going ahead of ordinary work while it ends them",
        ),
    ]
    .into_iter()
    .map(|(name, set, needed_for)| Capability {
        name,
        held: held.contains(set),
        needed_for,
    })
    .collect()
}

/// Whether rules can ask how starved the host is.
fn cpu_pressure() -> Finding {
    match pressure::cpu() {
        Some(share) => Finding {
            ok: true,
            detail: format!(
                "some task waited for a CPU in {:.0} % of the last 10 s",
                share * 100.0
            ),
        },
        None => Finding {
            ok: false,
            detail: "/proc/pressure/cpu cannot be read: rules with unless_cpu_pressure_over end nothing"
                .to_owned(),
        },
    }
}

/// Whether a pid means the same to this process and to the kernel programs, one of which may have seen it.
fn pids(observer: Option<Observer>) -> Finding {
    let own = std::process::id();
    match observer {
        Some(observer) if observer.tgid == own => Finding {
            ok: true,
            detail: "this process sees the kernel's pids".to_owned(),
        },
        Some(observer) => Finding {
            ok: false,
            detail: format!(
                "this process is {own} here and {} to the kernel: a pid namespace; nothing can be enforced",
                observer.tgid
            ),
        },
        None => {
            let namespace = fs::read_link("/proc/self/ns/pid")
                .map(|p| p.to_string_lossy().into_owned())
                .unwrap_or_default();
            Finding {
                ok: has_the_kernels_pids(),
                detail: format!("namespace {namespace}"),
            }
        }
    }
}

/// Wraps a text to what is left of 80 columns beside the names.
fn indented(text: &str) -> String {
    const WIDTH: usize = 64;
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push_str("\n                ");
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

impl Diagnosis {
    fn text(&self) -> String {
        use std::fmt::Write as _;
        let mark = |ok: bool| if ok { "yes" } else { "no " };
        let mut out = String::new();
        let _ = writeln!(out, "kernel            {}", self.kernel);
        let _ = writeln!(
            out,
            "types (BTF)       {}  {}",
            mark(self.btf.ok),
            self.btf.detail
        );
        let _ = writeln!(out, "lockdown          {}", self.lockdown);
        let _ = writeln!(out, "user              {}", self.user);
        for c in &self.capabilities {
            let _ = writeln!(out, "  {:<16}{}  {}", c.name, mark(c.held), c.needed_for);
        }
        let _ = writeln!(
            out,
            "pids              {}  {}",
            mark(self.pids.ok),
            self.pids.detail
        );
        let _ = writeln!(
            out,
            "CPU pressure      {}  {}",
            mark(self.cpu_pressure.ok),
            self.cpu_pressure.detail
        );
        let _ = writeln!(out, "functions         {}", self.symbols.join(" "));
        if !self.typed.is_empty() && self.typed != self.symbols {
            let _ = writeln!(out, "  by types (BTF)  {}", self.typed.join(" "));
        }
        let _ = writeln!(out, "\nbackend   usable");
        for b in &self.backends {
            let _ = writeln!(out, "  {:<8}{}   {}", b.name, mark(b.usable), indented(&b.detail));
        }
        let _ = writeln!(out, "\n`run` uses        {}", self.run_uses);
        let _ = writeln!(out, "`ps` uses         {}", self.ps_uses);
        let _ = writeln!(out, "can enforce       {}", mark(self.can_enforce));
        out
    }
}
