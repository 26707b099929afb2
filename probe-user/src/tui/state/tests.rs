//! Keys as sequences, and what data does to what is shown.

use std::{sync::Arc, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{order::Sort, *};
use crate::{
    core::model::Facts,
    tui::model::{EventStall, Fate, Rule, Status},
};

fn at(seconds: u64) -> Mono {
    Mono::from_nanos(seconds * 1_000_000_000)
}

fn row(id: &str, age: u64) -> Row {
    let pid = id.bytes().map(u32::from).sum();
    Row {
        id: id.to_owned(),
        pid,
        tid: pid,
        comm: format!("w{id}"),
        age: Duration::from_secs(age),
        facts: Arc::new(Facts {
            parent: Some("node".to_owned()),
            ..Facts::default()
        }),
        ..Row::default()
    }
}

fn snapshot(now: u64, rows: Vec<Row>) -> Message {
    Message::Snapshot(Box::new(Snapshot {
        at: at(now),
        status: Status::default(),
        rules: Vec::new(),
        total: rows.len() as u64,
        rows,
    }))
}

/// Three writers; `a` is the oldest.
fn three() -> State {
    let mut state = State::new(80, 24);
    state.update(Message::Rights(Rights::Kill), at(1));
    state.update(snapshot(1, vec![row("a", 90), row("b", 60), row("c", 30)]), at(1));
    state
}

fn key(name: &str) -> KeyEvent {
    let code = match name {
        "Enter" => KeyCode::Enter,
        "Esc" => KeyCode::Esc,
        "Tab" => KeyCode::Tab,
        "Up" => KeyCode::Up,
        "Down" => KeyCode::Down,
        "Left" => KeyCode::Left,
        "Right" => KeyCode::Right,
        "PgDn" => KeyCode::PageDown,
        "PgUp" => KeyCode::PageUp,
        "Backspace" => KeyCode::Backspace,
        "Space" => KeyCode::Char(' '),
        "F9" => KeyCode::F(9),
        "C-c" => return KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        "C-z" => return KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL),
        one => {
            assert_eq!(one.chars().count(), 1, "no key: {one}");
            KeyCode::Char(one.chars().next().unwrap_or(' '))
        }
    };
    KeyEvent::new(code, KeyModifiers::NONE)
}

/// Types keys, separated by spaces, and returns what they command.
fn press(state: &mut State, keys: &str, now: u64) -> Vec<Command> {
    keys.split(' ')
        .flat_map(|name| state.update(Message::Key(key(name)), at(now)))
        .collect()
}

fn shown(state: &State) -> Vec<&str> {
    let rows = state.visible(100).filter_map(|(_, line)| match line {
        Line::Row(at) => Some(state.rows()[*at].id.as_str()),
        Line::Group(_) => None,
    });
    rows.collect()
}

fn selected(state: &State) -> &str {
    state.selected_row().map_or("", |row| &row.id)
}

#[test]
fn arrows_and_letters_move_the_selection_and_stop_at_the_ends() {
    let mut state = three();
    for (keys, expected) in [
        ("j", "b"),
        ("Down Down Down", "c"),
        ("k", "b"),
        ("g", "a"),
        ("Up", "a"),
        ("G", "c"),
        ("PgUp", "a"),
        ("PgDn", "c"),
    ] {
        press(&mut state, keys, 1);
        assert_eq!(selected(&state), expected, "{keys}");
    }
}

#[test]
fn what_is_selected_stays_selected_when_lines_move_or_go() {
    let mut state = three();
    press(&mut state, "j", 1);

    state.update(
        snapshot(2, vec![row("c", 31), row("z", 500), row("b", 61)]),
        at(2),
    );
    assert_eq!((selected(&state), state.selected()), ("b", 1));
    press(&mut state, "S", 2);
    assert_eq!((selected(&state), state.selected()), ("b", 1));

    state.update(snapshot(3, vec![row("c", 32), row("z", 501)]), at(3));
    assert_eq!(state.selected(), 1, "the line that took its place");
}

