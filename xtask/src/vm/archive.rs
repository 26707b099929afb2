//! Debian's archive, read by apt itself, in a folder of its own: no root, and the system's lists stay as they are.
//!
//! The mirror is the one that the system's own sources name; apt checks signatures and checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::shell;
use crate::toolchain::on_path;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const PROGRAMS: [&str; 3] = ["apt-get", "apt-cache", "dpkg-deb"];

/// One suite of the archive.
pub(super) struct Archive {
    dir: TempDir,
}

impl Archive {
    /// Fetches a suite's list of packages for an architecture, in Debian's name for it.
    pub(super) fn open(suite: &str, architecture: &str, cache: &Path) -> Result<Self> {
        for program in PROGRAMS {
            ensure!(
                on_path(program).is_some(),
                "there is no {program}: not a Debian system"
            );
        }
        let dir = tempfile::Builder::new().prefix("apt-").tempdir_in(cache)?;
        let this = Self { dir };
        for folder in ["lists/partial", "archives/partial", "sources"] {
            fs::create_dir_all(this.path(folder))?;
        }
        fs::write(this.path("status"), "")?;
        let options = format!(
            "Dir::State \"{dir}\";\n\
             Dir::State::lists \"{dir}/lists\";\n\
             Dir::State::status \"{dir}/status\";\n\
             Dir::Cache \"{dir}\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{dir}/sources\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Retries \"3\";\n\
             APT::Architecture \"{architecture}\";\n\
             APT::Architectures \"{architecture}\";\n\
             APT::Sandbox::User \"\";\n",
            dir = this.dir.path().display(),
        );
        fs::write(this.path("apt.conf"), options)?;
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n",
            mirror(suite.ends_with("-security"))?
        );
        fs::write(this.path("sources/debian.sources"), source)?;
        eprintln!("vm: reading Debian's {suite} ({architecture})");
        shell::run(this.apt("apt-get").args(["-qq", "update"]))?;
        Ok(this)
    }

    /// The packages that a package depends on, those of its candidate version.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let record = output(self.apt("apt-cache").args(["show", "--no-all-versions", package]))?;
        let depends = record
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .with_context(|| format!("the archive's {package} depends on nothing"))?;
        let names = depends
            .split([',', '|'])
            .filter_map(|one| one.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads a package and unpacks it into a folder.
    pub(super) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let place = self.path("archives");
        let mut download = self.apt("apt-get");
        shell::run(download.current_dir(&place).args(["download", package]))?;
        let deb = fs::read_dir(&place)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
            .with_context(|| format!("apt-get left no {package}"))?;
        shell::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(into))?;
        fs::remove_file(deb)?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(self.path("apt.conf"));
        command
    }
}

/// The mirror of Debian, or of its security updates, in the system's sources.
fn mirror(security: bool) -> Result<String> {
    let format = "$(LABEL) $(REPO_URI)";
    let targets =
        output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let (label, folder) = if security {
        ("Debian-Security", "debian-security")
    } else {
        ("Debian", "debian")
    };
    let found = targets.lines().find_map(|line| {
        let (its_label, uri) = line.split_once(' ')?;
        // Before the first `apt-get update` a source has no label.
        let is_it = its_label == label || uri.trim_end_matches('/').ends_with(&format!("/{folder}"));
        is_it.then(|| uri.to_owned())
    });
    match found {
        Some(uri) => Ok(uri),
        None => bail!("apt's sources name no mirror of {label}"),
    }
}

fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", shell::describe(command)))?;
    ensure!(
        done.status.success(),
        "`{}` failed ({})",
        shell::describe(command),
        done.status
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
