//! Checks rules.
//!
//! It must not know the other tables, but for what is observed and who is protected.

use std::time::Duration;

use super::{
    Check, Table,
    value::{Limits, duration},
};
use crate::{
    config::{
        Observe,
        raw::{RawRule, Text},
    },
    core::{
        model::Stream,
        policy::MANUAL,
        rule::{Action, Mode, Protect, Rule},
    },
};

const ACTIONS: [Action; 3] = [Action::Alert, Action::Term, Action::Kill];
const MODES: [Mode; 2] = [Mode::DryRun, Mode::Enforce];

const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Below a second, a busy reader and a dead one look alike.
const STALLED_FOR: Limits = (Duration::from_secs(1), Duration::MAX);
/// A process that has ignored SIGTERM for an hour will not end by waiting.
const GRACE: Limits = (Duration::from_millis(1), Duration::from_hours(1));

impl<'a> Check<'a> {
    /// A rule; none if anything about it is wrong.
    pub(super) fn rule(
        &mut self,
        table: &Table<'a>,
        raw: &'a RawRule,
        observe: &Observe,
        protect: &Protect,
    ) -> Option<Rule> {
        let name = self.name(table, raw.name.as_ref());
        let matches = self.matches(table, raw.matches.as_ref(), observe);
        let stalled_for = match &raw.stalled_for {
            Some(text) => duration(&table.value("stalled_for", text), text.get_ref(), STALLED_FOR).map(Some),
            None if raw.stalled_share.is_some() => Ok(None),
            None => Err(table
                .absent("stalled_for")
                .problem("is missing; say how old a stall must be, such as stalled_for = \"60s\"")),
        };
        let stalled_share = raw
            .stalled_share
            .as_ref()
            .map(|given| self.stalled_share(&table.inner("stalled_share", given), given.get_ref()));
        let grace = match &raw.grace {
            Some(text) => duration(&table.value("grace", text), text.get_ref(), GRACE),
            None => Ok(DEFAULT_GRACE),
        };
        let stalled_for = self.keep(stalled_for);
        let action = match raw.action.as_ref() {
            None => Some(Action::Alert),
            given => self.choice(
                table,
                "action",
                given,
                ("action", "actions"),
                &ACTIONS,
                Action::as_str,
            ),
        };
        let grace = self.keep(grace);
        let mode = match raw.mode.as_ref() {
            None => Some(Mode::DryRun),
            given => self.choice(table, "mode", given, ("mode", "modes"), &MODES, Mode::as_str),
        };
        if let (Some(text), Some(action @ (Action::Term | Action::Kill))) = (&raw.action, action)
            && matches
                .as_ref()
                .is_some_and(|matches| matches.stream == Some(Stream::Stderr))
            && !raw.allow_stderr_kill
        {
            self.problems.push(table.value("action", text).problem(format!(
                "`{}` on stderr would end a process for its log; use \"alert\", or add allow_stderr_kill = true",
                action.as_str()
            )));
        }
        if let (Some(matches), Some(given), Some(Action::Term | Action::Kill)) =
            (&matches, &raw.matches, action)
        {
            self.warn_of_protected(table, given, matches, protect);
        }
        let pace = self.pace(table, raw);
        let pre_kill = self.pre_kill(table, raw);
        Some(Rule {
            name: name?,
            matches: matches?,
            stalled_for: stalled_for?,
            stalled_share: match stalled_share {
                Some(share) => Some(share?),
                None => None,
            },
            action: action?,
            grace: grace?,
            mode: mode?,
            pace: pace?,
            pre_kill: pre_kill?,
            allow_stderr_kill: raw.allow_stderr_kill,
            hold_when_reader_stopped: raw.hold_when_reader_stopped,
        })
    }

    fn name(&mut self, table: &Table<'a>, given: Option<&'a Text>) -> Option<String> {
        let (place, name) = match given {
            Some(text) => (table.value("name", text), text.get_ref().as_str()),
            None => (table.absent("name"), ""),
        };
        if name.trim().is_empty() {
            let wrong = if given.is_some() { "is empty" } else { "is missing" };
            let message = format!("{wrong}; name the rule, such as name = \"orphaned-downloads\"");
            self.problems.push(place.problem(message));
            return None;
        }
        if name == MANUAL {
            let message =
                format!("`{MANUAL}` stands for kills that are asked for by hand; choose another name");
            self.problems.push(place.problem(message));
            return None;
        }
        self.own_name("rule", place, name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    /// What is changed in a good rule, and what is said then.
    type Wrong = &'static [(&'static [(&'static str, &'static str)], &'static str)];

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("a.toml")).map_err(|error| error.to_string())
    }