#[test]
fn a_page_follows_the_selection() {
    let mut state = State::new(80, 24);
    let rows = (0..100).map(|i| row(&format!("r{i:03}"), 1000 - i)).collect();
    state.update(snapshot(1, rows), at(1));
    let page = state.areas().lines(Pane::Stalls);

    press(&mut state, "G", 1);
    assert_eq!((state.selected(), state.extent()), (99, (100, 100 - page)));
    press(&mut state, "PgUp", 1);
    assert_eq!(state.selected(), 99 - page);
    press(&mut state, "g", 1);
    assert_eq!(state.extent(), (100, 0));
    state.update(Message::Resize(80, 12), at(1));
    press(&mut state, "G", 1);
    let page = state.areas().lines(Pane::Stalls);
    assert_eq!(state.extent(), (100, 100 - page));
}

#[test]
fn no_sequence_but_the_question_and_y_ends_a_process() {
    for keys in [
        "k",
        "d",
        "d j d",
        "x",
        "F9",
        "d d",
        "d d Enter",
        "d d n",
        "d d Esc",
        "F9 Y",
        "F9 d d",
        "y",
        "/ y Enter",
        "? y",
        "F9 Enter y",
        "F9 Esc y",
    ] {
        assert_eq!(press(&mut three(), keys, 1), [], "{keys}");
    }
    for keys in ["F9 y", "d d y"] {
        let asked = Command::Kill("a".to_owned());
        assert_eq!(press(&mut three(), keys, 1), [asked], "{keys}");
    }
}

#[test]
fn keys_that_are_pasted_are_not_pressed() {
    let mut state = three();
    state.update(Message::Paste("ddy\u{1b}".to_owned()), at(1));
    assert!(matches!(state.modal(), Modal::None));
    press(&mut state, "F9", 1);
    assert_eq!(state.update(Message::Paste("y".to_owned()), at(1)), []);
    press(&mut state, "Esc /", 1);
    state.update(Message::Paste("w\nb".to_owned()), at(1));
    assert_eq!(shown(&state), ["b"]);
}

#[test]
fn a_question_is_answered_for_the_writer_that_it_was_asked_about() {
    let mut state = three();
    press(&mut state, "j F9", 1);
    // Another line is in its place by now.
    state.update(
        snapshot(2, vec![row("z", 500), row("a", 91), row("b", 61)]),
        at(2),
    );
    assert_eq!(press(&mut state, "y", 2), [Command::Kill("b".to_owned())]);

    let mut state = three();
    press(&mut state, "j F9", 1);
    state.update(snapshot(2, vec![row("a", 91)]), at(2));
    assert_eq!(press(&mut state, "y", 2), [], "it has ended by itself");
    assert!(state.notice(at(2)).unwrap().contains("not stalled any more"));
}

#[test]
fn nothing_is_asked_where_it_cannot_be_or_should_not_be() {
    let protected = Row {
        fate: Fate::LeftAlone {
            reason: "protected".to_owned(),
            detail: Some("user root".to_owned()),
        },
        ..row("a", 90)
    };
    let ask = |prepare: &dyn Fn(&mut State), now| {
        let mut state = three();
        prepare(&mut state);
        press(&mut state, "F9", now);
        let why = match state.modal() {
            Modal::Kill(question) => question.impossible.clone(),
            Modal::None | Modal::Help(_) | Modal::Filter(_) => None,
        };
        let commands = press(&mut state, "y", now);
        assert_eq!(commands, []);
        why.unwrap_or_default()
    };
    for (prepare, now, why) in [
        (
            &(|state: &mut State| {
                state.update(
                    Message::Rights(Rights::ReadOnly("only root may".to_owned())),
                    at(1),
                );
            }) as &dyn Fn(&mut State),
            1,
            "only root may",
        ),
        (
            &|state| {
                state.update(snapshot(1, vec![protected.clone()]), at(1));
            },
            1,
            "it is protected: user root",
        ),
        (
            &|state| {
                press(state, "Space", 1);
            },
            1,
            "the screen is paused; Space goes on",
        ),
        (
            &|state| {
                state.update(Message::Lost("gone".to_owned(), at(9)), at(1));
            },
            1,
            "there is no connection to an agent that could do it",
        ),
        (&|_| {}, 60, "there is no connection to an agent that could do it"),
    ] {
        assert_eq!(ask(prepare, now), why);
    }
    let mut state = three();
    press(&mut state, "t F9", 1);
    assert!(matches!(state.modal(), Modal::None), "a group is selected");
    assert!(state.notice(at(1)).is_some());
}

