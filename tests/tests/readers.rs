//! Who does not read: readers, chains, deadlocks, of real processes. And what rules make of them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use tests::agent::Agent;
use tests::command;
use tests::config::Config;
use tests::crowd::{Channel, Crowd, Plan};
use tests::family::{Family, between as start};
use tests::ffmpeg::{self, TO_STDOUT};
use tests::message::Stall;
use tests::order::Exit;
use tests::ps::ps;
use tests::scratch::Scratch;
use tests::{binary, names, need, proc, wait};

const PATIENCE: Duration = Duration::from_secs(20);
/// What makes the bundled writer write for ever.
const WRITE: &[&str] = &["write"];

/// Serves what an ffmpeg writes to whoever asks, as a media server does.
const SERVER: &str = "
const { createServer } = require('node:http');
const { spawn } = require('node:child_process');
const [program, ...args] = process.argv.slice(2);
const server = createServer((request, response) => {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  child.stdout.pipe(response);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
";

#[test]
fn behind_an_http_server_the_client_that_stopped_reading_is_named() {
    need!(need::bpf());
    let (ffmpeg, node) = (need!(need::ffmpeg()), need!(need::node()));
    let scratch = Scratch::new();
    let name = names::unique("ffm");
    let ffmpeg = scratch.named(&ffmpeg, &name);
    let mut command = Command::new(node);
    command
        .arg(scratch.write("server.js", SERVER))
        .arg(&ffmpeg)
        .args(TO_STDOUT);
    let mut server = Family::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut agent = Agent::watch(&["--comm", &name, "--min", "1s"]);
    let mut line = String::new();
    let stdout = server.child().stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the port");
    let port: u16 = line.trim().parse().expect("the port is a number");

    // It asks, and never reads the answer.
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("a request");
    let writer = proc::await_child(server.pid(), &name);
    proc::await_blocked_write(writer);
    let look = ps(&["--min", "0s", "--comm", &name]);
    let detected = agent.await_event("stall.detected", |event| event.is_of(writer));
    agent.stop();

    let address = client.local_addr().expect("its address").to_string();
    let event = detected.event.stall.expect("a stall");
    for stall in [look.of(writer), &event] {
        assert_eq!(stall.channel, "unix");
        assert_eq!(stall.chain_pids(), [writer, server.pid()]);
        let culprit = stall.culprit.as_ref().expect("a culprit");
        assert_eq!(Some(culprit.reader.comm.clone()), proc::comm(server.pid()));
        assert_eq!(culprit.reader.kind, "reader");
        let [found] = &culprit.clients[..] else {
            panic!("one client was expected: {culprit:#?}")
        };
        assert_eq!(found.peer, address);
        assert!(found.queued_bytes > 0);
        let target = proc::link(server.pid(), found.fd).expect("the server has that fd");
        assert!(target.to_string_lossy().starts_with("socket:["), "{target:?}");
    }
    let tree = text(&["ps", "--tree", "--min", "0s", "--comm", &name]);
    let words = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("client {address} (fd ")), "{tree}");
}

