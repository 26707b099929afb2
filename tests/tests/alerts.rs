//! Alerts: each arrives, signed, whatever receivers do and however often the program is killed;
//! and no receiver, and no full disk, holds up a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tests::agent::Agent;
use tests::alerting::{NEW_KEY, OLD_KEY, PATIENCE, alerter, only, pipestall, secret, signed};
use tests::command;
use tests::config::Config;
use tests::crowd::Plan;
use tests::family::Family;
use tests::invented::PASSWORD;
use tests::order::Order;
use tests::receiver::{Answer, Receiver, Request};
use tests::scratch::{Scratch, SmallDisk};
use tests::{binary, clock, need, wait};

#[test]
fn an_incident_reaches_alertmanager_and_is_over_when_it_recovers() {
    need!(need::bpf());
    let program = need!(need::alertmanager());
    let scratch = Scratch::new();
    let alertmanager = Alertmanager::start(&program, &scratch);
    let mut crowd = Plan::stuck(3).start();
    let config = Config::of(&crowd, &scratch)
        .action("alert")
        .stalled_for("1s")
        .alerting("am", &alertmanager.url(), "format = \"alertmanager\"");

    let agent = Agent::run(&config, &scratch);
    let alert = wait::until("an alert of all three", PATIENCE, || {
        let alerts = alertmanager.alerts();
        let mut of_three = alerts.into_iter();
        of_three.find(|alert| alert["annotations"]["count"] == "3")
    });

    assert_eq!(alert["labels"]["alertname"], "PipestallStalledWriters");
    assert_eq!(alert["labels"]["rule"], "the-rule");
    assert_eq!(alert["labels"]["severity"], "warning");
    assert_eq!(alert["status"]["state"], "active");
    assert_eq!(alert["labels"].get("pid"), None, "{alert}");
    let pids = alert["annotations"]["pid"].as_str().expect("pids");
    let pids: BTreeSet<u32> = pids.split(' ').map(|pid| pid.parse().expect("a pid")).collect();
    assert_eq!(pids, crowd.stuck().into_iter().collect());
    assert_eq!(
        alertmanager.alerts().len(),
        1,
        "one alert, whatever was told of it"
    );

    for pid in crowd.stuck() {
        crowd.order(Order::Drain { pid });
    }
    wait::until("the alert is over", PATIENCE, || {
        alertmanager.alerts().is_empty().then_some(())
    });
    agent.stop();
}

#[test]
fn messages_are_signed_with_every_key_as_another_implementation_verifies() {
    let (python, package) = need!(need::standardwebhooks());
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let config = only(&scratch, &receiver.url(), &signed(&scratch, ""));

    pipestall(&["test-alert"], &config).expect_code(0);
    command::run(&mut alerter(&config, &["--events", "20"]), PATIENCE).expect_code(0);

    let requests = receiver.requests();
    assert_eq!(requests.len(), 21);
    let lines: Vec<String> = requests
        .iter()
        .map(|request| serde_json::json!({ "headers": request.headers, "body": request.body }))
        .map(|line| format!("{line}\n"))
        .collect();
    let script = "\
import json, sys
from standardwebhooks import Webhook, WebhookVerificationError
for line in open(sys.argv[1]):
    request = json.loads(line)
    for key in sys.argv[2:]:
        Webhook(key).verify(request['body'], request['headers'])
    try:
        Webhook(sys.argv[2]).verify(request['body'] + ' ', request['headers'])
        sys.exit('a changed body is verified')
    except WebhookVerificationError:
        pass
print('verified')
";
    let mut verify = Command::new(python);
    verify
        .env("PYTHONPATH", package)
        .args(["-c", script])
        .arg(scratch.write("requests", &lines.concat()))
        .args([OLD_KEY, NEW_KEY]);
    let done = command::run(&mut verify, PATIENCE);
    done.expect_code(0);
    assert_eq!(done.stdout.trim(), "verified");
}

