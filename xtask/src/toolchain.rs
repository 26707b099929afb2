//! Finds what compiles the kernel programs: a Rust toolchain with `core`'s sources, and bpf-linker.
//!
//! Knows only std and changes nothing on the machine, because `probe-user/build.rs` includes this same file:
//! one discovery, one message. Installing what is missing is `setup`'s part.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names a rustup toolchain to take instead of the ones this module would look for.
pub(crate) const TOOLCHAIN_ENV: &str = "PIPESTALL_BPF_TOOLCHAIN";
/// The name under which `setup` links Debian's compiler into rustup.
pub(crate) const LINKED_TOOLCHAIN: &str = "pipestall-bpf";
/// Debian's compiler, package manager and library sources.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// The last bpf-linker that needs no LLVM beside rustc's own.
pub(crate) const LINKER_VERSION: &str = "0.10.3";

/// What compiles and links the kernel programs.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) toolchain: Toolchain,
    /// The bpf-linker to use.
    pub(crate) linker: PathBuf,
}

/// A Rust toolchain that can build `core` for the bpf target.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its name in rustup, or `None` where there is no rustup: then it is the `cargo` on `PATH`.
    pub(crate) name: Option<String>,
    /// rustc's LLVM where it is not in the toolchain's own `lib` folder, so that bpf-linker has to be shown it.
    pub(crate) llvm: Option<PathBuf>,
    /// rustc's release, such as `1.97.0-nightly`.
    release: String,
}

/// What was not found; its text lists the commands that get it.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Why each toolchain that was looked at is of no use; `None` if one was found.
    pub(crate) toolchain: Option<Vec<String>>,
    /// Whether bpf-linker is missing.
    pub(crate) linker: bool,
}

/// Finds the tools, in the order of preference that `cargo xtask setup --help` describes.
pub(crate) fn find() -> Result<Tools, Missing> {
    match (find_toolchain(), find_linker()) {
        (Ok(toolchain), Some(linker)) => Ok(Tools { toolchain, linker }),
        (toolchain, linker) => Err(Missing {
            toolchain: toolchain.err(),
            linker: linker.is_none(),
        }),
    }
}

/// The rustup toolchain that the environment asks for.
pub(crate) fn chosen() -> Option<String> {
    env::var(TOOLCHAIN_ENV).ok().filter(|name| !name.is_empty())
}

/// The user's cache directory for pipestall, or `None` if the environment names no home.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let dir = |name| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    dir("PIPESTALL_CACHE")
        .or_else(|| dir("XDG_CACHE_HOME").map(|cache| cache.join("pipestall")))
        .or_else(|| dir("HOME").map(|home| home.join(".cache/pipestall")))
}

/// The first executable `program` on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| is_executable(path))
}

/// Whether the `rustc` at `sysroot` has the library sources that building `core` takes.
pub(crate) fn has_sources(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
}

impl Toolchain {
    /// Whether rustc must be told to accept the unstable flags that building `core` takes.
    pub(crate) fn needs_bootstrap(&self) -> bool {
        !self.release.contains("nightly") && !self.release.contains("dev")
    }
}

impl Display for Toolchain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name.as_deref() {
            Some(LINKED_TOOLCHAIN) => write!(f, "Debian's rustc {} (as {LINKED_TOOLCHAIN})", self.release),
            Some(name) => write!(f, "rustup's {name} ({})", self.release),
            None => write!(f, "rustc {} on PATH", self.release),
        }
    }
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "building pipestall's kernel programs needs what this machine lacks:"
        )?;
        if let Some(refusals) = &self.toolchain {
            write!(
                f,
                "\n  - a Rust toolchain with library sources ({})",
                refusals.join("; ")
            )?;
        }
        if self.linker {
            write!(f, "\n  - bpf-linker (not on PATH, nor in the cache directory)")?;
        }
        write!(f, "\nto install it, run\n    cargo xtask setup\nor by hand")?;
        match (&self.toolchain, chosen()) {
            (Some(_), Some(name)) => {
                write!(f, "\n    rustup toolchain install {name} --component rust-src")?;
                write!(
                    f,
                    "\n  or unset {TOOLCHAIN_ENV}, which asks for {name}, and run setup"
                )?;
            }
            (Some(_), None) => {
                write!(f, "\n    rustup toolchain install nightly --component rust-src")?;
                write!(f, "\n  or, as root on Debian,")?;
                write!(f, "\n    apt-get install {}", DEBIAN_PACKAGES.join(" "))?;
                write!(f, "\n    rustup toolchain link {LINKED_TOOLCHAIN} /usr")?;
            }
            (None, _) => {}
        }
        if self.linker {
            let cache = cache_dir().unwrap_or_else(|| "~/.cache/pipestall".into());
            write!(
                f,
                "\n    cargo install bpf-linker --version {LINKER_VERSION} --locked "
            )?;
            write!(f, "--root {}", cache.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Missing {}

fn find_toolchain() -> Result<Toolchain, Vec<String>> {
    let chosen = chosen();
    let candidates = match (chosen.as_deref(), on_path("rustup")) {
        (Some(name), Some(_)) => vec![Some(name)],
        (Some(_), None) => return Err(vec![format!("{TOOLCHAIN_ENV} is set, but there is no rustup")]),
        (None, Some(_)) => vec![Some("nightly"), Some(LINKED_TOOLCHAIN)],
        (None, None) => vec![None],
    };
    let mut refusals = Vec::new();
    for name in candidates {
        match probe(name) {
            Ok(toolchain) => return Ok(toolchain),
            Err(why) => refusals.push(format!("{} {why}", name.unwrap_or("rustc on PATH"))),
        }
    }
    Err(refusals)
}

/// Asks the toolchain's rustc what it is; the error says why it will not do.
fn probe(name: Option<&str>) -> Result<Toolchain, String> {
    let version_info = ask_rustc(name, &["-vV"]).ok_or("is not installed")?;
    let field = |key| {
        version_info
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or_default()
    };
    let release = field("release: ");
    let sysroot = ask_rustc(name, &["--print", "sysroot"]).ok_or("has no sysroot")?;
    let sysroot = Path::new(sysroot.trim_end());
    if !has_sources(sysroot) {
        return Err(format!("({release}) has no rust-src"));
    }
    let least = env!("CARGO_PKG_RUST_VERSION");
    if version(release) < version(least) {
        return Err(format!("({release}) is older than {least}"));
    }
    let llvm = (sysroot == Path::new("/usr"))
        .then(|| system_llvm(version(field("LLVM version: "))?))
        .flatten();
    Ok(Toolchain {
        name: name.map(str::to_owned),
        llvm,
        release: release.to_owned(),
    })
}

/// Where Debian keeps the LLVM that its rustc is linked with.
fn system_llvm((major, minor): (u32, u32)) -> Option<PathBuf> {
    let path = format!(
        "/usr/lib/{}-linux-gnu/libLLVM.so.{major}.{minor}",
        env::consts::ARCH
    );
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}

/// What a toolchain's rustc answers, or `None` without one.
pub(crate) fn ask_rustc(toolchain: Option<&str>, args: &[&str]) -> Option<String> {
    let mut command = match toolchain {
        Some(name) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", name, "rustc"]);
            rustup
        }
        None => Command::new("rustc"),
    };
    // A look must not end in a download.
    let output = command.env("RUSTUP_AUTO_INSTALL", "0").args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The major and minor number of a release such as `1.97.0-nightly`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn find_linker() -> Option<PathBuf> {
    on_path("bpf-linker").or_else(|| {
        let installed = cache_dir()?.join("bin/bpf-linker");
        is_executable(&installed).then_some(installed)
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
