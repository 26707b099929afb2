//! The messages that are still to be delivered: listed, tried again, given up, with the agent
//! running and without, and by whom.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::agent::Agent;
use tests::alerting::{PATIENCE, alerter, only, pipestall, signed};
use tests::api::Api;
use tests::command::{self, Done};
use tests::config::Config;
use tests::crowd::{Crowd, Plan};
use tests::family::Family;
use tests::receiver::{Answer, Receiver};
use tests::scratch::Scratch;
use tests::{binary, need, wait};

const NOBODY: u32 = 65534;

/// A receiver that answers with the status of the moment.
fn moody(status: &Arc<AtomicU16>) -> Receiver {
    let status = Arc::clone(status);
    Receiver::start(move |_| Answer::Status(status.load(Ordering::Relaxed)))
}

/// An agent that tells a receiver of a crowd's stalls, and can be asked.
fn told(crowd: &Crowd, scratch: &Scratch, api: &str, receiver: &Receiver, webhook: &str) -> Config {
    Config::of(crowd, scratch)
        .action("alert")
        .served(scratch, api)
        .alerting("ops", &receiver.url(), webhook)
}

/// The messages that `alerts list --json` shows.
#[track_caller]
fn list(config: &Path) -> Vec<Value> {
    let done = pipestall(&["alerts", "list", "--json"], config);
    serde_json::from_str(&done.expect_code(0).stdout).expect("a list")
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    let number = |message: &Value| message["number"].as_u64().expect("a number");
    messages.iter().map(number).collect()
}

#[test]
fn a_running_agent_is_asked_for_its_messages_and_does_as_it_is_told() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let status = Arc::new(AtomicU16::new(400));
    let receiver = moody(&status);
    let crowd = Plan::stuck(3).start();
    let patient = signed(&scratch, "events = [\"stall.detected\"]\nretry_max = \"1h\"\n")
        .replace("retry_max = \"300ms\"\n", "");
    let config = told(&crowd, &scratch, "", &receiver, &patient);
    let file = config.file(&scratch);

    let mut agent = Agent::run(&config, &scratch);
    receiver.await_requests("all are told", PATIENCE, |requests| requests.len() == 3);
    let refused = wait::until("all are refused", PATIENCE, || {
        let messages = list(&file);
        let is_refused = |message: &Value| message["state"] == "refused";
        (messages.len() == 3 && messages.iter().all(is_refused)).then_some(messages)
    });
    assert!(
        refused[0]["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("status 400"))
    );
    let table = pipestall(&["alerts", "list"], &file);
    assert!(
        table.expect_code(0).stdout.contains("refused"),
        "{}",
        table.stdout
    );

    // What is given up does not come back, whatever happens to the agent.
    let [dropped, kept, other] = numbers(&refused)[..] else {
        panic!("three numbers: {refused:?}")
    };
    let drop = pipestall(&["alerts", "drop", &dropped.to_string()], &file);
    agent.signal(Signal::KILL);
    agent.await_exit(PATIENCE);
    assert_eq!(drop.expect_code(0).stdout, "1 message given up\n");
    assert_eq!(numbers(&list(&file)), [kept, other], "nobody runs");

    let agent = Agent::run(&config, &scratch);
    assert_eq!(numbers(&list(&file)), [kept, other], "it runs again");
    let both = [&*kept.to_string(), &*dropped.to_string()];
    for deed in ["retry", "drop"] {
        pipestall(&["alerts", deed, both[0], both[1]], &file)
            .expect_code(1)
            .expect_one_clear_line(&[&format!("no message {dropped}; nothing is changed")]);
    }
    assert_eq!(receiver.count(), 3, "nothing was tried again");
    status.store(200, Ordering::Relaxed);
    let retry = pipestall(&["alerts", "retry", "--all", "--json"], &file);
    let changed: Value = serde_json::from_str(&retry.expect_code(0).stdout).expect("an object");
    assert_eq!(changed, json!({ "messages": 2 }));
    let requests = receiver.await_requests("both are taken", PATIENCE, |requests| requests.len() == 5);
    wait::until("the spool is empty", PATIENCE, || {
        list(&file).is_empty().then_some(())
    });

    let names = |takes: bool| -> BTreeSet<&str> {
        let of = requests.iter().filter(|request| request.answer.takes() == takes);
        of.map(|request| request.header("webhook-id")).collect()
    };
    assert!(names(true).len() == 2 && names(true).is_subset(&names(false)));
    let status = Api::at(&Config::socket(&scratch)).json("/v1/status");
    assert_eq!(status["alerts"]["webhooks"][0]["delivered_total"], 2);
    assert_eq!(status["alerts"]["webhooks"][0]["refused"], 0);
    agent.stop();
}

