//! What rules match by, on live processes: each condition by one that holds and one that does not,
//! and the explanation that the program gives of both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::agent::{Agent, Seen};
use tests::command::{self, Done};
use tests::config::Config;
use tests::crowd::{Channel, Crowd, Plan};
use tests::order::Exit;
use tests::scratch::Scratch;
use tests::{binary, clock, need, proc, wait};

const SIGTERM: i32 = 15;
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody's, and the number of the group too.
const USER: u32 = 61_234;

#[test]
fn a_writer_is_ended_by_the_rule_whose_conditions_all_hold_and_by_no_other() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1)
        .on(Channel::Unix)
        .writing(&["--thread", "mux0:mp4"])
        .as_user(USER)
        .start();
    let writer = crowd.writer();
    let exe = exe(writer);
    let grandparent = proc::comm(std::process::id()).expect("this process has a comm");
    let (comm, parent) = (crowd.writer_name().to_owned(), crowd.name().to_owned());
    // For each key one that holds and one that does not.
    let conditions = [
        ("thread", "mux*:mp4", "ffmpeg*"),
        ("exe", exe.as_str(), "/usr/bin/ffmpeg"),
        ("cmdline", "~ --die-with-parent( |$)", "~pipe:1"),
        ("user", "61234", "root"),
        ("group", "61234", "root"),
        ("ancestor", &grandparent, &comm),
        ("cgroup", "/*", "/no-such-group/*"),
        ("channel", "unix", "pipe"),
        ("stream", "stdout", "stdin"),
    ];
    let right = conditions
        .map(|(key, holds, _)| format!(", {key} = \"{holds}\""))
        .concat();
    // The wrong ones come first: it is not their place that keeps them from acting.
    let others = conditions.map(|(key, _, does_not)| {
        let condition = format!("{key} = \"{does_not}\"");
        rule(&format!("wrong-{key}"), &comm, &parent, &condition)
    });
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .matching_also(&right);
    let file = scratch.write("rules.toml", &format!("{}{}", others.concat(), config.toml()));
    let mut command = Command::new(binary::pipestall());

    // It is asked first: this writer will be gone.
    let explained = explain(&["ps", "--json", "--config"], &file, writer);
    let mut agent = Agent::start(command.args(["run", "--json", "--config"]).arg(&file));
    agent.await_event("kill.confirmed", |event| event.is_of(writer));
    let events = agent.stop();

    assert_eq!(rules_of(&events, writer), BTreeSet::from(["the-rule".to_owned()]));
    assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGTERM));
    let explained: Value = serde_json::from_str(&explained.expect_code(0).stdout).expect("JSON");
    assert_eq!(explained["decision"]["rule"], "the-rule", "{explained:#}");
    assert_eq!(explained["decision"]["outcome"], "done", "{explained:#}");
    for rule in explained["rules"].as_array().expect("rules") {
        let name = rule["name"].as_str().expect("a name");
        assert_eq!(rule["matches"], name == "the-rule", "{rule:#}");
        let failed = rule["conditions"].as_array().expect("conditions").iter();
        let failed: Vec<_> = failed
            .filter(|one| one["holds"] != "yes")
            .map(|one| &one["key"])
            .collect();
        let wrong = name.strip_prefix("wrong-");
        assert_eq!(failed, Vec::from_iter(wrong), "{rule:#}");
    }
}

#[test]
fn a_writer_in_a_pod_is_told_with_its_container_and_the_pods_uid() {
    const POD: &str = "2f1a7c1e-0d0c-4a9a-9d3f-6f1c2b3a4d5e";
    const ID: &str = "3e74d8f0c7a94b1f8c2d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708";
    need!(need::bpf());
    let plan = Plan::stuck(1);
    let below = format!("kubepods/burstable/pod{POD}/{ID}");
    let made = ["/sys/fs/cgroup", "/sys/fs/cgroup/freezer"]
        .iter()
        .find_map(|root| Groups::make(&Path::new(root).join(plan.name()), &below));
    let Some(groups) = made else {
        return need::skip("no control group can be made here");
    };
    // Gone before its groups, which must be empty to go.
    let crowd = plan.start();
    fs::write(
        groups.innermost().join("cgroup.procs"),
        crowd.writer().to_string(),
    )
    .expect("it is moved");

    let done = command::run(
        Command::new(binary::pipestall()).args([
            "ps",
            "--json",
            "--min",
            "0s",
            "--comm",
            crowd.writer_name(),
        ]),
        PATIENCE,
    );

    let stalls: Value = serde_json::from_str(&done.expect_code(0).stdout).expect("JSON");
    assert_eq!(
        (&stalls[0]["pod"], &stalls[0]["container"]),
        (&POD.into(), &ID.into()),
        "{stalls:#}"
    );
}

