//! Golden frames: what is shown of states that matter, on screens that people have.

use std::{sync::Arc, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use insta::assert_snapshot;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Color};

use super::*;
use crate::{
    core::model::{Bound, Facts, Stream},
    tui::{
        model::{Bucket, Event, EventStall, Histogram, Kills, Lost, Party, Row, Rule, Snapshot, Status},
        state::{Message, kill::Rights},
    },
};

const USUAL: (u16, u16) = (80, 24);
const WIDE: (u16, u16) = (200, 60);

fn at(seconds: u64) -> Mono {
    Mono::from_nanos(seconds * 1_000_000_000)
}

fn buffer(state: &State, now: u64, look: Look) -> Buffer {
    let area = state.areas();
    let height = area.footer.bottom();
    let width = area.footer.width;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(frame, state, at(now), look);
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let lines = buffer.content.chunks(width).map(|line| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn frame(state: &State, now: u64) -> String {
    text_of(&buffer(state, now, Look::FULL))
}

fn press(state: &mut State, keys: &[KeyCode]) {
    for code in keys {
        state.update(Message::Key(KeyEvent::new(*code, KeyModifiers::NONE)), at(100));
    }
}

fn write(state: &mut State, keys: &str) {
    for c in keys.chars() {
        press(state, &[KeyCode::Char(c)]);
    }
}

fn status() -> Status {
    Status {
        node: "peertube-1".to_owned(),
        version: "0.1.0".to_owned(),
        mode: "enforce".to_owned(),
        tracer: "sched".to_owned(),
        observed: vec!["ffmpeg*".to_owned()],
        rules: 1,
        kills_last_hour: Kills {
            confirmed: 12,
            failed: 1,
            skipped: 3,
        },
        kills_under_way: 1,
        lost: Lost {
            notes: 4,
            ..Lost::default()
        },
        blocked_seconds: Histogram {
            count: 900,
            buckets: vec![
                Bucket {
                    le: 0.000_524_288,
                    count: 600,
                },
                Bucket {
                    le: 0.134_217_728,
                    count: 610,
                },
                Bucket { le: 8.6, count: 900 },
            ],
        },
        ..Status::default()
    }
}

fn party(pid: u32, comm: &str, state: &str) -> Party {
    Party {
        pid,
        comm: comm.to_owned(),
        state: state.to_owned(),
        ..Party::default()
    }
}

fn row(i: u32, age: u64, fate: &str) -> Row {
    let pid = 4700 + i;
    let command =
        format!("ffmpeg -i pipe:0 -threads 4 -c copy -movflags frag_keyframe+empty_moov -f mp4 pipe:1 # {i}");
    Row {
        id: format!("s{i}"),
        pid,
        tid: pid + 1,
        comm: "ffmpeg".to_owned(),
        thread: "mux0:mp4".to_owned(),
        uid: 1000,
        ppid: 2934,
        facts: Arc::new(Facts {
            exe: Some("/usr/bin/ffmpeg".into()),
            user: Some("peertube".to_owned()),
            parent: Some("node".to_owned()),
            unit: Some("peertube.service".to_owned()),
            cgroup: Some("/system.slice/peertube.service".to_owned()),
            ..Facts::default()
        }),
        command,
        channel: "unix".to_owned(),
        inode: 15_641 + u64::from(i),
        fd: 3,
        stream: Some(Stream::Stdout),
        syscall: "write".to_owned(),
        since: "2026-11-23T08:00:00.123Z".to_owned(),
        age: Duration::from_secs(age),
        queued: Some(219_264),
        readers: Some(vec![party(2934, "node", "S")]),
        culprit: Some(party(2934, "node", "S")),
        rule: Some("orphaned-downloads".to_owned()),
        fate: serde_json::from_str(fate).unwrap(),
        ..Row::default()
    }
}

fn incident() -> Vec<Row> {
    let due = |seconds: u32| {
        format!(r#"{{"state":"due","in_seconds":{seconds},"action":"kill","mode":"enforce"}}"#)
    };
    let mut rows = vec![
        row(
            1,
            11_520,
            r#"{"state":"ending","step":"terminating","for_seconds":9.0}"#,
        ),
        row(2, 700, r#"{"state":"held","reason":"reader-stopped"}"#),
        row(3, 300, r#"{"state":"held","reason":"budget","for_seconds":42.0}"#),
        row(4, 200, r#"{"state":"left-alone","reason":"protected"}"#),
        row(5, 90, r#"{"state":"left-alone","reason":"dry-run"}"#),
    ];
    rows.extend((6..40).map(|i| row(i, u64::from(60 - i), &due(i))));
    rows[0].bound = Bound::AtLeast;
    rows[0].preexisting = true;
    rows[3].facts = Arc::new(Facts {
        user: Some("root".to_owned()),
        parent: Some("bash".to_owned()),
        ..Facts::default()
    });
    rows[3].channel = "pipe".to_owned();
    // What a process calls itself cannot move the cursor.
    rows[4].command = "evil\u{1b}[2J\n\u{202e}name".to_owned();
    rows
}

fn state(size: (u16, u16), rows: &[Row]) -> State {
    let mut state = State::new(size.0, size.1);
    state.update(Message::Rights(Rights::Kill), at(90));
    for moment in 90..=100 {
        let rows: Vec<_> = rows
            .iter()
            .take(if moment == 100 { usize::MAX } else { 3 })
            .cloned()
            .collect();
        let snapshot = Snapshot {
            at: at(moment),
            status: status(),
            rules: vec![Rule {
                name: "orphaned-downloads".to_owned(),
                mode: "enforce".to_owned(),
                summary: "orphaned-downloads: kill (enforce) ffmpeg* of user peertube after 60s, grace 10s"
                    .to_owned(),
            }],
            total: rows.len() as u64,
            rows,
        };
        state.update(Message::Snapshot(Box::new(snapshot)), at(moment));
    }
    for (seq, kind) in [(1, "stall.detected"), (2, "kill.planned"), (3, "kill.sent")] {
        let event = Event {
            seq,
            time: format!("2026-11-23T08:00:0{seq}.123Z"),
            kind: kind.to_owned(),
            stall: Some(EventStall {
                id: "s1".to_owned(),
                pid: 4701,
                comm: "ffmpeg".to_owned(),
                age_seconds: 60.0,
            }),
            rule: Some("orphaned-downloads".to_owned()),
            signal: (kind == "kill.sent").then(|| "SIGTERM".to_owned()),
            ..Event::default()
        };
        state.update(Message::Event(Box::new(event)), at(100));
    }
    state
}

#[test]
fn before_there_is_any_data() {
    assert_snapshot!(frame(&State::new(80, 24), 1));
}

#[test]
fn nothing_is_stalled() {
    assert_snapshot!(frame(&state(USUAL, &[]), 100));
}

#[test]
fn an_incident_on_a_usual_screen() {
    assert_snapshot!(frame(&state(USUAL, &incident()), 103));
}

#[test]
fn an_incident_on_a_wide_screen() {
    assert_snapshot!(frame(&state(WIDE, &incident()), 103));
}

#[test]
fn an_incident_on_a_tiny_screen() {
    assert_snapshot!(frame(&state((40, 10), &incident()), 103));
    assert_snapshot!(frame(&state((29, 4), &incident()), 103));
}

#[test]
fn the_detail_of_a_writer() {
    let mut state = state(USUAL, &incident());
    press(&mut state, &[KeyCode::Enter]);
    assert_snapshot!(frame(&state, 103));
}

#[test]
fn the_rules_and_why_they_match_or_do_not() {
    let told = r#"{"pid": 4701, "comm": "ffmpeg", "stall": null, "not_observed": null,
        "protected": "users peertube", "rules": [
        {"name": "stopped-readers", "matches": false, "conditions": [
            {"key": "comm", "pattern": "ffmpeg*", "found": "ffmpeg", "holds": "yes"},
            {"key": "user", "pattern": "www", "found": "peertube (1000)", "holds": "no"},
            {"key": "reader.state", "pattern": "stopped", "found": null, "holds": "unknown"}]},
        {"name": "orphaned-downloads", "matches": true, "conditions": [
            {"key": "cmdline", "pattern": "*pipe:1*", "found": "ffmpeg\u001b[2J -i pipe:0 -threads 4 -c copy -f mp4 pipe:1", "holds": "yes"},
            {"key": "min_process_age", "pattern": "5m", "found": "90s", "holds": "later", "holds_in_seconds": 210}]}],
        "decision": {"rule": "orphaned-downloads", "action": "kill", "mode": "enforce", "stalled_for_seconds": 60,
            "certain": true, "outcome": "skipped", "reason": "protected", "due_in_seconds": 0}}"#;
    let mut state = state((80, 40), &incident());
    press(&mut state, &[KeyCode::Enter]);
    assert!(frame(&state, 103).contains("why       not told yet"));
    let told = Message::Explained("s1".to_owned(), Ok(serde_json::from_str(told).unwrap()));
    state.update(told, at(103));
    assert_snapshot!(frame(&state, 103));

    let older = Message::Explained("s1".to_owned(), Err("there is no such path".to_owned()));
    state.update(older, at(103));
    assert!(frame(&state, 103).contains("not told (there is no such path); pipestall ps --explain 4701"));
}

#[test]
fn a_chain_is_a_tree_down_to_the_culprit() {
    let link = |pid, comm, state, channel: &str, inode| Party {
        channel: Some(channel.to_owned()),
        inode: Some(inode),
        ..party(pid, comm, state)
    };
    let chained = Row {
        readers: Some(vec![party(500, "gzip", "S"), party(501, "tail", "S")]),
        chain: vec![
            link(500, "gzip", "S", "pipe", 77),
            link(600, "ssh", "T", "fifo", 88),
        ],
        culprit: Some(party(600, "ssh", "T")),
        ..row(1, 90, r#"{"state":"no-rule"}"#)
    };
    let mut state = state(USUAL, &[chained]);
    press(&mut state, &[KeyCode::Enter]);
    assert_snapshot!(frame(&state, 100));

    // What is said of the culprit is never beyond the edge.
    state.update(Message::Resize(60, 24), at(100));
    let screen = frame(&state, 100);
    let said: Vec<_> = screen
        .lines()
        .skip_while(|line| !line.contains("ssh[600]"))
        .take(2)
        .collect();
    assert!(said.concat().contains("does not read"), "{screen}");
}

#[test]
fn a_deadlock_is_said_to_be_one() {
    let link = |pid, comm, inode| Party {
        channel: Some("pipe".to_owned()),
        inode: Some(inode),
        ..party(pid, comm, "S")
    };
    let dead = Row {
        readers: Some(vec![party(500, "child", "S")]),
        chain: vec![link(500, "child", 77), link(4701, "ffmpeg", 78)],
        culprit: Some(party(500, "child", "S")),
        deadlock: true,
        ..row(1, 90, r#"{"state":"no-rule"}"#)
    };
    let mut state = state(USUAL, &[dead]);
    press(&mut state, &[KeyCode::Enter]);
    assert_snapshot!(frame(&state, 100));
}

#[test]
fn a_lost_connection_is_said_with_the_age_of_what_is_shown() {
    let mut state = state(USUAL, &incident());
    let why = "no agent listens on /run/pipestall/api.sock; start one (pipestall run), or use --standalone";
    state.update(Message::Lost(why.to_owned(), at(115)), at(105));
    assert_snapshot!(frame(&state, 112));

    let buffer = buffer(&state, 112, Look::FULL);
    let cell = &buffer[(8, 6)];
    assert!(
        cell.modifier.contains(ratatui::style::Modifier::DIM),
        "a row of old data does not look like a live one"
    );
}

#[test]
fn no_agent_from_the_beginning() {
    let mut state = State::new(80, 24);
    let why = "no agent listens on /run/pipestall/api.sock; start one (pipestall run), or use --standalone";
    state.update(Message::Lost(why.to_owned(), at(115)), at(105));
    assert_snapshot!(frame(&state, 112));
}

#[test]
fn groups_with_counts() {
    let mut state = state(USUAL, &incident());
    write(&mut state, "tlj");
    assert_snapshot!(frame(&state, 100));
}

#[test]
fn a_filter_with_its_error_in_place() {
    let mut state = state(USUAL, &incident());
    write(&mut state, "/user=root");
    assert_snapshot!(frame(&state, 100));
    write(&mut state, " chanel=pipe");
    assert_snapshot!(frame(&state, 100));
}

#[test]
fn the_question_before_a_kill() {
    let mut state = state(USUAL, &incident());
    press(&mut state, &[KeyCode::Down, KeyCode::F(9)]);
    assert_snapshot!(frame(&state, 100));
}

#[test]
fn the_question_where_nothing_can_be_ended() {
    let mut state = state(USUAL, &incident());
    let why = "only root and the group named by [api] operators may do this";
    state.update(Message::Rights(Rights::ReadOnly(why.to_owned())), at(100));
    write(&mut state, "dd");
    assert_snapshot!(frame(&state, 100));
}

#[test]
fn events_and_blocked_times() {
    let mut state = state(USUAL, &incident());
    write(&mut state, "e");
    assert_snapshot!(frame(&state, 100));
    write(&mut state, "b");
    assert_snapshot!(frame(&state, 100));
}

#[test]
fn help_has_every_key() {
    assert_snapshot!(text_of(&{
        let mut state = state((100, 50), &[]);
        write(&mut state, "?");
        buffer(&state, 100, Look::FULL)
    }));
}

#[test]
fn an_agent_that_is_not_well() {
    let mut state = state(USUAL, &[]);
    let snapshot = Snapshot {
        at: at(101),
        status: Status {
            paused: Some("the journal cannot be written: no space left on device".to_owned()),
            degraded: vec!["notes of the tracer were lost".to_owned()],
            ..status()
        },
        ..Snapshot::default()
    };
    state.update(Message::Snapshot(Box::new(snapshot)), at(101));
    assert_snapshot!(frame(&state, 101));
}

#[test]
fn without_unicode_nothing_but_ascii_is_drawn() {
    let look = Look {
        color: true,
        unicode: false,
    };
    let mut rows = incident();
    rows[0].command = "ffmpeg -i \u{5f71}\u{7247}.mp4 pipe:1".to_owned();
    let mut state = state(WIDE, &rows);
    write(&mut state, "t?");
    assert!(text_of(&buffer(&state, 103, look)).is_ascii());
    press(&mut state, &[KeyCode::Esc]);
    write(&mut state, "tttt");
    press(&mut state, &[KeyCode::Enter]);
    let text = text_of(&buffer(&state, 103, look));
    assert!(text.is_ascii(), "{text}");

    state.update(Message::Resize(80, 24), at(103));
    assert_snapshot!(text_of(&buffer(&state, 103, look)));
}

#[test]
fn without_colors_no_cell_has_one_and_the_text_is_the_same() {
    let look = Look {
        color: false,
        unicode: true,
    };
    let mut state = state(WIDE, &incident());
    press(&mut state, &[KeyCode::F(9)]);

    let (plain, colored) = (buffer(&state, 103, look), buffer(&state, 103, Look::FULL));

    assert!(
        plain
            .content
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    assert!(colored.content.iter().any(|cell| cell.fg != Color::Reset));
    assert_eq!(text_of(&plain), text_of(&colored));
    let marked = plain.content.iter().filter(|cell| !cell.modifier.is_empty());
    assert!(marked.count() > 10, "what stands out by color stands out without");
}

#[test]
fn a_frame_of_any_size_can_be_drawn() {
    for width in [0, 1, 29, 30, 31, 47, 60, 80, 149, 150, 250] {
        for height in [0, 1, 4, 5, 6, 9, 15, 16, 35, 36, 70] {
            for keys in ["", "?", "dd", "/x=", "e", "b", "\n", "t"] {
                let mut state = state((width, height), &incident());
                for c in keys.chars() {
                    press(
                        &mut state,
                        &[if c == '\n' {
                            KeyCode::Enter
                        } else {
                            KeyCode::Char(c)
                        }],
                    );
                }
                buffer(&state, 103, Look::FULL);
            }
        }
    }
}

#[test]
fn only_visible_rows_are_made() {
    // A row that is never looked at costs nothing: the frame of ten thousand is as quick as one
    // of fifty, which the benchmark measures; here, that it shows the right ones.
    let rows: Vec<_> = (0..10_000)
        .map(|i| Row {
            id: format!("s{i}"),
            pid: i,
            age: Duration::from_secs(u64::from(20_000 - i)),
            ..Row::default()
        })
        .collect();
    let mut state = state(USUAL, &rows);
    press(&mut state, &[KeyCode::End]);
    let text = frame(&state, 100);
    assert!(text.contains(" 9999 ") && !text.contains(" 9900 "), "{text}");
}
