//! Ages: true for what is older than the tool, reset by one byte, and by nothing else.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use probe_ebpf::pattern::CommFilter;
use probe_user::probe::kernel::tracer::Tracer;
use probe_user::probe::kernel::{Kernel, Options};
use tests::agent::Agent;
use tests::config::Config;
use tests::crowd::{Channel, Crowd, Plan};
use tests::family::Family;
use tests::order::{Disturbance, Exit, Order};
use tests::pidfd::PidFd;
use tests::ps::{ps, text};
use tests::scratch::Scratch;
use tests::{binary, clock, ffmpeg, names, need, proc, strace, wait};

/// How exactly the kernel's own record of a block's begin is known.
const EXACT: f64 = 0.1;

#[test]
fn a_stall_older_than_the_tool_has_its_true_age() {
    need!(need::bpf());
    let (ffmpeg, node) = (need!(need::ffmpeg()), need!(need::node()));
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));
    let on_socket = ffmpeg::under_node(&node, &ffmpeg, &scratch);
    let on_pipe = ffmpeg::piped_into_sleep(&ffmpeg);
    wait::till(on_pipe.since + Duration::from_secs(5));

    let look = ps(&[]);

    // Node reads ahead, part of the first buffer: when, nobody can tell any more.
    for (stuck, is_maximum) in [(&on_socket, true), (&on_pipe, false)] {
        let stall = look.of(stuck.pid);
        assert!(stall.preexisting && !stall.age_is_minimum, "{stall:#?}");
        assert_eq!(stall.age_is_maximum, is_maximum, "{stall:#?}");
        let since = clock::wall_of(stuck.since);
        let said = stall.since.expect("the begin is known");
        assert!(clock::apart(said, since) <= EXACT, "blocked {since}, said {said}");
        // The age is that at one of the looks, somewhere between start and end of the program.
        let (least, most) = (
            clock::lapse(stuck.since, look.started),
            clock::lapse(stuck.since, look.ended),
        );
        let possible = least.as_secs_f64() - EXACT..=most.as_secs_f64() + EXACT;
        assert!(
            possible.contains(&stall.age_seconds),
            "{} is not in {possible:?}",
            stall.age_seconds
        );
    }
}

#[test]
fn a_rule_acts_on_an_ffmpeg_older_than_the_agent_by_its_true_age() {
    need!(need::bpf());
    let ffmpeg = need!(need::ffmpeg());
    let scratch = Scratch::new();
    let ffmpeg = scratch.named(&ffmpeg, &names::unique("ffmpeg"));
    let shell = scratch.named(Path::new("/bin/sh"), &names::unique("shell"));
    let stuck = ffmpeg::piped_into_sleep_by(&shell, &ffmpeg);
    let (comm, parent) = (ffmpeg::comm_of(&ffmpeg), ffmpeg::comm_of(&shell));
    let config = Config::new(&comm, &parent, &scratch.path("state"));
    assert_acted_on_by_its_true_age(stuck.pid, stuck.since, &config, &scratch);
}

#[test]
fn a_rule_acts_on_a_socket_writer_older_than_the_agent_by_its_true_age() {
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(1).on(Channel::Unix).start();
    let config = Config::of(&crowd, &scratch);
    assert_acted_on_by_its_true_age(crowd.writer(), crowd.ready(), &config, &scratch);
}