#[test]
fn a_client_that_reads_is_nobodys_culprit() {
    need!(need::bpf());
    let node = need!(need::node());
    let scratch = Scratch::new();
    // The same server, but what it does not read is its child: the client has all there is.
    let script = "
const { createServer } = require('node:http');
const { spawn } = require('node:child_process');
const server = createServer((request, response) => {
  spawn(process.argv[2], [], { stdio: ['ignore', 'pipe', 'ignore'] });
  response.write('hello');
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
";
    let yes = scratch.named(Path::new("/usr/bin/yes"), &names::unique("yes"));
    let mut command = Command::new(node);
    command.arg(scratch.write("server.js", script)).arg(&yes);
    let mut server = Family::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut line = String::new();
    let stdout = server.child().stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the port");
    let port: u16 = line.trim().parse().expect("the port is a number");
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("a request");
    let writer = proc::await_child(server.pid(), &ffmpeg::comm_of(&yes));
    proc::await_blocked_write(writer);

    let stall = stall_of(writer, &yes);

    assert_eq!(stall.culprit_pid(), Some(server.pid()));
    assert_eq!(stall.culprit.expect("a culprit").clients_total, 0);
}

#[test]
fn a_chain_of_ffmpegs_leads_to_the_sleep_behind_them() {
    need!(need::bpf());
    let ffmpeg = need!(need::ffmpeg());
    let scratch = Scratch::new();
    let name = names::unique("ffm");
    let ffmpeg = scratch.named(&ffmpeg, &name);
    let (first_rx, first_tx) = pipe().expect("a pipe");
    let (second_rx, second_tx) = pipe().expect("a pipe");
    let sleep = start(Path::new("sleep"), &["600"], second_rx, Stdio::null());
    let copy = [
        "-v", "quiet", "-f", "nut", "-i", "pipe:0", "-c", "copy", "-f", "nut", "pipe:1",
    ];
    let second = start(&ffmpeg, &copy, first_rx, second_tx);
    let first = start(&ffmpeg, &TO_STDOUT, Stdio::null(), first_tx);
    proc::await_blocked_write(second.pid());
    proc::await_blocked_write(first.pid());

    let look = ps(&["--min", "0s", "--comm", &name]);

    let of_first = look.of(first.pid());
    assert_eq!(of_first.chain_pids(), [first.pid(), second.pid(), sleep.pid()]);
    assert_eq!(look.of(second.pid()).chain_pids(), [second.pid(), sleep.pid()]);
    for stall in &look.stalls {
        let culprit = stall.culprit.as_ref().expect("a culprit");
        assert_eq!(
            (culprit.reader.pid, culprit.reader.comm.as_str()),
            (sleep.pid(), "sleep")
        );
        assert_eq!(culprit.reader.state, "S");
        assert!(
            culprit
                .reader
                .sleeps_in
                .as_ref()
                .is_some_and(|place| place.contains("nanosleep"))
        );
        assert_eq!(stall.deadlock, None);
    }
    let tree = text(&["ps", "--tree", "--min", "0s", "--comm", &name]);
    let lines: Vec<&str> = tree.lines().collect();
    let [root, middle, leaf] = lines[..] else {
        panic!("three lines were expected:\n{tree}")
    };
    assert!(
        root.starts_with(&format!("sleep {}: sleeping in ", sleep.pid())),
        "{root}"
    );
    assert!(
        middle.starts_with(&format!("└─ {name} {} ", second.pid())),
        "{middle}"
    );
    assert!(
        leaf.starts_with(&format!("   └─ {name} {} ", first.pid())),
        "{leaf}"
    );
}

#[test]
fn a_chain_leads_over_processes_that_are_not_observed() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (first_rx, first_tx) = pipe().expect("a pipe");
    let (second_rx, second_tx) = pipe().expect("a pipe");
    let sleep = start(Path::new("sleep"), &["600"], second_rx, Stdio::null());
    let cat = start(Path::new("cat"), &[], first_rx, second_tx);
    let writer = start(&endless, WRITE, Stdio::null(), first_tx);
    proc::await_blocked_write(cat.pid());
    proc::await_blocked_write(writer.pid());

    let stall = stall_of(writer.pid(), &endless);

    assert_eq!(stall.chain_pids(), [writer.pid(), cat.pid(), sleep.pid()]);
    assert_eq!(stall.culprit_pid(), Some(sleep.pid()));
    assert_eq!(stall.reader(cat.pid()).state, "S");
}

#[test]
fn two_that_write_to_each_other_and_do_not_read_are_a_deadlock() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (there_rx, there_tx) = pipe().expect("a pipe");
    let (back_rx, back_tx) = pipe().expect("a pipe");
    let one = start(&endless, WRITE, back_rx, there_tx);
    let other = start(&endless, WRITE, there_rx, back_tx);
    proc::await_blocked_write(one.pid());
    proc::await_blocked_write(other.pid());

    let name = ffmpeg::comm_of(&endless);
    let look = ps(&["--min", "0s", "--comm", &name]);

    let mut members = vec![one.pid(), other.pid()];
    members.sort_unstable();
    for (writer, reader) in [(&one, &other), (&other, &one)] {
        let stall = look.of(writer.pid());
        assert_eq!(stall.deadlock.as_ref(), Some(&members));
        assert_eq!(stall.culprit_pid(), Some(reader.pid()));
        assert_eq!(stall.chain_pids(), [writer.pid(), reader.pid(), writer.pid()]);
    }
    let tree = text(&["ps", "--tree", "--min", "0s", "--comm", &name]);
    assert!(
        tree.starts_with("deadlock: 2 processes wait for each other\n"),
        "{tree}"
    );
    // Where only one of the two is observed, it is one all the same.
    let (cat_rx, cat_tx) = pipe().expect("a pipe");
    let (yes_rx, yes_tx) = pipe().expect("a pipe");
    let unseen = start(&binary::stuck(), WRITE, cat_rx, yes_tx);
    let seen = start(&endless, WRITE, yes_rx, cat_tx);
    proc::await_blocked_write(unseen.pid());
    proc::await_blocked_write(seen.pid());
    let stall = stall_of(seen.pid(), &endless);
    let mut members = vec![unseen.pid(), seen.pid()];
    members.sort_unstable();
    assert_eq!(stall.deadlock, Some(members));
}

