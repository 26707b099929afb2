//! The journal as alerts read it: what they have not taken in yet, after a start or when the
//! way from the agent was too narrow for a moment.
//!
//! Events are in the order of their numbers within a file, so the place to begin is found by
//! halving, however long the journal is.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// A line is shorter; what is not has no end.
const LONGEST: u64 = 1 << 20;

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// An event's number and its line.
pub type Line = (u64, String);

/// At most `most` lines after the event numbered `after`, in their order.
///
/// # Errors
/// The directory or a file in it cannot be read.
pub fn after(dir: &Path, after: u64, most: usize) -> io::Result<Vec<Line>> {
    let mut files = files(dir)?
        .into_iter()
        .map(|path| {
            let mut file = BufReader::new(File::open(path)?);
            Ok((first(&mut file)?, file))
        })
        .collect::<io::Result<Vec<_>>>()?;
    files.sort_by_key(|(first, _)| *first);
    let mut lines = Vec::new();
    for (_, mut file) in files {
        let start = place_after(&mut file, after)?;
        file.seek(SeekFrom::Start(start))?;
        while lines.len() < most {
            match next(&mut file)? {
                Some((Some(seq), line)) if seq > after => lines.push((seq, line)),
                Some(_) => {}
                None => break,
            }
        }
    }
    Ok(lines)
}

/// The first number in a file; none comes first.
fn first(file: &mut BufReader<File>) -> io::Result<Option<u64>> {
    while let Some((seq, _)) = next(file)? {
        if seq.is_some() {
            return Ok(seq);
        }
    }
    Ok(None)
}

/// The journal's files, rotated ones too.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in dir.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let is_journal = name
            .to_str()
            .is_some_and(|name| name.starts_with("journal") && name.contains(".ndjson"));
        if is_journal && entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Where the first line begins whose number is greater, or a line somewhat before it.
fn place_after(file: &mut BufReader<File>, after: u64) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.get_ref().metadata()?.len());
    while high - low > LONGEST / 16 {
        let middle = low + (high - low) / 2;
        file.seek(SeekFrom::Start(middle))?;
        // The rest of a line that began before.
        let rest = skip(file)?;
        let seq = loop {
            match next(file)? {
                Some((Some(seq), _)) => break Some(seq),
                Some((None, _)) => {}
                None => break None,
            }
        };
        if seq.is_some_and(|seq| seq <= after) {
            low = middle + rest;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn skip(file: &mut BufReader<File>) -> io::Result<u64> {
    let mut rest = Vec::new();
    let read = io::Read::take(&mut *file, LONGEST).read_until(b'\n', &mut rest)?;
    Ok(read as u64)
}

/// The next whole line, with its number if it has one.
fn next(file: &mut BufReader<File>) -> io::Result<Option<(Option<u64>, String)>> {
    let mut line = Vec::new();
    io::Read::take(&mut *file, LONGEST).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        // Nothing, or a line that is still being written.
        return Ok(None);
    }
    let seq = serde_json::from_slice::<Numbered>(&line).ok();
    Ok(Some((
        seq.map(|line| line.seq),
        String::from_utf8_lossy(&line).into_owned(),
    )))
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs};

    use super::*;

    fn journal(lines: impl Iterator<Item = u64>) -> String {
        lines.fold(String::new(), |mut text, seq| {
            let _ = writeln!(
                text,
                "{{\"seq\":{seq},\"x\":\"{}\"}}",
                "x".repeat(700 + usize::try_from(seq % 90).unwrap())
            );
            text
        })
    }

    fn seqs(dir: &Path, cursor: u64, most: usize) -> Vec<u64> {
        after(dir, cursor, most)
            .unwrap()
            .iter()
            .map(|(seq, _)| *seq)
            .collect()
    }

    #[test]
    fn lines_after_a_number_are_found_in_a_long_journal() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal.ndjson"), journal(1..=2000)).unwrap();
        for cursor in [0, 1, 2, 999, 1000, 1777, 1999] {
            assert_eq!(
                seqs(dir.path(), cursor, 3),
                (cursor + 1..=2000).take(3).collect::<Vec<_>>()
            );
        }
        assert!(seqs(dir.path(), 2000, 3).is_empty());
        assert_eq!(seqs(dir.path(), 0, 10_000).len(), 2000);
    }

    #[test]
    fn numbers_may_be_missing_and_lines_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "{}nonsense\n\n{}",
            journal((1..500).map(|i| i * 10)),
            journal(6000..6010)
        );
        fs::write(dir.path().join("journal.ndjson"), text).unwrap();
        assert_eq!(seqs(dir.path(), 4985, 3), [4990, 6000, 6001]);
        assert_eq!(seqs(dir.path(), 41, 2), [50, 60]);
    }

    #[test]
    fn rotated_files_are_read_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal.ndjson"), journal(300..=310)).unwrap();
        fs::write(dir.path().join("journal.ndjson.1"), journal(200..300)).unwrap();
        fs::write(dir.path().join("journal.ndjson.2"), journal(1..200)).unwrap();
        fs::write(dir.path().join("other.ndjson"), journal(1..1000)).unwrap();
        assert_eq!(seqs(dir.path(), 198, 4), [199, 200, 201, 202]);
        assert_eq!(seqs(dir.path(), 298, 4), [299, 300, 301, 302]);
    }

    #[test]
    fn a_line_that_is_still_being_written_is_left_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{}{{\"seq\":3", journal(1..=2));
        fs::write(dir.path().join("journal.ndjson"), text).unwrap();
        assert_eq!(seqs(dir.path(), 0, 9), [1, 2]);
    }
}
