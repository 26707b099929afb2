//! The way to a receiver: who vouches for it, proxies, and secrets that systemd hands over.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use probe_user::alert::format::standard;
use probe_user::alert::secret;
use tests::agent::Agent;
use tests::alerting::{NEW_KEY, PATIENCE, only, pipestall, signed};
use tests::authority::Authority;
use tests::command::{self, Done};
use tests::config::Config;
use tests::crowd::Plan;
use tests::proxy::{Asked, Proxy};
use tests::receiver::{Answer, Receiver, Request};
use tests::scratch::Scratch;
use tests::{binary, need};

/// A name that nobody can look up (RFC 6761).
const NOWHERE: &str = "receiver.invalid";

#[test]
fn a_receiver_that_lies_about_who_it_is_gets_nothing() {
    let scratch = Scratch::new();
    let (ca, other) = (Authority::new(), Authority::new());
    let ca_file = scratch.write("ca.pem", &ca.pem);
    let trusting = format!("ca_file = {:?}\n", ca_file.display().to_string());
    for (certificate, lines, words) in [
        (ca.certificate("localhost", 2090), trusting.as_str(), None),
        (ca.certificate("localhost", 2090), "", Some("UnknownIssuer")),
        (
            other.certificate("localhost", 2090),
            &trusting,
            Some("certificate"),
        ),
        (
            ca.certificate("example.com", 2090),
            &trusting,
            Some("not valid for name"),
        ),
        (ca.certificate("localhost", 2020), &trusting, Some("expired")),
    ] {
        let receiver = Receiver::start_tls(certificate);
        let config = only(&scratch, &receiver.url(), &signed(&scratch, lines));

        let done = pipestall(&["test-alert"], &config);

        match words {
            None => assert!(done.expect_code(0).stdout.contains("taken"), "{}", done.stdout),
            Some(words) => {
                assert!(
                    done.expect_code(1).stdout.contains(words),
                    "{words}: {}",
                    done.stdout
                );
                assert_eq!(receiver.count(), 0, "{words}");
            }
        }
    }
    let plain = Receiver::start(|_| Answer::Status(200));
    let url = plain.url().replace("http://", "https://");
    let config = only(&scratch, &url, &signed(&scratch, &trusting));
    pipestall(&["test-alert"], &config).expect_code(1);
    assert_eq!(plain.count(), 0);
}

#[test]
fn a_proxy_from_the_configuration_leads_to_a_receiver_that_only_it_can_find() {
    let scratch = Scratch::new();
    let plain = Receiver::start(|_| Answer::Status(200));
    let proxy = Proxy::to(plain.address());
    let lines = signed(&scratch, &format!("proxy = {:?}\n", proxy.url("")));
    let config = only(&scratch, &format!("http://{NOWHERE}/hook?x=1"), &lines);

    let done = pipestall(&["test-alert"], &config);

    assert!(done.expect_code(0).stdout.contains("taken"), "{}", done.stdout);
    let forwarded = Asked {
        method: "POST".to_owned(),
        target: format!("http://{NOWHERE}/hook?x=1"),
        authorization: None,
    };
    assert_eq!(proxy.asked(), [forwarded]);
    let [request] = &plain.requests()[..] else {
        panic!("one request was expected: {:?}", plain.requests())
    };
    assert_eq!(request.path, "/hook?x=1");
    assert_eq!(request.header("host"), NOWHERE);
    assert_signed(request);

    let authority = Authority::new();
    let ca_file = scratch.write("ca.pem", &authority.pem);
    let hidden = Receiver::start_tls(authority.certificate(NOWHERE, 2090));
    let proxy = Proxy::to(hidden.address());
    let more = format!(
        "proxy = {:?}\nca_file = {:?}\n",
        proxy.url("us:hunter2@"),
        ca_file.display().to_string()
    );
    let config = only(
        &scratch,
        &format!("https://{NOWHERE}/hook"),
        &signed(&scratch, &more),
    );

    let done = pipestall(&["test-alert"], &config);

    assert!(done.expect_code(0).stdout.contains("taken"), "{}", done.stdout);
    let tunnel = Asked {
        method: "CONNECT".to_owned(),
        target: format!("{NOWHERE}:443"),
        authorization: Some("Basic dXM6aHVudGVyMg==".to_owned()),
    };
    assert_eq!(proxy.asked(), [tunnel], "it sees where to, and nothing of what");
    let requests = hidden.requests();
    assert_eq!(requests.len(), 1);
    assert!(!format!("{requests:?}").contains("proxy-authorization"));
}

