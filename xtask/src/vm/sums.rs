//! Checksums of what the cache directory keeps: what apt has verified once is still what it was.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// What a file with a checksum is called, before the name of the file that it is of.
const PREFIX: &str = "sha256-";

/// Moves a file that can be trusted to its place in the cache, and keeps its checksum there.
pub(super) fn keep(from: &Path, to: &Path) -> Result<()> {
    fs::write(beside(to), sum(from)?).with_context(|| format!("cannot write {}", beside(to).display()))?;
    fs::rename(from, to).with_context(|| format!("cannot write {}", to.display()))
}

/// Removes a file, and its checksum.
pub(super) fn discard(path: &Path) -> Result<()> {
    for path in [path, &beside(path)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            done => done.with_context(|| format!("cannot remove {}", path.display()))?,
        }
    }
    Ok(())
}

/// Makes sure that a file is the one that was kept.
///
/// # Errors
/// It is not, or nobody knows what was.
pub(super) fn check(path: &Path) -> Result<()> {
    let Ok(kept) = fs::read_to_string(beside(path)) else {
        bail!("{} has no checksum", path.display());
    };
    ensure!(
        kept.trim_end() == sum(path)?,
        "{} is not what it was",
        path.display()
    );
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(PREFIX);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn sum(path: &Path) -> Result<String> {
    let done = Command::new("sha256sum")
        .arg(path)
        .output()
        .context("cannot run sha256sum")?;
    let said = String::from_utf8_lossy(&done.stdout);
    let sum = said.split_whitespace().next().filter(|_| done.status.success());
    Ok(sum
        .with_context(|| format!("sha256sum cannot read {}", path.display()))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_and_what_was_changed_since_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "a").expect("a file");
        assert!(check(&from).is_err(), "it has no checksum");
        keep(&from, &to).expect("it is kept");
        check(&to).expect("it is the same");
        fs::write(&to, "b").expect("a file");
        assert!(check(&to).is_err(), "it is another");
        discard(&to).expect("it is removed");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
        discard(&to).expect("nothing is left to remove");
    }
}