#[test]
fn a_writer_that_alone_holds_its_reading_end_is_told() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (rx, tx) = pipe().expect("a pipe");
    let writer = start(&endless, WRITE, rx, tx);
    proc::await_blocked_write(writer.pid());

    let stall = stall_of(writer.pid(), &endless);

    assert_eq!(stall.reader(writer.pid()).kind, "writer");
    assert_eq!(stall.deadlock, Some(vec![writer.pid()]));
}

#[test]
fn a_descriptor_that_leaked_into_another_child_makes_it_a_holder() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (rx, tx) = pipe().expect("a pipe");
    let leaked = leaking(Path::new("sleep"), &["600"], &rx);
    let mut reader = start(Path::new("sleep"), &["601"], rx, Stdio::null());
    let writer = start(&endless, WRITE, Stdio::null(), tx);
    proc::await_blocked_write(writer.pid());

    let with_a_reader = stall_of(writer.pid(), &endless);
    reader.child().kill().expect("the reader can be ended");
    assert!(reader.exited(PATIENCE).is_some());
    let without = stall_of(writer.pid(), &endless);

    assert_eq!(with_a_reader.reader(leaked.pid()).kind, "holder");
    assert_eq!(with_a_reader.reader(reader.pid()).kind, "reader");
    assert_eq!(with_a_reader.culprit_pid(), Some(reader.pid()));
    // Nobody will ever read, and the writer gets no error because of it.
    let culprit = without.culprit.expect("a culprit").reader;
    assert_eq!((culprit.pid, culprit.kind.as_str()), (leaked.pid(), "holder"));
}

