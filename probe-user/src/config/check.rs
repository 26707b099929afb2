//! Gives typed values their meaning, or says what is wrong with them.
//!
//! All that a configuration promises is checked here, over all files at once. It
//! does no I/O and must not know how TOML is written.

mod matches;
mod pace;
mod rule;
mod service;
mod table;
mod value;
mod webhook;

use std::{collections::HashMap, time::Duration};

use probe_ebpf::pattern::CommFilter;
use toml::Spanned;

use self::{
    matches::{no_comm, no_path, no_unit},
    table::{Table, tables},
    value::{Limits, pattern},
};
use super::{
    Config, Observe,
    problem::{Problem, list},
    raw::{File, RawMatch, RawObserve, RawProtect, Text},
    source::{Place, Source},
};
use crate::core::{
    matcher::Match,
    model::{ChannelKind, channel_name},
    rule::{Policy, Protect},
};

const CHANNELS: [ChannelKind; 3] = [ChannelKind::Pipe, ChannelKind::Fifo, ChannelKind::Unix];
const DEFAULT_COMM: &str = "ffmpeg*";
const DEFAULT_REPORT_AFTER: Duration = Duration::from_secs(5);
/// The agent looks at all tasks this often, so it must not be tiny.
const REPORT_AFTER: Limits = (Duration::from_millis(100), Duration::MAX);

/// Makes one configuration of the files, or says all that is wrong with their values.
pub(super) fn config(files: &[File]) -> Result<Config, Vec<Problem>> {
    let mut check = Check::default();
    let observe = check.only(files, "observe", |raw| raw.observe.as_ref());
    let observe = observe.map_or_else(default_observe, |(table, raw)| check.observe(&table, raw));
    let protect = check.only(files, "protect", |raw| raw.protect.as_ref());
    let protect = protect
        .map(|(table, raw)| check.protect(&table, raw))
        .unwrap_or_default();
    let state = check.only(files, "state", |raw| raw.state.as_ref());
    let state = state
        .map(|(table, raw)| check.state(&table, raw))
        .unwrap_or_default();
    let api = check.only(files, "api", |raw| raw.api.as_ref());
    let api = api.map(|(table, raw)| check.api(&table, raw));
    let metrics = check.only(files, "metrics", |raw| raw.metrics.as_ref());
    let metrics = metrics.and_then(|(table, raw)| check.metrics(&table, raw));
    let limits = check.only(files, "limits", |raw| raw.limits.as_ref());
    let limits = limits.map_or_else(crate::core::pace::Limits::default, |(table, raw)| {
        check.limits(&table, raw)
    });
    let rules = tables(files, "rule", |raw| &raw.rule)
        .filter_map(|(table, raw)| check.rule(&table, raw, &observe, &protect))
        .collect();
    let webhooks = check.webhooks(files);
    let spool = check.only(files, "spool", |raw| raw.spool.as_ref());
    let spool = spool
        .map(|(table, raw)| check.spool(&table, raw))
        .unwrap_or_default();
    if !check.problems.is_empty() {
        return Err(check.problems);
    }
    let policy = Policy {
        limits,
        rules,
        protect,
        report_after: observe.report_after,
    };
    Ok(Config {
        observe,
        policy,
        state,
        api,
        metrics,
        webhooks,
        spool,
        warnings: check.warnings,
    })
}

/// Makes a match of conditions that stand alone, or says what is wrong with the first.
pub(super) fn conditions(source: &Source, raw: &RawMatch) -> Result<Match, Problem> {
    let table = Table {
        source,
        key: String::new(),
        span: 0..0,
    };
    let mut check = Check::default();
    let matches = check.conditions(&table, raw);
    check.problems.into_iter().next().map_or(Ok(matches), Err)
}

fn default_observe() -> Observe {
    let filter = CommFilter::parse([DEFAULT_COMM]).unwrap_or_default();
    Observe {
        comm: vec![DEFAULT_COMM.to_owned()],
        filter,
        channels: CHANNELS.to_vec(),
        report_after: DEFAULT_REPORT_AFTER,
    }
}

/// What has been found so far.
#[derive(Default)]
struct Check<'a> {
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// The names of rules and of webhooks, and where each is given.
    names: HashMap<(&'static str, &'a str), Place<'a>>,
}

impl<'a> Check<'a> {
    /// A table with a problem yields defaults, which nobody gets to see.
    fn observe(&mut self, table: &Table<'a>, raw: &RawObserve) -> Observe {
        let mut observe = default_observe();
        if let Some(given) = &raw.comm
            && let Some(filter) = self.keep(filter(table, given))
        {
            observe.filter = filter;
            observe.comm = given
                .get_ref()
                .iter()
                .map(|text| text.get_ref().clone())
                .collect();
        }
        if let Some(given) = &raw.channels {
            observe.channels = self.channels(table, given);
        }
        let report_after = raw.report_after.as_ref();
        observe.report_after = self.time(
            table,
            "report_after",
            report_after,
            REPORT_AFTER,
            DEFAULT_REPORT_AFTER,
        );
        observe
    }

    fn channels(&mut self, table: &Table<'a>, given: &Spanned<Vec<Text>>) -> Vec<ChannelKind> {
        if given.get_ref().is_empty() {
            let known = list(&CHANNELS.map(channel_name));
            let problem = table
                .value("channels", given)
                .problem(format!("is empty; name one or more of {known}"));
            self.problems.push(problem);
        }
        let words = ("channel", "channels");
        self.several(table, "channels", given.get_ref(), words, &CHANNELS, channel_name)
    }