#[test]
fn what_waits_for_a_dead_receiver_is_listed_tried_at_once_and_given_up_while_the_agent_runs() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let status = Arc::new(AtomicU16::new(503));
    let receiver = moody(&status);
    let crowd = Plan::stuck(2).start();
    let lines = signed(&scratch, "events = [\"stall.detected\"]\n")
        .replace("20ms", "10m")
        .replace("300ms", "10m");
    let config = told(&crowd, &scratch, "", &receiver, &lines);
    let file = config.file(&scratch);
    let agent = Agent::run(&config, &scratch);
    receiver.await_requests("both are told", PATIENCE, |requests| requests.len() == 2);
    let waiting = wait::until("both have failed once", PATIENCE, || {
        let messages = list(&file);
        let has_failed = |message: &Value| message["attempts"] == 1 && message["state"] == "queued";
        (messages.len() == 2 && messages.iter().all(has_failed)).then_some(messages)
    });
    let [first, second] = numbers(&waiting)[..] else {
        panic!("two numbers: {waiting:?}")
    };

    status.store(200, Ordering::Relaxed);
    pipestall(&["alerts", "retry", &first.to_string()], &file).expect_code(0);
    receiver.await_requests("it is taken, ten minutes early", PATIENCE, |requests| {
        requests.last().is_some_and(|last| last.answer.takes())
    });
    wait::until("only the other is left", PATIENCE, || {
        (numbers(&list(&file)) == [second]).then_some(())
    });
    // Named twice, it is one.
    let (number, socket) = (second.to_string(), Config::socket(&scratch));
    let mut drop = Command::new(binary::pipestall());
    drop.args(["alerts", "drop", &number, &number, "--socket"])
        .arg(&socket);
    let dropped = command::run(&mut drop, PATIENCE);
    assert_eq!(dropped.expect_code(0).stdout, "1 message given up\n");
    assert!(list(&file).is_empty());

    let api = Api::at(&socket);
    for (body, status, words) in [
        ("", 400, "say which"),
        ("{\"number\": 1}", 400, "say which"),
        ("\"none\"", 400, "say which"),
        (
            "{\"numbers\": [7, 8]}",
            404,
            "no message 7, 8; nothing is changed",
        ),
    ] {
        for path in ["/v1/alerts/retry", "/v1/alerts/drop"] {
            let refused = api.post(path, body).json(status);
            let error = refused["error"].as_str().expect("an error");
            assert!(error.contains(words), "{path} {body}: {error}");
        }
    }
    assert_eq!(api.get("/v1/alerts/drop").status, 405);
    agent.stop();
    assert_eq!(receiver.count(), 3);
}

#[test]
fn what_a_receiver_that_is_gone_holds_up_is_shown_as_held_and_goes_after_a_reload() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let status = Arc::new(AtomicU16::new(410));
    let receiver = moody(&status);
    let crowd = Plan::stuck(1).start();
    let config = told(
        &crowd,
        &scratch,
        "",
        &receiver,
        &signed(&scratch, "events = [\"stall.detected\"]\n"),
    );
    let file = config.file(&scratch);
    let agent = Agent::run(&config, &scratch);
    receiver.await_requests("it is told", PATIENCE, |requests| requests.len() == 1);
    let held = wait::until("it is held", PATIENCE, || {
        list(&file).into_iter().find(|message| message["state"] == "held")
    });
    assert_eq!(held["next_try"], Value::Null);
    assert!(
        held["last_error"]
            .as_str()
            .is_some_and(|why| why.contains("status 410"))
    );
    status.store(200, Ordering::Relaxed);
    pipestall(&["alerts", "retry", "--all"], &file).expect_code(0);
    assert_eq!(list(&file)[0]["state"], "held", "a try is not a reload");

    let api = Api::at(&Config::socket(&scratch));
    api.post("/v1/reload", "").json(200);

    receiver.await_requests("it is taken", PATIENCE, |requests| {
        requests.last().is_some_and(|last| last.answer.takes())
    });
    wait::until("the spool is empty", PATIENCE, || {
        list(&file).is_empty().then_some(())
    });
    agent.stop();
    assert_eq!(receiver.count(), 2);
}