/// Control groups, one in the other, that go with this.
struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes one, and others below it.
    fn make(top: &Path, below: &str) -> Option<Self> {
        let mut made = Self(Vec::new());
        let mut path = top.to_owned();
        for part in std::iter::once(None).chain(below.split('/').map(Some)) {
            path.extend(part);
            fs::create_dir(&path).ok()?;
            made.0.push(path.clone());
        }
        made.innermost().join("cgroup.procs").is_file().then_some(made)
    }

    fn innermost(&self) -> &Path {
        self.0.last().expect("the top was made")
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in self.0.iter().rev() {
            if wait::until_or_none(PATIENCE, || fs::remove_dir(group).ok()).is_none() {
                eprintln!("{} stays", group.display());
            }
        }
    }
}

#[test]
fn each_condition_decides_alone() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let writing = &["--thread", "mux0:mp4"];
    let crowd = Plan::stuck(1).on(Channel::Fifo).writing(writing).start();
    let writer = crowd.writer();
    let (comm, parent) = (crowd.writer_name(), crowd.name());
    let grandparent = proc::comm(std::process::id()).expect("this process has a comm");
    for condition in [
        "thread = \"mux0:mp4\"".to_owned(),
        format!("exe = \"{}\"", exe(writer)),
        format!("ancestor = \"{grandparent}\""),
        "group = \"root\"".to_owned(),
        "channel = \"fifo\"".to_owned(),
    ] {
        let file = scratch.write("rules.toml", &rule("only", comm, parent, &condition));

        let done = explain(&["ps", "--json", "--config"], &file, writer);

        let explained: Value = serde_json::from_str(&done.expect_code(0).stdout).expect("JSON");
        assert_eq!(
            explained["rules"][0]["matches"], true,
            "{condition}: {explained:#}"
        );
    }
}

#[test]
fn a_rule_for_older_processes_waits_for_the_process_to_be_as_old() {
    const AGE: Duration = Duration::from_secs(4);
    need!(need::bpf());
    let scratch = Scratch::new();
    let plan = Plan::stuck(1);
    let config = Config::of_plan(&plan, &scratch)
        .enforcing()
        .stalled_for("1s")
        .matching_also(", min_process_age = \"4s\"");
    let mut agent = Agent::run(&config, &scratch);

    let before = clock::mono();
    let crowd = plan.start();
    let planned = agent.await_event("kill.planned", |event| event.is_of(crowd.writer()));
    agent.await_event("kill.confirmed", |event| event.is_of(crowd.writer()));
    agent.stop();

    // Its start is known to the tick of 10 ms.
    assert!(
        planned.at + Duration::from_millis(10) >= before + AGE,
        "{planned:?}"
    );
    assert!(
        planned.at <= crowd.ready() + AGE + Duration::from_millis(500),
        "{planned:?}"
    );
}

#[test]
fn protected_executables_are_never_signalled() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .protecting(&format!(
            "exe = [{:?}]\nunits = [\"no-such.service\"]",
            exe(writer)
        ));

    let mut agent = Agent::run(&config, &scratch);
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    wait::till(skipped.at + Duration::from_secs(1));
    agent.stop();

    assert_eq!(skipped.reason.as_deref(), Some("protected"));
    assert_eq!(crowd.exit(writer), None);
}

