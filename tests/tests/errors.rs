//! What the program cannot do, it says in one clear line, with the documented exit code, and
//! touches nobody.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::agent::{self, Agent};
use tests::command::{self, Done};
use tests::config::Config;
use tests::crowd::{Crowd, Plan, WAYS_TO_WRITE};
use tests::family::Family;
use tests::message::Event;
use tests::mutant::Btf;
use tests::ps::ps_by;
use tests::scratch::{Scratch, SmallDisk};
use tests::strace::Attached;
use tests::{binary, clock, names, need, proc, wait};

const PATIENCE: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65534;

const RUNTIME_FAILURE: i32 = 1;
const KERNEL_CANNOT: i32 = 69;
const PRIVILEGE_MISSING: i32 = 77;

#[test]
fn without_privileges_run_says_so_and_touches_nobody() {
    need!(need::root());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).as_user(NOBODY).start();
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("1s");
    let state = scratch.path("state");
    fs::create_dir(&state).expect("the state directory");
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).expect("it is nobody's");

    let done = by_nobody(&scratch, |command| {
        command.args(["run", "--config"]).arg(config.file(&scratch))
    });

    done.expect_code(PRIVILEGE_MISSING)
        .expect_one_clear_line(&["CAP_"]);
    assert_stuck(&crowd);
}

#[test]
fn without_privileges_watch_says_so() {
    need!(need::root());
    let scratch = Scratch::new();

    let done = by_nobody(&scratch, |command| command.arg("watch"));

    done.expect_code(PRIVILEGE_MISSING)
        .expect_one_clear_line(&["CAP_"]);
}

#[test]
fn without_privileges_ps_reads_proc_and_says_so() {
    need!(need::root());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).as_user(NOBODY).start();
    let mut command = unprivileged(&scratch);

    let look = ps_by(command.args(["ps", "--json", "--min", "0s", "--comm", crowd.writer_name()]));

    assert!(
        look.stderr.lines().any(|line| line.contains("/proc")),
        "{}",
        look.stderr
    );
    let stall = look.of(crowd.writer());
    assert!(stall.age_is_minimum, "a sleeper's age is not in /proc");
    assert_eq!(
        (stall.channel.as_str(), stall.stream.as_deref()),
        ("pipe", Some("stdout"))
    );
    assert_eq!(
        (stall.tid, stall.fd, stall.syscall.as_str()),
        (crowd.writer(), 1, "write")
    );
    assert_eq!(Some(stall.inode), proc::inode(crowd.writer(), 1));
}

#[test]
fn without_privileges_ps_finds_a_writer_in_each_write_class_syscall() {
    need!(need::root());
    let scratch = Scratch::new();
    let comm = names::unique("wri");
    let start = |(channel, how)| {
        let plan = Plan::stuck(1).on(channel).as_user(NOBODY).writers_named(&comm);
        (how, plan.writing(&["--how", how]).start())
    };
    let crowds = WAYS_TO_WRITE.map(start);
    let mut command = unprivileged(&scratch);

    let look = ps_by(command.args(["ps", "--json", "--min", "0s", "--comm", &comm]));

    for (how, crowd) in &crowds {
        let stall = look.of(crowd.writer());
        assert_eq!(
            (stall.syscall.as_str(), stall.stream.as_deref()),
            (*how, Some("stdout"))
        );
    }
}

#[test]
fn without_privileges_doctor_still_tells_what_is_missing() {
    need!(need::root());
    let scratch = Scratch::new();

    let done = by_nobody(&scratch, |command| command.args(["doctor", "--json"]));

    let report: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    let backends = report["backends"].as_array().expect("backends");
    let backend = |name: &str| {
        backends
            .iter()
            .find(|one| one["name"] == name)
            .expect("each is named")
    };
    for name in ["sched", "scan"] {
        assert_eq!(backend(name)["usable"], false, "{name}");
        assert!(
            backend(name)["detail"]
                .as_str()
                .is_some_and(|why| !why.is_empty()),
            "{name}"
        );
    }
    assert_eq!(backend("/proc")["usable"], true);
}

