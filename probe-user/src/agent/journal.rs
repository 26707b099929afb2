//! The durable record: one event a line, appended, never rewritten.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

const NAME: &str = "journal.ndjson";

/// A batch of events of this size, in bytes, is an incident's.
const LARGE: usize = 64 * 1024;

/// How far back from the end the last whole line is looked for; events are shorter.
const TAIL: u64 = 1 << 20;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    pending: Vec<u8>,
}

impl Journal {
    /// Opens or creates the journal in a directory, cuts off a line that a crash left
    /// unfinished, and returns the number of the last event with it.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    pub fn open(dir: &Path) -> Result<(Self, u64)> {
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot create the state directory {}", dir.display()))?;
        let path = dir.join(NAME);
        let context = || format!("cannot open the journal {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .with_context(context)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => anyhow!(
                "another agent keeps the journal {}; give each its own [state] dir",
                path.display()
            ),
            other => anyhow::Error::from(other).context(context()),
        })?;
        // The file's name must outlive a crash as the record in it does.
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .with_context(context)?;
        let last = repair(&mut file).with_context(context)?;
        Ok((
            Self {
                file,
                path,
                pending: Vec::new(),
            },
            last,
        ))
    }

    /// Takes in an event's line; it is written with the next [`Self::flush`] or [`Self::commit`].
    pub fn append(&mut self, line: &str) {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    /// Writes what was taken in.
    ///
    /// # Errors
    /// The file system is full or fails. What was on disk before is still there.
    pub fn flush(&mut self) -> Result<()> {
        if self.write()? > LARGE {
            // Now, rather than in front of a signal: what a commit waits for is all that is not
            // on disk yet. That it fails shows at the commit.
            let _ = self.file.sync_data();
        }
        Ok(())
    }

    /// Writes what was taken in; returns how many bytes that were.
    fn write(&mut self) -> Result<usize> {
        let len = self.pending.len();
        if len == 0 {
            return Ok(0);
        }
        let before = self.file.metadata().map(|m| m.len());
        let written = self.file.write_all(&self.pending);
        if written.is_err()
            && let Ok(len) = before
        {
            // Half a line would only be cut off at the next start.
            let _ = self.file.set_len(len);
        }
        written.with_context(|| format!("cannot write to the journal {}", self.path.display()))?;
        self.pending.clear();
        Ok(len)
    }

    /// Writes what was taken in, and waits until it is on disk.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn commit(&mut self) -> Result<()> {
        self.write()?;
        self.file
            .sync_data()
            .with_context(|| format!("cannot make the journal {} durable", self.path.display()))
    }
}

/// Cuts the file after its last whole line; returns that line's number.
fn repair(file: &mut File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let start = len.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if whole < tail.len() {
        file.set_len(start + whole as u64)?;
    }
    let last = tail[..whole]
        .split(|b| *b == b'\n')
        .rev()
        .find(|line| !line.is_empty());
    let seq = last
        .and_then(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .and_then(|event| event.get("seq")?.as_u64());
    Ok(seq.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Stamp};

    fn line(event: &Event) -> String {
        serde_json::to_string(event).unwrap()
    }

    fn record(dir: &Path, kinds: &[&'static str]) -> u64 {
        let (mut journal, last) = Journal::open(dir).unwrap();
        let mut stamp = Stamp::after(last);
        for kind in kinds {
            journal.append(&line(&stamp.agent(kind, None)));
        }
        journal.commit().unwrap();
        last
    }

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(dir.join(NAME)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn numbers_go_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(record(dir.path(), &["agent.started", "agent.stopping"]), 0);
        assert_eq!(record(dir.path(), &["agent.started"]), 2);
        let seqs: Vec<_> = lines(dir.path())
            .iter()
            .map(|e| e["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs, [1, 2, 3]);
    }

    #[test]
    fn a_line_cut_off_anywhere_is_removed_and_the_rest_kept() {
        let whole = tempfile::tempdir().unwrap();
        record(whole.path(), &["agent.started", "agent.stopping"]);
        let bytes = fs::read(whole.path().join(NAME)).unwrap();
        let first = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in first..bytes.len() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(NAME), &bytes[..cut]).unwrap();
            assert_eq!(record(dir.path(), &["agent.started"]), 1, "cut at {cut}");
            assert_eq!(lines(dir.path()).len(), 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_second_agent_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Journal::open(dir.path()).unwrap();
        let error = format!("{:#}", Journal::open(dir.path()).unwrap_err());
        assert!(error.contains("another agent"), "{error}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_loses_nothing_recorded() {
        // /dev/full takes no byte; what a journal does with a failing write is the same there.
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut journal = Journal {
            file,
            path: "/dev/full".into(),
            pending: Vec::new(),
        };
        journal.append(&line(&Stamp::after(0).agent("agent.started", None)));
        let error = format!("{:#}", journal.commit().unwrap_err());
        assert!(
            error.contains("/dev/full") && error.contains("No space left"),
            "{error}"
        );
    }
}
