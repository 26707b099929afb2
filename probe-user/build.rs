//! Builds the kernel programs and leaves the object in `OUT_DIR`; must not install anything.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs, iter};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

// xtask is linked by no other package, so the one discovery of the toolchain is shared as a file.
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

fn main() {
    if let Err(error) = build() {
        // This is what fails the build: an exit status would make cargo show every line twice.
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<()> {
    println!("cargo::rerun-if-env-changed={}", toolchain::TOOLCHAIN_ENV);
    // The nested build takes its profile and its dependencies' versions from these.
    println!("cargo::rerun-if-changed=../Cargo.toml");
    println!("cargo::rerun-if-changed=../Cargo.lock");

    let tools = toolchain::find()?;
    println!("cargo::rerun-if-changed={}", tools.linker.display());
    prepare_environment(&tools)?;

    let name = tools
        .toolchain
        .name
        .as_deref()
        .map_or(Toolchain::Nightly, Toolchain::Custom);
    let package = Package {
        name: "probe-ebpf",
        root_dir: "../probe-ebpf",
        no_default_features: false,
        features: &["program"],
    };
    aya_build::build_ebpf([package], name).with_context(|| {
        format!(
            "pipestall's kernel programs do not build with {}",
            tools.toolchain
        )
    })
}

/// Sets what the nested cargo needs and aya-build leaves to its caller.
fn prepare_environment(tools: &toolchain::Tools) -> Result<()> {
    let linker_dir = tools.linker.parent().context("bpf-linker is in no folder")?;
    let path = prepend("PATH", linker_dir)?;
    let library_path = tools
        .toolchain
        .llvm
        .as_deref()
        .map(|llvm| prepend("LD_LIBRARY_PATH", &set_apart(llvm)?));
    let library_path = library_path.transpose()?;

    // SAFETY: this process has only its main thread until aya-build starts reading the nested cargo's output.
    unsafe {
        env::set_var("PATH", path);
        if let Some(library_path) = library_path {
            env::set_var("LD_LIBRARY_PATH", library_path);
        }
        // Else every crate it compiles is shown as a warning of this package.
        env::set_var("CARGO_TERM_QUIET", "true");
        // Coverage and lint wrappers are meant for the host's code.
        env::remove_var("RUSTC_WRAPPER");
        if tools.toolchain.needs_bootstrap() {
            // Not a crate's name: cargo takes its own unstable flags for `1` only, and hands rustc some for every crate.
            env::set_var("RUSTC_BOOTSTRAP", "1");
        }
    }
    Ok(())
}

/// The list of folders in the variable, with one more in front.
fn prepend(variable: &str, dir: &Path) -> Result<OsString> {
    let inherited = env::var_os(variable).unwrap_or_default();
    env::join_paths(iter::once(dir.to_owned()).chain(env::split_paths(&inherited)))
        .with_context(|| format!("{variable} cannot hold {}", dir.display()))
}

/// A folder with this library alone: bpf-linker opens the first LLVM it meets, of whatever version.
fn set_apart(library: &Path) -> Result<PathBuf> {
    let dir = Path::new(&env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?).join("llvm");
    let link = dir.join("libLLVM.so");
    fs::create_dir_all(&dir)
        .and_then(|()| {
            if link.is_symlink() {
                fs::remove_file(&link)
            } else {
                Ok(())
            }
        })
        .and_then(|()| symlink(library, &link))
        .with_context(|| format!("cannot link {} into {}", library.display(), dir.display()))?;
    Ok(dir)
}
