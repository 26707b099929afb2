//! The command line and the configuration file: what is wrong is named, with what would be right.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::binary;
use tests::command::{self, Done};
use tests::config::Config;
use tests::crowd::{Crowd, Plan};
use tests::need;
use tests::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(20);

const USAGE: i32 = 2;
const BAD_CONFIGURATION: i32 = 64;

#[test]
fn a_good_configuration_is_accepted() {
    let scratch = Scratch::new();
    let file = scratch.write("good.toml", &good());

    let done = pipestall(&["check-config", text(&file)]);

    done.expect_code(0);
}

#[test]
fn a_mistake_in_the_configuration_gives_file_line_key_and_what_would_be_right() {
    // What is replaced in the good configuration, by what, and what the message must name.
    let mistakes = [
        (
            "stalled_for =",
            "stalled_fr =",
            &["stalled_fr", "did you mean", "stalled_for"][..],
        ),
        ("action =", "acton =", &["acton", "did you mean", "action"]),
        (
            "report_after =",
            "report_aftr =",
            &["report_aftr", "did you mean", "report_after"],
        ),
        ("[observe]", "[obsrve]", &["obsrve", "did you mean", "observe"]),
        ("parent =", "parnt =", &["parnt", "did you mean", "parent"]),
        (
            "mode = \"enforce\"",
            "mode = \"enforc\"",
            &["enforc", "did you mean", "enforce"],
        ),
        (
            "action = \"kill\"",
            "action = \"kil\"",
            &["kil", "did you mean", "kill"],
        ),
        (
            "stalled_for = \"2s\"",
            "stalled_for = \"2 parsecs\"",
            &["stalled_for", "2 parsecs"],
        ),
        ("stalled_for = \"2s\"", "stalled_for = 2", &["stalled_for"]),
        ("name = \"the-rule\"", "name = the-rule", &[]),
    ];
    for (right, wrong, names) in mistakes {
        let scratch = Scratch::new();
        let good = good();
        assert!(good.contains(right), "the test replaces what is there: {right}");
        let toml = good.replacen(right, wrong, 1);
        let line = 1 + toml
            .lines()
            .position(|line| line.contains(wrong))
            .expect("the mistake is on a line");
        let file = scratch.write("bad.toml", &toml);
        let place = format!("{}:{line}:", file.display());

        for command in [&["check-config"][..], &["run", "--config"]] {
            let done = pipestall(&[command, &[text(&file)]].concat());

            done.expect_code(BAD_CONFIGURATION);
            for name in names.iter().chain([&place.as_str()]) {
                assert!(
                    done.stderr.contains(name),
                    "{wrong}: {name:?} is missing from: {}",
                    done.stderr
                );
            }
        }
    }
}

#[test]
fn a_rule_without_a_threshold_or_a_condition_is_refused() {
    for line in [
        "stalled_for = \"2s\"\n",
        "match = { comm = \"wri-1\", parent = \"par-1\" }\n",
    ] {
        let scratch = Scratch::new();
        let good = good();
        assert!(good.contains(line), "the test takes away what is there: {line}");
        let file = scratch.write("bad.toml", &good.replacen(line, "", 1));

        let done = pipestall(&["check-config", text(&file)]);

        let key = line.split(' ').next().expect("a key");
        assert!(
            done.expect_code(BAD_CONFIGURATION).stderr.contains(key),
            "{}",
            done.stderr
        );
    }
}

#[test]
fn a_rule_on_stderr_that_ends_processes_must_say_that_it_means_it() {
    let scratch = Scratch::new();
    let config = Config::new("wri-1", "par-1", Path::new("/var/lib/pipestall"));
    let careless = config.matching_also(", stream = \"stderr\"").toml();
    let meant = careless.replacen("grace =", "allow_stderr_kill = true\ngrace =", 1);
    let (careless, meant) = (
        scratch.write("careless.toml", &careless),
        scratch.write("meant.toml", &meant),
    );

    let (refused, accepted) = (
        pipestall(&["check-config", text(&careless)]),
        pipestall(&["check-config", text(&meant)]),
    );

    assert!(
        refused
            .expect_code(BAD_CONFIGURATION)
            .stderr
            .contains("allow_stderr_kill"),
        "{}",
        refused.stderr
    );
    accepted.expect_code(0);
}

#[test]
fn wrong_usage_exits_with_two() {
    let cases = [
        &[][..],
        &["no-such-command"],
        &["ps", "--no-such-flag"],
        &["ps", "--min", "soon"],
        &["ps", "--settle", "-1s"],
    ];
    for arguments in cases {
        let done = pipestall(arguments);

        assert!(!done.expect_code(USAGE).stderr.is_empty(), "{arguments:?}");
        assert_eq!(done.stdout, "", "{arguments:?}");
    }
}