    /// A good rule, in which some lines are replaced or, if empty, left out.
    fn rule(changes: &[(&str, &str)]) -> String {
        let mut lines = vec![
            ("name", "name = 'r'"),
            ("match", "match = { comm = 'ffmpeg*' }"),
            ("stalled_for", "stalled_for = '60s'"),
        ];
        for (key, line) in changes {
            match lines.iter_mut().find(|(known, _)| known == key) {
                Some(known) => known.1 = line,
                None => lines.push((key, line)),
            }
        }
        let lines: Vec<_> = lines
            .into_iter()
            .map(|(_, line)| line)
            .filter(|line| !line.is_empty())
            .collect();
        format!("[[rule]]\n{}\n", lines.join("\n"))
    }

    #[test]
    fn each_wrong_value_of_a_rule_is_told_with_what_would_be_right() {
        let table: Wrong = &[
            (
                &[("name", "")],
                "1:1: rule[0].name: is missing; name the rule, such as name = \"orphaned-downloads\"",
            ),
            (
                &[("name", "name = ' '")],
                "2:8: rule[0].name: is empty; name the rule, such as name = \"orphaned-downloads\"",
            ),
            (
                &[("stalled_for", "")],
                "1:1: rule[0].stalled_for: is missing; say how old a stall must be, such as stalled_for = \"60s\"",
            ),
            (
                &[("stalled_for", "stalled_for = '0s'")],
                "4:15: rule[0].stalled_for: `0s` is too short; use 1s or more",
            ),
            (
                &[("stalled_for", "stalled_for = '999ms'")],
                "4:15: rule[0].stalled_for: `999ms` is too short; use 1s or more",
            ),
            (
                &[("stalled_for", "stalled_for = '-60s'")],
                "4:15: rule[0].stalled_for: `-60s` is too short; use 1s or more",
            ),
            (
                &[("stalled_for", "stalled_for = '60'")],
                "4:15: rule[0].stalled_for: `60` is no duration; \
                 write hours, minutes and seconds in quotes, such as \"60s\" or \"1m 30s\"",
            ),
            (
                &[("action", "action = 'kil'")],
                "5:10: rule[0].action: there is no action `kil`; did you mean `kill`?",
            ),
            (
                &[("action", "action = 'stop'")],
                "5:10: rule[0].action: there is no action `stop`; known actions: `alert`, `term`, `kill`",
            ),
            (
                &[("mode", "mode = 'dry_run'")],
                "5:8: rule[0].mode: there is no mode `dry_run`; did you mean `dry-run`?",
            ),
            (
                &[("mode", "mode = 'on'")],
                "5:8: rule[0].mode: there is no mode `on`; known modes: `dry-run`, `enforce`",
            ),
            (
                &[("grace", "grace = '61m'")],
                "5:9: rule[0].grace: `61m` is too long; use 1h or less",
            ),
            (
                &[("grace", "grace = '0s'")],
                "5:9: rule[0].grace: `0s` is too short; use 1ms or more",
            ),
            (
                &[
                    ("match", "match = { stream = 'stderr' }"),
                    ("action", "action = 'term'"),
                ],
                "5:10: rule[0].action: `term` on stderr would end a process for its log; \
                 use \"alert\", or add allow_stderr_kill = true",
            ),
            (
                &[
                    ("match", "match = { stream = 'stderr' }"),
                    ("action", "action = 'kill'"),
                ],
                "5:10: rule[0].action: `kill` on stderr would end a process for its log; \
                 use \"alert\", or add allow_stderr_kill = true",
            ),
        ];
        for (changes, expected) in table {
            assert_eq!(
                parse(&rule(changes)),
                Err(format!("a.toml:{expected}")),
                "{changes:?}"
            );
        }
    }