#[test]
fn readers_may_list_messages_and_only_operators_may_change_them() {
    const READERS: u32 = 61_234;
    const OPERATORS: u32 = 61_235;
    need!(need::bpf());
    let scratch = Scratch::new();
    let status = Arc::new(AtomicU16::new(400));
    let receiver = moody(&status);
    let crowd = Plan::stuck(1).start();
    let groups = format!("group = \"{READERS}\"\noperators = \"{OPERATORS}\"");
    let config = told(
        &crowd,
        &scratch,
        &groups,
        &receiver,
        &signed(&scratch, "events = [\"stall.detected\"]\n"),
    );
    let file = config.file(&scratch);
    let mut run = Command::new(binary::pipestall());
    run.args(["run", "--json", "--log-format", "json", "--config"])
        .arg(&file);
    let agent = Agent::start(&mut run);
    receiver.await_requests("it is told", PATIENCE, |requests| requests.len() == 1);
    let number = wait::until("a refused message", PATIENCE, || {
        let messages = list(&file);
        let refused = messages.iter().find(|message| message["state"] == "refused");
        refused.map(|message| message["number"].to_string())
    });
    let program = scratch.for_everyone(&binary::pipestall());
    let socket = Config::socket(&scratch);
    let run = |gid: u32, arguments: &[&str]| -> Done {
        let mut command = Command::new(&program);
        command.arg("alerts").args(arguments).arg("--socket").arg(&socket);
        command::run(command.uid(NOBODY).gid(gid), PATIENCE)
    };

    run(NOBODY, &["list"])
        .expect_code(1)
        .expect_one_clear_line(&["is not for this user", "[api] group"]);
    let listed = run(READERS, &["list"]);
    assert!(
        listed.expect_code(0).stdout.contains("refused"),
        "{}",
        listed.stdout
    );
    for deed in ["retry", "drop"] {
        run(READERS, &[deed, &number])
            .expect_code(1)
            .expect_one_clear_line(&["the agent refuses", "[api] operators"]);
    }
    assert_eq!(list(&file).len(), 1, "nothing has changed");
    assert_eq!(receiver.count(), 1);

    // Were the file open to all, the agent would still know who asks.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("another mode");
    run(NOBODY, &["list"])
        .expect_code(1)
        .expect_one_clear_line(&["the agent refuses", "[api] group"]);
    status.store(500, Ordering::Relaxed);
    run(OPERATORS, &["retry", &number]).expect_code(0);
    receiver.await_requests("it is tried again", PATIENCE, |requests| requests.len() > 1);
    run(OPERATORS, &["drop", &number]).expect_code(0);
    assert!(list(&file).is_empty());
    wait::until("it is written who did it", PATIENCE, || {
        let said = agent.stderr();
        (said.contains("to be tried again") && said.contains("given up")).then_some(())
    });
    agent.stop();
}

#[test]
fn where_no_agent_can_be_asked_it_is_said_what_to_do() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(400));
    let alerting = only(&scratch, &receiver.url(), &signed(&scratch, ""));
    let mut alerts = alerter(&alerting, &["--events", "1", "--within", "2"]);
    command::run(&mut alerts, PATIENCE).expect_code(1);
    let nothing = Config::new("no-such-comm", "no-such-parent", &scratch.path("state")).served(&scratch, "");
    let file = nothing.file(&scratch);
    let socket = Config::socket(&scratch);
    let mut ask = Command::new(binary::pipestall());
    ask.args(["alerts", "list", "--socket"]).arg(&socket);

    command::run(&mut ask, PATIENCE)
        .expect_code(1)
        .expect_one_clear_line(&["no agent listens on", &socket.display().to_string()]);
    assert_eq!(list(&file).len(), 1, "what is left is in the spool");

    // An agent that alerts nobody does not hold the spool.
    let agent = Agent::run(&nothing, &scratch);
    command::run(&mut ask, PATIENCE)
        .expect_code(1)
        .expect_one_clear_line(&["the agent refuses", "no [[webhook]]"]);
    assert_eq!(list(&file).len(), 1);
    pipestall(&["alerts", "drop", "--all"], &file).expect_code(0);
    assert!(list(&file).is_empty());
    agent.stop();
}

#[test]
fn what_a_receiver_refused_is_listed_and_tried_again_or_given_up() {
    let scratch = Scratch::new();
    let status = Arc::new(AtomicU16::new(400));
    let receiver = Receiver::start({
        let status = Arc::clone(&status);
        move |_| Answer::Status(status.load(Ordering::Relaxed))
    });
    let config = only(&scratch, &receiver.url(), &signed(&scratch, ""));
    let list = || -> Vec<Value> {
        let done = pipestall(&["alerts", "list", "--json"], &config);
        done.expect_code(0);
        serde_json::from_str(&done.stdout).expect("a list")
    };
    assert!(list().is_empty(), "before there is a spool");

    let mut refused = Family::start(&mut alerter(&config, &["--events", "3"]));
    receiver.await_requests("all are refused", PATIENCE, |requests| requests.len() == 3);
    pipestall(&["alerts", "list"], &config)
        .expect_code(1)
        .expect_one_clear_line(&["in use", "give it an [api], or stop the agent first"]);
    wait::until("the last refusal is kept", PATIENCE, || {
        refused.signal(Signal::KILL);
        refused.exited(PATIENCE)
    });
    let messages = list();
    assert_eq!(messages.len(), 3);
    // The last answer may have been on its way when it was killed.
    assert!(
        messages[..2]
            .iter()
            .all(|message| message["state"] == "refused" || message["attempts"] == 0)
    );
    pipestall(&["alerts", "drop", "2"], &config).expect_code(0);
    pipestall(&["alerts", "drop", "2"], &config)
        .expect_code(1)
        .expect_one_clear_line(&["no message 2"]);
    pipestall(&["alerts", "retry", "--all"], &config).expect_code(0);
    pipestall(&["alerts", "retry"], &config).expect_code(2);

    status.store(200, Ordering::Relaxed);
    command::run(&mut alerter(&config, &["--events", "3"]), PATIENCE).expect_code(0);

    assert!(list().is_empty());
    let requests = receiver.requests();
    let names = |takes: bool| -> BTreeSet<String> {
        let of = requests.iter().filter(|request| request.answer.takes() == takes);
        of.map(|request| request.header("webhook-id").to_owned())
            .collect()
    };
    assert_eq!(names(true).len(), 2);
    assert!(names(true).is_subset(&names(false)), "under the same names");
}