#[test]
fn who_was_told_of_a_descriptor_or_made_it_is_no_holder() {
    need!(need::bpf());
    let bash = need!(need::bash());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (rx, tx) = pipe().expect("a pipe");
    // Its command line names the descriptor, as that of a process substitution does.
    let number = rx.as_raw_fd().to_string();
    let told = leaking(Path::new("sleep"), &["600", &number], &rx);
    drop(rx);
    let writer = start(&endless, WRITE, Stdio::null(), tx);
    proc::await_blocked_write(writer.pid());
    let mut command = Command::new(bash);
    command
        .args([
            "-c",
            &format!("coproc {} write; sleep 600; exit", endless.display()),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let shell = Family::start(&mut command);
    let coproc = proc::await_child(shell.pid(), &ffmpeg::comm_of(&endless));
    proc::await_blocked_write(coproc);

    assert_eq!(stall_of(writer.pid(), &endless).reader(told.pid()).kind, "reader");
    assert_eq!(stall_of(coproc, &endless).reader(shell.pid()).kind, "reader");
}

#[test]
fn several_writers_on_one_pipe_have_the_same_reader() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (rx, tx) = pipe().expect("a pipe");
    let sleep = start(Path::new("sleep"), &["600"], rx, Stdio::null());
    let writers: Vec<_> = (0..3)
        .map(|_| start(&endless, WRITE, Stdio::null(), tx.try_clone().expect("a copy")))
        .collect();
    drop(tx);
    for writer in &writers {
        proc::await_blocked_write(writer.pid());
    }

    let look = ps(&["--min", "0s", "--comm", &ffmpeg::comm_of(&endless)]);

    for writer in &writers {
        let stall = look.of(writer.pid());
        assert_eq!(stall.chain_pids(), [writer.pid(), sleep.pid()]);
        assert_eq!(stall.deadlock, None);
    }
    let tree = text(&[
        "ps",
        "--tree",
        "--min",
        "0s",
        "--comm",
        &ffmpeg::comm_of(&endless),
    ]);
    assert_eq!(
        tree.lines().filter(|line| line.starts_with("sleep ")).count(),
        1,
        "{tree}"
    );
}

#[test]
fn a_reader_in_other_namespaces_is_found_by_the_pid_that_it_has_here() {
    need!(need::bpf());
    let unshare = need!(need::on_path("unshare"));
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let sleep = scratch.named(Path::new("/usr/bin/sleep"), &names::unique("slp"));
    let fifo = scratch.path("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).expect("a FIFO");
    let mut command = Command::new(unshare);
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"])
        .arg("exec \"$0\" 600 <\"$1\"")
        .args([&sleep, &fifo]);
    let outside = Family::start(command.stdin(Stdio::null()));
    // Opening waits for the other end.
    let tx = File::options().write(true).open(&fifo).expect("the writing end");
    let writer = start(&endless, WRITE, Stdio::null(), tx);
    proc::await_blocked_write(writer.pid());
    let reader = proc::await_child(outside.pid(), &ffmpeg::comm_of(&sleep));

    let stall = stall_of(writer.pid(), &endless);

    assert_eq!(stall.channel, "fifo");
    assert_eq!(stall.chain_pids(), [writer.pid(), reader]);
    assert_eq!(stall.reader(reader).kind, "reader");
    let namespace =
        |pid: u32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it has one");
    for kind in ["pid", "mnt"] {
        assert_ne!(namespace(reader, kind), namespace(std::process::id(), kind));
    }
}

#[test]
fn a_stopped_reader_and_a_frozen_one_are_told_as_such() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let endless = endless(&scratch);
    let (rx, tx) = pipe().expect("a pipe");
    let sleep = start(Path::new("sleep"), &["600"], rx, Stdio::null());
    let writer = start(&endless, WRITE, Stdio::null(), tx);
    proc::await_blocked_write(writer.pid());

    sleep.signal(Signal::STOP);
    await_state(sleep.pid(), 'T');
    let stopped = stall_of(writer.pid(), &endless);
    sleep.signal(Signal::CONT);
    await_state(sleep.pid(), 'S');
    let continued = stall_of(writer.pid(), &endless);

    assert_eq!(stopped.reader(sleep.pid()).state, "T");
    assert_eq!(continued.reader(sleep.pid()).state, "S");
    let mut tried = 0;
    for freezer in Freezer::all() {
        let Some(frozen) = freezer.freeze(sleep.pid()) else {
            continue;
        };
        tried += 1;
        assert_eq!(
            stall_of(writer.pid(), &endless).reader(sleep.pid()).state,
            "F",
            "{frozen:?}"
        );
        drop(frozen);
        assert_eq!(stall_of(writer.pid(), &endless).reader(sleep.pid()).state, "S");
    }
    if tried == 0 {
        need::skip("no control group can be frozen here");
    }
}

#[test]
fn a_rule_holds_while_the_reader_is_stopped_and_acts_once_it_runs_again() {
    need!(need::bpf());
    let scratch = Scratch::new();
    for channel in [Channel::Pipe, Channel::Unix] {
        let mut crowd = Plan::stuck(1).on(channel).start();
        let writer = crowd.writer();
        let parent = Stopped::of(&crowd);
        let config = Config::of(&crowd, &scratch)
            .state(scratch.path(channel.as_str()))
            .enforcing()
            .stalled_for("1s");
        let mut agent = Agent::run(&config, &scratch);
        let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
        // Time passes in which it could be ended.
        wait::till(skipped.at + Duration::from_secs(4));
        let meanwhile = agent.events_of(writer);
        assert!(proc::alive(writer));
        drop(parent);
        let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(writer));
        agent.stop();

        assert_eq!(skipped.reason.as_deref(), Some("reader-stopped"));
        assert_eq!(
            skipped.stall.as_ref().and_then(Stall::culprit_pid),
            Some(crowd.pid())
        );
        let kills = meanwhile.iter().filter(|seen| seen.kind.starts_with("kill."));
        assert_eq!(kills.count(), 1, "said once, and nothing done: {meanwhile:#?}");
        assert!(confirmed.at > skipped.at + Duration::from_secs(4));
        assert_eq!(crowd.await_exit(writer), Exit::Signal(15));
    }
}

