//! What is claimed of a writer is proven: that nothing was taken since it went to sleep, that it is
//! room that it waits for, and that it is this channel's.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::process::{self, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use tests::agent::Agent;
use tests::crowd::{Channel, Plan};
use tests::family::{self, Family};
use tests::ps::ps;
use tests::{binary, ffmpeg, names, need, proc, wait};

/// Bytes that fill a socket in many steps.
const RECORD: usize = 4096;

/// A socket's queue takes one last buffer that is larger than the room it had, so that there is as
/// much in it as put the writer to sleep even when many small ones are taken off its front.
#[test]
fn small_records_taken_from_before_a_large_one_leave_a_sockets_age_unproven() {
    const SMALL: usize = 1;
    const LARGE: usize = 32 << 10;
    need!(need::bpf());
    let comm = names::unique("rec");
    let (_, full) = full_of(SMALL);
    let blocked = || {
        let (reader, writer) = socket_pair();
        for _ in 1..full {
            assert!(put(&writer, SMALL), "there is room for it");
        }
        assert!(put(&writer, LARGE), "there is room for some of it, so for all");
        let family = writing(&comm, &["--chunk", "1"], Stdio::null(), writer);
        let (_, since) = proc::await_blocked_write(family.pid());
        (reader, family, since)
    };
    let (untouched_reader, untouched, _) = blocked();
    let (reader, touched, since) = blocked();
    let runs = proc::switches(touched.pid(), touched.pid());
    wait::till(since + Duration::from_secs(2));
    for _ in 0..10 {
        assert_eq!(rustix::io::read(&reader, &mut [0; SMALL]), Ok(SMALL));
    }

    let look = ps(&["--min", "0s", "--comm", &comm]);

    assert_eq!(
        proc::switches(touched.pid(), touched.pid()),
        runs,
        "it has slept on, and only the queue tells"
    );
    let stall = look.of(touched.pid());
    assert!(stall.age_is_maximum, "{stall:#?}");
    let stall = look.of(untouched.pid());
    assert!(!stall.age_is_maximum, "nothing was taken: {stall:#?}");
    drop(untouched_reader);
}

#[test]
fn an_untouched_socket_proves_the_age_of_a_writer_whose_records_are_alike() {
    need!(need::bpf());
    let comm = names::unique("rec");
    let plan = |chunk: &str| {
        Plan::stuck(1)
            .on(Channel::Unix)
            .writers_named(&comm)
            .writing(&["--chunk", chunk])
    };
    let crowds = ["1", "700", "4096", "32768", "65536", "300000"].map(|chunk| (chunk, plan(chunk).start()));

    let look = ps(&["--min", "0s", "--comm", &comm]);

    for (chunk, crowd) in &crowds {
        let stall = look.of(crowd.writer());
        assert!(
            !stall.age_is_maximum && !stall.age_is_minimum,
            "{chunk}: {stall:#?}"
        );
    }
}

#[test]
fn an_untouched_socket_proves_the_age_of_an_ffmpeg() {
    need!(need::bpf());
    let program = need!(need::ffmpeg());
    let (_reader, writer) = socket_pair();
    let mut command = Command::new(program);
    command
        .args(ffmpeg::TO_STDOUT)
        .stdin(Stdio::null())
        .stdout(writer);
    let family = Family::start(&mut command);
    // Its copy of the writing end would be another's who might have written.
    drop(command);
    proc::await_blocked_write(family.pid());

    let look = ps(&["--min", "0s"]);

    let stall = look.of(family.pid());
    assert!(!stall.age_is_maximum && !stall.age_is_minimum, "{stall:#?}");
}

/// A relay waits for its input first, and then for room.
#[test]
fn a_relay_that_waits_for_its_input_is_not_reported_whatever_its_output_holds() {
    const ENDLESS: &str = "endless";
    need!(need::bpf());
    let comm = names::unique("rel");
    let relay = |how: &str, input: &str, output: &dyn Fn() -> (OwnedFd, OwnedFd)| {
        let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        rustix::io::write(&feed, input.as_bytes()).expect("room in it");
        let (reader, stdout) = output();
        // Where its input never ends it is a pipe of its own: before 6.5 a socket takes a little more by splice
        // when it is full (`unix_stream_sendpage`, net/unix/af_unix.c).
        let from = if input == ENDLESS {
            &[][..]
        } else {
            &["--from-stdin"]
        };
        let family = writing(&comm, &[&["--how", how], from].concat(), stdin, stdout);
        let (write, _) = proc::await_blocked_write(family.pid());
        assert_eq!(write.syscall, how);
        (family, feed, reader)
    };
    let idle = [
        (
            "splice, two fifths of a socket",
            relay("splice", "", &two_fifths_of_a_socket),
        ),
        ("splice, a full socket", relay("splice", "", &full_socket)),
        ("splice, a full pipe", relay("splice", "", &full_pipe)),
        ("tee, a full pipe", relay("tee", "", &full_pipe)),
    ];
    let stuck = [
        ("splice, a full socket", relay("splice", ENDLESS, &full_socket)),
        ("splice, a full pipe", relay("splice", "input", &full_pipe)),
        ("tee, a full pipe", relay("tee", "input", &full_pipe)),
    ];

    let look = ps(&["--min", "0s", "--comm", &comm]);

    for (what, (family, ..)) in &stuck {
        assert!(look.has(family.pid()), "the one beside it, with input: {what}");
    }
    for (what, (family, ..)) in &idle {
        assert!(!look.has(family.pid()), "{what}: {:#?}", look.of(family.pid()));
    }
}

