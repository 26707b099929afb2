//! In which order the rows are shown, and under which headings.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::tui::{filter::Filter, model::Row};

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns by their names")]
pub enum Sort {
    #[default]
    Age,
    Queued,
    User,
    Unit,
    Rule,
    Culprit,
}

impl Sort {
    const ALL: [Self; 6] = [
        Self::Age,
        Self::Queued,
        Self::User,
        Self::Unit,
        Self::Rule,
        Self::Culprit,
    ];

    /// The next column.
    #[must_use]
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Queued => "queued",
            Self::User => "user",
            Self::Unit => "unit",
            Self::Rule => "rule",
            Self::Culprit => "culprit",
        }
    }

    /// Whether the first is the one with the most.
    #[must_use]
    pub const fn is_descending(self) -> bool {
        matches!(self, Self::Age | Self::Queued)
    }
}

/// What rows have in common under one heading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns by their names")]
pub enum Group {
    #[default]
    None,
    Parent,
    Unit,
    Culprit,
    Rule,
}

impl Group {
    const ALL: [Self; 5] = [Self::None, Self::Parent, Self::Unit, Self::Culprit, Self::Rule];

    /// The next way to group.
    #[must_use]
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// Its name; none where rows are not grouped.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Parent => Some("parent"),
            Self::Unit => Some("unit"),
            Self::Culprit => Some("culprit"),
            Self::Rule => Some("rule"),
        }
    }

    /// The heading that a row stands under.
    fn label(self, row: &Row) -> String {
        let found = match self {
            Self::None => None,
            Self::Parent => row
                .facts
                .parent
                .as_ref()
                .map(|parent| format!("{parent}[{}]", row.ppid)),
            Self::Unit => row.unit().map(str::to_owned),
            Self::Culprit => row.culprit_label(),
            Self::Rule => row.rule.clone(),
        };
        found.unwrap_or_else(|| format!("no {}", self.name().unwrap_or_default()))
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A heading.
    Group(Heading),
    /// The row at that place in the snapshot.
    Row(usize),
}

/// What several rows have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// In words.
    pub label: String,
    /// How many rows stand under it.
    pub count: usize,
    /// The age of the oldest.
    pub oldest: Duration,
    /// What is queued for all of them.
    pub queued: u64,
    /// Whether they are shown.
    pub unfolded: bool,
}

/// How rows are chosen and ordered.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// What they are sorted by.
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// What they are grouped by.
    pub group: Group,
    /// Headings whose rows are shown.
    pub unfolded: HashSet<String>,
}

impl Order {
    /// The lines of the table, and how many rows the filter lets through.
    #[must_use]
    pub fn arrange(&self, rows: &[Row], filter: &Filter) -> (Vec<Line>, usize) {
        let all = filter.is_empty();
        let mut shown: Vec<usize> = (0..rows.len())
            .filter(|at| all || filter.holds(&rows[*at]))
            .collect();
        self.sort(rows, &mut shown);
        let matched = shown.len();
        if self.group == Group::None {
            return (shown.into_iter().map(Line::Row).collect(), matched);
        }
        (self.grouped(rows, shown), matched)
    }

    fn sort(&self, rows: &[Row], shown: &mut [usize]) {
        let oldest = |at: &usize| (Reverse(rows[*at].age), rows[*at].pid, rows[*at].tid);
        let text = |get: &dyn Fn(&Row) -> Option<String>, shown: &mut [usize]| {
            shown.sort_by_cached_key(|at| {
                let text = get(&rows[*at]);
                (text.is_none(), text, oldest(at))
            });
        };
        match self.sort {
            Sort::Age => shown.sort_unstable_by_key(oldest),
            Sort::Queued => {
                shown.sort_unstable_by_key(|at| (Reverse(rows[*at].queued), oldest(at)));
            }
            Sort::User => text(&|row| Some(row.user()), shown),
            Sort::Unit => text(&|row| row.unit().map(str::to_owned), shown),
            Sort::Rule => text(&|row| row.rule.clone(), shown),
            Sort::Culprit => text(&Row::culprit_label, shown),
        }
        if self.reversed {
            shown.reverse();
        }
    }

    /// The largest group first, each in the order of the rows.
    fn grouped(&self, rows: &[Row], shown: Vec<usize>) -> Vec<Line> {
        let mut places = HashMap::new();
        let mut groups: Vec<(Heading, Vec<usize>)> = Vec::new();
        for at in shown {
            let row = &rows[at];
            let label = self.group.label(row);
            let place = *places.entry(label).or_insert_with_key(|label| {
                let heading = Heading {
                    label: label.clone(),
                    count: 0,
                    oldest: Duration::ZERO,
                    queued: 0,
                    unfolded: self.unfolded.contains(label),
                };
                groups.push((heading, Vec::new()));
                groups.len() - 1
            });
            let (heading, members) = &mut groups[place];
            heading.count += 1;
            heading.oldest = heading.oldest.max(row.age);
            heading.queued += row.queued.unwrap_or(0);
            members.push(at);
        }
        groups.sort_by(|(a, _), (b, _)| (Reverse(a.count), &a.label).cmp(&(Reverse(b.count), &b.label)));
        let mut lines = Vec::new();
        for (heading, members) in groups {
            let unfolded = heading.unfolded;
            lines.push(Line::Group(heading));
            if unfolded {
                lines.extend(members.into_iter().map(Line::Row));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::model::Facts;

    fn rows() -> Vec<Row> {
        let row = |pid: u32, age: u64, queued, user: &str, parent: &str, rule: Option<&str>| Row {
            pid,
            age: Duration::from_secs(age),
            queued,
            ppid: 1,
            rule: rule.map(str::to_owned),
            facts: Arc::new(Facts {
                user: Some(user.to_owned()),
                parent: Some(parent.to_owned()),
                ..Facts::default()
            }),
            ..Row::default()
        };
        vec![
            row(10, 5, Some(9), "www", "node", Some("b")),
            row(11, 50, None, "adm", "bash", None),
            row(12, 20, Some(7), "www", "node", Some("a")),
        ]
    }

    fn pids(order: &Order) -> Vec<u32> {
        let rows = rows();
        let (lines, _) = order.arrange(&rows, &Filter::default());
        lines
            .iter()
            .map(|line| match line {
                Line::Row(at) => rows[*at].pid,
                Line::Group(heading) => u32::try_from(heading.count).unwrap(),
            })
            .collect()
    }

    #[test]
    fn each_column_sorts_with_what_matters_most_first_and_what_is_unknown_last() {
        for (sort, expected) in [
            (Sort::Age, [11, 12, 10]),
            (Sort::Queued, [10, 12, 11]),
            (Sort::User, [11, 12, 10]),
            (Sort::Rule, [12, 10, 11]),
        ] {
            let mut order = Order {
                sort,
                ..Order::default()
            };
            assert_eq!(pids(&order), expected, "{sort:?}");
            order.reversed = true;
            assert_eq!(pids(&order), expected.into_iter().rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn groups_have_counts_and_the_largest_is_first() {
        let mut order = Order {
            group: Group::Parent,
            ..Order::default()
        };
        assert_eq!(pids(&order), [2, 1]);
        order.unfolded.insert("node[1]".to_owned());
        assert_eq!(pids(&order), [2, 12, 10, 1]);
        let (lines, matched) = order.arrange(&rows(), &Filter::parse("user=www").unwrap());
        assert_eq!((lines.len(), matched), (3, 2));
    }
}