#[test]
fn a_kernel_without_btf_is_one_clear_error_and_nobody_is_touched() {
    need!(need::root());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .file(&scratch);
    let missing = scratch.path("no-such-btf");
    let missing = missing.to_str().expect("text");

    for command in [
        &["run", "--config", config.to_str().expect("text")][..],
        &["watch"],
    ] {
        let done = pipestall(&[command, &["--btf", missing]].concat());

        done.expect_code(KERNEL_CANNOT)
            .expect_one_clear_line(&["BTF", missing]);
    }
    assert_stuck(&crowd);
}

#[test]
fn a_kernel_that_lacks_a_field_is_one_clear_error_that_names_it() {
    need!(need::bpf());
    let btf = need!(Btf::of_this_kernel());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .file(&scratch);
    let lacking = btf.without_member("task_struct", "start_boottime");
    let lacking = lacking.file(&scratch, "lacking");

    for command in [
        &["run", "--config", config.to_str().expect("text")][..],
        &["watch"],
        &["ps"],
    ] {
        let btf = ["--btf", lacking.to_str().expect("text")];
        let done = pipestall(&[command, &btf].concat());

        done.expect_code(KERNEL_CANNOT)
            .expect_one_clear_line(&["task_struct", "start_boottime"]);
    }
    assert_stuck(&crowd);
}

#[test]
fn a_disk_that_is_full_from_the_start_is_one_clear_error_and_nobody_is_touched() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let disk = SmallDisk::new();
    disk.fill();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .state(disk.path());

    let done = pipestall(&["run", "--config", config.file(&scratch).to_str().expect("text")]);

    let path = disk.path();
    let said = ["No space left on device", path.to_str().expect("text")];
    done.expect_code(RUNTIME_FAILURE).expect_one_clear_line(&said);
    assert_stuck(&crowd);
}

#[test]
fn a_file_system_that_is_read_only_from_the_start_is_one_clear_error_and_nobody_is_touched() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let disk = SmallDisk::new();
    disk.make_read_only();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("1s")
        .state(disk.path());

    let done = pipestall(&["run", "--config", config.file(&scratch).to_str().expect("text")]);

    let path = disk.path();
    let said = ["Read-only file system", path.to_str().expect("text")];
    done.expect_code(RUNTIME_FAILURE).expect_one_clear_line(&said);
    assert_stuck(&crowd);
}

/// An agent whose journal cannot be written from soon after its start, for a while.
struct Hindered {
    /// What the system says of it.
    error: &'static str,
    state: PathBuf,
}

