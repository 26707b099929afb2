//! The journal's files: their names, their ends, and reading them while they are written.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The file that is written.
pub(super) const NAME: &str = "journal.ndjson";

const PREFIX: &str = "journal-";
const SUFFIX: &str = ".ndjson";

/// How far back from the end the last whole line is looked for at first.
const TAIL: u64 = 64 * 1024;

/// The name of a file that is written no more, after its first event: names sort as numbers.
pub(super) fn rotated_name(first: u64) -> String {
    format!("{PREFIX}{first:020}{SUFFIX}")
}

/// The files that are written no more, oldest first, by the numbers of their first events.
pub(super) fn rotated(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(first) = first {
            files.push((first, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// What is read of a line first.
#[derive(Deserialize)]
struct Head<'a> {
    seq: u64,
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// A line of the journal.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The event's number.
    pub seq: u64,
    /// Its type.
    pub kind: &'a str,
    /// The event, without the newline.
    pub json: &'a str,
}

/// Hands over the events after a number, in their order, until `each` says false. A line that is
/// being written is not one yet.
///
/// # Errors
/// A file cannot be read.
pub fn read_after(dir: &Path, after: u64, mut each: impl FnMut(Line<'_>) -> bool) -> io::Result<()> {
    let mut last = after;
    // Twice: the file may have been renamed after the others were listed.
    for _ in 0..2 {
        let files = rotated(dir)?;
        // Those before the last that begins at or before what is asked for have none of it.
        let begin = files.partition_point(|(first, _)| *first <= last.saturating_add(1));
        let paths = files[begin.saturating_sub(1)..]
            .iter()
            .map(|(_, path)| path.clone())
            .chain([dir.join(NAME)]);
        for path in paths {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            if !read_file(file, &mut last, &mut each)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_file(file: File, last: &mut u64, each: &mut impl FnMut(Line<'_>) -> bool) -> io::Result<bool> {
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    while {
        line.clear();
        reader.read_line(&mut line)? > 0
    } {
        let Some(json) = line.strip_suffix('\n') else {
            break;
        };
        let Ok(Head { seq, kind }) = serde_json::from_str(json) else {
            continue;
        };
        if seq <= *last {
            continue;
        }
        *last = seq;
        let kind = kind.as_ref();
        if !each(Line { seq, kind, json }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where a file's trustworthy part ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// After so many bytes.
    pub(super) whole: u64,
    /// The number of the last event before it.
    pub(super) last: Option<u64>,
    /// The number of the file's first event.
    pub(super) first: Option<u64>,
}

/// Finds the end of the last line that is an event: what a crash has left after it is none.
pub(super) fn end(file: &mut File) -> io::Result<End> {
    let len = file.metadata()?.len();
    let mut window = TAIL;
    loop {
        let start = len.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(len - start).read_to_end(&mut tail)?;
        if let Some((whole, last)) = last_event(&tail, start == 0) {
            let first = first_event(file)?;
            return Ok(End {
                whole: start + whole as u64,
                last: Some(last),
                first,
            });
        }
        if start == 0 {
            return Ok(End::default());
        }
        window *= 4;
    }
}

/// The end of the last event in a file's last bytes, and its number.
fn last_event(tail: &[u8], is_all: bool) -> Option<(usize, u64)> {
    let mut end = tail.len();
    loop {
        // Up to and with the newline before `end`.
        end = tail[..end].iter().rposition(|b| *b == b'\n')? + 1;
        let before = tail[..end - 1].iter().rposition(|b| *b == b'\n');
        let begin = match before {
            Some(at) => at + 1,
            None if is_all => 0,
            // Its beginning is not among these bytes.
            None => return None,
        };
        if let Some(seq) = seq_of(&tail[begin..end - 1]) {
            return Some((end, seq));
        }
        end -= 1;
    }
}

fn first_event(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(&mut *file).read_until(b'\n', &mut line)?;
    Ok(seq_of(&line))
}

fn seq_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Head<'_>>(line).ok().map(|head| head.seq)
}
