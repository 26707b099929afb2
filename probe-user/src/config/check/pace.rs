//! Checks how fast and how far rules may go, and what they run before a kill.

use std::time::Duration;

use toml::Spanned;

use super::{
    Check, Table,
    value::{self, duration, one_of},
};
use crate::{
    config::{
        problem::Problem,
        raw::{RawBudget, RawCooldown, RawDistinct, RawLimits, RawRule, RawShare, Text},
        source::Place,
    },
    core::{
        pace::{Cooldown, GroupBy, Limits, Pace, Rate},
        rule::Hook,
        share::StalledShare,
    },
};

const GROUPS: [GroupBy; 4] = [GroupBy::Rule, GroupBy::Parent, GroupBy::Unit, GroupBy::User];
/// What comes back has a parent or a unit in common, not a rule.
const COOLDOWN_GROUPS: [GroupBy; 2] = [GroupBy::Parent, GroupBy::Unit];

/// Windows shorter than a second are no pace, and longer than a week are not remembered.
const WINDOW: value::Limits = (Duration::from_secs(1), Duration::from_hours(24 * 7));
/// In less than ten seconds many a healthy writer is blocked for most of the time.
const SHARE_OVER: value::Limits = (Duration::from_secs(10), Duration::from_hours(24));
const HOOK_TIMEOUT: value::Limits = (Duration::from_millis(1), Duration::from_mins(1));
const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(5);

const fn name(group: GroupBy) -> &'static str {
    match group {
        GroupBy::Rule => "rule",
        GroupBy::Parent => "parent",
        GroupBy::Unit => "unit",
        GroupBy::User => "user",
    }
}

impl<'a> Check<'a> {
    /// A rule's pace; none if anything about it is wrong.
    pub(super) fn pace(&mut self, table: &Table<'a>, raw: &'a RawRule) -> Option<Pace> {
        let mut pace = Pace::default();
        let mut right = true;
        if let Some(given) = &raw.pile_up {
            let count = at_least_one(&table.value("pile_up", given), *given.get_ref());
            right &= self.keep(count).map(|count| pace.pile_up = count).is_some();
        }
        if let Some(given) = &raw.leave {
            pace.leave = *given.get_ref() as usize;
        }
        if let Some(given) = &raw.group_by {
            let at = table.value("group_by", given);
            let group = one_of(&at, given.get_ref(), ("group", "groups"), &GROUPS, name);
            right &= self.keep(group).map(|group| pace.group_by = group).is_some();
        }
        if let Some(given) = &raw.budget {
            let budget = self.budget(&table.inner("budget", given), given.get_ref());
            right &= budget.map(|budget| pace.budget = Some(budget)).is_some();
        }
        if let Some(given) = &raw.cooldown {
            let cooldown = self.cooldown(&table.inner("cooldown", given), given.get_ref());
            right &= cooldown.map(|cooldown| pace.cooldown = Some(cooldown)).is_some();
        }
        if let Some(given) = &raw.unless_cpu_pressure_over {
            let share = share(&table.value("unless_cpu_pressure_over", given), given.get_ref());
            right &= self
                .keep(share)
                .map(|share| pace.unless_cpu_pressure_over = Some(share))
                .is_some();
        }
        right.then_some(pace)
    }

    /// A rule's own program, if it has one; the outer `None` if it is wrong.
    #[expect(clippy::option_option, reason = "wrong, absent and given are three things")]
    pub(super) fn pre_kill(&mut self, table: &Table<'a>, raw: &'a RawRule) -> Option<Option<Hook>> {
        let timeout = match &raw.pre_kill_timeout {
            Some(given) => {
                let timeout = duration(
                    &table.value("pre_kill_timeout", given),
                    given.get_ref(),
                    HOOK_TIMEOUT,
                );
                self.keep(timeout)?
            }
            None => DEFAULT_HOOK_TIMEOUT,
        };
        let Some(given) = &raw.pre_kill else {
            return Some(None);
        };
        let command: Vec<_> = given
            .get_ref()
            .iter()
            .map(|text| text.get_ref().clone())
            .collect();
        // A search along PATH as root is nobody's wish.
        if !command.first().is_some_and(|program| program.starts_with('/')) {
            let message = "names no program by its full path; write [\"/path/to/program\", \"argument\"]";
            self.problems
                .push(table.value("pre_kill", given).problem(message));
            return None;
        }
        Some(Some(Hook { command, timeout }))
    }

