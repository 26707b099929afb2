//! The systemd unit that is shipped: what it allows is what the agent needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::agent::Agent;
use tests::api::{self, Api};
use tests::config::Config;
use tests::crowd::{Crowd, Plan};
use tests::order::Exit;
use tests::scratch::Scratch;
use tests::{binary, command, need, wait};

const NOBODY: u32 = 65534;
const SIGTERM: i32 = 15;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pipestall.service")
}

/// The values of a key, of all its lines.
fn values(key: &str) -> Vec<String> {
    let text = fs::read_to_string(unit()).expect("the unit");
    text.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// Does everything that a service does with an agent that was started somehow.
fn put_through_its_paces(start: impl FnOnce(&Path) -> Agent) {
    let scratch = Scratch::new();
    // Somebody else's, so that it takes the capabilities to read and to signal it.
    let mut crowd: Crowd = Plan::stuck(2).as_user(NOBODY).start();
    let address = api::free_address();
    let config = Config::of(&crowd, &scratch)
        .served(&scratch, &format!("[metrics]\nlisten = {address:?}"))
        .enforcing()
        .stalled_for("1s");
    let mut agent = start(&config.file(&scratch));
    let api = Api::at(&Config::socket(&scratch));
    for pid in crowd.stuck() {
        let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(pid));
        let stall = confirmed.stall.as_ref().expect("a stall");
        assert!(stall.exe.is_some(), "its executable can be read");
        assert_eq!(crowd.await_exit(pid), Exit::Signal(SIGTERM));
    }
    assert_eq!(api.get("/readyz").status, 200);
    assert_eq!(api::get_tcp(&address, "/metrics").status, 200);
    // Another filter, so that the kernel side is loaded anew.
    let toml = config
        .toml()
        .replacen("comm = [", "comm = [\"no-such-comm\", ", 1);
    scratch.write("pipestall.toml", &toml);
    api.post("/v1/reload", "").json(200);
    let again = Plan::stuck(1)
        .writers_named(crowd.writer_name())
        .as_user(NOBODY)
        .start();
    agent.await_event("stall.detected", |event| event.is_of(again.writer()));
    agent.stop();
}

#[test]
fn the_unit_is_as_hardened_as_it_says() {
    let analyze = need!(need::on_path("systemd-analyze"));
    let done = command::run(
        Command::new(analyze)
            .args(["security", "--offline=true", "--threshold=30"])
            .arg(unit()),
        wait::PATIENCE,
    );
    let last = done
        .stdout
        .lines()
        .rev()
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    assert!(done.status.success(), "{last}\n{}", done.stderr);
}

#[test]
fn the_units_capabilities_are_all_that_the_agent_takes() {
    need!(need::bpf());
    let setpriv = need!(need::on_path("setpriv"));
    let names: Vec<String> = values("CapabilityBoundingSet")
        .iter()
        .flat_map(|line| line.split(' '))
        .map(|name| name.strip_prefix("CAP_").expect("a capability").to_lowercase())
        .collect();
    let known = command::run(Command::new(&setpriv).arg("--list-caps"), wait::PATIENCE).stdout;
    if let Some(unknown) = names
        .iter()
        .find(|name| !known.lines().any(|line| line == **name))
    {
        return need::skip(&format!("setpriv does not know {unknown}"));
    }
    // It has to do without going ahead of ordinary work where it may not.
    let without = names.iter().filter(|name| *name != "sys_nice").cloned().collect();
    for names in [names, without] {
        put_through_its_paces(|config| {
            Agent::start(
                Command::new(&setpriv)
                    .arg(format!("--bounding-set=-all,+{}", names.join(",+")))
                    .args(["--inh-caps=-all", "--no-new-privs"])
                    .arg(binary::pipestall())
                    .args(["run", "--json", "--config"])
                    .arg(config),
            )
        });
    }
}

#[test]
fn the_units_filter_of_system_calls_lets_through_all_that_the_agent_makes() {
    need!(need::bpf());
    let analyze = need!(need::on_path("systemd-analyze"));
    let strace = need!(need::strace());
    let trace = Scratch::new();
    let log = trace.path("calls");
    put_through_its_paces(|config| {
        Agent::start_under(&strace, &["-f", "-qq", "-o", log.to_str().expect("text")], config)
    });
    let group = |name: &str| -> BTreeSet<String> {
        let done = command::run(
            Command::new(&analyze).args(["syscall-filter", name]),
            wait::PATIENCE,
        );
        done.expect_code(0);
        done.stdout
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['#', '@']))
            .map(str::to_owned)
            .chain(nested(&analyze, &done.stdout, name))
            .collect()
    };
    let mut allowed = BTreeSet::new();
    for line in values("SystemCallFilter") {
        let (denies, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, &*line),
        };
        for name in names.split(' ') {
            let calls = if name.starts_with('@') {
                group(name)
            } else {
                BTreeSet::from([name.to_owned()])
            };
            if denies {
                allowed = &allowed - &calls;
            } else {
                allowed.extend(calls);
            }
        }
    }
    let text = fs::read_to_string(log).expect("strace has written");
    let made: BTreeSet<String> = text
        .lines()
        .filter_map(|line| {
            let call = line.split_once(' ')?.1.trim_start();
            let call = call.strip_prefix("<... ").unwrap_or(call);
            let end = call.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))?;
            (end > 0 && (call[end..].starts_with('(') || call[end..].starts_with(" resumed")))
                .then(|| call[..end].to_owned())
        })
        .collect();
    assert!(
        made.contains("bpf") && made.contains("pidfd_send_signal"),
        "{made:?}"
    );
    let refused: Vec<_> = made.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit would refuse {refused:?}");
}

/// The calls of the groups that a group is made of.
fn nested(analyze: &Path, listing: &str, of: &str) -> Vec<String> {
    let mut calls = Vec::new();
    let groups = listing
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('@') && *line != of);
    for group in groups {
        let done = command::run(
            Command::new(analyze).args(["syscall-filter", group]),
            wait::PATIENCE,
        );
        let own = done.stdout.lines().map(str::trim);
        calls.extend(
            own.filter(|line| !line.starts_with(['#', '@']) && !line.is_empty())
                .map(str::to_owned),
        );
        calls.extend(nested(analyze, &done.stdout, group));
    }
    calls
}
