//! The durable record: one event a line, appended, never rewritten; begun anew at a size,
//! and forgotten by number and age.
//!
//! `journal.ndjson` is written to. One that has grown is renamed to
//! `journal-SEQ.ndjson`, after the number of its first event.

mod files;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

pub use self::files::{Line, read_after};
use self::files::{NAME, end, rotated, rotated_name};

/// A batch of events of this size, in bytes, is an incident's.
const LARGE: usize = 64 * 1024;

/// What is kept of events that cannot be written, in bytes.
const PENDING: usize = 8 << 20;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// A new file begins at this size, in bytes.
    pub rotate_bytes: u64,
    /// So many files are kept, the one that is written included…
    pub files: usize,
    /// …and none that was last written longer ago than this.
    pub age: Duration,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    dir: PathBuf,
    keep: Keep,
    pending: Vec<u8>,
    /// What the file holds, in bytes.
    len: u64,
    /// Whether the file may end in a part of a line, which a failed write has left.
    torn: bool,
    /// The number of the file's first event, if it has one.
    first: Option<u64>,
    /// Whether a new file was to be begun and could not.
    overdue: bool,
    lost: u64,
    /// Whether any of those was taken in since the last commit.
    incomplete: bool,
    /// The lock, for as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens or creates the journal in a directory, cuts off what a crash left unfinished,
    /// and returns the number of the last event with it.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    pub fn open(dir: &Path, keep: Keep) -> Result<(Self, u64)> {
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot create the state directory {}", dir.display()))?;
        let context = || format!("cannot open the journal {}", dir.join(NAME).display());
        let lock = File::open(dir).with_context(context)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => anyhow!(
                "another agent keeps the journal {}; give each its own [state] dir",
                dir.join(NAME).display()
            ),
            other => anyhow::Error::from(other).context(context()),
        })?;
        let mut file = create(dir).with_context(context)?;
        // The file's name must outlive a crash as the record in it does.
        lock.sync_all().with_context(context)?;
        let found = end(&mut file).with_context(context)?;
        if found.whole < file.metadata().with_context(context)?.len() {
            file.set_len(found.whole).with_context(context)?;
        }
        // A crash between a rename and the first event after it leaves an empty file.
        let last = match found.last {
            Some(last) => last,
            None => last_rotated(dir).with_context(context)?,
        };
        let journal = Self {
            file,
            dir: dir.to_owned(),
            keep,
            pending: Vec::new(),
            len: found.whole,
            torn: false,
            first: found.first,
            overdue: false,
            lost: 0,
            incomplete: false,
            _lock: lock,
        };
        journal.forget();
        Ok((journal, last))
    }

    /// Takes in an event's line; it is written with the next [`Self::flush`] or [`Self::commit`].
    pub fn append(&mut self, seq: u64, line: &str) {
        if self.pending.len() + line.len() > PENDING {
            self.lost += 1;
            self.incomplete = true;
            return;
        }
        self.first.get_or_insert(seq);
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    /// How many events were lost because they could be neither written nor kept.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// What waits to be written, in bytes.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Keeps so much from now on.
    pub const fn set_keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// Writes what was taken in.
    ///
    /// # Errors
    /// The file system is full or fails. What was on disk before is still there, and what was
    /// taken in is kept to be written later.
    pub fn flush(&mut self) -> Result<()> {
        if self.write()? > LARGE {
            // Now, rather than in front of a signal: what a commit waits for is all that is not
            // on disk yet. That it fails is said here: the kernel tells of it once.
            self.sync()?;
        }
        if self.len >= self.keep.rotate_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Writes what was taken in, and waits until it is on disk.
    ///
    /// # Errors
    /// As [`Self::flush`]; or something that was taken in since the last time had to be dropped.
    pub fn commit(&mut self) -> Result<()> {
        self.write()?;
        if std::mem::take(&mut self.incomplete) {
            bail!(
                "the journal {} is missing events that did not fit in memory",
                self.path().display()
            );
        }
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .with_context(|| format!("cannot make the journal {} durable", self.path().display()))
    }

    /// Writes what was taken in; returns how many bytes that were.
    fn write(&mut self) -> Result<usize> {
        let len = self.pending.len();
        if len == 0 {
            return Ok(0);
        }
        let context = || format!("cannot write to the journal {}", self.dir.join(NAME).display());
        if self.torn {
            self.file.set_len(self.len).with_context(context)?;
            self.torn = false;
        }
        let written = self.file.write_all(&self.pending);
        if written.is_err() {
            // Half a line must not run into the next one.
            let is_whole = self.file.metadata().is_ok_and(|meta| meta.len() == self.len);
            self.torn = !is_whole && self.file.set_len(self.len).is_err();
        }
        written.with_context(context)?;
        self.len += len as u64;
        self.pending.clear();
        Ok(len)
    }

    /// Begins a new file. Where none can be had, the old one goes on, by its new name if it has got
    /// that already.
    fn rotate(&mut self) -> Result<()> {
        let Some(first) = self.first else {
            return Ok(());
        };
        self.sync()?;
        let renamed = match fs::rename(self.path(), self.dir.join(rotated_name(first))) {
            // A try before this one got so far.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        };
        match renamed.and_then(|()| create(&self.dir)) {
            Ok(file) => self.file = file,
            Err(error) => {
                if !std::mem::replace(&mut self.overdue, true) {
                    tracing::warn!("cannot begin a new journal {}: {error}", self.path().display());
                }
                return Ok(());
            }
        }
        (self.len, self.first, self.overdue) = (0, None, false);
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("cannot make the journal {} durable", self.path().display()))?;
        self.forget();
        Ok(())
    }

    /// Removes the files that are not to be kept. That one cannot be removed is no reason not
    /// to write.
    fn forget(&self) {
        let Ok(files) = rotated(&self.dir) else { return };
        let excess = (files.len() + 1).saturating_sub(self.keep.files);
        for (i, (_, path)) in files.iter().enumerate() {
            let is_over = i < excess || is_older(path, self.keep.age);
            if is_over && let Err(error) = fs::remove_file(path) {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }
}

fn create(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(dir.join(NAME))
}

fn last_rotated(dir: &Path) -> io::Result<u64> {
    let Some((first, path)) = rotated(dir)?.pop() else {
        return Ok(0);
    };
    let found = end(&mut File::open(path)?)?;
    Ok(found.last.unwrap_or(first))
}

fn is_older(path: &Path, age: Duration) -> bool {
    #[expect(clippy::disallowed_methods, reason = "compared with the times of files")]
    let now = SystemTime::now();
    let written = fs::metadata(path).and_then(|meta| meta.modified());
    written.is_ok_and(|written| now.duration_since(written).is_ok_and(|since| since > age))
}

#[cfg(test)]
mod tests;
