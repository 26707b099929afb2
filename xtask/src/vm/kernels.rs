//! The kernels that guests run: Debian's, from the newest of each line, kept in the cache directory.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::machine::Machine;
use super::sums;

/// A line of kernels, by the Debian release that keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What `--kernel` calls it.
    pub(crate) name: &'static str,
    /// Where it is, in order of preference.
    suites: &'static [&'static str],
}

/// What is tried, oldest first.
pub(crate) const LINES: [Line; 4] = [
    Line {
        name: "5.10",
        suites: &["bullseye-security", "bullseye"],
    },
    Line {
        name: "6.1",
        suites: &["bookworm-security", "bookworm"],
    },
    Line {
        name: "6.12",
        suites: &["trixie-security", "trixie"],
    },
    Line {
        name: "newest",
        suites: &["sid", "forky"],
    },
];

/// The line that a release, as `6.1.0-56-cloud-amd64`, is of: the newest has no number that stays.
pub(super) fn line_of(release: &str) -> Line {
    let is_it = |line: &Line| {
        release
            .strip_prefix(line.name)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let newest = LINES[LINES.len() - 1];
    LINES.into_iter().find(is_it).unwrap_or(newest)
}

/// Which lines to take: `all`, or one by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    One(Line),
}

impl Choice {
    /// Whether a line is meant.
    pub(super) fn is(self, line: Line) -> bool {
        self == Self::All || self == Self::One(line)
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let names = LINES.map(|line| line.name).join(", ");
        LINES
            .into_iter()
            .find(|line| line.name == text)
            .map(Self::One)
            .ok_or_else(|| format!("there are {names} and all"))
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) line: Line,
    machine: Machine,
    pub(super) image: PathBuf,
    /// What its `uname -r` says.
    pub(super) release: String,
}

impl Kernel {
    /// Takes the line's kernel from the cache, or fetches it; `refresh` asks the archive for a newer one.
    pub(super) fn get(line: Line, machine: Machine, cache: &Path, refresh: bool) -> Result<Self> {
        let home = machine.home(cache).join(line.name);
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        if !refresh && let Some(kernel) = Self::cached(line, machine, &home) {
            return Ok(kernel);
        }
        let mut failure = None;
        for suite in line.suites {
            match fetch(suite, machine, &home) {
                Ok(()) => {
                    return Self::cached(line, machine, &home).context("the kernel's package has no kernel");
                }
                Err(error) => {
                    eprintln!("vm: {suite}: {error:#}");
                    failure = Some(error);
                }
            }
        }
        // What was there before is better than nothing.
        Self::cached(line, machine, &home).ok_or_else(|| {
            let cause = failure.unwrap_or_else(|| anyhow::anyhow!("no suite has it"));
            cause.context(format!("no {line} kernel for {machine}"))
        })
    }

    fn cached(line: Line, machine: Machine, home: &Path) -> Option<Self> {
        let (image, release) = find_image(home)?;
        if let Err(error) = sums::check(&image) {
            eprintln!("vm: {error:#}: it is fetched anew");
            return None;
        }
        Some(Self {
            line,
            machine,
            image,
            release,
        })
    }
}

/// The machine and the line, as `aarch64 6.1`.
impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.machine, self.line))
    }
}

/// Puts the newest kernel of a suite into `home`, and removes the ones before.
fn fetch(suite: &str, machine: Machine, home: &Path) -> Result<()> {
    let archive = Archive::open(suite, machine.debian(), home)?;
    let meta = format!("linux-image-cloud-{}", machine.debian());
    let mut package = wanted(&archive.depends(&meta)?, "linux-image-")
        .with_context(|| format!("{meta} names no kernel"))?;
    let unpacked = tempfile::tempdir_in(home)?;
    let (image, release) = loop {
        archive.unpack(&package, unpacked.path())?;
        if let Some(found) = unpacked_image(unpacked.path(), &package) {
            break found;
        }
        // Since 7.0 the image is in a package that this one depends on.
        package = wanted(&archive.depends(&package)?, "linux-binary-")
            .with_context(|| format!("{package} has no image and names none"))?;
    };
    while let Some((old, _)) = find_image(home) {
        sums::discard(&old)?;
    }
    sums::keep(&image, &home.join(format!("vmlinuz-{release}")))
}

/// The image that a package brought: in /boot, or since 7.0 beside the modules.
fn unpacked_image(root: &Path, package: &str) -> Option<(PathBuf, String)> {
    find_image(&root.join("boot")).or_else(|| {
        let release = package.strip_prefix("linux-binary-")?;
        let image = root.join("usr/lib/modules").join(release).join("vmlinuz");
        image.is_file().then(|| (image, release.to_owned()))
    })
}

fn wanted(depends: &[String], prefix: &str) -> Option<String> {
    let is_it = |name: &&String| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    depends.iter().find(is_it).cloned()
}

fn find_image(dir: &Path) -> Option<(PathBuf, String)> {
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        let release = name.to_str()?.strip_prefix("vmlinuz-")?;
        Some((entry.path(), release.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_chosen_by_its_name_and_an_unknown_one_is_told_the_others() {
        assert_eq!("all".parse(), Ok(Choice::All));
        assert_eq!("6.1".parse(), Ok(Choice::One(LINES[1])));
        assert_eq!(
            "6.2".parse::<Choice>(),
            Err("there are 5.10, 6.1, 6.12, newest and all".to_owned())
        );
    }

    #[test]
    fn a_release_is_of_the_line_of_its_number_or_of_the_newest() {
        let line = |release: &str| line_of(release).name;
        assert_eq!(line("6.1.0-56-cloud-amd64"), "6.1");
        assert_eq!(line("6.12.117+deb13-cloud-amd64"), "6.12");
        assert_eq!(line("7.2.13+deb14-cloud-arm64"), "newest");
    }

    #[test]
    fn the_image_of_a_metapackage_is_the_one_with_a_version() {
        let depends = ["linux-base-cloud-amd64", "linux-image-7.2.13+deb14-cloud-amd64"].map(str::to_owned);
        assert_eq!(
            wanted(&depends, "linux-image-").as_deref(),
            Some("linux-image-7.2.13+deb14-cloud-amd64")
        );
        assert_eq!(wanted(&depends, "linux-binary-"), None);
    }
}
