//! What is found and what is not: real ffmpegs behind each kind of channel, under the default
//! filter, and next to each stuck writer the ones that only look like it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tests::crowd::{Channel, Plan, WAYS_TO_WRITE};
use tests::family::Family;
use tests::ffmpeg::{self, Stuck};
use tests::message::Stall;
use tests::order::Order;
use tests::ps::{Look, ps};
use tests::scratch::Scratch;
use tests::{binary, names, need, proc, wait};

#[test]
fn an_ffmpeg_spawned_by_node_is_found_on_its_unix_socket() {
    need!(need::bpf());
    let (ffmpeg, node) = (need!(need::ffmpeg()), need!(need::node()));
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));
    let stuck = ffmpeg::under_node(&node, &ffmpeg, &scratch);

    let look = ps(&["--min", "0s"]);

    let stall = assert_found(&look, &stuck, &ffmpeg, Channel::Unix, Some("stdout"));
    assert_eq!(
        (stall.ppid, stall.parent.as_deref()),
        (Some(stuck.reader), Some("node"))
    );
}

#[test]
fn an_ffmpeg_piped_into_sleep_is_found_on_its_pipe() {
    need!(need::bpf());
    let ffmpeg = need!(need::ffmpeg());
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));
    let stuck = ffmpeg::piped_into_sleep(&ffmpeg);

    let look = ps(&["--min", "0s"]);

    let stall = assert_found(&look, &stuck, &ffmpeg, Channel::Pipe, Some("stdout"));
    assert_eq!(
        (stall.ppid, stall.parent.as_deref()),
        (Some(stuck.family.pid()), Some("sh"))
    );
}

#[test]
fn an_ffmpeg_whose_stdout_is_a_fifo_with_a_sleeping_reader_is_found_on_the_fifo() {
    need!(need::bpf());
    let ffmpeg = need!(need::ffmpeg());
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));
    let stuck = ffmpeg::into_fifo(&ffmpeg, &scratch);

    let look = ps(&["--min", "0s"]);

    assert_found(&look, &stuck, &ffmpeg, Channel::Fifo, Some("stdout"));
}

#[test]
fn an_ffmpeg_that_opens_the_fifo_itself_is_found_on_no_stream() {
    need!(need::bpf());
    let ffmpeg = need!(need::ffmpeg());
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));
    let stuck = ffmpeg::opening_fifo(&ffmpeg, &scratch);

    let look = ps(&["--min", "0s"]);

    assert_found(&look, &stuck, &ffmpeg, Channel::Fifo, None);
}

#[test]
fn a_modern_ffmpeg_is_found_by_the_default_filter_though_its_thread_and_fd_are_others() {
    need!(need::bpf());
    let (ffmpeg, node) = (need!(need::modern_ffmpeg()), need!(need::node()));
    let scratch = Scratch::new();
    let behind_pipe = ffmpeg::piped_into_sleep(&ffmpeg);
    let behind_socket = ffmpeg::under_node(&node, &ffmpeg, &scratch);

    let look = ps(&["--min", "0s"]);

    for (stuck, channel) in [(&behind_pipe, Channel::Pipe), (&behind_socket, Channel::Unix)] {
        let stall = assert_found(&look, stuck, &ffmpeg, channel, Some("stdout"));
        assert!(stall.comm.starts_with("ffmpeg-linux-x8"), "{}", stall.comm);
        assert!(stall.thread.starts_with("mux0:"), "{}", stall.thread);
        assert_eq!(stall.fd, 3, "ffmpeg 9 writes to a duplicate of its stdout");
        assert_ne!(stall.tid, stall.pid);
    }
}

#[test]
fn a_writer_on_its_stderr_is_found_as_such() {
    need!(need::bpf());
    let crowd = Plan::stuck(1).writing(&["--stderr"]).start();

    let look = ps(&["--min", "0s", "--comm", crowd.writer_name()]);

    let stall = look.of(crowd.writer());
    assert_eq!((stall.fd, stall.stream.as_deref()), (2, Some("stderr")));
}

#[test]
fn a_writer_is_found_in_each_write_class_syscall() {
    need!(need::bpf());
    let comm = names::unique("wri");
    let plan = |channel, how| {
        Plan::stuck(1)
            .on(channel)
            .writers_named(&comm)
            .writing(&["--how", how])
    };
    let crowds: Vec<_> = WAYS_TO_WRITE
        .into_iter()
        .map(|(channel, how)| (channel, how, plan(channel, how).start()))
        .collect();

    let look = ps(&["--min", "0s", "--comm", &comm]);

    for (channel, how, crowd) in &crowds {
        let stall = look.of(crowd.writer());
        assert_eq!(
            (stall.syscall.as_str(), stall.channel.as_str()),
            (*how, channel.as_str())
        );
        assert_eq!(
            (stall.fd, stall.stream.as_deref()),
            (1, Some("stdout")),
            "{how} on {channel:?}"
        );
    }
}

