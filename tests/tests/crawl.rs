//! Writers that crawl: their reader takes a little again and again, so that no stall grows old,
//! and they are blocked nearly all the time. And those that are not blocked for that much of it.

use std::time::Duration;

use tests::agent::{Agent, Seen};
use tests::config::Config;
use tests::crowd::Plan;
use tests::order::Exit;
use tests::scratch::Scratch;
use tests::{clock, need, wait};

const SIGTERM: i32 = 15;
const PERIOD: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(10);

#[test]
fn a_writer_that_is_blocked_nine_tenths_of_the_time_is_ended_though_no_stall_of_it_is_old() {
    need!(need::counting());
    let scratch = Scratch::new();
    let mut crowd = Plan::crawling(PERIOD, PERIOD / 10).start();
    let pid = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_share("80%", "10s");

    // It watches before it says that it has started.
    let launched = clock::mono();
    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("kill.confirmed", |event| event.is_of(pid));
    let events = agent.stop();

    assert_eq!(crowd.await_exit(pid), Exit::Signal(SIGTERM));
    let planned = one(&events, "kill.planned");
    assert!(
        planned.at >= launched + WINDOW,
        "the agent has watched all of the window: {:?} after {launched:?}",
        planned.at
    );
    assert!(
        planned.age() < PERIOD.as_secs_f64() * 1.5,
        "no stall was old: {}",
        planned.age()
    );
    let blocked = share_of(planned);
    assert!((0.8..=0.95).contains(&blocked), "{blocked}");
}

#[test]
fn what_a_rule_in_dry_run_says_of_a_crawling_writer_it_says_once() {
    need!(need::counting());
    let scratch = Scratch::new();
    let crowd = Plan::crawling(PERIOD, PERIOD / 10).start();
    let pid = crowd.writer();
    let config = Config::of(&crowd, &scratch).stalled_share("80%", "10s");

    let mut agent = Agent::run(&config, &scratch);
    agent.await_event("kill.skipped", |event| event.is_of(pid));
    wait::till(clock::mono() + Duration::from_secs(5));
    let events = agent.stop();

    one(&events, "stall.detected");
    assert_eq!(one(&events, "kill.skipped").reason.as_deref(), Some("dry-run"));
    assert!(events.iter().all(|seen| seen.kind != "stall.ended"));
}

#[test]
fn a_writer_that_is_blocked_two_fifths_of_the_time_is_left_alone_and_measured_so() {
    need!(need::counting());
    let scratch = Scratch::new();
    let mut crowd = Plan::crawling(PERIOD, PERIOD * 3 / 5).start();
    let pid = crowd.writer();
    let strict = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_share("80%", "10s");

    let agent = Agent::run(&strict, &scratch);
    wait::till(clock::mono() + WINDOW + Duration::from_secs(3));
    let events = agent.stop();
    assert!(
        !events.iter().any(|seen| seen.kind.starts_with("kill.")),
        "{events:?}"
    );
    assert_eq!(crowd.exit(pid), None);

    let lax = Config::of(&crowd, &scratch).stalled_share("30%", "10s");
    let mut agent = Agent::run(&lax, &scratch);
    let skipped = agent.await_event("kill.skipped", |event| event.is_of(pid));
    agent.stop();
    let blocked = share_of(&skipped);
    assert!((0.3..=0.45).contains(&blocked), "{blocked}");
}

#[test]
fn a_writer_whose_reader_takes_a_byte_now_and_then_is_ended_by_its_share_and_not_by_its_age() {
    need!(need::counting());
    let scratch = Scratch::new();
    // The writer itself sleeps on: only the token tells.
    let crowd = Plan::stuck(0).and_trickled(1, Duration::from_millis(300)).start();
    let pid = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .enforcing()
        .stalled_for("2s")
        .paced("stalled_share = { share = \"80%\", over = \"10s\" }");

    let mut agent = Agent::run(&config, &scratch);
    let started = agent.started();
    agent.await_event("kill.confirmed", |event| event.is_of(pid));
    let events = agent.stop();

    let planned = one(&events, "kill.planned");
    assert!(planned.at >= started + WINDOW && planned.age() < 1.0);
}

/// The one event of a kind.
#[track_caller]
fn one<'a>(events: &'a [Seen], kind: &str) -> &'a Seen {
    let all: Vec<_> = events.iter().filter(|seen| seen.kind == kind).collect();
    let [one] = all[..] else {
        panic!("one {kind}, not {}: {all:?}", all.len())
    };
    one
}

#[track_caller]
fn share_of(seen: &Seen) -> f64 {
    let share = seen.stalled_share.as_ref().expect("the rule asks for a share");
    share.blocked.expect("it is known")
}
