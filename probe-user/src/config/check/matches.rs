//! Checks what rules apply to, and warns of what cannot be meant.
//!
//! It must not know what a rule does to what it applies to.

use std::time::Duration;

use toml::Spanned;

use super::{
    CHANNELS, Check, Table,
    value::{Limits, duration, pattern},
};
use crate::{
    config::{
        Observe, comm,
        problem::list,
        raw::{RawMatch, Text},
    },
    core::{
        matcher::{Match, SHORT_ID},
        model::{Stream, channel_name},
        pattern::Pattern,
        protect::Protect,
        reader::State,
    },
};

const STREAMS: [Stream; 3] = [Stream::Stdin, Stream::Stdout, Stream::Stderr];
const MIN_PROCESS_AGE: Limits = (Duration::from_millis(1), Duration::MAX);
const EVERYTHING: &str = "which would match everything; if that is meant, say match = { comm = \"*\" }";

impl<'a> Check<'a> {
    /// What a rule applies to; none if anything about it is wrong.
    pub(super) fn matches(
        &mut self,
        rule: &Table<'a>,
        given: Option<&Spanned<RawMatch>>,
        observe: &Observe,
    ) -> Option<Match> {
        let Some(given) = given else {
            self.problems
                .push(rule.absent("match").problem(format!("is missing, {EVERYTHING}")));
            return None;
        };
        let (table, raw) = (inner(rule, given), given.get_ref());
        let known = self.problems.len();
        let matches = self.conditions(&table, raw);
        if self.problems.len() > known {
            return None;
        }
        if matches == Match::default() {
            self.problems.push(
                rule.value("match", given)
                    .problem(format!("is empty, {EVERYTHING}")),
            );
            return None;
        }
        self.warn_of_nothing(&table, raw, &matches, observe);
        Some(matches)
    }

    /// Every condition that is given and right.
    pub(super) fn conditions(&mut self, table: &Table<'a>, raw: &RawMatch) -> Match {
        let matches = Match {
            comm: self.condition(table, "comm", raw.comm.as_ref()),
            thread: self.condition(table, "thread", raw.thread.as_ref()),
            exe: self.condition(table, "exe", raw.exe.as_ref()),
            cmdline: self.condition(table, "cmdline", raw.cmdline.as_ref()),
            user: self.condition(table, "user", raw.user.as_ref()),
            group: self.condition(table, "group", raw.group.as_ref()),
            parent: self.condition(table, "parent", raw.parent.as_ref()),
            ancestor: self.condition(table, "ancestor", raw.ancestor.as_ref()),
            cgroup: self.condition(table, "cgroup", raw.cgroup.as_ref()),
            unit: self.condition(table, "unit", raw.unit.as_ref()),
            container: self.condition(table, "container", raw.container.as_ref()),
            channel: {
                let (given, words) = (raw.channel.as_ref(), ("channel", "channels"));
                self.choice(table, "channel", given, words, &CHANNELS, channel_name)
            },
            stream: {
                let (given, words) = (raw.stream.as_ref(), ("stream", "streams"));
                self.choice(table, "stream", given, words, &STREAMS, Stream::as_str)
            },
            culprit_comm: raw
                .culprit
                .as_ref()
                .and_then(|culprit| self.condition(table, "culprit.comm", culprit.comm.as_ref())),
            reader_state: raw.reader.as_ref().and_then(|reader| {
                let (given, words) = (reader.state.as_ref(), ("state", "states"));
                self.choice(table, "reader.state", given, words, &State::ALL, State::as_str)
            }),
            deadlock: raw.deadlock,
            min_process_age: raw.min_process_age.as_ref().and_then(|text| {
                let place = table.value("min_process_age", text);
                self.keep(duration(&place, text.get_ref(), MIN_PROCESS_AGE))
            }),
        };
        for (key, is_empty) in [
            (
                "culprit.comm",
                raw.culprit.as_ref().is_some_and(|culprit| culprit.comm.is_none()),
            ),
            (
                "reader.state",
                raw.reader.as_ref().is_some_and(|reader| reader.state.is_none()),
            ),
        ] {
            if is_empty {
                let message = format!("asks nothing; write {key} = \"…\", or leave it out");
                let (name, _) = key.split_once('.').unwrap_or((key, ""));
                self.problems.push(table.absent(name).problem(message));
            }
        }
        matches
    }

    fn condition(&mut self, table: &Table<'a>, name: &str, given: Option<&Text>) -> Option<Pattern> {
        let text = given?;
        self.keep(pattern(&table.value(name, text), text.get_ref()))
    }