    /// The limits over all rules; defaults, which nobody gets to see, for what is wrong.
    pub(super) fn limits(&mut self, table: &Table<'a>, raw: &'a RawLimits) -> Limits {
        let mut limits = Limits::default();
        if let Some(given) = &raw.budget {
            limits.budget = self.budget(&table.inner("budget", given), given.get_ref());
        }
        if let Some(given) = &raw.max_distinct {
            let RawDistinct { exes, per } = given.get_ref();
            limits.max_distinct = self.rate(
                &table.inner("max_distinct", given),
                ("exes", exes.as_ref()),
                ("per", per.as_ref()),
            );
        }
        limits
    }

    /// How much of a window a writer must have been blocked.
    pub(super) fn stalled_share(&mut self, table: &Table<'a>, raw: &'a RawShare) -> Option<StalledShare> {
        let given = self
            .given(table, "share", raw.share.as_ref(), "a share such as \"80%\"")
            .and_then(|text| {
                let place = table.value("share", text);
                let share = share(&place, text.get_ref()).and_then(|share| {
                    if (0.01..1.0).contains(&share) {
                        Ok(share)
                    } else {
                        let message = format!(
                            "`{}` never tells writers apart; use \"1%\" to \"99%\"",
                            text.get_ref()
                        );
                        Err(place.problem(message))
                    }
                });
                self.keep(share)
            });
        let over = self
            .given(table, "over", raw.over.as_ref(), "a duration such as \"5m\"")
            .and_then(|text| self.keep(duration(&table.value("over", text), text.get_ref(), SHARE_OVER)));
        Some(StalledShare::new(given?, over?))
    }

    fn budget(&mut self, table: &Table<'a>, raw: &'a RawBudget) -> Option<Rate> {
        self.rate(table, ("kills", raw.kills.as_ref()), ("per", raw.per.as_ref()))
    }

    fn cooldown(&mut self, table: &Table<'a>, raw: &'a RawCooldown) -> Option<Cooldown> {
        let per = self
            .given(table, "per", raw.per.as_ref(), "\"parent\" or \"unit\"")
            .and_then(|text| {
                let place = table.value("per", text);
                let group = one_of(
                    &place,
                    text.get_ref(),
                    ("group", "groups"),
                    &COOLDOWN_GROUPS,
                    name,
                );
                self.keep(group)
            });
        let after = self.rate(
            table,
            ("after", raw.after.as_ref()),
            ("within", raw.within.as_ref()),
        );
        let lasts = self.window(table, "for", raw.lasts.as_ref());
        Some(Cooldown {
            per: per?,
            after: after?,
            lasts: lasts?,
        })
    }

