//! `watch`: events in order, each stall's begin and end as they happen, and the kernel's histogram
//! at the end.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::Signal;
use tests::agent::Agent;
use tests::api::Api;
use tests::config::Config;
use tests::crowd::{Channel, Plan};
use tests::family::Family;
use tests::message::Event;
use tests::order::Order;
use tests::scratch::Scratch;
use tests::{binary, clock, names, need, proc, wait};

#[test]
fn a_new_stall_is_detected_when_it_reaches_the_minimum() {
    need!(need::tracer());
    for channel in [Channel::Pipe, Channel::Fifo, Channel::Unix] {
        let plan = Plan::stuck(1).on(channel);
        let mut watch = Agent::watch(&["--min", "1s", "--comm", plan.writer_name()]);

        let crowd = plan.start();
        let detected = watch.await_event("stall.detected", |event| event.is_of(crowd.writer()));

        let after = clock::lapse(crowd.ready(), detected.at);
        assert!(
            (1.0..1.0 + wait::late(0.2)).contains(&detected.age()),
            "{channel:?}: {}",
            detected.age()
        );
        let possible = 0.8..1.0 + wait::late(0.5);
        assert!(possible.contains(&after.as_secs_f64()), "{channel:?}: {after:?}");
        let stall = detected.stall.as_ref().expect("a stall");
        assert!(!stall.preexisting, "it began under the eyes of the watch");
        watch.stop();
    }
}

#[test]
fn a_stall_ends_at_once_when_its_writer_leaves_or_exits() {
    need!(need::tracer());
    let mut crowd = Plan::stuck(3).writing(&["--bytes", "200000"]).start();
    let [drained, closed, killed] = crowd.stuck()[..] else {
        panic!("three writers")
    };
    let mut watch = Agent::watch(&["--min", "500ms", "--comm", crowd.writer_name()]);
    for pid in [drained, closed, killed] {
        watch.await_event("stall.detected", |event| event.is_of(pid));
    }

    let begin = clock::mono();
    crowd.order(Order::Drain { pid: drained });
    crowd.order(Order::Close { pid: closed });
    crowd.order(Order::Kill { pid: killed });

    for (pid, reasons) in [
        (drained, ["drained", "left"]),
        (closed, ["exited", "left"]),
        (killed, ["exited"; 2]),
    ] {
        let ended = watch.await_event("stall.ended", |event| event.is_of(pid));
        let reason = ended.reason.as_deref().expect("a reason");
        assert!(
            reasons.contains(&reason),
            "{pid}: {reason}, not one of {reasons:?}"
        );
        let took = clock::lapse(begin, ended.at);
        assert!(
            took < Duration::from_secs(1) * wait::slowness(),
            "{reason}: {took:?}"
        );
    }
    watch.stop();
}

#[test]
fn the_kernel_side_tells_what_it_sees_where_it_is_asked_to() {
    need!(need::tracer());
    for (asked, option) in [(true, &["--kernel-log"][..]), (false, &[])] {
        let plan = Plan::stuck(1);
        let arguments = [&["--min", "1s", "--comm", plan.writer_name()], option].concat();
        let mut watch = Agent::watch(&arguments);

        let crowd = plan.start();
        watch.await_event("stall.detected", |event| event.is_of(crowd.writer()));

        let line = format!("kernel: {} blocked", crowd.writer());
        assert_eq!(watch.stderr().contains(&line), asked, "{:?}", watch.stderr());
        watch.stop();
    }
}

#[test]
fn events_are_numbered_in_order_and_begin_and_end_with_the_agents_own() {
    need!(need::bpf());
    let crowd = Plan::stuck(5).start();
    // Old enough to be reported by the first look already.
    wait::till(crowd.ready() + Duration::from_secs(1));
    let mut watch = Agent::watch(&["--min", "500ms", "--comm", crowd.writer_name()]);
    for pid in crowd.stuck() {
        watch.await_event("stall.detected", |event| event.is_of(pid));
    }

    let events = watch.stop();

    assert!(events.is_sorted_by(|one, next| one.seq < next.seq));
    assert!(events.iter().all(|seen| seen.v == 1));
    assert_eq!(
        events.first().map(|seen| seen.kind.as_str()),
        Some("agent.started")
    );
    assert_eq!(
        events.last().map(|seen| seen.kind.as_str()),
        Some("agent.stopping")
    );
    let mut ids: Vec<&str> = events.iter().map(|seen| seen.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "no id is used twice");
}