    /// Warns of conditions that no observed process can meet.
    fn warn_of_nothing(&mut self, table: &Table<'a>, raw: &RawMatch, matches: &Match, observe: &Observe) {
        let mut never = |key: &str, text: &Text, message: String| {
            let problem = table.value(key, text).problem(message);
            self.warnings.push(problem.to_string());
        };
        if let Some(text) = &raw.comm
            && !comm::is_too_long(text.get_ref())
            && observe
                .comm
                .iter()
                .all(|pattern| comm::are_disjoint(text.get_ref(), pattern))
        {
            never("comm", text, not_observed(text.get_ref(), "comm", &observe.comm));
        }
        if let (Some(text), Some(channel)) = (&raw.channel, matches.channel)
            && !observe.channels.contains(&channel)
        {
            let channels: Vec<_> = observe.channels.iter().copied().map(channel_name).collect();
            never(
                "channel",
                text,
                not_observed(text.get_ref(), "channels", &channels),
            );
        }
        for (key, text, wrong) in [
            ("comm", &raw.comm, no_comm as Wrong),
            ("thread", &raw.thread, no_comm),
            ("parent", &raw.parent, no_comm),
            ("ancestor", &raw.ancestor, no_comm),
            (
                "culprit.comm",
                raw.culprit.as_ref().map_or(&None, |culprit| &culprit.comm),
                no_comm,
            ),
            ("exe", &raw.exe, no_path),
            ("cgroup", &raw.cgroup, no_path),
            ("unit", &raw.unit, no_unit),
            ("container", &raw.container, no_container),
        ] {
            if let Some(text) = text
                && let Some(right) = wrong(text.get_ref())
            {
                never(key, text, format!("`{}` never matches: {right}", text.get_ref()));
            }
        }
    }

    /// Warns of a rule that would signal processes, yet clearly only such as are protected.
    pub(super) fn warn_of_protected(
        &mut self,
        rule: &Table<'a>,
        given: &Spanned<RawMatch>,
        matches: &Match,
        protect: &Protect,
    ) {
        let (table, raw) = (inner(rule, given), given.get_ref());
        for (key, list, text, condition, protected) in [
            ("comm", "comm", &raw.comm, &matches.comm, &protect.comm),
            ("user", "users", &raw.user, &matches.user, &protect.users),
            ("unit", "units", &raw.unit, &matches.unit, &protect.units),
            ("exe", "exe", &raw.exe, &matches.exe, &protect.exe),
        ] {
            let (Some(text), Some(condition)) = (text, condition) else {
                continue;
            };
            if let Some(cover) = protected.iter().find(|cover| cover.clearly_covers(condition)) {
                let message = format!(
                    "`{}` matches only what protect.{list} exempts (`{}`), so nothing would be signalled; \
                     use action = \"alert\", or change one of them",
                    text.get_ref(),
                    cover.as_str()
                );
                self.warnings
                    .push(table.value(key, text).problem(message).to_string());
            }
        }
    }
}

/// The table of conditions in a rule's.
fn inner<'a>(rule: &Table<'a>, given: &Spanned<RawMatch>) -> Table<'a> {
    Table {
        source: rule.source,
        key: format!("{}.match", rule.key),
        span: given.span(),
    }
}

fn not_observed<T: AsRef<str>>(text: &str, key: &str, observed: &[T]) -> String {
    let observed = list(observed);
    format!("`{text}` matches nothing that observe.{key} lets through ({observed}); change one of them")
}

/// Says why a text is a pattern that no value of its key can match, if so.
type Wrong = fn(&str) -> Option<String>;

/// Says so of a pattern that is longer than any command.
pub(super) fn no_comm(text: &str) -> Option<String> {
    comm::is_too_long(text)
        .then(|| "the kernel keeps 15 bytes of a command's name; end it with `*` sooner".to_owned())
}

/// Says so of a pattern that matches no absolute path.
pub(super) fn no_path(text: &str) -> Option<String> {
    (!text.starts_with(['/', '*', '?', '[', '{', '\\', '~']))
        .then(|| format!("a path starts with `/`; write `*/{text}`"))
}

/// Says so of a pattern that matches no name of a unit.
pub(super) fn no_unit(text: &str) -> Option<String> {
    let plain = Pattern::parse(text).is_ok_and(|pattern| pattern.literal().is_some());
    (plain && !matches!(text.rsplit_once('.'), Some((_, "service" | "scope"))))
        .then(|| format!("a unit here is a service or a scope; write `{text}.service`"))
}

fn no_container(text: &str) -> Option<String> {
    let plain = Pattern::parse(text).is_ok_and(|pattern| pattern.literal().is_some());
    let is_id =
        (SHORT_ID..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (plain && !is_id).then(|| {
        format!(
            "a container is known by its id, not its name; write {SHORT_ID} or more of its first characters"
        )
    })
}