#[track_caller]
fn assert_acted_on_by_its_true_age(pid: u32, since: Duration, config: &Config, scratch: &Scratch) {
    const OLDER: Duration = Duration::from_secs(5);
    // Nothing is ended that the agent itself has not watched for so long.
    const WATCHED: Duration = Duration::from_secs(5);
    const STALLED_FOR: Duration = Duration::from_secs(9);
    let config = config.clone().enforcing().stalled_for("9s").grace("1s");
    wait::till(since + OLDER);

    let mut agent = Agent::run(&config, scratch);
    let started = agent.started();
    let detected = agent.await_event("stall.detected", |event| event.is_of(pid));
    let sent = agent.await_event("kill.sent", |event| event.is_of(pid));
    agent.await_event("kill.confirmed", |event| event.is_of(pid));
    agent.stop();

    let stall = detected.stall.as_ref().expect("a stall");
    assert!(stall.preexisting && !stall.age_is_maximum, "{stall:#?}");
    assert_near(
        detected.age(),
        clock::lapse(since, detected.at).as_secs_f64(),
        0.25,
    );
    assert!(
        detected.at < started + Duration::from_secs(2) * wait::slowness(),
        "it is found at the start"
    );
    assert!(sent.age() >= STALLED_FOR.as_secs_f64(), "{}", sent.age());
    assert!(
        sent.at + Duration::from_millis(100) * wait::slowness() >= started + WATCHED,
        "it was watched before"
    );
    // Counted from the agent's start, the age would be reached some four seconds later.
    assert!(
        sent.at < started + WATCHED + Duration::from_secs(2) * wait::slowness(),
        "{:?}",
        clock::lapse(started, sent.at)
    );
    assert!(!proc::alive(pid));
}

/// A reader that has begun the first buffer may have done so long ago or just now, and one that
/// has freed a buffer may have woken another writer, who opened the channel too or was forked with
/// it: a slow viewer's channel looks the same.
#[test]
fn a_rule_watches_for_all_of_its_time_what_the_channel_does_not_prove() {
    need!(need::bpf());
    let begun = |crowd: &mut Crowd| -> Option<File> {
        let pid = crowd.writer();
        crowd.order(Order::Take { pid, bytes: 1 });
        None
    };
    let shared = |crowd: &mut Crowd| -> Option<File> {
        let path = proc::link(crowd.writer(), 1).expect("a named pipe");
        Some(
            File::options()
                .write(true)
                .open(path)
                .expect("its reader is there"),
        )
    };
    let forked = |crowd: &mut Crowd| -> Option<File> {
        let writer = PidFd::open(crowd.writer()).expect("a pidfd of the writer");
        Some(File::from(writer.copy_of(1).expect("a copy of its stdout")))
    };
    thread::scope(|scope| {
        scope.spawn(|| assert_watched_for_all_of_its_time(Channel::Pipe, forked));
        scope.spawn(|| assert_watched_for_all_of_its_time(Channel::Unix, forked));
        scope.spawn(|| assert_watched_for_all_of_its_time(Channel::Pipe, begun));
        scope.spawn(|| assert_watched_for_all_of_its_time(Channel::Unix, begun));
        scope.spawn(|| assert_watched_for_all_of_its_time(Channel::Fifo, shared));
    });
}

#[track_caller]
fn assert_watched_for_all_of_its_time(channel: Channel, doubt: impl Fn(&mut Crowd) -> Option<File>) {
    const STALLED_FOR: Duration = Duration::from_secs(7);
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).on(channel).start();
    let pid = crowd.writer();
    let _held = doubt(&mut crowd);
    let config = Config::of(&crowd, &scratch).enforcing().stalled_for("7s");
    wait::till(crowd.ready() + STALLED_FOR);
    let file = config.file(&scratch);
    let file = file.to_str().expect("a path that is text");
    let explained = text(&["ps", "--config", file, "--explain", &pid.to_string()]);

    let mut agent = Agent::run(&config, &scratch);
    let started = agent.started();
    let sent = agent.await_event("kill.sent", |event| event.is_of(pid));
    agent.stop();

    let watched = clock::lapse(started, sent.at).as_secs_f64();
    assert!(
        (7.0 - wait::late(0.2)..9.0).contains(&watched),
        "{channel:?}: {watched}"
    );
    // It is said to be as old as the writer's last sleep is, at most.
    assert!(sent.age() >= 13.5, "{channel:?}: {}", sent.age());
    let stall = sent.stall.as_ref();
    assert!(
        stall.is_some_and(|stall| stall.age_is_maximum),
        "{channel:?}: {stall:#?}"
    );
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in ["stalled for at most ", "has watched the stall for 7.0s."] {
        assert!(
            explained.contains(expected),
            "{expected:?} is missing:\n{explained}"
        );
    }
}

