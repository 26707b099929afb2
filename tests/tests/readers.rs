//! Who does not read: readers, chains, deadlocks, of real processes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::iter;
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
use tests::crowd::{Channel, Plan};
use tests::family::{Family, between as start};
use tests::ffmpeg::{self, TO_STDOUT};
use tests::freezer::Freezer;
use tests::message::Stall;
use tests::ps::{ps, text};
use tests::scratch::Scratch;
use tests::{binary, names, need, proc};

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
    let words = TO_STDOUT.map(OsStr::new);
    let words = iter::once(ffmpeg.as_os_str()).chain(words);
    let Answered { server, client } = Answered::by(&node, &scratch.write("server.js", SERVER), words);
    let mut agent = Agent::watch(&["--comm", &name, "--min", "1s"]);
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
    let Answered {
        server,
        client: _client,
    } = Answered::by(&node, &scratch.write("server.js", script), [yes.as_os_str()]);
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
    proc::await_state(sleep.pid(), 'T');
    let stopped = stall_of(writer.pid(), &endless);
    sleep.signal(Signal::CONT);
    proc::await_state(sleep.pid(), 'S');
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
fn the_table_names_the_reader_and_fits_eighty_columns() {
    need!(need::bpf());
    let crowd = Plan::stuck(2).writing(&["--thread", "a-long-thread-1"]).start();
    let stopped = crowd.stopped();

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

/// A server that Node runs, and a client that has asked it and does not read the answer.
struct Answered {
    server: Family,
    client: TcpStream,
}

impl Answered {
    /// The script prints the port that it listens on.
    #[track_caller]
    fn by<'a>(node: &Path, script: &Path, arguments: impl IntoIterator<Item = &'a OsStr>) -> Self {
        let mut command = Command::new(node);
        command.arg(script).args(arguments);
        let mut server = Family::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = server.child().stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the port");
        let port: u16 = line.trim().parse().expect("the port is a number");
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("a request");
        Self { server, client }
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