    #[test]
    fn each_wrong_condition_of_a_rule_is_told_with_what_would_be_right() {
        let table: Wrong = &[
            (
                &[("match", "")],
                "1:1: rule[0].match: is missing, which would match everything; \
                 if that is meant, say match = { comm = \"*\" }",
            ),
            (
                &[("match", "match = {}")],
                "3:9: rule[0].match: is empty, which would match everything; \
                 if that is meant, say match = { comm = \"*\" }",
            ),
            (
                &[("match", "match = { comm = '' }")],
                "3:18: rule[0].match.comm: is empty; use \"*\" for anything, or leave it out",
            ),
            (
                &[("match", "match = { cmdline = 'a[b' }")],
                "3:21: rule[0].match.cmdline: `a[b` is no glob: unclosed character class; missing ']'; use `*` and `?`",
            ),
            (
                &[("match", "match = { stream = 'stdot' }")],
                "3:20: rule[0].match.stream: there is no stream `stdot`; did you mean `stdout`?",
            ),
            (
                &[("match", "match = { stream = '1' }")],
                "3:20: rule[0].match.stream: there is no stream `1`; known streams: `stdin`, `stdout`, `stderr`",
            ),
        ];
        for (changes, expected) in table {
            assert_eq!(
                parse(&rule(changes)),
                Err(format!("a.toml:{expected}")),
                "{changes:?}"
            );
        }
    }

    #[test]
    fn two_rules_cannot_share_a_name() {
        assert_eq!(
            parse(&rule(&[]).repeat(2)),
            Err(
                "a.toml:6:8: rule[1].name: `r` is the name of the rule at a.toml:2:8; give each rule its own"
                    .into()
            )
        );
    }

    #[test]
    fn all_wrong_values_are_told_in_the_order_of_the_file() {
        let text = format!(
            "{}[state]\ndir = ''\n[observe]\nreport_after = '0s'",
            rule(&[("name", ""), ("stalled_for", "stalled_for = '0s'")])
        );

        let lines: Vec<_> = parse(&text)
            .unwrap_err()
            .lines()
            .map(|line| line[..11].to_owned())
            .collect();

        assert_eq!(
            lines,
            ["a.toml:1:1:", "a.toml:3:15", "a.toml:5:7:", "a.toml:7:16"]
        );
    }

    #[test]
    fn a_rule_on_stderr_may_alert_and_may_kill_where_it_says_so() {
        let stderr = ("match", "match = { stream = 'stderr' }");
        let kill = ("action", "action = 'kill'");
        for changes in [
            vec![stderr],
            vec![stderr, ("action", "action = 'alert'")],
            vec![stderr, kill, ("allow", "allow_stderr_kill = true")],
            vec![("match", "match = { stream = 'stdout' }"), kill],
        ] {
            assert_eq!(
                parse(&rule(&changes)).map(|config| config.warnings),
                Ok(vec![]),
                "{changes:?}"
            );
        }
    }

    #[test]
    fn a_rule_that_can_never_match_is_a_warning() {
        for (condition, expected) in [
            ("comm = 'ffmpeg-linux-x8'", None),
            ("comm = '*'", None),
            ("parent = 'node'", None),
            (
                "comm = 'node*'",
                Some(
                    "comm: `node*` matches nothing that observe.comm lets through (`ffmpeg*`); change one of them",
                ),
            ),
            (
                "comm = 'ffmpeg-linux-x86_64'",
                Some(
                    "comm: `ffmpeg-linux-x86_64` never matches: the kernel keeps 15 bytes of a command's name; \
                     end it with `*` sooner",
                ),
            ),
            (
                "parent = 'a-very-long-parent'",
                Some(
                    "parent: `a-very-long-parent` never matches: the kernel keeps 15 bytes of a command's name; \
                     end it with `*` sooner",
                ),
            ),
        ] {
            let line = format!("match = {{ {condition} }}");
            let column = 12 + condition.find('\'').unwrap_or(0) - 1;

            let warnings = parse(&rule(&[("match", &line)])).map(|config| config.warnings);

            let expected = expected.map(|text| format!("a.toml:3:{column}: rule[0].match.{text}"));
            assert_eq!(warnings, Ok(expected.into_iter().collect()), "{condition}");
        }
    }
}