#[test]
fn what_comes_of_a_kill_is_told_in_its_row_and_the_row_stays_for_a_while() {
    let mut state = three();
    press(&mut state, "F9 y", 1);
    let event = |kind: &str, signal: &str| {
        Message::Event(Box::new(Event {
            kind: kind.to_owned(),
            signal: Some(signal.to_owned()),
            stall: Some(EventStall {
                id: "a".to_owned(),
                ..EventStall::default()
            }),
            ..Event::default()
        }))
    };
    let told = |state: &State| state.kills().outcome("a").map(|outcome| outcome.text.clone());
    state.update(Message::Answer("a".to_owned(), Ok(())), at(1));
    assert_eq!(told(&state).as_deref(), Some("checking before it signals"));
    state.update(event("kill.sent", "SIGTERM"), at(2));
    assert_eq!(told(&state).as_deref(), Some("SIGTERM sent"));
    state.update(event("kill.confirmed", "SIGKILL"), at(12));
    state.update(snapshot(12, vec![row("b", 71)]), at(12));
    assert_eq!(told(&state).as_deref(), Some("ended by SIGKILL"));
    assert_eq!(shown(&state), ["a", "b"]);
    press(&mut state, "g F9", 12);
    assert_eq!(press(&mut state, "y", 12), [], "it is ended already");

    state.update(snapshot(40, vec![row("b", 99)]), at(40));
    assert_eq!(shown(&state), ["b"]);
}

#[test]
fn a_refused_kill_says_why() {
    let mut state = three();
    press(&mut state, "F9 y", 1);
    let refused = Err("it is protected: user root".to_owned());
    state.update(Message::Answer("a".to_owned(), refused), at(1));
    let outcome = state.kills().outcome("a").unwrap();
    assert_eq!(outcome.text, "refused: it is protected: user root");
    assert!(outcome.is_over && !outcome.succeeded);
    assert!(state.notice(at(1)).is_some());
}

#[test]
fn a_lost_connection_leaves_no_kill_under_way_on_the_screen() {
    let mut state = three();
    press(&mut state, "F9 y", 1);
    state.update(Message::Lost("gone".to_owned(), at(9)), at(2));
    assert!(state.kills().outcome("a").unwrap().is_over);
}

#[test]
fn a_filter_works_while_it_is_typed_and_escape_takes_it_back() {
    let mut state = three();
    press(&mut state, "/ c o m m = w b", 1);
    assert_eq!(shown(&state), ["b"]);
    press(&mut state, "Enter", 1);
    assert_eq!(state.filter().text(), "comm=wb");

    press(&mut state, "/ Backspace c Esc", 1);
    assert_eq!(shown(&state), ["b"], "as before");
    press(&mut state, "Esc", 1);
    assert_eq!(shown(&state), ["a", "b", "c"]);

    press(&mut state, "/ u s r = x Enter", 1);
    let Modal::Filter(prompt) = state.modal() else {
        panic!("what is wrong cannot be left by Enter")
    };
    assert_eq!(prompt.wrong.as_ref().unwrap().at, 0..5);
    assert_eq!(shown(&state).len(), 3, "what is wrong filters nothing");
    press(&mut state, "q", 1);
    assert!(matches!(state.modal(), Modal::Filter(_)), "q is a letter here");
}

#[test]
fn tab_goes_through_the_panes_and_escape_closes_them() {
    let mut state = three();
    let mut seen = Vec::new();
    for _ in 0..4 {
        press(&mut state, "Tab", 1);
        seen.push(state.focus());
        assert!(state.areas().pane(state.focus()).is_some());
    }
    assert_eq!(seen, [Pane::Detail, Pane::Log, Pane::Histogram, Pane::Stalls]);
    press(&mut state, "Enter", 1);
    assert_eq!((state.focus(), state.areas().panes.len()), (Pane::Detail, 2));
    press(&mut state, "Esc", 1);
    assert_eq!((state.focus(), state.areas().panes.len()), (Pane::Stalls, 1));
    press(&mut state, "e e", 1);
    assert_eq!(state.focus(), Pane::Stalls);
    press(&mut state, "b", 1);
    assert_eq!(state.focus(), Pane::Histogram);
}

