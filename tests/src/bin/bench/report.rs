//! The figures: a table as they come, JSON at the end, and whether the limits were kept.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::Machine;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// The figure, in `unit`.
    pub(crate) value: f64,
    /// `ns`, `ms`, `MiB` …
    pub(crate) unit: &'static str,
    /// The same without pipestall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baseline: Option<f64>,
    /// The figure over its baseline, each the minimum of its repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// The median of the ratios of neighbouring repeats, or of the repeats where there is no baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) median: Option<f64>,
    /// What the ratio, or the figure where there is none, is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<f64>,
    /// Whether it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<bool>,
}

impl Row {
    /// A figure that stands for itself.
    pub(crate) fn of(name: &str, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            baseline: None,
            ratio: None,
            median: None,
            limit: None,
            kept: None,
        }
    }

    /// Compares with a baseline in the same unit.
    #[must_use]
    pub(crate) fn against(self, baseline: f64) -> Self {
        Self {
            baseline: Some(baseline),
            ratio: Some(self.value / baseline),
            ..self
        }
    }

    /// Adds the median.
    #[must_use]
    pub(crate) fn with_median(self, median: f64) -> Self {
        Self {
            median: Some(median),
            ..self
        }
    }

    /// Sets what it may be at most.
    #[must_use]
    pub(crate) fn at_most(self, limit: f64) -> Self {
        let judged = self.ratio.unwrap_or(self.value);
        self.held_to(limit, judged <= limit)
    }

    /// Sets what it must be at least.
    #[must_use]
    pub(crate) fn at_least(self, limit: f64) -> Self {
        let judged = self.ratio.unwrap_or(self.value);
        self.held_to(limit, judged >= limit)
    }

    fn held_to(self, limit: f64, kept: bool) -> Self {
        Self {
            limit: Some(limit),
            kept: Some(kept),
            ..self
        }
    }
}

/// All figures so far.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// Whether there were fewer repeats than a record needs.
    quick: bool,
    rows: Vec<Row>,
    #[serde(skip)]
    shows_table: bool,
}

impl Report {
    /// Begins a report, and the table if there is to be one.
    pub(crate) fn new(shows_table: bool, quick: bool) -> Result<Self> {
        let machine = Machine::describe()?;
        if shows_table {
            println!("{}", machine.line());
            println!("ratios: minimum of interleaved repeats over the same without pipestall\n");
            println!(
                "{:<34}{:>11}{:>9}{:>7}{:>8}{:>6}",
                "", "minimum", "without", "ratio", "median", "limit"
            );
        }
        Ok(Self {
            machine,
            quick,
            rows: Vec::new(),
            shows_table,
        })
    }

    /// Adds a figure and shows it at once.
    pub(crate) fn add(&mut self, row: Row) {
        if self.shows_table {
            println!("{}", line(&row));
        }
        self.rows.push(row);
    }

    /// Says what is measured now, which takes a while.
    pub(crate) fn progress(&self, what: &str) {
        if self.shows_table && rustix::termios::isatty(std::io::stderr()) {
            eprintln!("… {what}");
        }
    }

    /// Ends the report, and writes it as JSON where that is wanted (`-` is stdout).
    pub(crate) fn finish(&self, json: Option<&Path>) -> Result<()> {
        let missed = self.rows.iter().filter(|row| row.kept == Some(false)).count();
        if self.shows_table {
            let judged = self.rows.iter().filter(|row| row.kept.is_some()).count();
            println!("\n{} of {judged} limits kept", judged - missed);
        }
        let Some(path) = json else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)? + "\n";
        if path.as_os_str() == "-" {
            print!("{text}");
            return Ok(());
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Says whether no limit was missed.
    pub(crate) fn all_kept(&self) -> bool {
        self.rows.iter().all(|row| row.kept != Some(false))
    }
}

/// At most 80 columns.
fn line(row: &Row) -> String {
    let optional = |value: Option<f64>, digits: usize| {
        value.map(|value| format!("{value:.digits$}")).unwrap_or_default()
    };
    let digits = if row.value < 1.0 { 3 } else { 1 };
    let verdict = match row.kept {
        Some(true) => "PASS",
        Some(false) => "FAIL",
        None => "",
    };
    // A limit on a ratio has its digits, one on a figure those of the figure.
    let limit_digits = if row.ratio.is_some() {
        2
    } else {
        usize::from(row.limit.is_some_and(|l| l.fract() != 0.0))
    };
    format!(
        "{:<34}{:>11}{:>9}{:>7}{:>8}{:>6} {verdict}",
        row.name,
        format!("{:.digits$} {}", row.value, row.unit),
        optional(row.baseline, digits),
        optional(row.ratio, 3),
        optional(row.median, if row.ratio.is_some() { 3 } else { digits }),
        optional(row.limit, limit_digits),
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Row, line};

    #[test]
    fn a_ratio_is_judged_where_there_is_a_baseline() {
        assert_eq!(
            Row::of("a", 2.0, "ns").against(1.0).at_most(1.5).kept,
            Some(false)
        );
        assert_eq!(
            Row::of("a", 103.0, "ns").against(100.0).at_most(1.04).kept,
            Some(true)
        );
        assert_eq!(Row::of("a", 14.0, "ms").at_most(15.0).kept, Some(true));
        assert_eq!(Row::of("a", 1.0, "ms").kept, None);
    }

    #[test]
    fn a_line_fits_the_terminal() {
        let row = Row::of("  threshold → last confirmed exit", 1999.99, "ms").at_most(2000.0);
        assert!(line(&row).chars().count() <= 80, "{}", line(&row));
        let row = Row::of("  the tracer, following a writer", 12345.6, "ns")
            .against(12300.0)
            .with_median(1.0)
            .at_most(1.04);
        assert!(line(&row).chars().count() <= 80, "{}", line(&row));
    }
}