#[test]
fn a_byte_now_and_then_keeps_a_pipe_writer_young() {
    need!(need::bpf());
    a_byte_now_and_then_keeps_a_writer_young(Channel::Pipe);
}

#[test]
fn a_byte_now_and_then_keeps_a_socket_writer_young() {
    need!(need::bpf());
    a_byte_now_and_then_keeps_a_writer_young(Channel::Unix);
}

fn a_byte_now_and_then_keeps_a_writer_young(channel: Channel) {
    const WATCHED: Duration = Duration::from_secs(20);
    const EVERY: Duration = Duration::from_millis(500);
    const OLDER: Duration = Duration::from_secs(4);
    let scratch = Scratch::new();
    let plan = Plan::stuck(1).and_trickled(1, EVERY).on(channel);
    let config = Config::of_plan(&plan, &scratch)
        .enforcing()
        .stalled_for("3s")
        .report_after("1s");
    // It looks once a second, and tells of whoever is as old as this at a look.
    let mut watch = Agent::watch(&["--min", "1500ms", "--comm", plan.writer_name()]);
    let mut crowd = plan.start();
    let (silent, trickled) = (crowd.stuck()[0], crowd.trickled()[0]);
    let (write, _) = proc::await_blocked_write(trickled);
    let runs = proc::switches(trickled, write.tid);

    // To an agent that comes so late both look alike at first: neither has run for longer than the
    // rule allows. Only the bytes tell.
    wait::till(crowd.ready() + OLDER);
    let look = ps(&["--settle", "600ms", "--comm", crowd.writer_name()]);
    let mut agent = Agent::run(&config, &scratch);
    watch.await_event("stall.detected", |event| event.is_of(silent));
    agent.await_event("kill.confirmed", |event| event.is_of(silent));
    wait::till(agent.started() + WATCHED);

    assert_eq!(look.of(silent).state.as_deref(), Some("stalled"));
    // One that each read wakes has not slept long enough for `ps` to show it.
    if channel == Channel::Unix || need::quiet_pipes().is_ok() {
        assert_eq!(look.of(trickled).state.as_deref(), Some("draining"));
        assert_eq!(
            proc::switches(trickled, write.tid),
            runs,
            "the writer never ran: only the token tells"
        );
    }
    assert!(crowd.drained(trickled) >= 40, "{}", crowd.drained(trickled));
    assert_eq!(crowd.exit(trickled), None);
    let touched = agent
        .stop()
        .into_iter()
        .filter(|seen| seen.is_of(trickled) && seen.kind.starts_with("kill."));
    assert_eq!(
        touched.map(|seen| seen.event.kind).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    let told = watch
        .stop()
        .into_iter()
        .filter(|seen| seen.is_of(trickled))
        .map(|seen| (seen.kind.clone(), seen.age()));
    assert_eq!(told.collect::<Vec<_>>(), Vec::new());
}

#[test]
fn a_watch_that_comes_late_does_not_take_a_slow_writer_for_an_old_one() {
    need!(need::bpf());
    for channel in [Channel::Pipe, Channel::Unix] {
        let crowd = Plan::stuck(1)
            .and_trickled(1, Duration::from_millis(500))
            .on(channel)
            .start();
        let (silent, trickled) = (crowd.stuck()[0], crowd.trickled()[0]);
        wait::till(crowd.ready() + Duration::from_secs(3));

        let mut watch = Agent::watch(&["--min", "1s", "--comm", crowd.writer_name()]);
        let old = watch.await_event("stall.detected", |event| event.is_of(silent));
        wait::till(watch.started() + Duration::from_secs(3));
        let events = watch.stop();

        assert!(
            old.age() >= 2.9 && old.stall.as_ref().is_some_and(|stall| stall.preexisting),
            "{channel:?}"
        );
        // It has slept as long, but a byte went every half second.
        let slow = events
            .iter()
            .filter(|seen| seen.is_of(trickled))
            .map(|seen| seen.age());
        let oldest = slow.fold(0.0, f64::max);
        assert!(oldest < 1.5, "{channel:?}: {oldest}");
    }
}

#[test]
fn one_byte_resets_the_age_of_a_stall_that_was_reported() {
    need!(need::bpf());
    for channel in [Channel::Pipe, Channel::Fifo, Channel::Unix] {
        let mut crowd = Plan::stuck(1).on(channel).start();
        let writer = crowd.writer();
        let mut watch = Agent::watch(&["--min", "1s", "--comm", crowd.writer_name()]);
        let first = watch.await_event("stall.detected", |event| event.is_of(writer));

        crowd.order(Order::Take {
            pid: writer,
            bytes: 1,
        });
        let taken = clock::mono();
        let ended = watch.await_event("stall.ended", |event| event.is_of(writer));
        let second = watch.await_event("stall.detected", |event| {
            event.is_of(writer) && event.seq > first.seq
        });

        assert_eq!(ended.reason.as_deref(), Some("drained"), "{channel:?}");
        assert!(
            second.at >= taken + Duration::from_millis(950),
            "{channel:?}: {:?}",
            clock::lapse(taken, second.at)
        );
        assert!(second.age() < 2.0, "{channel:?}: {}", second.age());
        watch.stop();
    }
}

#[test]
fn alarms_do_not_reset_an_age() {
    need!(need::tracer());
    // On an emulated machine a writer that is woken so often is awake at too many looks.
    let often = (20 / wait::slowness()).max(4);
    for channel in [Channel::Pipe, Channel::Unix] {
        let plan = Plan::stuck(1)
            .on(channel)
            .writing(&["--alarm", &often.to_string()]);
        an_age_grows_through(
            plan,
            DISTURBED.mul_f64(0.8).as_secs_f64() * f64::from(often),
            |_| {},
        );
    }
}

#[test]
fn a_tracer_that_attaches_and_detaches_does_not_reset_an_age() {
    need!(need::tracer());
    let strace = need!(need::strace());
    for channel in [Channel::Pipe, Channel::Unix] {
        an_age_grows_through(Plan::stuck(1).on(channel), 5.0, |writer| {
            strace::attach_and_detach(&strace, writer);
        });
    }
}

#[test]
fn a_writer_that_is_awake_at_a_look_is_no_younger_at_the_next() {
    need!(need::tracer());
    for channel in [Channel::Pipe, Channel::Unix] {
        let plan = Plan::stuck(1).on(channel);
        // With nobody stalled, it looks each second, and where it looks the writer is stopped.
        let mut watch = Agent::watch(&["--min", "1s", "--comm", plan.writer_name()]);
        let mut crowd = plan.start();
        let (pid, blocked) = (crowd.writer(), crowd.ready());
        let looks = Duration::from_secs(clock::lapse(watch.started(), blocked).as_secs() + 1);
        wait::till(watch.started() + looks.saturating_sub(Duration::from_millis(100)));
        let signal = |signal| Order::Signal { pid, signal };
        crowd.order(signal(Disturbance::Stop));
        proc::await_state(pid, 'T');
        wait::till(watch.started() + looks + Duration::from_millis(100));
        crowd.order(signal(Disturbance::Continue));

        let detected = watch.await_event("stall.detected", |event| event.is_of(pid));
        // It may have reached its minimum while it was stopped.
        assert_near(detected.age(), 1.1, 0.25);
        assert_near(clock::lapse(blocked, detected.at).as_secs_f64(), 1.1, 0.4);
        watch.stop();
    }
}

#[test]
fn who_gets_on_is_not_taken_for_one_that_was_only_awakened() {
    // They follow whoever writes; sched, only who sleeps in it.
    need!(need::functions());
    let name = names::unique("busy");
    let filter = CommFilter::parse([name.as_str()]).expect("a name is a pattern");
    let tracer = Tracer::ALL
        .into_iter()
        .find(|tracer| tracer.as_str() == binary::tracer());
    let options = Options {
        tracer,
        ..Options::new(filter)
    };
    let mut kernel = Kernel::tracer(&options, Duration::from_mins(1)).expect("a tracer");
    // A byte at a time into a pipe that is drained, without a rest: most looks find it awake.
    let mut busy = Command::new(binary::stuck());
    busy.args(["write", "--name", &name, "--chunk", "1"]);
    let mut busy = Family::start(busy.stdout(Stdio::piped()));
    let mut end = busy.child().stdout.take().expect("stdout is piped");
    let drain = thread::spawn(move || io::copy(&mut end, &mut io::sink()));

    let begun = clock::mono();
    for tick in 1..=30 {
        wait::till(begun + Duration::from_millis(100) * tick);
        let (look, _) = kernel.look().expect("a look");
        let idle = look.awake.map(|since| look.at.since(since));
        assert!(
            idle.is_none_or(|idle| idle < Duration::from_millis(500)),
            "{idle:?}"
        );
    }
    drop(busy);
    drain.join().expect("no panic").expect("it is read to its end");
}

/// How long a writer is disturbed.
const DISTURBED: Duration = Duration::from_millis(3200);

/// Has a writer disturbed until shortly before its time, at least so often, and asserts that it is
/// ended on time.
#[track_caller]
fn an_age_grows_through(plan: Plan, least: f64, disturb: impl Fn(u32)) {
    const STALLED_FOR: Duration = Duration::from_secs(4);
    const LATE: Duration = Duration::from_millis(500);
    let scratch = Scratch::new();
    let config = Config::of_plan(&plan, &scratch)
        .enforcing()
        .stalled_for("4s")
        .report_after("1s");
    // The agent is there first: of a writer that is woken up twenty times a second, the kernel
    // knows only the last time.
    let mut agent = Agent::run(&config, &scratch);

    let mut crowd = plan.start();
    let (writer, blocked) = (crowd.writer(), crowd.ready());
    let (runs, _) = proc::switches(writer, writer).expect("the writer is there");
    while clock::mono() < blocked + DISTURBED {
        disturb(writer);
        wait::till(clock::mono() + Duration::from_millis(50));
    }
    let (disturbed, _) = proc::switches(writer, writer).expect("the writer is there");
    let detected = agent.await_event("stall.detected", |event| event.is_of(writer));
    let sent = agent.await_event("kill.sent", |event| event.is_of(writer));
    agent.await_event("kill.confirmed", |event| event.is_of(writer));

    let woken = f64::from(u32::try_from(disturbed - runs).expect("not so often"));
    assert!(woken >= least, "it was woken up {woken} times, not {least}");
    assert_near(detected.age(), 1.0, 0.25);
    assert_near(clock::lapse(blocked, detected.at).as_secs_f64(), 1.0, 0.5);
    assert_near(sent.age(), STALLED_FOR.as_secs_f64(), 0.25);
    let after = clock::lapse(blocked, sent.at);
    assert!(
        after + Duration::from_millis(100) * wait::slowness() >= STALLED_FOR
            && after <= STALLED_FOR + LATE * wait::slowness(),
        "{after:?}"
    );
    assert_eq!(crowd.await_exit(writer), Exit::Signal(15));
    let ended = agent
        .stop()
        .into_iter()
        .filter(|seen| seen.kind == "stall.ended" && seen.is_of(writer));
    assert!(
        ended.into_iter().all(|seen| seen.at >= sent.at),
        "one stall, from begin to end"
    );
}

#[track_caller]
fn assert_near(value: f64, wanted: f64, tolerance: f64) {
    let tolerance = wait::late(tolerance);
    assert!(
        (value - wanted).abs() <= tolerance,
        "{value} is not {wanted} ± {tolerance}"
    );
}