#[test]
fn groups_unfold_and_fold_from_within() {
    let mut state = three();
    press(&mut state, "t", 1);
    assert_eq!((shown(&state).len(), state.extent().0), (0, 1));
    press(&mut state, "Enter", 1);
    assert_eq!(shown(&state), ["a", "b", "c"]);
    press(&mut state, "j j Left", 1);
    assert_eq!((shown(&state).len(), state.selected()), (0, 0));
    press(&mut state, "l j", 1);
    assert_eq!(selected(&state), "a");
    press(&mut state, "t t t t", 1);
    assert_eq!(state.extent().0, 3, "not grouped again");
}

#[test]
fn sorting_goes_through_the_columns() {
    let mut state = three();
    press(&mut state, "S", 1);
    assert_eq!(shown(&state), ["c", "b", "a"]);
    press(&mut state, "s", 1);
    assert_eq!(state.order().sort, Sort::Queued);
}

#[test]
fn a_paused_screen_stands_still_and_catches_up() {
    let mut state = three();
    press(&mut state, "Space", 3);
    state.update(snapshot(9, vec![row("z", 1)]), at(9));
    assert_eq!(shown(&state), ["a", "b", "c"]);
    assert_eq!(state.freshness(at(10)), Freshness::Paused(Duration::from_secs(9)));
    assert_eq!(
        state.elapsed(at(10)),
        Duration::from_secs(2),
        "as when it was paused"
    );
    press(&mut state, "Space", 10);
    assert_eq!(shown(&state), ["z"]);
    assert_eq!(state.freshness(at(10)), Freshness::Live);
}

#[test]
fn data_that_is_old_is_said_to_be_and_its_ages_stand_still() {
    let mut state = State::new(80, 24);
    assert_eq!(state.freshness(at(1)), Freshness::None);
    state.update(snapshot(1, vec![row("a", 90)]), at(1));
    assert_eq!(state.elapsed(at(4)), Duration::from_secs(3));
    // No word of a lost connection, and no data either.
    assert_eq!(state.freshness(at(11)), Freshness::Stale(Duration::from_secs(10)));
    assert_eq!(state.elapsed(at(11)), Duration::ZERO);
    state.update(snapshot(12, Vec::new()), at(12));
    assert_eq!(state.freshness(at(12)), Freshness::Live);
    state.update(Message::Lost("gone".to_owned(), at(14)), at(13));
    assert_eq!(state.freshness(at(13)), Freshness::Stale(Duration::from_secs(1)));
}

#[test]
fn leaving_and_suspending_work_wherever_the_keyboard_is() {
    for before in ["j", "/ x", "F9", "?", "d"] {
        let mut state = three();
        press(&mut state, before, 1);
        assert_eq!(press(&mut state, "C-z", 1), [Command::Suspend], "{before}");
        assert_eq!(press(&mut state, "C-c", 1), [Command::Quit], "{before}");
    }
    assert_eq!(press(&mut three(), "q", 1), [Command::Quit]);
    assert_eq!(
        press(&mut three(), "m m", 1),
        [Command::Mouse(true), Command::Mouse(false)]
    );
}

#[test]
fn a_click_selects_a_line_and_the_wheel_scrolls() {
    let mut state = three();
    let table = state.areas().pane(Pane::Stalls).unwrap();
    state.update(Message::Click(5, table.y + 2 + 2), at(1));
    assert_eq!(selected(&state), "c");
    state.update(Message::Click(5, table.y + 2 + 9), at(1));
    assert_eq!(selected(&state), "c", "there is no such line");
    state.update(Message::Wheel(-1), at(1));
    assert_eq!(selected(&state), "a");
}