#[test]
fn a_write_whose_descriptor_became_anothers_is_not_booked_on_that() {
    need!(need::bpf());
    let comm = proc::comm(process::id()).expect("the test's own command");
    let mut blocked = Blocked::start();
    let control = Blocked::start();
    let (_other_reader, other_writer) = full_pipe();
    rustix::io::dup2(&other_writer, &mut blocked.writer).expect("its number");

    let look = ps(&["--min", "0s", "--comm", &comm]);

    let of = |tid| look.stalls.iter().find(|stall| stall.tid == tid);
    assert!(of(control.tid).is_some(), "the one beside it is");
    assert!(of(blocked.tid).is_none(), "{:#?}", of(blocked.tid));
    for blocked in [blocked, control] {
        blocked.end();
    }
}

/// The call goes on with the file that it began with.
#[test]
fn a_write_that_was_seen_to_block_is_followed_though_its_descriptor_became_anothers() {
    need!(need::tracer());
    let comm = proc::comm(process::id()).expect("the test's own command");
    let mut watch = Agent::watch(&["--min", "1s", "--comm", &comm]);
    watch.started();
    let mut blocked = Blocked::start();
    let (_other_reader, other_writer) = full_pipe();
    rustix::io::dup2(&other_writer, &mut blocked.writer).expect("its number");

    let detected = watch.await_event("stall.detected", |event| {
        event.stall.as_ref().is_some_and(|stall| stall.tid == blocked.tid)
    });
    let tid = blocked.tid;
    let inode = blocked.inode;
    blocked.end();
    let ended = watch.await_event("stall.ended", |event| {
        event.stall.as_ref().is_some_and(|stall| stall.tid == tid)
    });
    watch.stop();

    for seen in [&detected, &ended] {
        let stall = seen.stall.as_ref().expect("a stall");
        assert_eq!((stall.inode, stall.age_is_maximum), (inode, false), "{stall:#?}");
    }
}

/// A thread of this process that is blocked on a pipe, whose writing end is its only one.
struct Blocked {
    reader: OwnedFd,
    writer: OwnedFd,
    inode: u64,
    tid: u32,
    thread: JoinHandle<Result<usize, Errno>>,
}

impl Blocked {
    #[track_caller]
    fn start() -> Self {
        let (reader, writer) = full_pipe();
        let (name, number) = (names::unique("fd"), writer.as_raw_fd());
        let write = move || {
            // SAFETY: the number is in use until the call has begun, which the caller waits for.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::write(fd, b"x")
        };
        let thread = thread::Builder::new().name(name.clone()).spawn(write);
        let write = wait::until("the thread is blocked", wait::PATIENCE, || {
            let blocked = proc::blocked_writes(process::id());
            blocked.into_iter().find(|write| write.thread == name)
        });
        Self {
            inode: rustix::fs::fstat(&writer).expect("a pipe").st_ino,
            reader,
            writer,
            tid: write.tid,
            thread: thread.expect("a thread"),
        }
    }

    /// Closes the reading end, which ends the write.
    #[track_caller]
    fn end(self) {
        drop(self.reader);
        let written = self.thread.join().expect("it does not panic");
        assert_eq!(written, Err(Errno::PIPE));
    }
}

/// Starts a bundled writer between two descriptors, of which this process keeps no copy: one of the
/// output would be another's who might have written.
fn writing(comm: &str, arguments: &[&str], stdin: impl Into<Stdio>, stdout: OwnedFd) -> Family {
    let arguments = [&["write", "--name", comm], arguments].concat();
    family::between(&binary::stuck(), &arguments, stdin, stdout)
}

/// A reading end and a writing end.
fn socket_pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket pair")
}

/// Writes a record if that does not block, and says whether it did.
fn put(socket: &OwnedFd, size: usize) -> bool {
    match send(socket, &vec![b'x'; size], SendFlags::DONTWAIT) {
        Ok(sent) => {
            assert_eq!(sent, size, "a record is one buffer");
            true
        }
        Err(Errno::AGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A socket that is full of records of this size, and how many these are.
fn full_of(size: usize) -> ((OwnedFd, OwnedFd), usize) {
    let (reader, writer) = socket_pair();
    let count = (0..1 << 20).take_while(|_| put(&writer, size)).count();
    ((reader, writer), count)
}

fn full_socket() -> (OwnedFd, OwnedFd) {
    full_of(RECORD).0
}

fn two_fifths_of_a_socket() -> (OwnedFd, OwnedFd) {
    let (_, count) = full_of(RECORD);
    let (reader, writer) = socket_pair();
    for _ in 0..count * 2 / 5 {
        assert!(put(&writer, RECORD), "there is room for it");
    }
    (reader, writer)
}

fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let size = fcntl_getpipe_size(&writer).expect("its size");
    assert_eq!(rustix::io::write(&writer, &vec![b'x'; size]), Ok(size));
    (reader, writer)
}
