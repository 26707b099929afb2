//! What is claimed of a writer is proven: that nothing was taken since it went to sleep.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use tests::crowd::{Channel, Plan};
use tests::family::{self, Family};
use tests::ps::ps;
use tests::{binary, ffmpeg, names, need, proc, wait};

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
    let count = (0..).take_while(|_| put(&writer, size)).count();
    ((reader, writer), count)
}
