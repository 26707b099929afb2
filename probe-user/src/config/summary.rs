//! A configuration in a few lines, for whoever checks one.
//!
//! It only writes down what is already decided.

use super::{Config, problem::OneLine};
use crate::{
    alert::{
        target,
        webhook::{Address, EventPattern, Webhook},
    },
    core::{
        model::{channel_name, human},
        rule::{Action, Pattern, Rule},
    },
};

impl Config {
    /// What would be done, a line each: what is observed, the rules in their order,
    /// who is protected, the warnings. No newline at the end.
    #[must_use]
    pub fn summary(&self) -> String {
        let channels: Vec<_> = self
            .observe
            .channels
            .iter()
            .map(|kind| channel_name(*kind))
            .collect();
        let mut lines = vec![format!(
            "observe: {} on {}, reported after {}",
            self.observe.comm.join(", "),
            channels.join(", "),
            human(self.observe.report_after)
        )];
        lines.extend(self.policy.rules.iter().map(rule));
        if self.policy.rules.is_empty() {
            lines.push("no rules: stalls are only reported".to_owned());
        }
        lines.push(format!("protect: {}", self.protected()));
        lines.extend(self.webhooks.iter().map(webhook));
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines
            .iter()
            .map(|line| OneLine(line).to_string())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn protected(&self) -> String {
        let list = |patterns: &[Pattern]| {
            patterns
                .iter()
                .map(Pattern::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let protect = &self.policy.protect;
        let mut parts = vec!["pid 1, pipestall itself".to_owned()];
        for (what, patterns) in [
            ("commands", &protect.comm),
            ("users", &protect.users),
            ("units", &protect.units),
            ("executables", &protect.exe),
        ] {
            if !patterns.is_empty() {
                parts.push(format!("{what} {}", list(patterns)));
            }
        }
        parts.join("; ")
    }
}

/// When a rule acts: `60s`, `being blocked for over 80% of 5m`, or either.
fn after(rule: &Rule) -> String {
    let age = rule.stalled_for.map(human);
    let share = rule
        .stalled_share
        .map(|share| format!("being blocked for over {share}"));
    age.into_iter().chain(share).collect::<Vec<_>>().join(" or ")
}

/// `webhook NAME: FORMAT to HOST, of EVENTS`; of a URL only what is no secret.
fn webhook(webhook: &Webhook) -> String {
    let to = match &webhook.target.address {
        Address::Url(url) => target::shown(url),
        Address::Secret(_) => "a secret url".to_owned(),
    };
    let events: Vec<_> = webhook.events.iter().map(EventPattern::as_str).collect();
    let by: Vec<_> = webhook.grouping.by.iter().map(|label| label.as_str()).collect();
    let by = if by.is_empty() {
        String::new()
    } else {
        format!(" by {}", by.join(", "))
    };
    format!(
        "webhook {}: {} to {to}, of {}, grouped{by} for {}",
        webhook.name,
        webhook.format.as_str(),
        events.join(", "),
        human(webhook.grouping.wait)
    )
}

/// `NAME: ACTION (MODE) COMMANDS on STREAM … after DURATION`, with only the conditions that are given.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let action = match rule.action {
        Action::Alert => rule.action.as_str().to_owned(),
        Action::Term | Action::Kill => format!("{} ({})", rule.action.as_str(), rule.mode.as_str()),
    };
    let matches = &rule.matches;
    let command = matches.comm.as_ref().map_or("any command", Pattern::as_str);
    let stream = matches
        .stream
        .map(|stream| format!(" on {}", stream.as_str()))
        .unwrap_or_default();
    let conditions: String = [
        (" by thread ", &matches.thread),
        (" from ", &matches.exe),
        (" with command line ", &matches.cmdline),
        (" of user ", &matches.user),
        (" of group ", &matches.group),
        (" under parent ", &matches.parent),
        (" under ancestor ", &matches.ancestor),
        (" in cgroup ", &matches.cgroup),
        (" in unit ", &matches.unit),
        (" in container ", &matches.container),
    ]
    .into_iter()
    .filter_map(|(words, pattern)| {
        pattern
            .as_ref()
            .map(|pattern| format!("{words}{}", pattern.as_str()))
    })
    .collect();
    let channel = matches
        .channel
        .map(|channel| format!(" through {}", channel_name(channel)))
        .unwrap_or_default();
    let culprit = matches
        .culprit_comm
        .as_ref()
        .map(|comm| format!(" where {} does not read", comm.as_str()))
        .unwrap_or_default();
    let reader = matches
        .reader_state
        .map(|state| format!(" with a reader that is {}", state.as_str()))
        .unwrap_or_default();
    let deadlock = match matches.deadlock {
        Some(true) => " in a deadlock",
        Some(false) => " in no deadlock",
        None => "",
    };
    let age = matches
        .min_process_age
        .map(|age| format!(" older than {}", human(age)))
        .unwrap_or_default();
    let after = after(rule);
    format!(
        "{}: {action} {command}{stream}{channel}{conditions}{culprit}{reader}{deadlock}{age} after {after}",
        rule.name
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_summary_says_what_each_rule_would_do() {
        let text = "\
[observe]
comm = ['ffmpeg*', 'node']
channels = ['pipe', 'unix']

[[rule]]
name = 'orphaned-downloads'
match = { comm = 'ffmpeg*', stream = 'stdout' }
stalled_for = '60s'
action = 'kill'

[[rule]]
name = 'all'
match = { cmdline = '*pipe:1*', user = 'peertube', parent = 'node' }
stalled_for = '1h 30m'
action = 'term'
mode = 'enforce'

[[rule]]
name = 'never'
match = { comm = 'cat' }
stalled_for = '1500ms'

[protect]
comm = ['systemd*', 'sshd']
users = ['root']
";

        let summary = Config::parse(text, Path::new("a.toml")).unwrap().summary();

        let expected = "\
observe: ffmpeg*, node on pipe, unix, reported after 5s
orphaned-downloads: kill (dry-run) ffmpeg* on stdout after 60s
all: term (enforce) any command with command line *pipe:1* of user peertube under parent node after 1h 30m
never: alert cat after 1.5s
protect: pid 1, pipestall itself; commands systemd*, sshd; users root
warning: a.toml:20:18: rule[2].match.comm: `cat` matches nothing that observe.comm lets through \
(`ffmpeg*`, `node`); change one of them";
        assert_eq!(summary, expected);
    }

    #[test]
    fn a_summary_without_rules_says_so() {
        assert_eq!(
            Config::parse("", Path::new("a.toml")).unwrap().summary(),
            "observe: ffmpeg* on pipe, fifo, unix, reported after 5s\n\
             no rules: stalls are only reported\n\
             protect: pid 1, pipestall itself"
        );
    }
}
