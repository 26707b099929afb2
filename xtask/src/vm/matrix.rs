//! What came of each kernel and tracer, as a table: on the terminal, and in the README.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Tracer;
use crate::test::Totals;

const BEGIN: &str = "<!-- kernels: written by `cargo xtask vm --write-table` -->";
const END: &str = "<!-- kernels: end -->";

/// The results of one kernel's guests.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What its `uname -r` says.
    pub(super) release: String,
    pub(super) cells: BTreeMap<Tracer, Totals>,
}

impl Row {
    pub(super) fn new(release: &str) -> Self {
        Self {
            release: release.to_owned(),
            cells: BTreeMap::new(),
        }
    }

    /// What the kernel does with a tracer. Where every test of it was skipped, it cannot be used.
    fn cell(&self, tracer: Tracer) -> String {
        match self.cells.get(&tracer) {
            Some(totals) if !totals.is_well() => "FAILED".to_owned(),
            Some(totals) if totals.passed() > 0 => format!("yes ({})", totals.passed()),
            Some(_) => "no".to_owned(),
            None => "-".to_owned(),
        }
    }
}

/// The table for people, in Markdown, which a terminal shows well enough.
pub(super) fn table(rows: &[Row], columns: &[Tracer]) -> String {
    let header = [
        vec!["kernel".to_owned()],
        columns.iter().map(ToString::to_string).collect(),
    ]
    .concat();
    let cells = rows.iter().map(|row| {
        let values = columns.iter().map(|tracer| row.cell(*tracer)).collect();
        [vec![row.release.clone()], values].concat()
    });
    lay_out(&std::iter::once(header).chain(cells).collect::<Vec<_>>())
}

fn lay_out(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        for (value, width) in line.iter().zip(&widths) {
            let _ = write!(out, "| {value:width$} ");
        }
        out.push_str("|\n");
        if i == 0 {
            for width in &widths {
                let _ = write!(out, "| {} ", "-".repeat(*width));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// Puts the table between its marks in the README.
pub(super) fn write(path: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let new =
        replaced(&text, table).with_context(|| format!("{} has no marks for the table", path.display()))?;
    fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

/// A kernel of the same number and machine gets its new line; the others keep theirs.
fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let mut lines = cells(old);
    for new in cells(table) {
        match lines.iter_mut().find(|line| kernel(line) == kernel(&new)) {
            Some(line) => *line = new,
            None => lines.push(new),
        }
    }
    Some(format!("{before}{BEGIN}\n{}{END}{after}", lay_out(&lines)))
}

/// The lines of a table but for the rule under the first.
fn cells(table: &str) -> Vec<Vec<String>> {
    let inner = |line: &str| Some(line.trim().strip_prefix('|')?.strip_suffix('|')?.to_owned());
    let lines = table.lines().filter_map(inner);
    lines
        .map(|line| {
            line.split('|')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|line| !line.iter().all(|cell| cell.starts_with('-')))
        .collect()
}

/// The number and the machine of a line's kernel, as of `6.1.0-56-cloud-arm64`.
fn kernel(line: &[String]) -> Option<(Vec<&str>, &str)> {
    let release = line.first()?;
    Some((release.split('.').take(2).collect(), release.rsplit('-').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_whether_a_tracer_works_is_refused_or_fails() {
        let totals = |output: &str| {
            let mut totals = Totals::default();
            output.lines().for_each(|line| totals.read(line));
            totals
        };
        let row = Row {
            release: "6.1.0".to_owned(),
            cells: BTreeMap::from([
                (
                    Tracer::Sched,
                    totals("test result: ok. 3 passed; 0 failed; 1 ignored"),
                ),
                (
                    Tracer::Fentry,
                    totals("skipped: refused (a)\ntest result: ok. 1 passed; 0 failed; 0 ignored"),
                ),
                (
                    Tracer::Kprobe,
                    totals("test result: FAILED. 3 passed; 1 failed; 0 ignored"),
                ),
            ]),
        };
        let columns = [Tracer::Sched, Tracer::Fentry, Tracer::Kprobe, Tracer::Scan];
        assert_eq!(
            table(&[row], &columns),
            "| kernel | sched   | fentry | kprobe | scan |\n\
             | ------ | ------- | ------ | ------ | ---- |\n\
             | 6.1.0  | yes (3) | no     | FAILED | -    |\n"
        );
    }

    #[test]
    fn a_kernels_line_takes_the_place_of_the_one_before_and_the_others_stay() {
        let text = |lines: &str| format!("a\n{BEGIN}\n{lines}{END}\nb\n");
        let head = "| kernel       | sched |\n| ------------ | ----- |\n";
        let new = format!("{head}| 6.1.0-57-x86 | no    |\n| 6.1.0-57-arm | yes   |\n");
        assert_eq!(replaced(&text(""), &new), Some(text(&new)));
        let old = format!("{head}| 5.10.9-1-x86 | yes   |\n| 6.1.0-56-x86 | FAILED |\n");
        let both =
            format!("{head}| 5.10.9-1-x86 | yes   |\n| 6.1.0-57-x86 | no    |\n| 6.1.0-57-arm | yes   |\n");
        assert_eq!(replaced(&text(&old), &new), Some(text(&both)));
        assert_eq!(replaced("a", &new), None);
    }
}