#[test]
fn a_writer_of_any_name_is_found_with_all_and_not_by_the_default_filter() {
    need!(need::bpf());
    let crowd = Plan::stuck(1).start();

    let (by_default, all) = (ps(&["--min", "0s"]), ps(&["--min", "0s", "--all"]));

    assert!(!by_default.has(crowd.writer()));
    assert_eq!(all.of(crowd.writer()).comm, crowd.writer_name());
}

#[test]
fn a_filter_without_a_star_matches_the_whole_comm_only() {
    need!(need::bpf());
    let crowd = Plan::stuck(1).start();
    let (start, _) = crowd.writer_name().split_at(5);

    let (by_start, by_prefix) = (
        ps(&["--min", "0s", "--comm", start]),
        ps(&["--min", "0s", "--comm", &format!("{start}*")]),
    );

    assert!(!by_start.has(crowd.writer()));
    assert!(by_prefix.has(crowd.writer()));
}

#[test]
fn a_datagram_to_another_than_the_sockets_peer_is_not_reported() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let comm = names::unique("dgr");
    let bind = |name| UnixDatagram::bind(scratch.path(name)).expect("a bound socket");
    let (peer, _other) = (bind("peer"), bind("other"));
    let writer = |to: &[&str]| {
        let socket = UnixDatagram::unbound().expect("a socket");
        socket.connect(scratch.path("peer")).expect("its peer is there");
        let mut command = Command::new(binary::stuck());
        command.args(["write", "--name", &comm, "--how", "sendto", "--chunk", "100"]);
        let family = Family::start(command.args(to).stdout(OwnedFd::from(socket)));
        proc::await_blocked_write(family.pid());
        family
    };
    // It waits for the other's queue, and its peer's has nothing to do with that.
    let to_other = writer(&["--to", &scratch.path("other").to_string_lossy()]);
    let to_peer = writer(&[]);

    let look = ps(&["--min", "0s", "--comm", &comm]);

    assert!(
        look.has(to_peer.pid()),
        "the one beside it, that waits for its peer, is"
    );
    assert!(!look.has(to_other.pid()), "nothing shows whether the other reads");
    drop(peer);
}

