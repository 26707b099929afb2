//! The bundled writers themselves, by /proc alone: what the other tests rest on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::crowd::{Channel, Plan, WAYS_TO_WRITE};
use tests::family::Family;
use tests::order::{Exit, Order};
use tests::scratch::Scratch;
use tests::{binary, ffmpeg, names, need, proc, strace, wait};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

#[test]
fn a_writer_blocks_on_each_kind_of_channel_under_its_own_name() {
    for channel in [Channel::Pipe, Channel::Fifo, Channel::Unix] {
        let crowd = Plan::stuck(1).on(channel).start();

        let writes = proc::blocked_writes(crowd.writer());

        let [write] = &writes[..] else {
            panic!("{channel:?}: {writes:?}")
        };
        assert_eq!((write.syscall, write.fd), ("write", 1), "{channel:?}");
        assert_eq!(proc::comm(crowd.writer()).as_deref(), Some(crowd.writer_name()));
        assert_eq!(proc::comm(crowd.pid()).as_deref(), Some(crowd.name()));
        assert!(proc::children(crowd.pid()).contains(&crowd.writer()));
    }
}

#[test]
fn a_writer_blocks_in_each_write_class_syscall() {
    for (channel, how) in WAYS_TO_WRITE {
        let crowd = Plan::stuck(1).on(channel).writing(&["--how", how]).start();

        let (write, _) = proc::await_blocked_write(crowd.writer());

        assert_eq!((write.syscall, write.fd), (how, 1), "{channel:?}");
    }
}

#[test]
fn a_writer_writes_where_and_from_which_thread_it_is_told() {
    let crowd = Plan::stuck(1)
        .writing(&["--fd", "7", "--thread", "mux0:test"])
        .start();

    let (write, _) = proc::await_blocked_write(crowd.writer());

    assert_eq!((write.thread.as_str(), write.fd), ("mux0:test", 7));
    assert_ne!(write.tid, crowd.writer(), "the leader only waits");
    assert_eq!(proc::inode(crowd.writer(), 7), proc::inode(crowd.writer(), 1));
}

#[test]
fn a_healthy_writer_gets_rid_of_its_bytes_and_a_stuck_one_does_not() {
    let mut crowd = Plan::stuck(1).and_healthy(1).start();
    let (stuck, healthy) = (crowd.writer(), crowd.healthy()[0]);
    let before = crowd.drained(healthy);

    wait::until("the healthy writer moves", wait::PATIENCE, || {
        (crowd.drained(healthy) > before).then_some(())
    });

    assert_eq!(crowd.drained(stuck), 0);
}

#[test]
fn a_trickling_reader_never_wakes_the_writer() {
    need!(need::quiet_pipes());
    for channel in [Channel::Pipe, Channel::Unix] {
        let mut crowd = Plan::stuck(0)
            .and_trickled(1, Duration::from_millis(20))
            .on(channel)
            .start();
        let writer = crowd.writer();
        let (write, _) = proc::await_blocked_write(writer);
        let runs = proc::switches(writer, write.tid);

        wait::until("ten bytes taken", wait::PATIENCE, || {
            (crowd.drained(writer) >= 10).then_some(())
        });

        assert_eq!(proc::switches(writer, write.tid), runs, "{channel:?}");
    }
}

#[test]
fn alarms_and_tracers_wake_the_writer_and_it_goes_back_into_its_write() {
    let strace = need!(need::strace());
    let crowd = Plan::stuck(1).writing(&["--alarm", "20"]).start();
    let writer = crowd.writer();
    let runs = |wanted: u64| {
        let before = proc::switches(writer, writer).map_or(0, |(slept, _)| slept);
        wait::until("woken up by alarms", wait::PATIENCE, || {
            proc::switches(writer, writer).filter(|(slept, _)| *slept >= before + wanted)
        });
    };

    runs(5);
    strace::attach_and_detach(&strace, writer);
    runs(5);

    let write = wait::until("back in its write", wait::PATIENCE, || {
        proc::blocked_writes(writer).pop()
    });
    assert_eq!(write.syscall, "write");
}

#[test]
fn sigterm_ends_a_writer_unless_it_is_told_otherwise() {
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    term(writer);
    assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGTERM));

    for how in ["--ignore-term", "--catch-term"] {
        let mut crowd = Plan::stuck(1).writing(&[how]).start();
        let writer = crowd.writer();
        term(writer);
        proc::await_blocked_write(writer);
        crowd.order(Order::Kill { pid: writer });
        assert_eq!(crowd.await_exit(writer), Exit::Signal(SIGKILL), "{how}");
    }
}

#[test]
fn a_writer_whose_reader_closes_exits_and_one_that_is_drained_finishes() {
    let mut crowd = Plan::stuck(2).writing(&["--bytes", "200000"]).start();
    let [closed, drained] = crowd.stuck()[..] else {
        panic!("two writers")
    };

    crowd.order(Order::Close { pid: closed });
    crowd.order(Order::Drain { pid: drained });

    assert_eq!(crowd.await_exit(closed), Exit::Code(0));
    wait::until("all bytes", wait::PATIENCE, || {
        (crowd.drained(drained) == 200_000).then_some(())
    });
    assert_eq!(proc::blocked_writes(drained), []);
    assert!(proc::alive(drained));
}

#[test]
fn a_crowd_ends_with_its_guard_and_takes_its_writers_along() {
    let crowd = Plan::stuck(3).start();
    let (parent, writers) = (crowd.pid(), crowd.stuck());

    drop(crowd);

    assert!(!proc::alive(parent));
    for writer in writers {
        wait::until("the writer is gone", wait::PATIENCE, || {
            (!proc::alive(writer)).then_some(())
        });
    }
}

#[test]
fn a_thousand_threads_block_and_say_so() {
    const THREADS: usize = 1000;
    let name = names::unique("thr");
    let mut command = Command::new(binary::stuck());
    command
        .args(["threads", &THREADS.to_string(), "--name", &name])
        .stdout(Stdio::piped());
    let mut family = Family::start(&mut command);

    let mut line = String::new();
    let stdout = family.child().stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");

    assert_eq!(line, "ready\n");
    assert_eq!(proc::blocked_writes(family.pid()).len(), THREADS);
}

#[test]
fn a_real_ffmpeg_is_stuck_under_node_in_a_shell_and_on_a_fifo() {
    let ffmpeg = need!(need::ffmpeg());
    let node = need!(need::node());
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));

    let kinds = [
        ("socket:", ffmpeg::under_node(&node, &ffmpeg, &scratch)),
        ("pipe:", ffmpeg::piped_into_sleep(&ffmpeg)),
        ("/", ffmpeg::into_fifo(&ffmpeg, &scratch)),
    ];

    for (link, stuck) in kinds {
        assert_eq!(stuck.write.syscall, "write", "{stuck:?}");
        let to = proc::link(stuck.pid, stuck.write.fd).expect("the fd is open");
        assert!(to.to_string_lossy().starts_with(link), "{to:?} is no {link}");
        let (pid, reader) = (stuck.pid, stuck.reader);
        drop(stuck);
        assert!(
            !proc::alive(pid) && !proc::alive(reader),
            "both are ended with their guard"
        );
    }
}

fn term(pid: u32) {
    let pidfd = tests::pidfd::PidFd::open(pid).expect("the writer is there");
    pidfd.signal(rustix::process::Signal::TERM).expect("SIGTERM");
}