    fn rate(
        &mut self,
        table: &Table<'a>,
        (count_key, count): (&str, Option<&'a Spanned<u32>>),
        (window_key, window): (&str, Option<&'a Text>),
    ) -> Option<Rate> {
        let count = self
            .given(table, count_key, count, "a number")
            .and_then(|given| self.keep(at_least_one(&table.value(count_key, given), *given.get_ref())));
        let per = self.window(table, window_key, window);
        Some(Rate {
            count: count?,
            per: per?,
        })
    }

    fn window(&mut self, table: &Table<'a>, key: &str, given: Option<&'a Text>) -> Option<Duration> {
        let text = self.given(table, key, given, "a duration such as \"10m\"")?;
        self.keep(duration(&table.value(key, text), text.get_ref(), WINDOW))
    }

    /// A value that must be there.
    fn given<T>(&mut self, table: &Table<'a>, key: &str, value: Option<&'a T>, what: &str) -> Option<&'a T> {
        if value.is_none() {
            self.problems
                .push(table.absent(key).problem(format!("is missing; give {what}")));
        }
        value
    }
}

fn at_least_one(place: &Place<'_>, count: u32) -> Result<usize, Problem> {
    if count == 0 {
        return Err(place.problem("is 0, which would never act; use 1 or more"));
    }
    Ok(count as usize)
}

/// A share such as `60%`, from 0 to 1.
fn share(place: &Place<'_>, text: &str) -> Result<f64, Problem> {
    text.strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| place.problem(format!("`{text}` is no share; write it from \"0%\" to \"100%\"")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(rest: &str) -> Result<Config, String> {
        let text = format!("{rest}\n[[rule]]\nname = 'r'\nmatch = {{ comm = '*' }}\nstalled_for = '5s'\n");
        Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
    }

    fn rule(keys: &str) -> Result<Config, String> {
        let text = format!("[[rule]]\nname = 'r'\nmatch = {{ comm = '*' }}\nstalled_for = '5s'\n{keys}\n");
        Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn all_of_a_pace_is_read() {
        let config = rule(
            "pile_up = 5\ngroup_by = 'parent'\nleave = 2\nbudget = { kills = 60, per = '1m' }\n\
             cooldown = { per = 'unit', after = 5, within = '5m', for = '10m' }\n\
             unless_cpu_pressure_over = '60%'\npre_kill = ['/bin/gcore', '-a']\npre_kill_timeout = '2s'",
        )
        .unwrap();
        let rule = &config.policy.rules[0];
        assert_eq!(
            rule.pace,
            Pace {
                pile_up: 5,
                group_by: GroupBy::Parent,
                leave: 2,
                budget: Some(Rate {
                    count: 60,
                    per: Duration::from_mins(1)
                }),
                cooldown: Some(Cooldown {
                    per: GroupBy::Unit,
                    after: Rate {
                        count: 5,
                        per: Duration::from_mins(5)
                    },
                    lasts: Duration::from_mins(10),
                }),
                unless_cpu_pressure_over: Some(0.6),
            }
        );
        let hook = Hook {
            command: vec!["/bin/gcore".into(), "-a".into()],
            timeout: Duration::from_secs(2),
        };
        assert_eq!(rule.pre_kill, Some(hook));
    }

    #[test]
    fn the_blast_radius_is_limited_unless_said_otherwise() {
        assert_eq!(parse("").unwrap().policy.limits, Limits::default());
        let config =
            parse("[limits]\nbudget = { kills = 100, per = '1s' }\nmax_distinct = { exes = 9, per = '1h' }")
                .unwrap();
        assert_eq!(
            config.policy.limits,
            Limits {
                budget: Some(Rate {
                    count: 100,
                    per: Duration::from_secs(1)
                }),
                max_distinct: Some(Rate {
                    count: 9,
                    per: Duration::from_hours(1)
                }),
            }
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (keys, message) in [
            (
                "pile_up = 0",
                "a.toml:5:11: rule[0].pile_up: is 0, which would never act; use 1 or more",
            ),
            (
                "group_by = 'parents'",
                "a.toml:5:12: rule[0].group_by: there is no group `parents`; did you mean `parent`?",
            ),
            (
                "budget = { kills = 5 }",
                "a.toml:5:10: rule[0].budget.per: is missing; give a duration such as \"10m\"",
            ),
            (
                "budget = { kills = 0, per = '1m' }",
                "a.toml:5:20: rule[0].budget.kills: is 0, which would never act; use 1 or more",
            ),
            (
                "cooldown = { per = 'user', after = 1, within = '1m', for = '1m' }",
                "a.toml:5:20: rule[0].cooldown.per: there is no group `user`; known groups: `parent`, `unit`",
            ),
            (
                "unless_cpu_pressure_over = '0.6'",
                "a.toml:5:28: rule[0].unless_cpu_pressure_over: `0.6` is no share; write it from \"0%\" to \"100%\"",
            ),
            (
                "pre_kill = ['gcore']",
                "a.toml:5:12: rule[0].pre_kill: names no program by its full path; write [\"/path/to/program\", \"argument\"]",
            ),
        ] {
            assert_eq!(rule(keys).unwrap_err(), message, "{keys}");
        }
    }
}