#[test]
fn the_histogram_has_a_blocked_interval_in_its_bucket() {
    const BLOCKED: Duration = Duration::from_millis(1300);
    need!(need::tracer());
    let comm = names::unique("wri");
    let watch = Agent::watch(&["--min", "500ms", "--comm", &comm]);
    let mut crowd = Plan::stuck(1).writers_named(&comm).start();
    wait::till(crowd.ready() + BLOCKED);
    let writer = crowd.writer();
    crowd.order(Order::Close { pid: writer });
    crowd.await_exit(writer);

    let events = watch.stop();

    let histogram = events
        .last()
        .and_then(|seen| seen.blocked_seconds.clone())
        .expect("a histogram");
    assert_eq!(histogram.count, 1, "it was blocked once: {histogram:?}");
    // Whether the buckets add up or not, the first with anything in it is that of the interval.
    let first = histogram
        .buckets
        .iter()
        .find(|bucket| bucket.count > 0)
        .expect("a bucket");
    let bound = first.le.as_f64().expect("a bound");
    assert!(
        (1.3..=2.7).contains(&bound),
        "the smallest power of two above 1.3 s: {histogram:?}"
    );
}

#[test]
fn a_watch_whose_own_output_is_stuck_does_not_report_itself() {
    const PAGE: usize = 4096;
    need!(need::bpf());
    let crowd = Plan::stuck(30).start();
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    fcntl_setpipe_size(&stdout, PAGE).expect("a pipe of one page");
    let mut command = Command::new(binary::pipestall());
    command
        .args(["watch", "--json", "--all", "--min", "500ms"])
        .stdout(stdout);
    let mut watch = Family::start(&mut command);
    drop(command);
    let (_, stuck) = proc::await_blocked_write(watch.pid());
    // Long enough to be reported three times over, were it any other program.
    wait::till(stuck + Duration::from_millis(1500));

    let reader = thread::spawn(|| {
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).map(|_| text)
    });
    watch.signal(Signal::INT);
    let status = watch.exited(wait::PATIENCE).expect("it stops");
    let text = reader.join().expect("no panic").expect("text");

    assert_eq!(status.code(), Some(0));
    let events: Vec<Event> = text
        .lines()
        .map(|line| Event::parse(line).expect("an event"))
        .collect();
    assert!(
        events.iter().any(|event| event.is_of(crowd.stuck()[0])),
        "others are reported"
    );
    assert!(!events.iter().any(|event| event.is_of(watch.pid())), "{text}");
}

// A fifo's writes go through two functions where they have one of their own.
#[test]
fn traced_writes_are_counted_by_channel_with_their_bytes_and_times() {
    need!(need::functions());
    for channel in [Channel::Pipe, Channel::Fifo, Channel::Unix] {
        traced_writes_are_counted_on(channel);
    }
}

fn traced_writes_are_counted_on(channel: Channel) {
    const BYTES: u64 = 200_000;
    let comm = names::unique("wri");
    let watch = Agent::watch(&["--trace-writes", "--min", "500ms", "--comm", &comm]);
    let mut crowd = Plan::stuck(1)
        .writers_named(&comm)
        .on(channel)
        .writing(&["--bytes", &BYTES.to_string(), "--chunk", "1000"])
        .start();
    let writer = crowd.writer();
    let inode = proc::inode(writer, 1).expect("it has a stdout");
    wait::till(crowd.ready() + Duration::from_millis(1300));
    crowd.order(Order::Drain { pid: writer });
    wait::until("all is read", wait::PATIENCE, || {
        (crowd.drained(writer) == BYTES).then_some(())
    });
    // The last call has returned by the time that the writer stays.
    wait::until("the writer stays", wait::PATIENCE, || {
        proc::blocked_writes(writer).is_empty().then_some(())
    });

    let events = watch.stop();

    let all = &events.last().expect("an end").written;
    let [written] = &all[..] else {
        panic!("one {channel:?} was written to: {all:?}")
    };
    assert_eq!(
        (written.channel.as_str(), written.inode, written.bytes),
        (channel.as_str(), inode, BYTES)
    );
    assert_eq!(written.write_seconds.count, BYTES / 1000, "{channel:?}");
    let longest = written.write_seconds.buckets.last().expect("a bucket");
    let bound = longest.le.as_f64().expect("a bound");
    assert!(
        bound > 1.3,
        "{channel:?}: one write took as long as nobody read: {bound}"
    );
    let before = written
        .write_seconds
        .buckets
        .iter()
        .rev()
        .nth(1)
        .expect("another bucket");
    assert_eq!(before.count, BYTES / 1000 - 1, "{channel:?}: the others did not");
}