#[test]
fn what_a_proxy_refuses_goes_no_other_way_and_its_password_is_told_to_nobody() {
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let tls = Receiver::start_tls(Authority::new().certificate("localhost", 2090));
    let proxy = Proxy::refusing();
    let lines = signed(&scratch, &format!("proxy = {:?}\n", proxy.url("us:hunter2@")));
    for (url, words) in [(receiver.url(), "status 407"), (tls.url(), "tried again: ")] {
        let config = only(&scratch, &url, &lines);
        let checked = check(&config);
        checked.expect_code(0);

        let done = pipestall(&["test-alert"], &config);

        assert!(done.expect_code(1).stdout.contains(words), "{}", done.stdout);
        for said in [&checked.stdout, &checked.stderr, &done.stdout, &done.stderr] {
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    assert_eq!(proxy.asked().len(), 2);
    assert_eq!(receiver.count() + tls.count(), 0);
}

#[test]
fn the_environments_proxy_is_for_others() {
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let trap = Proxy::to(receiver.address());
    let config = only(&scratch, &receiver.url(), &signed(&scratch, ""));
    let mut command = Command::new(binary::pipestall());
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env(name, trap.url(""));
    }
    command.arg("test-alert").arg("--config").arg(&config);

    command::run(&mut command, PATIENCE).expect_code(0);

    assert_eq!(receiver.count(), 1);
    assert_eq!(trap.asked(), []);
}

#[test]
fn an_agent_tells_what_is_stalled_by_way_of_its_proxy() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let proxy = Proxy::to(receiver.address());
    let crowd = Plan::stuck(2).start();
    let lines = signed(
        &scratch,
        &format!("events = [\"stall.detected\"]\nproxy = {:?}\n", proxy.url("")),
    );
    let config =
        Config::of(&crowd, &scratch)
            .action("alert")
            .alerting("ops", &format!("http://{NOWHERE}/"), &lines);

    let agent = Agent::run(&config, &scratch);
    receiver.await_requests("both are told", PATIENCE, |requests| requests.len() == 2);

    agent.stop();
    let asked = proxy.asked();
    assert!(
        asked.iter().all(|one| one.target == format!("http://{NOWHERE}/")),
        "{asked:?}"
    );
}

#[test]
fn secrets_that_systemd_hands_over_are_used_and_shown_to_nobody() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let crowd = Plan::stuck(1).start();
    let webhook = "\n[[webhook]]\nname = \"ops\"\nformat = \"standard\"\n\
                   url_credential = \"ops-url\"\nsecret_credential = \"ops-key\"\n\
                   events = [\"stall.detected\"]\ngroup_wait = \"0s\"\n\
                   allow_private = [\"127.0.0.1\"]\n";
    let config = Config::of(&crowd, &scratch).action("alert");
    let file = scratch.write("credentials.toml", &(config.toml() + webhook));
    let credentials = credentials(
        &scratch,
        &[
            ("ops-url", format!("{}/services/URLSECRET\n", receiver.url())),
            ("ops-key", format!("{NEW_KEY}\n")),
        ],
    );
    let mut said = vec![check(&file)];
    let with = |arguments: &[&str]| {
        let mut command = Command::new(binary::pipestall());
        command.args(arguments).arg("--config").arg(&file);
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        command
    };

    said.push(command::run(&mut with(&["test-alert"]), PATIENCE));
    said[1].expect_code(0);
    let mut agent = Agent::start(&mut with(&["run", "--json"]));
    agent.await_event("stall.detected", |_| true);
    let requests = receiver.await_requests("the writer is told", PATIENCE, |requests| requests.len() == 2);
    let mut told = agent.stderr();
    let _ = write!(told, "{:?}", agent.stop());

    for request in &requests {
        assert_eq!(request.path, "/services/URLSECRET");
        assert_signed(request);
    }
    for name in ["journal.ndjson", "spool/alerts.redb"] {
        let bytes = fs::read(scratch.path("state").join(name)).expect(name);
        told.push_str(&String::from_utf8_lossy(&bytes));
    }
    for done in &said {
        told.push_str(&done.stdout);
        told.push_str(&done.stderr);
    }
    for secret in ["URLSECRET", &NEW_KEY[6..]] {
        assert!(!told.contains(secret), "{secret}");
    }
}

