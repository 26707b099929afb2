//! What a test needs of the machine. A test that cannot run here says `skipped:` and why; with
//! `PIPESTALL_NO_SKIP=1` that is a failure, for machines that are known to have everything.

use std::env;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use probe_user::probe::symbols::functions_among;
use serde_json::Value;

use crate::{binary, command, wait};

/// What the program is asked for what it can observe here.
pub const DOCTOR: [&str; 2] = ["doctor", "--json"];
/// The variable that has its answer where somebody has asked already: in guests, their first process.
pub const REPORT: &str = "PIPESTALL_TEST_DOCTOR";

/// Takes what is needed out of a check, or ends the test as skipped.
#[macro_export]
macro_rules! need {
    ($check:expr) => {
        match $check {
            Ok(it) => it,
            Err(why) => {
                $crate::need::skip(&why);
                return;
            }
        }
    };
}

/// Says that the calling test is skipped, past libtest's capture of what passing tests print.
///
/// # Panics
/// If `PIPESTALL_NO_SKIP` is set.
#[track_caller]
pub fn skip(why: &str) {
    let test = thread::current();
    let test = test.name().unwrap_or("a test");
    assert!(
        env::var_os("PIPESTALL_NO_SKIP").is_none(),
        "{test} may not be skipped, but: {why}"
    );
    // One write, so that no other test's line comes between; a closed stderr leaves nobody to tell.
    let _ = io::stderr().write_all(format!("\nskipped: {why} ({test})\n").as_bytes());
}

/// Root, to observe and end other users' processes.
///
/// # Errors
/// Why not.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("needs root".to_owned())
    }
}

/// The BPF backends that are under test here, by the program's own word (`pipestall doctor --json`).
///
/// # Errors
/// Why not.
pub fn bpf() -> Result<(), String> {
    static BPF: OnceLock<Result<(), String>> = OnceLock::new();
    root()?;
    BPF.get_or_init(|| usable(&[&binary::tracer(), "scan"])).clone()
}

fn usable(backends: &[&str]) -> Result<(), String> {
    let report = doctor();
    let known = report["backends"].as_array().expect("doctor lists backends");
    for name in backends {
        let backend = known.iter().find(|backend| backend["name"] == **name);
        let backend = backend.unwrap_or_else(|| panic!("doctor does not know {name}: {report}"));
        if backend["usable"] != true {
            return Err(format!("{name} is not usable: {}", backend["detail"]));
        }
    }
    Ok(())
}

/// What the program says of this kernel.
fn doctor() -> Value {
    if let Ok(said) = env::var(REPORT) {
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{REPORT}: {error}"));
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        assert_eq!(report["kernel"], *release, "{REPORT} is of another kernel");
        return report;
    }
    let done = command::run(
        Command::new(binary::pipestall()).args(DOCTOR),
        Duration::from_secs(20),
    );
    // A doctor that cannot speak is a defect of the program, no reason to skip.
    serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("doctor --json: {error}\n{}\n{}", done.stdout, done.stderr))
}

/// A machine of its own: an emulated one takes minutes to start what the test starts.
///
/// # Errors
/// Why not.
pub fn speed() -> Result<(), String> {
    if wait::slowness() == 1 {
        Ok(())
    } else {
        Err("this machine is emulated".to_owned())
    }
}

/// A tracer, of whatever kind: looks alone do not see what the test is about.
///
/// # Errors
/// Why not.
pub fn tracer() -> Result<(), String> {
    bpf()?;
    if binary::tracer() == "scan" {
        Err("looks alone are later, and see neither exits nor single intervals".to_owned())
    } else {
        Ok(())
    }
}

/// A tracer that counts how long writers are blocked.
///
/// # Errors
/// Why not.
pub fn counting() -> Result<(), String> {
    bpf()?;
    match &*binary::tracer() {
        "sched" => Ok(()),
        other => Err(format!("{other} does not count blocked time")),
    }
}

/// A tracer of functions.
///
/// # Errors
/// Why not.
pub fn functions() -> Result<(), String> {
    bpf()?;
    match &*binary::tracer() {
        "fentry" | "kprobe" => Ok(()),
        other => Err(format!("{other} is no tracer of functions")),
    }
}

/// Breakpoints on the kernel's functions.
///
/// # Errors
/// Why not.
pub fn kprobes() -> Result<(), String> {
    usable(&["kprobe"])
}

/// A kernel with breakpoints on its functions, by its own word.
///
/// # Errors
/// Why not.
pub fn breakpoints() -> Result<(), String> {
    const EVENTS: &str = "/sys/bus/event_source/devices/kprobe";
    if Path::new(EVENTS).exists() {
        Ok(())
    } else {
        Err(format!("this kernel has no kprobes: there is no {EVENTS}"))
    }
}