    fn protect(&mut self, table: &Table<'a>, raw: &RawProtect) -> Protect {
        let mut list = |key: &str, texts: &[Text], wrong: fn(&str) -> Option<String>| {
            let place = |(i, text): (usize, &Text)| table.value(&format!("{key}[{i}]"), text);
            // Not a warning: what was meant to be safe would not be.
            for (i, text) in texts.iter().enumerate() {
                if let Some(right) = wrong(text.get_ref()).filter(|_| !text.get_ref().is_empty()) {
                    let message = format!("`{}` would protect nothing: {right}", text.get_ref());
                    self.problems.push(place((i, text)).problem(message));
                }
            }
            texts
                .iter()
                .enumerate()
                .filter_map(|(i, text)| {
                    let parsed = pattern(&place((i, text)), text.get_ref());
                    parsed.map_err(|problem| self.problems.push(problem)).ok()
                })
                .collect()
        };
        Protect {
            comm: list("comm", &raw.comm, no_comm),
            users: list("users", &raw.users, |_| None),
            units: list("units", &raw.units, no_unit),
            exe: list("exe", &raw.exe, no_path),
            pids: Vec::new(),
        }
    }
}

fn filter(table: &Table<'_>, given: &Spanned<Vec<Text>>) -> Result<CommFilter, Problem> {
    let texts = given.get_ref();
    if texts.is_empty() {
        let place = table.value("comm", given);
        return Err(place.problem("is empty, so nothing is observed; use [\"*\"] for every command"));
    }
    if let Some((i, text)) = (0..).zip(texts).find(|(_, text)| text.get_ref().starts_with('~')) {
        let place = table.value(&format!("comm[{i}]"), text);
        return Err(place.problem(format!(
            "`{}` is a regular expression, which the kernel side does not know; use a name or a prefix, \
             such as \"ffmpeg*\"",
            text.get_ref()
        )));
    }
    CommFilter::parse(texts.iter().map(|text| text.get_ref().as_str())).map_err(|(i, error)| {
        let text = &texts[i];
        let place = table.value(&format!("comm[{i}]"), text);
        if text.get_ref().is_empty() {
            place.problem(error.as_str())
        } else {
            place.problem(format!("`{}` {}", text.get_ref(), error.as_str()))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_wrong_value_outside_the_rules_is_told_with_what_would_be_right() {
        for (text, expected) in [
            (
                "[observe]\ncomm = []",
                "2:8: observe.comm: is empty, so nothing is observed; use [\"*\"] for every command",
            ),
            (
                "[observe]\ncomm = ['']",
                "2:9: observe.comm[0]: is empty; use \"*\" for every command",
            ),
            (
                "[observe]\ncomm = ['a', '*ffmpeg']",
                "2:14: observe.comm[1]: `*ffmpeg` is not an exact name or a prefix: \
                 '*' may only stand at the end, and '?', '[' not at all",
            ),
            (
                "[observe]\ncomm = ['sixteen-bytes-xx']",
                "2:9: observe.comm[0]: `sixteen-bytes-xx` is longer than the 15 bytes that the kernel keeps \
                 of a command's name; end it with '*' sooner",
            ),
            (
                "[observe]\ncomm = [\n'a','b','c','d','e','f','g','h',\n'i']",
                "4:1: observe.comm[8]: `i` is one too many: the kernel side compares at most 8 patterns",
            ),
            (
                "[observe]\nchannels = []",
                "2:12: observe.channels: is empty; name one or more of `pipe`, `fifo`, `unix`",
            ),
            (
                "[observe]\nchannels = ['pipe', 'pipes']",
                "2:21: observe.channels[1]: there is no channel `pipes`; did you mean `pipe`?",
            ),
            (
                "[observe]\nchannels = ['socket']",
                "2:13: observe.channels[0]: there is no channel `socket`; known channels: `pipe`, `fifo`, `unix`",
            ),
            (
                "[observe]\nreport_after = '0s'",
                "2:16: observe.report_after: `0s` is too short; use 100ms or more",
            ),
            (
                "[observe]\nreport_after = '1 day'",
                "2:16: observe.report_after: `1 day` is no duration; \
                 write hours, minutes and seconds in quotes, such as \"60s\" or \"1m 30s\"",
            ),
            (
                "[protect]\ncomm = ['containerd-shim-runc-v2']",
                "2:9: protect.comm[0]: `containerd-shim-runc-v2` would protect nothing: \
                 the kernel keeps 15 bytes of a command's name; end it with `*` sooner",
            ),
            (
                "[protect]\nusers = ['root', '']",
                "2:18: protect.users[1]: is empty; use \"*\" for anything, or leave it out",
            ),
            (
                "[protect]\nunits = ['~(']\nexe = ['']",
                "2:10: protect.units[0]: `~(` is no regular expression: unclosed group; \
                 a pattern that starts with `~` must be one; write `[~]` for a plain `~`\n\
                 a.toml:3:8: protect.exe[0]: is empty; use \"*\" for anything, or leave it out",
            ),
            (
                "[observe]\ncomm = ['a', '~ffmpeg']",
                "2:14: observe.comm[1]: `~ffmpeg` is a regular expression, which the kernel side does not know; \
                 use a name or a prefix, such as \"ffmpeg*\"",
            ),
            (
                "[state]\ndir = ''",
                "2:7: state.dir: is empty; name a directory, such as \"/var/lib/pipestall\"",
            ),
        ] {
            let error = Config::parse(text, Path::new("a.toml")).unwrap_err().to_string();
            assert_eq!(error, format!("a.toml:{expected}"), "{text}");
        }
    }
}