#[test]
fn a_blocked_reader_is_not_reported() {
    need!(need::bpf());
    let control = Plan::stuck(1).start();
    let (pipe, _pipe_writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let (socket, _socket_writer) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair");
    let reader = |end| {
        let mut command = Command::new(binary::stuck());
        Family::start(command.args(["read", "--name", control.writer_name()]).stdin(end))
    };
    let (on_pipe, on_socket) = (reader(pipe), reader(socket));
    for reader in [&on_pipe, &on_socket] {
        await_named_sleeper(reader, control.writer_name());
    }

    let look = ps(&["--min", "0s", "--comm", control.writer_name()]);

    assert!(look.has(control.writer()), "the writer beside them is");
    assert!(
        !look.has(on_pipe.pid()) && !look.has(on_socket.pid()),
        "{:#?}",
        look.stalls
    );
}

#[test]
fn a_non_blocking_writer_is_not_reported() {
    need!(need::bpf());
    let control = Plan::stuck(1).start();
    let (_reading_end, writing_end) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let mut command = Command::new(binary::stuck());
    command
        .args(["write", "--nonblock", "--name", control.writer_name()])
        .stdout(writing_end);
    let poller = Family::start(command.stdin(Stdio::null()));
    await_named_sleeper(&poller, control.writer_name());

    let look = ps(&["--min", "0s", "--comm", control.writer_name()]);

    assert!(look.has(control.writer()), "the writer beside it is");
    assert!(!look.has(poller.pid()), "it waits in poll(2): {:#?}", look.stalls);
}

#[test]
fn writers_with_a_living_reader_are_not_reported() {
    need!(need::bpf());
    // The reader takes at most a pipe's 64 KiB every 50 ms: one such write lasts for six seconds.
    let long_write = ["--chunk", "8388608"];
    for channel in [Channel::Pipe, Channel::Unix] {
        let crowd = Plan::stuck(1)
            .and_healthy(3)
            .on(channel)
            .writing(&long_write)
            .start();
        wait::till(crowd.ready() + Duration::from_millis(1200));

        let look = ps(&["--comm", crowd.writer_name()]);

        assert_eq!(
            look.of(crowd.writer()).state.as_deref(),
            Some("stalled"),
            "the one beside them"
        );
        assert_eq!(look.stalls.len(), 1, "{channel:?}: {:#?}", look.stalls);
    }
}

#[test]
fn a_finished_stall_is_gone_at_once() {
    need!(need::bpf());
    let mut crowd = Plan::stuck(4).writing(&["--bytes", "200000"]).start();
    let [drained, closed, killed, control] = crowd.stuck()[..] else {
        panic!("four writers")
    };
    let before = ps(&["--min", "0s", "--comm", crowd.writer_name()]);

    crowd.order(Order::Drain { pid: drained });
    crowd.order(Order::Close { pid: closed });
    crowd.order(Order::Kill { pid: killed });
    wait::until("the writer has finished", wait::PATIENCE, || {
        (crowd.drained(drained) == 200_000).then_some(())
    });
    crowd.await_exit(closed);
    crowd.await_exit(killed);
    let after = ps(&["--min", "0s", "--comm", crowd.writer_name()]);

    assert_eq!(before.stalls.len(), 4, "{before:#?}");
    assert_eq!(after.stalls.len(), 1, "{after:#?}");
    assert!(after.has(control));
}

#[test]
fn what_is_queued_in_a_pipe_is_what_its_reader_could_take() {
    const PAGE: usize = 4096;
    // No two fit a slot.
    const CHUNK: usize = 3000;
    need!(need::bpf());
    let name = names::unique("queued");
    // One slot; as many as pipes begin with, some of them used anew; the most that ordinary users may have.
    let pipes = [(1, 0), (16, 5), (256, 0)].map(|(slots, taken)| {
        let (reader, stdout) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        fcntl_setpipe_size(&stdout, slots * PAGE).expect("so many slots");
        let mut command = Command::new(binary::stuck());
        command
            .args(["write", "--name", &name, "--chunk", &CHUNK.to_string()])
            .stdin(Stdio::null())
            .stdout(stdout);
        let writer = Family::start(&mut command);
        drop(command);
        let mut reader = File::from(reader);
        reader
            .read_exact(&mut vec![0; taken * CHUNK])
            .expect("some of it");
        wait::until("each slot is used", wait::PATIENCE, || {
            (ioctl_fionread(&reader) == Ok((slots * CHUNK) as u64)).then_some(())
        });
        proc::await_blocked_write(writer.pid());
        (writer, reader)
    });

    let look = ps(&["--comm", &name, "--min", "0s"]);

    for (writer, reader) in &pipes {
        let readable = ioctl_fionread(reader).expect("the kernel's own count");
        assert_eq!(look.of(writer.pid()).queued_bytes, Some(readable));
    }
}

/// Asserts that what is reported of an ffmpeg is what /proc and the test know of it.
#[track_caller]
fn assert_found<'a>(
    look: &'a Look,
    stuck: &Stuck,
    ffmpeg: &Path,
    channel: Channel,
    stream: Option<&str>,
) -> &'a Stall {
    let stall = look.of(stuck.pid);
    let write = &stuck.write;
    assert_eq!(
        (stall.tid, stall.thread.as_str()),
        (write.tid, write.thread.as_str())
    );
    assert_eq!((stall.fd, stall.syscall.as_str()), (write.fd, write.syscall));
    assert_eq!(Some(stall.comm.as_str()), proc::comm(stuck.pid).as_deref());
    assert_eq!(
        (stall.channel.as_str(), stall.stream.as_deref()),
        (channel.as_str(), stream)
    );
    assert_eq!(Some(stall.inode), proc::inode(stuck.pid, write.fd), "{channel:?}");
    assert_eq!(
        stall.exe.as_deref().map(Path::new),
        Some(&*ffmpeg::file_of(ffmpeg))
    );
    assert!(
        stall
            .cmdline
            .iter()
            .any(|argument| argument == "testsrc=size=320x240"),
        "{:?}",
        stall.cmdline
    );
    assert_eq!((stall.uid, stall.user.as_deref()), (Some(0), Some("root")));
    assert!(
        stall.queued_bytes.is_some_and(|queued| queued > 0),
        "{:?}",
        stall.queued_bytes
    );
    assert_eq!(stall.state.as_deref(), Some("stalled"));
    stall
}

/// Waits until a bundled program has taken its name and sleeps for good.
#[track_caller]
fn await_named_sleeper(family: &Family, name: &str) {
    wait::until("it has its name", wait::PATIENCE, || {
        (proc::comm(family.pid()).as_deref() == Some(name)).then_some(())
    });
    proc::await_asleep(family.pid());
}
