//! What clients of the API may do to the agent: anything, and it goes on deciding.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Gid, Uid};
use tests::agent::{Agent, Seen};
use tests::api::{self, Api};
use tests::config::Config;
use tests::crowd::Plan;
use tests::scratch::Scratch;
use tests::served::Served;
use tests::{clock, need, wait};

const NOBODY: u32 = 65534;

/// An agent that is to end a writer, and what it is to be hindered by.
struct Hindered {
    agent: Agent,
    api: Api,
    confirmed: Seen,
    clients: Vec<UnixStream>,
    /// Holds the socket.
    _scratch: Scratch,
}

fn hindered(hinder: impl FnOnce(&Path) -> Vec<UnixStream>) -> Hindered {
    let scratch = Scratch::new();
    let mut crowd = Plan::stuck(1).start();
    let writer = crowd.writer();
    let config = Config::of(&crowd, &scratch)
        .served(&scratch, "")
        .enforcing()
        .stalled_for("3s");
    let mut agent = Agent::run(&config, &scratch);
    let socket = Config::socket(&scratch);
    let clients = hinder(&socket);
    let confirmed = agent.await_event("kill.confirmed", |event| event.is_of(writer));
    crowd.await_exit(writer);
    Hindered {
        agent,
        api: Api::at(&socket),
        confirmed,
        clients,
        _scratch: scratch,
    }
}

/// From the moment that the rule's condition was met; a build without optimization, on a busy machine.
#[track_caller]
fn assert_prompt(confirmed: &Seen) {
    let took = confirmed.since_threshold_ms.expect("a time");
    assert!(took < 1500.0, "{took} ms");
}