impl Hindered {
    /// `hinder` is undone by `mend`.
    fn pauses_until_mended<T>(self, hinder: impl FnOnce(&Agent, &Config) -> T, mend: impl FnOnce(T)) {
        // The journal's last page may take a plan or two more: such writers are ended by right. And
        // the record of all must fit the small disk.
        const WRITERS: usize = 8;
        let scratch = Scratch::new();
        let mut crowd = Plan::stuck(WRITERS).start();
        let config = Config::of(&crowd, &scratch)
            .enforcing()
            .stalled_for("2s")
            .state(self.state);

        let mut agent = Agent::run(&config, &scratch);
        let hindrance = hinder(&agent, &config);
        let degraded = agent.await_event("agent.degraded", |_| true);
        let detail = degraded.detail.as_deref().expect("a reason");
        assert!(detail.contains(self.error), "{detail}");
        let journal = fs::read_to_string(config.journal()).expect("the journal is there");
        // What is on disk is whole: half a line must not run into the next one.
        let kept: Vec<Event> = journal
            .lines()
            .map(|line| Event::parse(line).expect("an event"))
            .collect();
        let planned = |pid| {
            kept.iter()
                .any(|event| event.kind == "kill.planned" && event.is_of(pid))
        };
        let (recorded, unrecorded): (Vec<u32>, Vec<u32>) =
            crowd.stuck().into_iter().partition(|pid| planned(*pid));
        assert!(unrecorded.len() > recorded.len(), "{recorded:?} {unrecorded:?}");
        for pid in &unrecorded {
            let skipped = agent.await_event("kill.skipped", |event| event.is_of(*pid));
            assert_eq!(skipped.reason.as_deref(), Some("unrecorded"));
        }
        // Long enough for a second try.
        wait::till(clock::mono() + Duration::from_secs(2));
        for pid in &unrecorded {
            assert_eq!(crowd.exit(*pid), None);
            assert!(
                !proc::blocked_writes(*pid).is_empty(),
                "{pid} is still in its write"
            );
        }

        mend(hindrance);
        agent.await_event("agent.recovered", |_| true);
        for pid in &unrecorded {
            agent.await_event("kill.confirmed", |event| event.is_of(*pid));
        }
        let events = agent.stop();
        let journal = agent::journal(&config.journal());
        assert_eq!(journal.len(), events.len(), "nothing was lost");
        let seqs: Vec<u64> = journal.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_disk_that_fills_up_stops_enforcement_until_there_is_room_again() {
    need!(need::bpf());
    let disk = SmallDisk::new();
    let hindered = Hindered {
        error: "No space left on device",
        state: disk.path(),
    };
    hindered.pauses_until_mended(|_, _| disk.fill(), |()| disk.clear());
}

/// A file system that an error has made read-only refuses to write files that are open, which none
/// does that is asked to become so (`sb_prepare_remount_readonly()`, fs/namespace.c). So it is the
/// call that is made to fail.
#[test]
fn a_file_system_that_becomes_read_only_stops_enforcement_until_it_is_writable_again() {
    need!(need::bpf());
    let strace = need!(need::strace());
    let scratch = Scratch::new();
    let hindered = Hindered {
        error: "Read-only file system",
        state: scratch.path("state"),
    };
    hindered.pauses_until_mended(
        |agent, config| Attached::failing_writes(&strace, agent.pid(), &config.journal(), "EROFS"),
        Attached::detach,
    );
}

#[test]
fn an_output_that_cannot_be_written_is_no_success() {
    need!(need::bpf());
    let crowd = Plan::stuck(1).start();

    for command in ["ps", "watch"] {
        let mut family = Family::start(
            Command::new(binary::pipestall())
                .args([command, "--json", "--min", "0s", "--comm", crowd.writer_name()])
                .stdout(full())
                .stderr(Stdio::null()),
        );

        let status = family.exited(PATIENCE).expect("it gives up");

        assert_eq!(status.code(), Some(RUNTIME_FAILURE), "{command}");
    }
}

#[test]
fn an_agent_whose_output_cannot_be_written_goes_on_and_says_so_in_its_journal() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).start();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("2s")
        .file(&scratch);
    let config = config.to_str().expect("text");

    let mut agent = Family::start(
        Command::new(binary::pipestall())
            .args(["run", "--json", "--config", config])
            .stdout(full())
            .stderr(Stdio::null()),
    );

    let recorded = wait::until("the writer's end is on record", PATIENCE, || {
        let journal = fs::read_to_string(scratch.path("state").join("journal.ndjson")).ok()?;
        journal.contains("kill.confirmed").then_some(journal)
    });
    assert!(recorded.contains("agent.degraded"), "{recorded}");
    assert_eq!(agent.exited(Duration::ZERO), None);
}

/// An output on a full disk.
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("/dev/full")
}

fn pipestall(arguments: &[&str]) -> Done {
    command::run(Command::new(binary::pipestall()).args(arguments), PATIENCE)
}

fn by_nobody(scratch: &Scratch, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Done {
    let mut command = unprivileged(scratch);
    arguments(&mut command);
    command::run(&mut command, PATIENCE)
}

/// The program by a user without capabilities, from a place where that user can run it.
fn unprivileged(scratch: &Scratch) -> Command {
    let mut command = Command::new(scratch.for_everyone(&binary::pipestall()));
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command
}

/// Asserts that the writers are as they were.
#[track_caller]
fn assert_stuck(crowd: &Crowd) {
    for pid in crowd.stuck() {
        wait::until("it is in its write", wait::PATIENCE, || {
            (!proc::blocked_writes(pid).is_empty()).then_some(())
        });
    }
}