#[test]
fn credentials_that_are_missing_or_wrong_are_said_with_what_would_be_right() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let lines = "format = \"standard\"\nsecret_credential = \"ops-key\"\n";
    let config = only(&scratch, &receiver.url(), lines);
    let run = |argument: &str, directory: Option<&Path>| {
        let mut command = Command::new(binary::pipestall());
        command.arg(argument).arg("--config").arg(&config);
        command.env_remove("CREDENTIALS_DIRECTORY");
        if let Some(directory) = directory {
            command.env("CREDENTIALS_DIRECTORY", directory);
        }
        command::run(command.stdin(Stdio::null()), PATIENCE)
    };

    let unset = run("test-alert", None);
    let words = "run it as a service with LoadCredential=ops-key:/path";
    assert!(unset.expect_code(1).stdout.contains(words), "{}", unset.stdout);
    // An agent that cannot tell anybody does not begin.
    run("run", None)
        .expect_code(1)
        .expect_one_clear_line(&["webhook ops", words]);
    let empty = credentials(&scratch, &[]);
    let missing = run("test-alert", Some(&empty));
    let path = empty.join("ops-key").display().to_string();
    assert!(
        missing.expect_code(1).stdout.contains(&path),
        "{}",
        missing.stdout
    );
    fs::remove_dir(&empty).expect("the empty directory goes");
    let wrong = credentials(&scratch, &[("ops-key", "hunter2".to_owned())]);
    let wrong = run("test-alert", Some(&wrong));
    let words = "line 1 does not start with whsec_";
    assert!(wrong.expect_code(1).stdout.contains(words), "{}", wrong.stdout);
    assert!(!wrong.stdout.contains("hunter2") && !wrong.stderr.contains("hunter2"));
    assert_eq!(receiver.count(), 0);
}

/// Makes a directory as systemd makes it for a service (systemd.exec(5), `LoadCredential=`).
fn credentials(scratch: &Scratch, files: &[(&str, String)]) -> PathBuf {
    let directory = scratch.path("credentials");
    fs::create_dir(&directory).expect("a directory");
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).expect("a credential");
        fs::set_permissions(&path, Permissions::from_mode(0o440)).expect("its mode");
    }
    directory
}

fn check(config: &Path) -> Done {
    let mut command = Command::new(binary::pipestall());
    command::run(command.arg("check-config").arg(config), PATIENCE)
}

/// Asserts that the new key has signed; that signatures are right is tested elsewhere.
#[track_caller]
fn assert_signed(request: &Request) {
    let key = secret::parse(NEW_KEY).expect("a key");
    let sent = request.header(standard::TIMESTAMP).parse().expect("seconds");
    let sent = Timestamp::from_second(sent).expect("a time");
    let expected = standard::signature(&key, request.header(standard::ID), sent, request.body.as_bytes());
    let signatures: Vec<&str> = request.header(standard::SIGNATURE).split(' ').collect();
    assert!(signatures.contains(&expected.as_str()), "{signatures:?}");
}