#[test]
fn a_thousand_idle_clients_do_not_delay_a_kill_and_are_shown_out() {
    need!(need::bpf());
    let mut hindered = hindered(|socket| {
        (0..1000)
            .filter_map(|_| UnixStream::connect(socket).ok())
            .collect()
    });
    assert_prompt(&hindered.confirmed);
    let clients = &mut hindered.clients;
    assert!(clients.len() > 900, "{} connected", clients.len());
    // What has said nothing within five seconds is closed, and there is room again.
    for client in clients {
        client.set_read_timeout(Some(wait::PATIENCE)).expect("a time-out");
        let closed = client.read(&mut [0; 64]);
        assert!(
            !matches!(closed, Err(ref error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{closed:?}"
        );
    }
    assert_eq!(hindered.api.get("/healthz").status, 200);
    hindered.agent.stop();
}

#[test]
fn clients_that_speak_a_byte_at_a_time_are_cut_off() {
    need!(need::bpf());
    let mut hindered = hindered(|socket| {
        (0..20)
            .map(|_| {
                let mut client = UnixStream::connect(socket).expect("a connection");
                client.write_all(b"GET /v1/sta").expect("a piece of a request");
                client
            })
            .collect()
    });
    assert_prompt(&hindered.confirmed);
    let clients = &mut hindered.clients;
    let begun = clock::mono();
    // It never ends by itself: a header without an end.
    let cut_off = wait::until_or_none(Duration::from_secs(15), || {
        clients
            .iter_mut()
            .all(|client| client.write_all(b"x").is_err())
            .then_some(())
    });
    assert!(
        cut_off.is_some(),
        "still listened to after {:?}",
        clock::lapse(begun, clock::mono())
    );
    assert_eq!(hindered.api.get("/healthz").status, 200);
    hindered.agent.stop();
}

#[test]
fn bodies_that_are_too_large_or_never_come_are_refused() {
    need!(need::bpf());
    let served = Served::idle("");
    let socket = served.socket();
    let answer = |request: &[u8]| {
        let mut client = UnixStream::connect(&socket).expect("a connection");
        client.set_read_timeout(Some(wait::PATIENCE)).expect("a time-out");
        client.write_all(request).expect("a request");
        let mut answer = [0; 256];
        let len = client.read(&mut answer).unwrap_or_default();
        String::from_utf8_lossy(&answer[..len]).into_owned()
    };
    let large = answer(b"POST /v1/stalls/x/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
    let never = answer(b"POST /v1/stalls/x/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
    assert!(never.starts_with("HTTP/1.1 504 "), "{never}");
    let headers = [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"a: b\r\n".repeat(10_000),
        b"\r\n".to_vec(),
    ]
    .concat();
    let many = answer(&headers);
    assert!(many.is_empty() || many.starts_with("HTTP/1.1 431 "), "{many}");
    assert_eq!(served.api.get("/healthz").status, 200);
    served.agent.stop();
}

#[test]
fn bytes_that_are_no_requests_are_refused_and_nothing_more() {
    need!(need::bpf());
    let hindered = hindered(|socket| {
        // Numbers that look random and are the same each time (Knuth's 64-bit multiplier).
        let mut state = 0x1234_5678_9abc_def0_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from(state >> 56).unwrap_or_default()
        };
        let good: &[u8] = b"POST /v1/stalls/1-2-s3/kill?x=%ff HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\
                            Transfer-Encoding: chunked\r\n\r\n{}";
        for round in 0..500 {
            let mut request = good.to_vec();
            if round % 5 == 0 {
                request.fill_with(&mut next);
            }
            for _ in 0..=(round % 7) {
                let at = usize::from(next()) % request.len();
                request[at] = next();
            }
            let Ok(mut client) = UnixStream::connect(socket) else {
                continue;
            };
            client
                .set_read_timeout(Some(Duration::from_millis(20)))
                .expect("a time-out");
            // It may be closed while it is written to.
            let _ = client.write_all(&request);
            let _ = client.read(&mut [0; 512]);
        }
        Vec::new()
    });
    assert_prompt(&hindered.confirmed);
    assert_eq!(
        wait::until("an answer", wait::PATIENCE, || {
            Some(hindered.api.get("/healthz").status).filter(|status| *status != 429)
        }),
        200
    );
    hindered.agent.stop();
}

/// Connects as somebody else, and asks.
fn ask_as(
    uid: u32,
    gid: u32,
    socket: &Path,
    method: hyper::Method,
    path: &'static str,
) -> Option<api::Answer> {
    let socket = socket.to_owned();
    // Credentials are the thread's own, and the socket's are those of the thread that connects.
    let asking = thread::spawn(move || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[]).expect("no groups");
        rustix::thread::set_thread_res_gid(group, group, group).expect("another group");
        rustix::thread::set_thread_res_uid(user, user, user).expect("another user");
        UnixStream::connect(&socket).ok()?;
        Some(Api::at(&socket).ask(&method, path, ""))
    });
    asking.join().expect("an answer, or none")
}

#[test]
fn only_root_and_the_group_may_look_and_only_operators_may_act() {
    const READERS: u32 = 61_234;
    const OPERATORS: u32 = 61_235;
    need!(need::bpf());
    let groups = format!("group = \"{READERS}\"\noperators = \"{OPERATORS}\"");
    let served = Served::idle(&groups);
    let socket = served.socket();
    let (get, post) = (hyper::Method::GET, hyper::Method::POST);
    let ask = |gid, method: &hyper::Method, path| {
        ask_as(NOBODY, gid, &socket, method.clone(), path).map(|answer| answer.status)
    };

    let mode = fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(ask(NOBODY, &get, "/v1/status"), None, "the file lets nobody in");
    assert_eq!(ask(READERS, &get, "/v1/status"), Some(200));
    assert_eq!(ask(READERS, &post, "/v1/reload"), Some(403));
    assert_eq!(ask(READERS, &post, "/v1/stalls/x/kill"), Some(403));

    // Were the file open to all, the agent would still know who asks.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("another mode");
    for path in ["/v1/status", "/v1/events", "/metrics", "/nothing"] {
        assert_eq!(ask(NOBODY, &get, path), Some(403), "{path}");
    }
    assert_eq!(ask(NOBODY, &post, "/v1/reload"), Some(403));
    assert_eq!(ask(OPERATORS, &get, "/v1/status"), Some(200));
    assert_eq!(ask(OPERATORS, &post, "/v1/stalls/x/kill"), Some(404));
    assert_eq!(ask(OPERATORS, &post, "/v1/reload"), Some(200));
    served.agent.stop();
}

#[test]
fn others_than_this_machines_users_see_metrics_and_health_and_nothing_else() {
    need!(need::bpf());
    let address = api::free_address();
    let served = Served::idle(&format!("[metrics]\nlisten = {address:?}"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(api::get_tcp(&address, path).status, 200, "{path}");
    }
    let metrics = api::get_tcp(&address, "/metrics");
    assert!(
        metrics.content_type.starts_with("text/plain; version=0.0.4"),
        "{}",
        metrics.content_type
    );
    assert!(metrics.body.contains("pipestall_build_info{"), "{}", metrics.body);
    for path in ["/v1/status", "/v1/stalls", "/v1/events", "/v1/rules"] {
        assert_eq!(api::get_tcp(&address, path).status, 404, "{path}");
    }
    served.agent.stop();
}

#[test]
fn consumers_that_hang_lose_their_view_and_nobody_waits_for_them() {
    const WRITERS: usize = 40;
    need!(need::bpf());
    let scratch = Scratch::new();
    let crowd = Plan::stuck(WRITERS).start();
    let config = Config::of(&crowd, &scratch)
        .served(&scratch, "")
        .enforcing()
        .stalled_for("3s");
    let mut agent = Agent::run(&config, &scratch);
    let socket = Config::socket(&scratch);
    // Each asks for events, and for lists, and reads none of it.
    let hung: Vec<UnixStream> = (0..16)
        .map(|at| {
            let mut client = UnixStream::connect(&socket).expect("a connection");
            let path = if at % 2 == 0 {
                "/v1/events?after=0"
            } else {
                "/v1/stalls?min=0s"
            };
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            client
                .write_all(request.repeat(if at % 2 == 0 { 1 } else { 20 }).as_bytes())
                .expect("requests");
            client
        })
        .collect();
    let confirmed: Vec<Seen> = crowd
        .stuck()
        .into_iter()
        .map(|pid| agent.await_event("kill.confirmed", |event| event.is_of(pid)))
        .collect();
    for confirmed in &confirmed {
        assert_prompt(confirmed);
    }
    drop(hung);
    agent.stop();
}