/// A kernel with trampolines at its functions' entries, by its own word: aarch64 has them since 6.4.
///
/// # Errors
/// Why not.
pub fn trampolines() -> Result<(), String> {
    const SYMBOL: &str = "register_ftrace_direct";
    match functions_among(&[SYMBOL]) {
        Ok(found) if found == [SYMBOL] => Ok(()),
        Ok(_) => Err(format!("this kernel has no {SYMBOL}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A kernel whose pipes let a writer sleep until there is room: before 6.14 each read from a full one
/// wakes it (`pipe_read`, fs/pipe.c).
///
/// # Errors
/// Why not.
pub fn quiet_pipes() -> Result<(), String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-', '+'])
        .map_while(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(14)) {
        Ok(())
    } else {
        Err(format!("{release} wakes a pipe's writer with each read"))
    }
}

/// The shell bash.
///
/// # Errors
/// Why not.
pub fn bash() -> Result<PathBuf, String> {
    on_path("bash")
}

/// Any ffmpeg on PATH.
///
/// # Errors
/// Why not.
pub fn ffmpeg() -> Result<PathBuf, String> {
    on_path("ffmpeg")
}

/// Node.
///
/// # Errors
/// Why not.
pub fn node() -> Result<PathBuf, String> {
    on_path("node")
}

/// strace, and that it may trace here.
///
/// # Errors
/// Why not.
pub fn strace() -> Result<PathBuf, String> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let strace = on_path("strace")?;
    let works = WORKS.get_or_init(|| {
        let mut trial = Command::new(&strace);
        trial.args(["-o", "/dev/null", "true"]);
        command::run(&mut trial, Duration::from_secs(20)).status.success()
    });
    if *works {
        Ok(strace)
    } else {
        Err("strace may not trace here".to_owned())
    }
}

/// tmux, for programs that draw on a terminal.
///
/// # Errors
/// Why not.
pub fn tmux() -> Result<PathBuf, String> {
    on_path("tmux")
}

/// A static ffmpeg that names its threads, from the Python package imageio-ffmpeg in the cache.
///
/// # Errors
/// Why not.
pub fn modern_ffmpeg() -> Result<PathBuf, String> {
    let dir = cached("imageio-ffmpeg")?;
    let found = find(&dir, &format!("ffmpeg-linux-{}", env::consts::ARCH), 3)
        .ok_or_else(|| format!("imageio-ffmpeg is not in {}", dir.display()))?;
    let mode = found
        .metadata()
        .map_err(|error| error.to_string())?
        .permissions()
        .mode();
    if mode & 0o111 == 0 {
        return Err(format!("{} is not executable", found.display()));
    }
    Ok(found)
}

/// Alertmanager.
///
/// # Errors
/// Why not.
pub fn alertmanager() -> Result<PathBuf, String> {
    on_path("prometheus-alertmanager").or_else(|why| on_path("alertmanager").map_err(|_| why))
}

/// Python, and the directory in the cache that has its package standardwebhooks.
///
/// # Errors
/// Why not.
pub fn standardwebhooks() -> Result<(PathBuf, PathBuf), String> {
    python_package("standardwebhooks", "standardwebhooks")
}

/// cargo-deb, on PATH or in the cache.
///
/// # Errors
/// It is in neither.
pub fn cargo_deb() -> Result<PathBuf, String> {
    let installed = cached("bin")?.join("cargo-deb");
    on_path("cargo-deb").or_else(|why| installed.is_file().then_some(installed).ok_or(why))
}

/// Python, and the directory in the cache that has its package kubernetes-validate.
///
/// # Errors
/// Why not.
pub fn kubernetes_validate() -> Result<(PathBuf, PathBuf), String> {
    python_package("kubernetes-validate", "kubernetes_validate")
}

fn python_package(package: &str, module: &str) -> Result<(PathBuf, PathBuf), String> {
    let python = on_path("python3")?;
    let dir = cached(package)?;
    let mut trial = Command::new(&python);
    trial
        .env("PYTHONPATH", &dir)
        .args(["-c", &format!("import {module}")]);
    if command::run(&mut trial, Duration::from_secs(30)).status.success() {
        Ok((python, dir))
    } else {
        Err(format!(
            "the Python package {package} is not in {}",
            dir.display()
        ))
    }
}

/// A directory in the cache, which need not be there.
fn cached(name: &str) -> Result<PathBuf, String> {
    let cache = env::var_os("PIPESTALL_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("XDG_CACHE_HOME")?).join("pipestall")));
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/pipestall")));
    Ok(cache.ok_or("no cache directory is known")?.join(name))
}

/// A program on PATH.
///
/// # Errors
/// It is not there.
pub fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|dir| dir.join(name));
    places
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

fn find(dir: &Path, prefix: &str, depth: u32) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = dir
        .read_dir()
        .ok()?
        .filter_map(|one| Some(one.ok()?.path()))
        .collect();
    entries.sort();
    entries.into_iter().find_map(|path| {
        let named = path.file_name()?.to_str()?.starts_with(prefix);
        if named && path.is_file() {
            Some(path)
        } else if depth > 0 && path.is_dir() {
            find(&path, prefix, depth - 1)
        } else {
            None
        }
    })
}