#[test]
fn a_rule_that_says_so_ends_the_writer_of_a_stopped_reader() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let _parent = Stopped::of(&crowd);
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced("hold_when_reader_stopped = false");
    let mut agent = Agent::run(&config, &scratch);

    agent.await_event("kill.sent", |event| event.is_of(writer));
    let events = agent.stop();

    let reasons: Vec<_> = events.iter().filter_map(|seen| seen.reason.clone()).collect();
    assert!(!reasons.contains(&"reader-stopped".to_owned()), "{reasons:?}");
}

#[test]
fn a_reader_stopped_between_plan_and_signal_keeps_the_writer_alive() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    // The hook runs once everything is decided but the confirming looks.
    let hook = format!("pre_kill = [\"/bin/sh\", \"-c\", \"kill -STOP {}\"]", crowd.pid());
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .paced(&hook);
    let mut agent = Agent::run(&config, &scratch);

    let skipped = agent.await_event("kill.skipped", |event| event.is_of(writer));
    wait::till(skipped.at + Duration::from_secs(2));
    let events = agent.stop();
    drop(Stopped::of(&crowd));

    assert_eq!(skipped.reason.as_deref(), Some("reader-stopped"));
    assert!(events.iter().all(|seen| seen.kind != "kill.sent"), "{events:#?}");
    assert!(proc::alive(writer));
}

#[test]
fn rules_match_by_culprit_state_and_deadlock_and_explain_it() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let (writer, parent) = (crowd.writer(), crowd.name().to_owned());
    let wrong = [
        "culprit.comm = \"no-such\"",
        "reader.state = \"stopped\"",
        "deadlock = true",
    ];
    let others = wrong.iter().enumerate().map(|(n, condition)| {
        format!(
            "[[rule]]\nname = \"wrong-{n}\"\nmatch = {{ comm = {:?}, parent = {parent:?}, {condition} }}\n\
             stalled_for = \"1s\"\naction = \"kill\"\nmode = \"enforce\"\n\n",
            crowd.writer_name()
        )
    });
    let others: String = others.collect();
    let right = format!(", culprit.comm = {parent:?}, reader.state = \"sleeping\", deadlock = false");
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .matching_also(&right);
    let file = scratch.write("rules.toml", &format!("{others}{}", config.toml()));

    let explained = text(&[
        "ps",
        "--config",
        file.to_str().expect("a path that is text"),
        "--explain",
        &writer.to_string(),
    ]);
    let mut command = Command::new(binary::pipestall());
    let mut agent = Agent::start(command.args(["run", "--json", "--config"]).arg(&file));
    let planned = agent.await_event("kill.planned", |event| event.is_of(writer));
    agent.await_event("kill.confirmed", |event| event.is_of(writer));
    agent.stop();

    assert_eq!(planned.rule.as_deref(), Some("the-rule"));
    assert_eq!(crowd.await_exit(writer), Exit::Signal(15));
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        format!("no culprit.comm no-such {parent}"),
        "no reader.state stopped sleeping".to_owned(),
        "no deadlock true false".to_owned(),
        format!("yes culprit.comm {parent} {parent}"),
        "4. the-rule: matches, and decides".to_owned(),
    ] {
        assert!(
            explained.contains(&expected),
            "{expected:?} is missing:\n{explained}"
        );
    }
}

#[test]
fn the_table_names_the_reader_and_fits_eighty_columns() {
    need!(need::bpf());
    let crowd = Plan::stuck(2).writing(&["--thread", "a-long-thread-1"]).start();
    let stopped = Stopped::of(&crowd);

    let mut command = Command::new(binary::pipestall());
    command
        .args(["ps", "--min", "0s", "--comm", crowd.writer_name()])
        .env("COLUMNS", "80");
    let table = command::run(&mut command, PATIENCE).expect_code(0).stdout.clone();

    let mark = format!(" {} T ", crowd.pid());
    assert_eq!(
        table.lines().filter(|line| line.contains(&mark)).count(),
        2,
        "{table}"
    );
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    drop(stopped);
}