#[test]
fn an_agent_that_counts_writes_has_them_in_its_metrics() {
    const BYTES: u64 = 200_000;
    need!(need::functions());
    let scratch = Scratch::new();
    let plan = Plan::stuck(1).writing(&["--bytes", &BYTES.to_string(), "--chunk", "1000"]);
    let config = Config::of_plan(&plan, &scratch).served(&scratch, "");
    let agent = Agent::run_with(&["--trace-writes"], &config, &scratch);
    let mut crowd = plan.start();
    let writer = crowd.writer();
    crowd.order(Order::Drain { pid: writer });
    wait::until("all is written", wait::PATIENCE, || {
        let metrics = Api::at(&Config::socket(&scratch)).get("/metrics").body;
        [
            format!("pipestall_written_bytes_total{{channel=\"pipe\"}} {BYTES}.0"),
            format!(
                "pipestall_write_seconds_count{{channel=\"pipe\"}} {}",
                BYTES / 1000
            ),
            "pipestall_written_bytes_total{channel=\"unix\"} 0.0".to_owned(),
        ]
        .iter()
        .all(|line| metrics.lines().any(|found| found == line))
        .then_some(())
    });
    agent.stop();
}

// The kernel shows an iterator's opener the tasks of its own pid namespace (init_seq_pidns,
// kernel/bpf/task_iter.c), by pids that /proc does not know there.
#[test]
fn a_watch_in_a_pid_namespace_of_its_own_reports_by_name_what_runs_in_it() {
    const SCRIPT: &str = "\"$1\" write | sleep 600 & exec \"$2\" watch --json --min 1s --comm \"$3\"";
    need!(need::tracer());
    let unshare = need!(need::on_path("unshare"));
    let scratch = Scratch::new();
    let name = names::unique("inside");
    let mut command = Command::new(unshare);
    command
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(scratch.named(&binary::stuck(), &name))
        .arg(binary::pipestall())
        .arg(&name);
    let mut watch = Agent::start(&mut command);

    let detected = watch.await_event("stall.detected", |_| true);

    let stall = detected.event.stall.expect("a stall");
    assert_eq!((stall.channel.as_str(), stall.comm.as_str()), ("pipe", &*name));
    assert!(
        stall.cmdline.is_empty(),
        "it is not to be had there: {:?}",
        stall.cmdline
    );
}

// The number that a process has in a namespace of its own is not the one that the kernel knows it by.
#[test]
fn a_watch_in_a_pid_namespace_of_its_own_does_not_follow_itself() {
    const PAGE: usize = 4096;
    need!(need::tracer());
    let unshare = need!(need::on_path("unshare"));
    let scratch = Scratch::new();
    let said = scratch.path("stderr");
    let (_output, stdout) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    fcntl_setpipe_size(&stdout, PAGE).expect("a pipe of one page");
    // So that it is stuck from its first event on.
    rustix::io::write(&stdout, &[b' '; PAGE]).expect("a full pipe");
    let mut command = Command::new(unshare);
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(binary::pipestall())
        .args(["watch", "--json", "--all", "--kernel-log"])
        .args(binary::tracer_arguments())
        .stdout(stdout)
        .stderr(File::create(&said).expect("a file"));
    let family = Family::start(&mut command);
    drop(command);
    let watch = proc::await_child(family.pid(), "pipestall");
    let (stuck, _) = proc::await_blocked_write(watch);

    // What the kernel side tells comes in order.
    let crowd = Plan::stuck(1).start();
    let log = wait::until("the other is followed", wait::PATIENCE, || {
        let log = fs::read_to_string(&said).ok()?;
        log.contains(&format!("kernel: {} blocked", crowd.writer()))
            .then_some(log)
    });

    let itself = format!("kernel: {} blocked", stuck.tid);
    assert!(!log.contains(&itself), "{itself}: {log}");
}
