//! Tables of files, and the values in them: each is what it means, or a problem at its place.

use std::{collections::hash_map::Entry, ops::Range, time::Duration};

use toml::Spanned;

use super::{
    Check,
    value::{Limits, duration, one_of},
};
use crate::config::{
    problem::Problem,
    raw::{File, Raw, Text},
    source::{Place, Source},
};

/// A table of a file.
pub(super) struct Table<'a> {
    pub(super) source: &'a Source,
    pub(super) key: String,
    pub(super) span: Range<usize>,
}

impl<'a> Table<'a> {
    pub(super) fn place(&self) -> Place<'a> {
        self.source.place(self.key.clone(), self.span.clone())
    }

    /// The place of a value in the table.
    pub(super) fn value<T>(&self, name: &str, value: &Spanned<T>) -> Place<'a> {
        self.source.place(format!("{}.{name}", self.key), value.span())
    }

    /// A table within the table.
    pub(super) fn inner<T>(&self, name: &str, value: &Spanned<T>) -> Table<'a> {
        Table {
            source: self.source,
            key: format!("{}.{name}", self.key),
            span: value.span(),
        }
    }

    /// The place to speak of a value that is not there: the table's header.
    pub(super) fn absent(&self, name: &str) -> Place<'a> {
        self.source
            .place(format!("{}.{name}", self.key), self.span.clone())
    }
}

/// The tables of an array of tables, in all files.
pub(super) fn tables<'a, T: 'a>(
    files: &'a [File],
    key: &'static str,
    get: impl Fn(&'a Raw) -> &'a [Spanned<T>],
) -> impl Iterator<Item = (Table<'a>, &'a T)> {
    files.iter().flat_map(move |file| {
        (0..).zip(get(&file.raw)).map(move |(i, spanned): (usize, _)| {
            let table = Table {
                source: &file.source,
                key: format!("{key}[{i}]"),
                span: spanned.span(),
            };
            (table, spanned.get_ref())
        })
    })
}

impl<'a> Check<'a> {
    /// The value, or what is wrong with it among the problems.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// A name that no other of its kind has.
    pub(super) fn own_name(&mut self, kind: &'static str, place: Place<'a>, name: &'a str) -> Option<String> {
        match self.names.entry((kind, name)) {
            Entry::Occupied(first) => {
                let first = first.get().location();
                let message =
                    format!("`{name}` is the name of the {kind} at {first}; give each {kind} its own");
                self.problems.push(place.problem(message));
                None
            }
            Entry::Vacant(free) => {
                free.insert(place);
                Some(name.to_owned())
            }
        }
    }

    /// A duration, or the default for one that is not given or wrong.
    pub(super) fn time(
        &mut self,
        table: &Table<'a>,
        key: &str,
        given: Option<&Text>,
        limits: Limits,
        default: Duration,
    ) -> Duration {
        given
            .and_then(|text| self.keep(duration(&table.value(key, text), text.get_ref(), limits)))
            .unwrap_or(default)
    }

    /// The one of `choices` that is given.
    pub(super) fn choice<T: Copy>(
        &mut self,
        table: &Table<'a>,
        key: &str,
        given: Option<&Text>,
        words: (&str, &str),
        choices: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let text = given?;
        self.keep(one_of(
            &table.value(key, text),
            text.get_ref(),
            words,
            choices,
            name,
        ))
    }

    /// Those of `choices` that are given, each once.
    pub(super) fn several<T: Copy + PartialEq>(
        &mut self,
        table: &Table<'a>,
        key: &str,
        given: &[Text],
        words: (&str, &str),
        choices: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Vec<T> {
        let read = |place: &Place<'_>, text: &str| one_of(place, text, words, choices, &name);
        let mut several = Vec::new();
        for one in self.each(table, key, given, read) {
            if !several.contains(&one) {
                several.push(one);
            }
        }
        several
    }

    /// What the texts of a list mean, as far as they are right.
    pub(super) fn each<T>(
        &mut self,
        table: &Table<'a>,
        key: &str,
        given: &[Text],
        read: impl Fn(&Place<'_>, &str) -> Result<T, Problem>,
    ) -> Vec<T> {
        let read = |(i, text): (usize, &Text)| {
            let place = table.value(&format!("{key}[{i}]"), text);
            self.keep(read(&place, text.get_ref()))
        };
        given.iter().enumerate().filter_map(read).collect()
    }

    /// The one table of that name in all files.
    pub(super) fn only<T>(
        &mut self,
        files: &'a [File],
        key: &str,
        get: impl Fn(&'a Raw) -> Option<&'a Spanned<T>>,
    ) -> Option<(Table<'a>, &'a T)> {
        let mut found: Option<(Table<'a>, &'a T)> = None;
        for file in files {
            let Some(spanned) = get(&file.raw) else { continue };
            let table = Table {
                source: &file.source,
                key: key.to_owned(),
                span: spanned.span(),
            };
            if let Some((first, _)) = &found {
                let first = first.place().location();
                let message = format!("is already set at {first}; keep one of the two");
                self.problems.push(table.place().problem(message));
            } else {
                found = Some((table, spanned.get_ref()));
            }
        }
        found
    }
}
