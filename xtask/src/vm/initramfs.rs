//! The file system that guests boot into: built from what it is given, by no tool but this.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc;

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;

enum Content {
    File(PathBuf),
    Text(Vec<u8>),
    Link(String),
}

/// What is to be in it, by paths without a leading slash.
#[derive(Default)]
pub(super) struct Initramfs {
    entries: Vec<(String, u32, Content)>,
}

impl Initramfs {
    /// A copy of a file of this machine, executable if it is.
    pub(super) fn file(&mut self, at: &str, from: &Path) -> Result<()> {
        let meta = from
            .metadata()
            .with_context(|| format!("cannot read {}", from.display()))?;
        let mode = REGULAR
            | if meta.permissions().mode() & 0o111 == 0 {
                0o644
            } else {
                0o755
            };
        self.entries
            .push((at.to_owned(), mode, Content::File(from.to_owned())));
        Ok(())
    }

    pub(super) fn text(&mut self, at: &str, text: &str) {
        self.entries
            .push((at.to_owned(), REGULAR | 0o644, Content::Text(text.into())));
    }

    pub(super) fn link(&mut self, at: &str, target: &str) {
        self.entries
            .push((at.to_owned(), LINK, Content::Link(target.to_owned())));
    }

    /// Writes the archive. The kernel unpacks it fastest when it is not compressed.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut out = BufWriter::new(file);
        let mut inode = 0;
        let mut add =
            |name: &str, mode: u32, content: &[u8], out: BufWriter<File>| -> Result<BufWriter<File>> {
                inode += 1;
                let mut entry = newc::Builder::new(name).ino(inode).mode(mode);
                if mode == CONSOLE {
                    entry = entry.rdev_major(5).rdev_minor(1);
                }
                let mut writer = entry.write(out, u32::try_from(content.len())?);
                writer.write_all(content)?;
                Ok(writer.finish()?)
            };
        for folder in self.folders() {
            out = add(&folder, DIRECTORY, &[], out)?;
        }
        // Without it the first process has no standard output.
        out = add("dev/console", CONSOLE, &[], out)?;
        for (at, mode, content) in &self.entries {
            let bytes = match content {
                Content::File(from) => {
                    fs::read(from).with_context(|| format!("cannot read {}", from.display()))?
                }
                Content::Text(text) => text.clone(),
                Content::Link(target) => target.clone().into_bytes(),
            };
            out = add(at, *mode, &bytes, out)?;
        }
        newc::trailer(out)?.flush()?;
        Ok(())
    }

    /// Every folder, each after the one that holds it.
    fn folders(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::from(["dev", "proc", "sys", "tmp", "run", "root", "var"].map(str::to_owned));
        for (at, ..) in &self.entries {
            let above = Path::new(at).ancestors().skip(1);
            all.extend(
                above
                    .filter(|dir| !dir.as_os_str().is_empty())
                    .map(|dir| dir.to_string_lossy().into_owned()),
            );
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn what_is_put_in_is_in_the_archive_below_its_folders() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("initramfs");
        let mut initramfs = Initramfs::default();
        initramfs.text("a/b/c", "text");
        initramfs.link("bin/sh", "busybox");
        initramfs.write(&path).expect("an archive");

        let bytes = fs::read(&path).expect("the archive");
        let mut names = Vec::new();
        let mut rest = Cursor::new(&bytes[..]);
        loop {
            let reader = newc::Reader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().expect("its end");
        }
        let position = |name: &str| names.iter().position(|(it, _)| it == name);
        assert!(position("a") < position("a/b") && position("a/b") < position("a/b/c"));
        assert!(position("a").is_some() && position("dev") < position("dev/console"));
        assert_eq!(names.last(), Some(&("bin/sh".to_owned(), LINK)));
    }
}