#[test]
fn without_bpf_readers_of_pipes_are_found_and_those_of_sockets_are_unknown() {
    const USER: u32 = 61_235;
    need!(need::root());
    let scratch = Scratch::new();
    let program = scratch.for_everyone(&binary::pipestall());
    for (channel, known) in [(Channel::Pipe, true), (Channel::Unix, false)] {
        let crowd = Plan::stuck(1).on(channel).as_user(USER).start();
        let mut command = Command::new(&program);
        command
            .args(["ps", "--json", "--min", "0s", "--comm", crowd.writer_name()])
            .uid(USER)
            .gid(USER);
        let done = command::run(&mut command, PATIENCE);
        let stalls: Vec<Stall> = serde_json::from_str(&done.expect_code(0).stdout).expect("JSON");
        let [stall] = &stalls[..] else {
            panic!("one stall was expected: {done:#?}")
        };
        assert!(done.stderr.contains("Reading /proc instead"), "{}", done.stderr);
        assert_eq!(stall.culprit_pid(), known.then_some(crowd.pid()), "{channel:?}");
        assert_eq!(stall.readers.is_some(), known, "unknown is not nobody");
    }
}

/// A process of the crowd's parent that is stopped until this is dropped.
struct Stopped<'a>(&'a Crowd);

impl<'a> Stopped<'a> {
    fn of(crowd: &'a Crowd) -> Self {
        crowd.signal(Signal::STOP);
        await_state(crowd.pid(), 'T');
        Self(crowd)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// A way to freeze a process.
#[derive(Debug)]
struct Freezer {
    root: &'static str,
    file: &'static str,
    freeze: &'static str,
    thaw: &'static str,
}

/// A control group that is frozen until this is dropped.
#[derive(Debug)]
struct Frozen {
    freezer: Freezer,
    group: PathBuf,
    pid: u32,
}

impl Freezer {
    fn all() -> [Self; 3] {
        let unified = |root| Self {
            root,
            file: "cgroup.freeze",
            freeze: "1",
            thaw: "0",
        };
        let old = Self {
            root: "/sys/fs/cgroup/freezer",
            file: "freezer.state",
            freeze: "FROZEN",
            thaw: "THAWED",
        };
        [unified("/sys/fs/cgroup"), unified("/sys/fs/cgroup/unified"), old]
    }

    /// Moves a process into a group of its own and freezes that, where that can be done.
    fn freeze(self, pid: u32) -> Option<Frozen> {
        let group = Path::new(self.root).join(names::unique("pst"));
        fs::create_dir(&group).ok()?;
        let frozen = Frozen {
            freezer: self,
            group,
            pid,
        };
        let Freezer { file, freeze, .. } = frozen.freezer;
        fs::write(frozen.group.join("cgroup.procs"), pid.to_string()).ok()?;
        fs::write(frozen.group.join(file), freeze).ok()?;
        let is_frozen = || {
            let read = |name| fs::read_to_string(frozen.group.join(name)).unwrap_or_default();
            (read("cgroup.events").contains("frozen 1") || read("freezer.state").trim() == "FROZEN")
                .then_some(())
        };
        wait::until_or_none(PATIENCE, is_frozen)?;
        Some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.group.join(self.freezer.file), self.freezer.thaw);
        let root = Path::new(self.freezer.root);
        let _ = fs::write(root.join("cgroup.procs"), self.pid.to_string());
        await_state(self.pid, 'S');
        let _ = fs::remove_dir(&self.group);
    }
}

/// Starts a program that inherits a descriptor that it knows nothing of.
fn leaking(program: &Path, arguments: &[&str], leaked: &PipeReader) -> Family {
    let fd = leaked.as_raw_fd();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: only fcntl is called; the descriptor is open, since the caller has borrowed it.
    unsafe {
        command.pre_exec(move || {
            let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
            Ok(fcntl_setfd(fd, FdFlags::empty())?)
        });
    }
    Family::start(&mut command)
}

/// A program of a name of its own that, told to [`WRITE`], does so for ever.
fn endless(scratch: &Scratch) -> PathBuf {
    scratch.named(&binary::stuck(), &names::unique("end"))
}

#[track_caller]
fn stall_of(pid: u32, program: &Path) -> Stall {
    ps(&["--min", "0s", "--comm", &ffmpeg::comm_of(program)])
        .of(pid)
        .clone()
}

#[track_caller]
fn text(arguments: &[&str]) -> String {
    let mut command = Command::new(binary::pipestall());
    let done = command::run(command.args(arguments), PATIENCE);
    let text = done.expect_code(0).stdout.clone();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    text
}

#[track_caller]
fn await_state(pid: u32, letter: char) {
    wait::until(&format!("{pid} is {letter}"), wait::PATIENCE, || {
        (proc::state(pid, pid) == Some(letter)).then_some(())
    });
}
