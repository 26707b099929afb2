//! Secrets: the keys that sign, and URLs that nobody may see.
//!
//! They are read when the agent starts, from files that nobody else may read or from
//! what systemd hands the service; they are never shown.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::webhook::Place;

const PREFIX: &str = "whsec_";

/// What the specification recommends for the length of a key, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret's file is small; what is not is the wrong file.
const MOST: u64 = 64 * 1024;

/// A key that signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Reads keys, at least one.
///
/// # Errors
/// The file cannot be read or others may read it, or what is in it is no key.
pub fn keys(place: &Place) -> Result<Vec<Key>> {
    let (text, path) = read(place)?;
    parse(&text).with_context(|| format!("{} holds no usable secret", path.display()))
}

/// Understands keys, one a line; empty lines and those that start with `#` are none.
///
/// # Errors
/// A line is no key, or there is none. The line is told by its number, and not shown.
pub fn parse(text: &str) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    for (i, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(encoded) = line.strip_prefix(PREFIX) else {
            bail!("line {i} does not start with {PREFIX}");
        };
        let Ok(bytes) = STANDARD.decode(encoded) else {
            bail!("line {i}: what follows {PREFIX} is not base64");
        };
        ensure!(
            LENGTH.contains(&bytes.len()),
            "line {i} has {} bytes; a secret has {} to {}",
            bytes.len(),
            LENGTH.start(),
            LENGTH.end()
        );
        keys.push(Key(bytes));
    }
    ensure!(
        !keys.is_empty(),
        "it is empty; write a line such as `echo {PREFIX}$(openssl rand -base64 32)` makes"
    );
    Ok(keys)
}

/// Reads a secret of one line.
///
/// # Errors
/// It cannot be read, others may read it, or it is not one line.
pub fn line(place: &Place) -> Result<String> {
    let (text, path) = read(place)?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        (None, _) => bail!("{} is empty", path.display()),
        (Some(_), Some(_)) => bail!("{} has more than one line", path.display()),
    }
}

fn read(place: &Place) -> Result<(String, PathBuf)> {
    let path = match place {
        Place::File(path) => path.clone(),
        Place::Credential(name) => credential(name)?,
    };
    let text = read_private(&path, matches!(place, Place::Credential(_)))?;
    Ok((text, path))
}

fn credential(name: &str) -> Result<PathBuf> {
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY").with_context(|| {
        format!("no credentials are there; run it as a service with LoadCredential={name}:/path")
    })?;
    Ok(Path::new(&dir).join(name))
}

/// Reads a file that nobody else may read. systemd sees to that for its credentials.
fn read_private(path: &Path, is_credential: bool) -> Result<String> {
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let metadata = file.metadata().with_context(context)?;
    ensure!(metadata.is_file(), "{} is no file", path.display());
    if !is_credential {
        let own = rustix::process::geteuid().as_raw();
        ensure!(
            metadata.uid() == own || metadata.uid() == 0,
            "{} belongs to another user (uid {}); give it to root or to who runs pipestall",
            path.display(),
            metadata.uid()
        );
        let others = if metadata.gid() == rustix::process::getegid().as_raw() {
            0o027
        } else {
            0o077
        };
        ensure!(
            metadata.mode() & others == 0,
            "{} can be read or changed by others (mode {:o}); run chmod 600 {}",
            path.display(),
            metadata.mode() & 0o777,
            path.display()
        );
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).with_context(context)?;
    ensure!(
        (text.len() as u64) < MOST,
        "{} is too long for a secret",
        path.display()
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ops.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, Place::File(path))
    }

    #[test]
    fn several_keys_are_read_in_their_order_and_comments_are_none() {
        let other = format!("{PREFIX}{}", STANDARD.encode([7; 64]));
        let (_dir, place) = file(&format!("# new\n{SECRET}\n\n  {other}\n"), 0o600);
        let keys = keys(&place).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[1].bytes(), [7; 64]);
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_the_secret() {
        let short = format!("{PREFIX}{}", STANDARD.encode([7; 23]));
        for (text, expected) in [
            ("hunter2hunter2", "line 1 does not start with whsec_"),
            ("\nwhsec_hunter2!", "line 2: what follows whsec_ is not base64"),
            (short.as_str(), "line 1 has 23 bytes; a secret has 24 to 64"),
            ("# hunter2\n", "it is empty"),
        ] {
            let (_dir, place) = file(text, 0o600);
            let error = format!("{:#}", keys(&place).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(
                !error.contains("hunter2") && !error.contains(&short[6..]),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o604, false),
            (0o644, false),
            (0o620, false),
            (0o602, false),
        ] {
            let (_dir, place) = file(SECRET, mode);
            let read = keys(&place);
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let keys = parse(SECRET).unwrap();
        assert_eq!(format!("{keys:?}"), "[Key]");
    }

    #[test]
    fn a_url_is_one_line() {
        let (_dir, place) = file("https://x/y\n\n", 0o600);
        assert_eq!(line(&place).unwrap(), "https://x/y");
        let (_dir, place) = file("a\nb\n", 0o600);
        assert!(
            line(&place)
                .unwrap_err()
                .to_string()
                .contains("more than one line")
        );
    }
}
