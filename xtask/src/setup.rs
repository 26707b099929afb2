//! Installs what `toolchain` does not find, and what the tests use. Builds nothing of the workspace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;
use crate::toolchain::{self, DEBIAN_PACKAGES, LINKED_TOOLCHAIN, LINKER_VERSION, on_path};

/// Programs that only tests run, and Debian's packages of them.
const TEST_PROGRAMS: [(&str, &str); 7] = [
    ("ffmpeg", "ffmpeg"),
    ("node", "nodejs"),
    ("strace", "strace"),
    ("tmux", "tmux"),
    ("python3", "python3"),
    ("promtool", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
];
/// A wheel with a static ffmpeg of the newest kind, which names its threads.
const MODERN_FFMPEG: &str = "imageio-ffmpeg";

/// Python packages that tests use, and the module of each: another implementation of what signs
/// webhooks, and the schemas of the Kubernetes API.
const PYTHON_PACKAGES: [(&str, &str); 2] = [
    ("standardwebhooks", "standardwebhooks"),
    ("kubernetes-validate", "kubernetes_validate"),
];

/// What packs the Debian package.
pub(crate) const CARGO_DEB: &str = "cargo-deb";
pub(crate) const CARGO_DEB_VERSION: &str = "3.8.0";

/// Makes sure that the kernel programs can be built here, and says with what.
pub(crate) fn toolchain() -> Result<()> {
    let tools = match toolchain::find() {
        Ok(tools) => tools,
        Err(missing) => {
            // A choice that cannot be had is for who made it to change.
            if missing.toolchain.is_some() && toolchain::chosen().is_none() {
                install_toolchain();
            }
            if missing.linker {
                attempt(cargo_tool("bpf-linker", LINKER_VERSION).map(drop));
            }
            toolchain::find()?
        }
    };
    eprintln!(
        "setup: kernel programs by {}, {}",
        tools.toolchain,
        tools.linker.display()
    );
    Ok(())
}

/// Gets what the tests use, as far as possible: what stays missing makes tests skip, not fail.
pub(crate) fn test_tools() {
    let absent = || {
        TEST_PROGRAMS
            .iter()
            .filter(|(program, _)| on_path(program).is_none())
    };
    let packages: Vec<_> = absent().map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        attempt(apt_install(&packages));
    }
    let mut missing: Vec<_> = absent().map(|(program, _)| *program).collect();
    if let Err(error) = modern_ffmpeg() {
        eprintln!("setup: {error:#}");
        missing.push(MODERN_FFMPEG);
    }
    if let Err(error) = cargo_tool(CARGO_DEB, CARGO_DEB_VERSION) {
        eprintln!("setup: {error:#}");
        missing.push(CARGO_DEB);
    }
    for (package, module) in PYTHON_PACKAGES {
        if let Err(error) = python_package(package, module) {
            eprintln!("setup: {error:#}");
            missing.push(package);
        }
    }
    if missing.is_empty() {
        eprintln!("setup: the tests have all they use");
    } else {
        eprintln!("setup: tests that need {} will be skipped", missing.join(" or "));
    }
}

/// A cargo tool that is on PATH or in the cache directory, where it is installed if it has to be.
pub(crate) fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    if let Some(tool) = on_path(name) {
        return Ok(tool);
    }
    let cache = cache_dir()?;
    let installed = cache.join("bin").join(name);
    if !installed.is_file() {
        eprintln!("setup: installing {name} {version} into {}", cache.display());
        let mut install = shell::cargo(&["install", name, "--version", version, "--locked", "--root"]);
        shell::run(install.arg(cache))?;
    }
    Ok(installed)
}

/// Tries each way to a toolchain with sources; whether one worked is for `toolchain::find` to say.
fn install_toolchain() {
    let debian = Path::new("/usr");
    if !toolchain::has_sources(debian) {
        attempt(apt_install(&DEBIAN_PACKAGES));
    }
    if on_path("rustup").is_none() {
        return;
    }
    let mut rustup = Command::new("rustup");
    if toolchain::has_sources(debian) {
        rustup.args(["toolchain", "link", LINKED_TOOLCHAIN]).arg(debian);
    } else {
        rustup.args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]);
    }
    attempt(shell::run(&mut rustup));
}

/// Installs Debian's packages, as root on Debian.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    if !shell::is_root() || on_path("apt-get").is_none() {
        anyhow::bail!("not root on Debian, so not installing {}", packages.join(" "));
    }
    eprintln!("setup: installing {}", packages.join(" "));
    let apt_get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(args);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        shell::run(&mut command)
    };
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], packages].concat())
}

/// Installs Debian's package of another architecture than this machine's.
pub(crate) fn apt_install_foreign(architecture: &str, package: &str) -> Result<()> {
    if shell::is_root() && on_path("dpkg").is_some() {
        shell::run(Command::new("dpkg").args(["--add-architecture", architecture]))?;
    }
    apt_install(&[&format!("{package}:{architecture}")])
}

/// Unpacks the wheel into the cache directory, unless that has been done.
fn modern_ffmpeg() -> Result<()> {
    let home = cache_dir()?.join(MODERN_FFMPEG);
    let binaries = home.join("imageio_ffmpeg/binaries");
    if binaries.is_dir() {
        return Ok(());
    }
    eprintln!("setup: downloading {MODERN_FFMPEG} into {}", home.display());
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    pip();

    // Unpacked aside and moved at the end, so that what is found in its place is whole.
    let work = tempfile::tempdir_in(&home)?;
    let python = |args: &[&str]| shell::run(Command::new("python3").args(args).current_dir(work.path()));
    python(&[
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        MODERN_FFMPEG,
    ])?;
    let wheel = first_file(work.path(), "imageio_ffmpeg-")?;
    python(&["-m", "zipfile", "-e", &wheel.to_string_lossy(), "."])?;
    fs::remove_file(wheel)?;
    let ffmpeg = first_file(&work.path().join("imageio_ffmpeg/binaries"), "ffmpeg-linux-")?;
    fs::set_permissions(&ffmpeg, fs::Permissions::from_mode(0o755))?;
    fs::rename(work.path().join("imageio_ffmpeg"), home.join("imageio_ffmpeg"))?;
    Ok(())
}

/// Installs the Python package into the cache directory, unless that has been done.
fn python_package(package: &str, module: &str) -> Result<()> {
    let home = cache_dir()?.join(package);
    if home.join(module).is_dir() {
        return Ok(());
    }
    eprintln!("setup: installing {package} into {}", home.display());
    pip();
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--root-user-action=ignore",
        "--target",
    ];
    shell::run(Command::new("python3").args(install).arg(home).arg(package))
}

/// Gets pip, where it is missing and can be had.
fn pip() {
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !pip.is_ok_and(|output| output.status.success()) {
        attempt(apt_install(&["python3-pip"]));
    }
}

fn first_file(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    Ok(found
        .with_context(|| format!("no {prefix}* in {}", dir.display()))?
        .path())
}

/// The cache directory, or the error that says how to name one.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    toolchain::cache_dir().context("no home directory is known: set PIPESTALL_CACHE to a directory")
}

/// Says what failed and goes on: another way may work, and what counts is what is there at the end.
pub(crate) fn attempt(step: Result<()>) {
    if let Err(error) = step {
        eprintln!("setup: {error:#}");
    }
}