#[test]
fn help_and_version_exit_with_zero() {
    for (argument, name) in [("--help", "ps"), ("--version", "pipestall")] {
        let done = pipestall(&[argument]);

        assert!(done.expect_code(0).stdout.contains(name), "{}", done.stdout);
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path("no-such.toml");

    let done = pipestall(&["check-config", text(&file)]);

    done.expect_code(BAD_CONFIGURATION)
        .expect_one_clear_line(&[text(&file)]);
}

#[test]
fn doctor_names_every_backend_and_why_one_is_not_usable() {
    need!(need::root());
    let done = pipestall(&["doctor", "--json"]);

    let report: Value = serde_json::from_str(&done.expect_code(0).stdout).expect("JSON");
    let backends = report["backends"].as_array().expect("backends");
    for name in ["sched", "scan", "fentry", "kprobe", "/proc"] {
        let backend = backends.iter().find(|one| one["name"] == name);
        let backend = backend.unwrap_or_else(|| panic!("{name} is missing: {report:#}"));
        assert!(backend["usable"].is_boolean(), "{name}");
        assert!(
            backend["detail"].as_str().is_some_and(|why| !why.is_empty()),
            "{name}: {backend}"
        );
    }
}

#[test]
fn doctor_in_words_names_every_backend_too() {
    need!(need::root());
    let done = pipestall(&["doctor"]);

    for name in ["sched", "scan", "fentry", "kprobe", "/proc", "lockdown"] {
        assert!(
            done.expect_code(0).stdout.contains(name),
            "{name} is missing:\n{}",
            done.stdout
        );
    }
}

#[test]
fn the_table_of_ps_fits_eighty_columns_and_names_the_writer() {
    need!(need::bpf());
    let crowd = Plan::stuck(1).start();

    let table = table(&crowd, Some("80"));

    assert!(
        table.contains(&crowd.writer().to_string()) && table.contains(crowd.writer_name()),
        "{table}"
    );
    for line in table.lines() {
        assert!(
            line.chars().count() <= 80,
            "{} columns: {line}",
            line.chars().count()
        );
    }
}

#[test]
fn the_table_of_ps_has_what_is_queued_and_the_parent_where_there_is_room() {
    const USUAL: [&str; 8] = [
        "AGE",
        "PID",
        "COMM/THREAD",
        "USER",
        "VIA",
        "STREAM",
        "READER",
        "COMMAND",
    ];
    need!(need::bpf());
    let crowd = Plan::stuck(1).start();
    let header = |table: &str| -> Vec<String> {
        let first = table.lines().next().unwrap_or_default();
        first.split_whitespace().map(str::to_owned).collect()
    };

    let wide = table(&crowd, Some("160"));
    let narrow = table(&crowd, Some("64"));

    let all = [&USUAL[..6], &["QUEUED", "UNDER"], &USUAL[6..]].concat();
    assert_eq!(
        (header(&wide), header(&table(&crowd, None))),
        (strings(&all), strings(&all))
    );
    assert_eq!(header(&narrow), strings(&USUAL));
    let row: Vec<_> = wide
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // Of a pipe that nobody reads; in a service, the unit is said in place of the parent.
    assert_eq!(row[6], "64K", "{wide}");
    assert!(row[7] == crowd.name() || row[7].contains('.'), "{wide}");
}

#[test]
fn what_a_process_calls_itself_does_not_reach_the_terminal_as_it_is() {
    need!(need::bpf());
    let crowd = Plan::stuck(1).writing(&["--thread", "\u{1b}[2J\rgone"]).start();

    let table = table(&crowd, Some("160"));
    let mut command = Command::new(binary::pipestall());
    command.args(["ps", "--tree", "--min", "0s", "--comm", crowd.writer_name()]);
    let tree = command::run(&mut command, PATIENCE).expect_code(0).stdout.clone();

    assert!(table.contains("\\u{1b}[2J"), "{table:?}");
    for text in [table, tree] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}

/// What `ps` prints of a crowd, on so many columns.
fn table(crowd: &Crowd, columns: Option<&str>) -> String {
    let mut command = Command::new(binary::pipestall());
    command
        .args(["ps", "--min", "0s", "--comm", crowd.writer_name()])
        .env_remove("COLUMNS")
        .envs(columns.map(|columns| ("COLUMNS", columns)));
    command::run(&mut command, PATIENCE).expect_code(0).stdout.clone()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn good() -> String {
    Config::new("wri-1", "par-1", Path::new("/var/lib/pipestall"))
        .enforcing()
        .toml()
}

fn pipestall(arguments: &[&str]) -> Done {
    command::run(Command::new(binary::pipestall()).args(arguments), PATIENCE)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
