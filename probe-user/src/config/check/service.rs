//! Checks what the agent serves, and what it keeps.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use toml::Spanned;

use super::{Check, Table, value::Limits};
use crate::config::{
    Api, Metrics, State,
    raw::{RawApi, RawMetrics, RawState, Text},
};

/// A file of at least a mebibyte holds some hundred events.
const FILE_MIB: (u64, u64) = (1, 4096);
const FILES: (u64, u64) = (1, 10_000);
const KEEP_FOR: Limits = (Duration::from_hours(1), Duration::MAX);

/// A socket's path, its end included (man 7 unix).
const PATH_MAX: usize = 107;

impl<'a> Check<'a> {
    pub(super) fn state(&mut self, table: &Table<'a>, raw: &RawState) -> State {
        let mut state = State::default();
        if let Some(dir) = &raw.dir {
            if dir.get_ref().is_empty() {
                let problem = table
                    .value("dir", dir)
                    .problem("is empty; name a directory, such as \"/var/lib/pipestall\"");
                self.problems.push(problem);
            }
            state.dir = PathBuf::from(dir.get_ref());
        }
        if let Some(mib) = self.count(table, "rotate_mib", raw.rotate_mib.as_ref(), FILE_MIB) {
            state.rotate_bytes = mib << 20;
        }
        if let Some(files) = self.count(table, "keep_files", raw.keep_files.as_ref(), FILES) {
            state.keep_files = usize::try_from(files).unwrap_or(usize::MAX);
        }
        let keep_for = raw.keep_for.as_ref();
        state.keep_for = self.time(table, "keep_for", keep_for, KEEP_FOR, state.keep_for);
        state
    }

    pub(super) fn api(&mut self, table: &Table<'a>, raw: &RawApi) -> Api {
        let mut api = Api::default();
        if let Some(socket) = &raw.socket {
            let text = socket.get_ref();
            let wrong = if !text.starts_with('/') {
                Some("is no absolute path".to_owned())
            } else if text.len() > PATH_MAX {
                Some(format!(
                    "is longer than the {PATH_MAX} bytes that a socket's path may have"
                ))
            } else {
                None
            };
            if let Some(wrong) = wrong {
                let message = format!("`{text}` {wrong}; use one such as \"/run/pipestall/api.sock\"");
                self.problems.push(table.value("socket", socket).problem(message));
            }
            api.socket = PathBuf::from(text);
        }
        api.group = self.group(table, "group", raw.group.as_ref());
        api.operators = self.group(table, "operators", raw.operators.as_ref());
        api
    }

    pub(super) fn metrics(&mut self, table: &Table<'a>, raw: &RawMetrics) -> Option<Metrics> {
        const EXAMPLE: &str = "an address and a port, such as \"127.0.0.1:9977\"";
        let Some(listen) = &raw.listen else {
            let problem = table
                .absent("listen")
                .problem(format!("is missing; give {EXAMPLE}"));
            self.problems.push(problem);
            return None;
        };
        let parsed = listen.get_ref().parse::<SocketAddr>().map_err(|_| {
            let message = format!("`{}` is no address; write {EXAMPLE}", listen.get_ref());
            table.value("listen", listen).problem(message)
        });
        let listen = self.keep(parsed)?;
        Some(Metrics { listen })
    }

    fn group(&mut self, table: &Table<'a>, key: &str, given: Option<&Text>) -> Option<String> {
        let group = given?;
        if group.get_ref().is_empty() {
            let message = "is empty; name a group, or leave it out for root alone";
            self.problems.push(table.value(key, group).problem(message));
        }
        Some(group.get_ref().clone())
    }

    fn count(
        &mut self,
        table: &Table<'a>,
        key: &str,
        given: Option<&Spanned<u64>>,
        (least, most): (u64, u64),
    ) -> Option<u64> {
        let given = given?;
        let count = *given.get_ref();
        if !(least..=most).contains(&count) {
            let message = format!("{count} is out of range; use {least} to {most}");
            self.problems.push(table.value(key, given).problem(message));
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Api, Config};

    #[test]
    fn each_wrong_value_is_told_with_what_would_be_right() {
        for (text, expected) in [
            (
                "[api]\nsocket = 'api.sock'",
                "2:10: api.socket: `api.sock` is no absolute path; use one such as \"/run/pipestall/api.sock\"",
            ),
            (
                "[api]\ngroup = ''\n[metrics]",
                "2:9: api.group: is empty; name a group, or leave it out for root alone\n\
                 a.toml:3:1: metrics.listen: is missing; give an address and a port, such as \"127.0.0.1:9977\"",
            ),
            (
                "[metrics]\nlisten = 'localhost:9977'",
                "2:10: metrics.listen: `localhost:9977` is no address; write an address and a port, such as \
                 \"127.0.0.1:9977\"",
            ),
            (
                "[state]\nrotate_mib = 0",
                "2:14: state.rotate_mib: 0 is out of range; use 1 to 4096",
            ),
            (
                "[state]\nkeep_for = '1s'",
                "2:12: state.keep_for: `1s` is too short; use 1h or more",
            ),
            (
                "[[rule]]\nname = 'manual'\nmatch = { comm = 'x' }\nstalled_for = '60s'",
                "2:8: rule[0].name: `manual` stands for kills that are asked for by hand; choose another name",
            ),
        ] {
            let error = Config::parse(text, Path::new("a.toml")).unwrap_err().to_string();
            assert_eq!(error, format!("a.toml:{expected}"), "{text}");
        }
    }

    #[test]
    fn nothing_is_served_that_is_not_configured() {
        let parse = |text: &str| Config::parse(text, Path::new("a.toml")).unwrap();
        let nothing = parse("");
        assert_eq!((nothing.api, nothing.metrics), (None, None));
        let all = parse("[api]\ngroup = 'pipestall'\n[metrics]\nlisten = '127.0.0.1:9977'");
        let api = Api {
            group: Some("pipestall".to_owned()),
            ..Api::default()
        };
        assert_eq!(all.api, Some(api));
        assert_eq!(
            all.metrics.map(|m| m.listen.to_string()).as_deref(),
            Some("127.0.0.1:9977")
        );
    }
}