#[test]
fn secrets_appear_nowhere() {
    need!(need::bpf());
    let scratch = Scratch::new();
    // It tells what it was sent, its own path too, and takes nothing of it.
    let receiver = Receiver::start(|request| Answer::Say(500, format!("no {} here", request.path)));
    let url = secret(
        &scratch,
        "chat.url",
        &format!("{}/services/URLSECRET?token=QUERYSECRET\n", receiver.url()),
    );
    let crowd = Plan::stuck(2).start();
    let config = Config::of(&crowd, &scratch).stalled_for("1s").alerting(
        "ops",
        &receiver.url(),
        &signed(&scratch, ""),
    );
    let chat = format!(
        "\n[[webhook]]\nname = \"chat\"\nurl_file = {:?}\nformat = \"slack\"\ngroup_wait = \"0s\"\n\
         retry_min = \"20ms\"\nallow_private = [\"127.0.0.1\"]\n",
        url.display().to_string()
    );
    let file = scratch.write("both.toml", &(config.toml() + &chat));

    let mut said = Vec::new();
    for arguments in [&["check-config"][..], &["alerts", "list", "--config"]] {
        let mut command = Command::new(binary::pipestall());
        let done = command::run(command.args(arguments).arg(&file), PATIENCE);
        done.expect_code(0);
        said.push(done.stdout + &done.stderr);
    }
    let mut command = Command::new(binary::pipestall());
    let mut agent = Agent::start(command.args(["run", "--json", "--config"]).arg(&file));
    for pid in crowd.stuck() {
        agent.await_event("kill.skipped", |event| event.is_of(pid));
    }
    let is_of = |path: &'static str| move |request: &&Request| request.path.starts_with(path);
    receiver.await_requests("both are told, and tried again", PATIENCE, |requests| {
        requests.iter().filter(is_of("/services/")).count() > 1 && requests.len() > 4
    });
    said.push(agent.stderr());
    let events = agent.stop();
    said.push(format!("{events:?}"));
    let done = pipestall(&["test-alert"], &file);
    done.expect_code(1);
    assert!(done.stdout.contains("no [redacted]"), "{}", done.stdout);
    said.push(done.stdout + &done.stderr);
    for list in [&["alerts", "list"][..], &["alerts", "list", "--json"]] {
        let done = pipestall(list, &file);
        assert!(
            done.expect_code(0).stdout.contains("status 500"),
            "{}",
            done.stdout
        );
        said.push(done.stdout + &done.stderr);
    }
    for name in ["journal.ndjson", "spool/alerts.redb"] {
        let bytes = fs::read(scratch.path("state").join(name)).expect(name);
        said.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    for request in receiver.requests() {
        said.push(format!("{:?} {}", request.headers, request.body));
    }

    for secret in [&OLD_KEY[6..], &NEW_KEY[6..], "URLSECRET", "QUERYSECRET"] {
        for (i, text) in said.iter().enumerate() {
            assert!(!text.contains(secret), "{secret} in output {i}");
        }
    }
}

#[test]
fn what_command_lines_hide_is_told_to_nobody() {
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let config = only(&scratch, &receiver.url(), &signed(&scratch, ""));

    command::run(&mut alerter(&config, &["--events", "2"]), PATIENCE).expect_code(0);

    let spool = fs::read(scratch.path("state/spool/alerts.redb")).expect("the spool");
    assert!(!String::from_utf8_lossy(&spool).contains(PASSWORD));
    for request in receiver.requests() {
        assert!(!request.body.contains(PASSWORD), "{}", request.body);
        let argument = &request.json()["data"]["worst"][0]["event"]["stall"]["cmdline"][2];
        assert_eq!(argument, "https://u:[redacted]@example.com/v");
    }
}

#[test]
fn a_flood_that_overflows_the_way_to_the_alerts_is_read_from_the_journal() {
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let lines = signed(&scratch, "").replace("\"writer\"", "\"rule\"");
    let config = only(&scratch, &receiver.url(), &lines);

    command::run(
        &mut alerter(&config, &["--events", "6000", "--within", "100"]),
        Duration::from_mins(2),
    )
    .expect_code(0);

    let last = receiver.await_requests("the whole incident is told", PATIENCE, |requests| {
        requests
            .last()
            .is_some_and(|last| last.json()["data"]["count"] == 6000)
    });
    let incidents: BTreeSet<String> = last
        .iter()
        .map(|one| one.json()["data"]["incident"].to_string())
        .collect();
    assert_eq!(incidents.len(), 1);
}

#[test]
fn what_a_receiver_does_is_told_by_test_alert_and_by_its_exit_code() {
    for (answer, code, words) in [
        (Answer::Status(204), 0, "taken"),
        (Answer::Endless(200), 0, "taken"),
        (Answer::Say(200, "ok".to_owned()), 0, "it said: ok"),
        (Answer::Status(500), 1, "would be tried again: status 500"),
        (
            Answer::With(429, "retry-after", "7".to_owned()),
            1,
            "tried again in 7 s: status 429",
        ),
        (Answer::Endless(503), 1, "tried again: status 503: xxxx"),
        (Answer::Cut(503), 1, "would be tried again: "),
        (Answer::Hang, 1, "would be tried again: timed out"),
        (Answer::Reset, 1, "would be tried again: "),
        (
            Answer::With(301, "location", "http://127.0.0.1:1/".to_owned()),
            1,
            "redirects are not followed",
        ),
        (
            Answer::Say(400, "bad \u{1b}[2J".to_owned()),
            1,
            "not tried again: status 400: bad \\u{1b}[2J",
        ),
        (Answer::Status(410), 1, "nothing more: status 410"),
    ] {
        let scratch = Scratch::new();
        let receiver = Receiver::start({
            let answer = answer.clone();
            move |_| answer.clone()
        });
        let config = only(&scratch, &receiver.url(), &signed(&scratch, "timeout = \"1s\""));

        let done = pipestall(&["test-alert", "--webhook", "ops"], &config);

        done.expect_code(code);
        assert!(done.stdout.contains(words), "{answer:?}: {}", done.stdout);
        assert_eq!(receiver.count(), 1, "{answer:?} is asked once");
    }
}

#[test]
fn test_alert_says_what_is_wrong_before_anything_is_sent() {
    let scratch = Scratch::new();
    let config = only(&scratch, "http://127.0.0.1:9/", &signed(&scratch, ""));
    pipestall(&["test-alert", "--webhook", "opps"], &config)
        .expect_code(2)
        .expect_one_clear_line(&["there is no webhook opps", "ops"]);
    let refused = pipestall(&["test-alert"], &config);
    refused.expect_code(1);
    assert!(
        refused.stdout.contains("Connection refused"),
        "{}",
        refused.stdout
    );

    fs::set_permissions(scratch.path("ops.key"), Permissions::from_mode(0o644)).expect("its mode");
    let open = pipestall(&["test-alert"], &config);
    open.expect_code(1);
    assert!(open.stdout.contains("chmod 600"), "{}", open.stdout);

    let empty = scratch.write("empty.toml", "");
    pipestall(&["test-alert"], &empty)
        .expect_code(2)
        .expect_one_clear_line(&["no [[webhook]]"]);
    let bad = scratch.write("bad.toml", "[[webhook]]\nname = 'x'\n");
    pipestall(&["test-alert"], &bad).expect_code(64);
}

#[test]
fn a_dead_receiver_delays_neither_another_nor_a_kill() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let dead = Receiver::start(|_| Answer::Hang);
    let live = Receiver::start(|_| Answer::Status(200));
    let crowd = Plan::stuck(5).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("2s")
        .alerting("dead", &dead.url(), &signed(&scratch, "timeout = \"1m\""))
        .alerting("live", &live.url(), &signed(&scratch, ""));

    let mut agent = Agent::run(&config, &scratch);
    for pid in crowd.stuck() {
        let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(pid));
        assert!(
            confirmed.took_ms.is_some_and(|took| took < 2000.0),
            "{confirmed:?}"
        );
    }
    let requests = live.await_requests("all are told to be over", PATIENCE, |requests| {
        requests
            .iter()
            .filter(|request| request.body.contains("pipestall.resolved"))
            .count()
            >= 5
    });

    assert!(dead.count() > 0 && dead.requests().iter().all(|request| !request.answer.takes()));
    // Of each writer in its order: stalled, then killed.
    let mut told: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for request in &requests {
        let data = request.json()["data"].take();
        let pid = data["worst"][0]["event"]["stall"]["pid"].as_u64().expect("a pid");
        let status = data["status"].as_str().expect("a status").to_owned();
        told.entry(pid).or_default().push(status);
    }
    assert_eq!(told.len(), 5);
    for (pid, statuses) in told {
        assert!(
            statuses.is_sorted() && statuses.contains(&"resolved".to_owned()),
            "{pid}: {statuses:?}"
        );
    }
    let before = clock::mono();
    agent.stop();
    let took = clock::mono().saturating_sub(before);
    assert!(took < Duration::from_secs(5), "stopped after {took:?}");
}

