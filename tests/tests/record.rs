//! `record` on the live kernel, and `replay` of what it kept: whatever ended the recorder.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use probe_user::recording::{Frame, Recording};
use rustix::process::Signal;
use tests::command::{self, Done};
use tests::config::Config;
use tests::crowd::{Channel, Crowd, Plan};
use tests::family::Family;
use tests::scratch::{Scratch, SmallDisk};
use tests::wait::{self, PATIENCE};
use tests::{binary, clock, need};

#[test]
fn what_was_recorded_is_planned_as_it_would_have_been_ended_and_nothing_is_signalled() {
    need!(need::bpf());
    for channel in [Channel::Pipe, Channel::Unix] {
        let scratch = Scratch::new();
        let crowd = Plan::stuck(5).and_healthy(5).on(channel).start();

        let (status, summary) = record_for_a_while(&crowd, &scratch, Signal::INT);

        assert_eq!(status, Some(0));
        assert!(
            summary.contains("looks ") && summary.contains("bytes "),
            "{summary}"
        );
        let done = replay(&crowd, &scratch);
        for pid in crowd.stuck() {
            let plans = planned(&done, pid);
            assert_eq!(plans, 1, "{channel:?} {pid}: {}", done.stdout);
        }
        for pid in crowd.healthy() {
            assert_eq!(planned(&done, pid), 0, "{channel:?} {pid}: {}", done.stdout);
        }
        assert_eq!(done.stderr, "");
        let file = fs::read(scratch.path("a.pst")).expect("the recording");
        let mut frames = Recording::open(&file).expect("a recording");
        for frame in frames.by_ref() {
            assert_eq!(addresses(&frame), [0; 0], "{channel:?}: {frame:?}");
        }
        assert_eq!(frames.loss(), None);
    }
}

#[test]
fn a_recorder_that_is_killed_leaves_a_recording() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(2).start();

    record_for_a_while(&crowd, &scratch, Signal::KILL);

    let done = replay(&crowd, &scratch);
    for pid in crowd.stuck() {
        assert_eq!(planned(&done, pid), 1, "{}", done.stdout);
    }
    done.expect_one_clear_line(&["stopped at byte", "has no end"]);
}

#[test]
fn a_file_that_exists_is_kept_unless_the_caller_insists() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let file = scratch.write("a.pst", "precious");

    let done = record(&["--comm", "no-such-comm", text(&file)]);

    done.expect_code(1)
        .expect_one_clear_line(&[text(&file), "--force"]);
    assert_eq!(fs::read_to_string(&file).expect("the file"), "precious");
}

#[test]
fn a_full_disk_is_one_clear_error_and_what_fitted_is_a_recording() {
    need!(need::bpf());
    let (scratch, disk) = (Scratch::new(), SmallDisk::new());
    let crowd = Plan::stuck(1).start();
    let file = disk.path().join("a.pst");
    let mut recorder = start(&crowd, &file, "10ms");
    wait_for_bytes(&file, 500);

    disk.fill();

    let status = recorder.exited(PATIENCE).expect("it ends for itself");
    assert_eq!(status.code(), Some(1));
    fs::remove_file(disk.path().join("ballast")).expect("no ballast any more");
    fs::copy(&file, scratch.path("a.pst")).expect("a copy");
    replay(&crowd, &scratch).expect_one_clear_line(&["stopped at byte", "has no end"]);
}

/// The numbers in a frame that lie in the kernel's half of the address space. Whatever
/// the frame holds: its text has every field.
fn addresses(frame: &Frame) -> Vec<u64> {
    format!("{frame:?}")
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .filter(|number| *number >= 1 << 63)
        .collect()
}

/// Records until every stuck writer is past the threshold of [`replay`]'s rule.
fn record_for_a_while(crowd: &Crowd, scratch: &Scratch, end: Signal) -> (Option<i32>, String) {
    let file = scratch.path("a.pst");
    let mut recorder = start(crowd, &file, "100ms");
    wait_for_bytes(&file, 100);
    wait::till(clock::mono() + std::time::Duration::from_millis(2500));
    recorder.signal(end);
    let status = recorder.exited(PATIENCE).expect("it ends when it is told to");
    let mut summary = String::new();
    let mut stdout = recorder.child().stdout.take().expect("stdout is piped");
    std::io::Read::read_to_string(&mut stdout, &mut summary).expect("text");
    (status.code(), summary)
}

fn start(crowd: &Crowd, file: &Path, every: &str) -> Family {
    Family::start(
        Command::new(binary::pipestall())
            .args([
                "record",
                "--every",
                every,
                "--comm",
                crowd.writer_name(),
                text(file),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    )
}

fn wait_for_bytes(file: &Path, bytes: u64) {
    wait::until("a recording grows", PATIENCE, || {
        let len = fs::metadata(file).ok()?.len();
        (len > bytes).then_some(())
    });
}

/// The plan of a rule that acts after a second and a half.
fn replay(crowd: &Crowd, scratch: &Scratch) -> Done {
    let config = Config::of(crowd, scratch).stalled_for("1500ms").file(scratch);
    let recording = scratch.path("a.pst");
    let mut command = Command::new(binary::pipestall());
    command.args(["replay", text(&recording), "--config", text(&config)]);
    let done = command::run(&mut command, PATIENCE);
    done.expect_code(0);
    done
}

/// How many lines of the plan end this process.
fn planned(done: &Done, pid: u32) -> usize {
    let pid = pid.to_string();
    let lines = done.stdout.lines();
    lines
        .filter(|line| line.split_whitespace().nth(2) == Some(&pid) && line.contains(" kill"))
        .count()
}

fn record(arguments: &[&str]) -> Done {
    command::run(
        Command::new(binary::pipestall()).arg("record").args(arguments),
        PATIENCE,
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