#[test]
fn the_log_is_bounded_and_what_is_read_of_it_stays() {
    let mut state = three();
    press(&mut state, "e", 1);
    for seq in 0..2000 {
        let event = Event {
            seq,
            ..Event::default()
        };
        state.update(Message::Event(Box::new(event)), at(1));
    }
    assert_eq!(state.log().len(), LOG);
    press(&mut state, "k", 1);
    let read = state.log()[state.log().len() - 1 - state.log_scroll()].seq;
    state.update(Message::Event(Box::default()), at(1));
    assert_eq!(state.log()[state.log().len() - 1 - state.log_scroll()].seq, read);
    state.update(Message::Missed(3), at(1));
    assert_eq!(state.missed(), 3);
}

#[test]
fn any_keys_on_any_screen_leave_the_selection_in_view() {
    use proptest::prelude::*;
    let keys = [
        "j", "k", "g", "G", "PgUp", "PgDn", "Enter", "Esc", "Tab", "t", "l", "h", "s", "S", "/", "a",
        "Space", "e", "b", "?", "F9", "d",
    ];
    proptest!(|(presses in proptest::collection::vec(0..keys.len(), 0..60), height in 0_u16..60, rows in 0_u64..50)| {
        let mut state = State::new(80, height);
        let rows = (0..rows).map(|i| row(&format!("r{i}"), i)).collect();
        state.update(snapshot(1, rows), at(1));
        for at in presses {
            press(&mut state, keys[at], 1);
            let (lines, offset) = state.extent();
            let page = state.areas().lines(Pane::Stalls).max(1);
            prop_assert!(lines == 0 || (offset..offset + page).contains(&state.selected()));
            prop_assert!(lines == 0 || state.selected() < lines);
        }
    });
}

fn explained(stall: &str) -> Message {
    let told = r#"{"pid": 1, "comm": "w", "rules": []}"#;
    Message::Explained(stall.to_owned(), Ok(serde_json::from_str(told).unwrap()))
}

fn explain(stall: &str) -> Vec<Command> {
    vec![Command::Explain(stall.to_owned())]
}

/// Two writers, and an agent that has a rule.
fn ruled(now: u64) -> Message {
    Message::Snapshot(Box::new(Snapshot {
        at: at(now),
        rules: vec![Rule::default()],
        total: 2,
        rows: vec![row("a", 90), row("b", 60)],
        ..Snapshot::default()
    }))
}

#[test]
fn why_rules_match_is_asked_where_it_is_shown_and_again_with_each_snapshot() {
    let mut state = State::new(80, 24);
    assert_eq!(state.update(ruled(1), at(1)), []);
    assert_eq!(press(&mut state, "Enter", 1), explain("a"));
    assert_eq!(state.update(ruled(2), at(2)), [], "an answer is awaited");
    assert_eq!(state.update(explained("a"), at(2)), []);
    assert!(state.reasons("a").is_some() && state.reasons("b").is_none());
    assert_eq!(state.update(ruled(3), at(3)), explain("a"));
    state.update(explained("a"), at(3));
    assert_eq!(press(&mut state, "Space", 3), []);
    assert_eq!(state.update(ruled(4), at(4)), [], "what is paused stays as it is");
    assert_eq!(press(&mut state, "Space", 4), [], "it is told already");
    press(&mut state, "Esc", 5);
    assert_eq!(state.update(ruled(5), at(5)), [], "nobody looks at it");
}

#[test]
fn who_goes_through_the_table_is_told_of_the_writer_that_they_stop_at() {
    let mut state = State::new(200, 60);
    assert_eq!(state.update(ruled(1), at(1)), explain("a"));
    assert_eq!(press(&mut state, "j", 1), []);
    assert_eq!(
        state.update(explained("a"), at(1)),
        [],
        "too soon after the last question"
    );
    assert_eq!(state.update(ruled(2), at(2)), explain("b"));
    state.update(Message::Lost("gone".to_owned(), at(4)), at(3));
    assert_eq!(state.update(ruled(4), at(4)), explain("b"), "the answer was lost");
    let refused = Message::Explained("b".to_owned(), Err("no such path".to_owned()));
    assert_eq!(state.update(refused, at(4)), []);
    assert!(state.reasons("b").is_some_and(Result::is_err));
}

#[test]
fn where_there_are_no_rules_nothing_is_asked() {
    let mut state = three();
    assert_eq!(press(&mut state, "Enter", 1), []);
}
