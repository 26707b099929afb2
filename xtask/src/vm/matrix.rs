//! What came of each kernel and tracer, as a table: on the terminal, and in the README.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernels::{self, Line};
use super::machine::{MACHINES, Machine};
use super::steps::{TRACERS, Tracer};
use crate::test::Totals;

const BEGIN: &str = "<!-- kernels: written by `cargo xtask vm --write-table` -->";
const END: &str = "<!-- kernels: end -->";

/// What a kernel does with a tracer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Its tests passed.
    Works,
    /// Every test was skipped: it cannot be used.
    Refused,
    Failed,
    /// It was not tried.
    Unknown,
}

impl Cell {
    pub(super) fn of(totals: &Totals) -> Self {
        if !totals.is_well() {
            Self::Failed
        } else if totals.passed() > 0 {
            Self::Works
        } else {
            Self::Refused
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "no" => Some(Self::Refused),
            "FAILED" => Some(Self::Failed),
            "-" => Some(Self::Unknown),
            "yes" => Some(Self::Works),
            _ => None,
        }
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("yes"),
            Self::Refused => f.write_str("no"),
            Self::Failed => f.write_str("FAILED"),
            Self::Unknown => f.write_str("-"),
        }
    }
}

/// The results of one kernel's guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: Line,
    pub(super) machine: Machine,
    /// What its `uname -r` says.
    release: String,
    cells: BTreeMap<Tracer, Cell>,
}

impl Row {
    pub(super) fn new(line: Line, machine: Machine, release: &str) -> Self {
        Self {
            line,
            machine,
            release: release.to_owned(),
            cells: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, tracer: Tracer, cell: Cell) {
        self.cells.insert(tracer, cell);
    }

    pub(super) fn cell(&self, tracer: Tracer) -> Cell {
        self.cells.get(&tracer).copied().unwrap_or(Cell::Unknown)
    }

    /// Whether it is another's kernel: a release comes and goes, the line stays.
    pub(super) fn is_of(&self, line: Line, machine: Machine) -> bool {
        (self.line, self.machine) == (line, machine)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.is_of(other.line, other.machine)
    }
}

/// The table for people, in Markdown, which a terminal shows well enough.
pub(super) fn table(rows: &[Row]) -> String {
    let header = std::iter::once("kernel".to_owned()).chain(TRACERS.iter().map(ToString::to_string));
    let mut lines = vec![header.collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| {
        let cells = TRACERS.iter().map(|tracer| row.cell(*tracer).to_string());
        std::iter::once(row.release.clone()).chain(cells).collect()
    }));
    lay_out(&lines)
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

/// What the README says.
pub(super) fn read(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("the table of kernels in {}", path.display()))
}

/// Puts these lines of the table into the README; a kernel that is not among them keeps its own.
pub(super) fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let new = replaced(&text, rows).with_context(|| format!("the table of kernels in {}", path.display()))?;
    fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(text: &str, rows: &[Row]) -> Result<String> {
    let mut all = parse(text)?;
    for row in rows {
        match all.iter_mut().find(|old| old.is_like(row)) {
            Some(old) => *old = row.clone(),
            None => all.push(row.clone()),
        }
    }
    let (before, _, after) = around(text)?;
    Ok(format!("{before}{BEGIN}\n{}{END}{after}", table(&all)))
}

/// What is before the table, it, and what is after.
fn around(text: &str) -> Result<(&str, &str, &str)> {
    let parts = || {
        let (before, rest) = text.split_once(BEGIN)?;
        let (table, after) = rest.split_once(END)?;
        Some((before, table, after))
    };
    parts().context("its marks are missing")
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let (_, table, _) = around(text)?;
    let mut lines = cells(table);
    let Some(header) = lines.next() else {
        return Ok(Vec::new());
    };
    let columns: Vec<_> = header
        .iter()
        .map(|name| TRACERS.into_iter().find(|tracer| tracer.to_string() == *name))
        .collect();
    let row = |line: Vec<&str>| {
        let release = *line.first()?;
        let machine = MACHINES
            .into_iter()
            .find(|machine| release.ends_with(&format!("-{}", machine.debian())))?;
        let mut row = Row::new(kernels::line_of(release), machine, release);
        for (tracer, value) in columns.iter().zip(&line) {
            if let Some(tracer) = tracer {
                row.set(*tracer, Cell::parse(value)?);
            }
        }
        Some(row)
    };
    lines
        .map(|line| row(line.clone()).with_context(|| format!("a line that is none: {}", line.join(" | "))))
        .collect()
}

/// The lines of a table but for the rule under the first.
fn cells(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|line| !line.iter().all(|cell| cell.starts_with("--")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\
        | kernel                   | sched | fentry | kprobe | scan |\n\
        | ------------------------ | ----- | ------ | ------ | ---- |\n";
    const ROWS: [&str; 3] = [
        "| 6.1.0-56-cloud-amd64     | yes   | no     | FAILED | -    |\n",
        "| 7.2.13+deb14-cloud-amd64 | -     | -      | -      | yes  |\n",
        "| 6.1.0-56-cloud-arm64     | yes   | no     | no     | yes  |\n",
    ];

    fn readme(rows: &[&str]) -> String {
        format!("a\n{BEGIN}\n{HEAD}{}{END}\nb\n", rows.concat())
    }

    #[test]
    fn a_cell_says_whether_a_tracer_works_is_refused_or_fails() {
        let cell = |output: &str| {
            let mut totals = Totals::default();
            output.lines().for_each(|line| totals.read(line));
            Cell::of(&totals).to_string()
        };
        assert_eq!(cell("test result: ok. 3 passed; 0 failed; 1 ignored"), "yes");
        assert_eq!(
            cell("skipped: refused (a)\ntest result: ok. 1 passed; 0 failed; 0 ignored"),
            "no"
        );
        assert_eq!(
            cell("test result: FAILED. 3 passed; 1 failed; 0 ignored"),
            "FAILED"
        );
    }

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let text = readme(&ROWS);
        let rows = parse(&text).expect("a table");
        let keys: Vec<_> = rows
            .iter()
            .map(|row| (row.line.name, row.machine.name()))
            .collect();
        assert_eq!(
            keys,
            [("6.1", "x86_64"), ("newest", "x86_64"), ("6.1", "aarch64")]
        );
        assert_eq!(rows[0].cell(Tracer::Sched), Cell::Works);
        assert_eq!(rows[0].cell(Tracer::Kprobe), Cell::Failed);
        assert_eq!(table(&rows), format!("{HEAD}{}", ROWS.concat()));
        assert!(parse("a").is_err());
        for wrong in [
            "| 6.1.0 | - | - | - | - |\n",
            "| 6.1.0-arm64 | yes (x) | - | - | - |\n",
        ] {
            assert!(parse(&readme(&[wrong])).is_err());
        }
    }

    #[test]
    fn a_kernels_line_takes_the_place_of_the_one_before_and_the_others_stay() {
        let text = readme(&ROWS);
        let new = "| 7.3.13+deb14-cloud-amd64 | no    | -      | -      | yes  |\n";
        let rows = parse(&readme(&[new])).expect("a table");
        assert_eq!(
            replaced(&text, &rows).expect("a table"),
            readme(&[ROWS[0], new, ROWS[2]])
        );
        let all = parse(&text).expect("a table");
        assert_eq!(
            replaced(&format!("a\n{BEGIN}\n{END}\nb\n"), &all).expect("a table"),
            text
        );
    }
}
