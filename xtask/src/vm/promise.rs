//! The README's table of kernels as a promise: what it says works has to work in a run of all tests.

use super::kernels::Line;
use super::machine::Machine;
use super::matrix::{Cell, Row};
use super::steps::TRACERS;

/// How results differ from what was promised.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// What was promised and is not so, a sentence each.
    pub(super) broken: Vec<String>,
    /// What is better than promised.
    pub(super) better: Vec<String>,
}

/// Compares each result with what is promised of the same kernel line on the same machine.
pub(super) fn compare(promised: &[Row], found: &[Row]) -> Comparison {
    let mut comparison = Comparison::default();
    for row in found {
        let name = name(row.line, row.machine);
        let Some(promise) = promised.iter().find(|one| one.is_of(row.line, row.machine)) else {
            comparison.broken.push(format!("it has no line for {name}"));
            continue;
        };
        for tracer in TRACERS {
            let (before, now) = (promise.cell(tracer), row.cell(tracer));
            let differ = || format!("{name} {tracer}: it says `{before}`, and now it is `{now}`");
            match (before, now) {
                // A failure has been told already.
                (_, Cell::Failed | Cell::Unknown) => {}
                (Cell::Works, Cell::Refused) => comparison.broken.push(differ()),
                (before, now) if before != now => comparison.better.push(differ()),
                _ => {}
            }
        }
    }
    comparison
}

/// The promised kernels that were not tried: of those that can be on this machine.
pub(super) fn untried<'a>(promised: &'a [Row], found: &[Row]) -> impl Iterator<Item = String> + 'a {
    let tried: Vec<_> = found.iter().map(|row| (row.line, row.machine)).collect();
    promised
        .iter()
        .filter(move |row| row.machine.can_be_had() && !tried.contains(&(row.line, row.machine)))
        .map(|row| name(row.line, row.machine))
}

fn name(line: Line, machine: Machine) -> String {
    format!("{line}/{}", machine.debian())
}

#[cfg(test)]
mod tests {
    use super::super::kernels::LINES;
    use super::super::steps::Tracer;
    use super::*;

    fn row(release: &str, cell: Cell) -> Row {
        let mut row = Row::new(LINES[1], Machine::X86, release);
        row.set(Tracer::Sched, cell);
        row
    }

    fn compared(before: Cell, now: Cell) -> (usize, usize) {
        let Comparison { broken, better } = compare(
            &[row("6.1.0-56-cloud-amd64", before)],
            &[row("6.1.0-57-cloud-amd64", now)],
        );
        (broken.len(), better.len())
    }

    #[test]
    fn what_worked_has_to_work() {
        assert_eq!(compared(Cell::Works, Cell::Works), (0, 0));
        assert_eq!(compared(Cell::Works, Cell::Refused), (1, 0));
        assert_eq!(
            compare(&[row("a", Cell::Works)], &[row("b", Cell::Refused)]).broken,
            ["6.1/amd64 sched: it says `yes`, and now it is `no`"]
        );
    }

    #[test]
    fn what_is_better_breaks_no_promise_and_a_failure_is_told_elsewhere() {
        assert_eq!(compared(Cell::Refused, Cell::Works), (0, 1));
        assert_eq!(compared(Cell::Refused, Cell::Refused), (0, 0));
        assert_eq!(compared(Cell::Works, Cell::Failed), (0, 0));
        assert_eq!(compared(Cell::Works, Cell::Unknown), (0, 0));
    }

    #[test]
    fn a_kernel_without_a_line_breaks_it_and_a_line_without_a_kernel_is_untried() {
        let found = [row("6.1.0-56-cloud-amd64", Cell::Works)];
        assert_eq!(compare(&[], &found).broken, ["it has no line for 6.1/amd64"]);
        let arm = Row::new(LINES[3], Machine::Arm, "7.2.13+deb14-cloud-arm64");
        let promised = [found[0].clone(), arm];
        let untried = |found: &[Row]| untried(&promised, found).collect::<Vec<_>>();
        assert_eq!(untried(&found), ["newest/arm64"]);
        assert!(untried(&promised).is_empty());
    }
}