#[test]
fn an_explanation_names_what_was_found_and_fits_eighty_columns() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).writing(&["--thread", "mux0:mp4"]).start();
    let file = explained_rules(&crowd, &scratch);

    let live = explain(&["ps", "--config"], &file, crowd.writer());

    let text = &live.expect_code(0).stdout;
    for expected in [
        "1. other-stream: does not match",
        "no stream stderr stdout",
        "2. by-thread: matches, and decides",
        "yes thread ~^mux mux0:mp4",
        "3. rest: matches, but by-thread comes first",
        "protected: yes, by users root",
        "Decision by by-thread: kill is skipped as protected (users root), in 59m",
    ] {
        assert!(words(text).contains(expected), "{expected:?} is missing:\n{text}");
    }
    assert_narrow(text);
}

#[test]
fn a_process_that_is_not_seen_writing_is_explained_as_far_as_it_is_known() {
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).writing(&["--thread", "mux0:mp4"]).start();
    let file = explained_rules(&crowd, &scratch);

    // By /proc alone: nobody looks at what it writes to.
    let done = explain(&["check-config"], &file, crowd.writer());

    let text = &done.expect_code(0).stdout;
    for expected in [
        "not seen in a write that blocks",
        "1. other-stream: may match, depending on its write; if so, it decides",
        "? stream stderr (not seen writing)",
        "2. by-thread: may match, depending on its write, unless a rule before it does",
        "3. rest: matches, and decides unless a rule before it does",
    ] {
        assert!(words(text).contains(expected), "{expected:?} is missing:\n{text}");
    }
    assert_narrow(text);
}

#[test]
fn a_process_that_is_not_there_or_not_observed_is_told() {
    const NO_PID: u32 = 2_000_000_000;
    let scratch = Scratch::new();
    let file = scratch.write("rules.toml", "[observe]\ncomm = [\"no-such-comm\"]\n");

    let gone = explain(&["check-config"], &file, NO_PID);
    let unseen = explain(&["check-config"], &file, std::process::id());

    gone.expect_code(1)
        .expect_one_clear_line(&["no process", "2000000000"]);
    let text = &unseen.expect_code(0).stdout;
    assert!(
        text.contains("observed: no, observe.comm (no-such-comm)"),
        "{text}"
    );
    assert!(text.contains("Decision: nothing"), "{text}");
    assert_narrow(text);
}

/// Three rules, none of which may act.
fn explained_rules(crowd: &Crowd, scratch: &Scratch) -> PathBuf {
    let (comm, parent) = (crowd.writer_name(), crowd.name());
    let rules = [
        rule("other-stream", comm, parent, "stream = \"stderr\""),
        rule("by-thread", comm, parent, "thread = \"~^mux\""),
        rule("rest", comm, parent, "cmdline = \"*\""),
    ];
    let observed = format!("[observe]\ncomm = [\"{comm}\"]\n\n[protect]\nusers = [\"root\"]\n\n");
    let rules = rules.concat().replace("\"1s\"", "\"1h\"");
    scratch.write("rules.toml", &(observed + &rules))
}

/// A rule in the default mode, which only tells.
fn rule(name: &str, comm: &str, parent: &str, conditions: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nmatch = {{ comm = \"{comm}\", parent = \"{parent}\", {conditions} }}\n\
         stalled_for = \"1s\"\naction = \"kill\"\nallow_stderr_kill = true\n\n"
    )
}

#[track_caller]
fn explain(arguments: &[&str], config: &Path, pid: u32) -> Done {
    let mut command = Command::new(binary::pipestall());
    command
        .args(arguments)
        .arg(config)
        .args(["--explain", &pid.to_string()]);
    command::run(&mut command, PATIENCE)
}

#[track_caller]
fn exe(pid: u32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).expect("the writer has an executable");
    path.to_str().expect("a path that is text").to_owned()
}

#[track_caller]
fn assert_narrow(text: &str) {
    for line in text.lines() {
        let columns = line.chars().count();
        assert!(columns <= 80, "{columns} columns: {line}");
    }
}

/// The text with single spaces, and on one line.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rules_of(events: &[Seen], pid: u32) -> BTreeSet<String> {
    let kills = events
        .iter()
        .filter(|seen| seen.is_of(pid) && seen.kind.starts_with("kill."));
    kills.filter_map(|seen| seen.rule.clone()).collect()
}