#[test]
fn a_full_disk_under_the_spool_is_said_and_alerts_and_kills_go_on() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let disk = SmallDisk::of(c"size=8m");
    let state = scratch.path("state");
    fs::create_dir(&state).expect("the state directory");
    symlink(disk.path(), state.join("spool")).expect("the spool's place");
    let receiver = Receiver::start(|_| Answer::Status(200));
    let plan = Plan::stuck(3);
    let config = Config::of_plan(&plan, &scratch)
        .enforcing()
        .stalled_for("2s")
        .alerting(
            "ops",
            &receiver.url(),
            &signed(&scratch, "events = [\"stall.*\", \"kill.*\", \"agent.*\"]"),
        );

    let mut agent = Agent::run(&config, &scratch);
    receiver.await_requests("the start is told", PATIENCE, |requests| !requests.is_empty());
    disk.fill();
    let crowd = plan.start();
    for pid in crowd.stuck() {
        agent.await_event("kill.confirmed", |event| event.is_of(pid));
    }
    let is_spool = |detail: &Option<String>| detail.as_ref().is_some_and(|why| why.contains("alerts.redb"));
    agent.await_event("agent.degraded", |event| is_spool(&event.detail));
    receiver.await_requests("it is told, and the ends", PATIENCE, |requests| {
        let count = |what: &str| {
            requests
                .iter()
                .filter(|request| request.body.contains(what))
                .count()
        };
        count("PipestallDegraded") >= 1 && count("pipestall.resolved") >= 3
    });

    disk.clear();
    wait::until("the spool is written again", PATIENCE, || {
        agent.stderr().contains("is written again").then_some(())
    });
    agent.stop();
    let list = pipestall(&["alerts", "list"], &config.file(&scratch));
    assert!(
        list.expect_code(0).stdout.contains("all is delivered"),
        "{}",
        list.stdout
    );
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_more_and_one_that_comes_back_gets_all() {
    let scratch = Scratch::new();
    let gone = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let gone = Arc::clone(&gone);
        move |_| Answer::Status(if gone.load(Ordering::Relaxed) { 410 } else { 200 })
    });
    let config = only(&scratch, &receiver.url(), &signed(&scratch, ""));

    let done = command::run(
        &mut alerter(&config, &["--events", "100", "--within", "2"]),
        PATIENCE,
    );
    done.expect_code(1);
    // Those that were on their way when the first answer came.
    assert!(receiver.count() <= 8, "{}", receiver.count());
    gone.store(false, Ordering::Relaxed);
    command::run(&mut alerter(&config, &["--events", "100"]), PATIENCE).expect_code(0);

    let requests = receiver.requests();
    let taken = requests.iter().filter(|request| request.answer.takes());
    assert_eq!(taken.count(), 100);
}

/// A real Alertmanager.
struct Alertmanager {
    port: u16,
    _program: Family,
}

impl Alertmanager {
    fn start(program: &Path, scratch: &Scratch) -> Self {
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let config = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
        let mut command = Command::new(program);
        command
            .arg(format!(
                "--config.file={}",
                scratch.write("alertmanager.yml", config).display()
            ))
            .arg(format!(
                "--storage.path={}",
                scratch.path("alertmanager").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let alertmanager = Self {
            port,
            _program: Family::start(&mut command),
        };
        wait::until("Alertmanager is ready", PATIENCE, || alertmanager.get("/-/ready"));
        alertmanager
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lists the alerts that go on.
    fn alerts(&self) -> Vec<Value> {
        let body = self.get("/api/v2/alerts").expect("Alertmanager answers");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }
}
