//! Agents of other versions, and what is made of what they say.

use super::*;

#[test]
fn what_an_older_agent_does_not_say_takes_its_default() {
    assert_eq!(serde_json::from_str::<Status>("{}").unwrap(), Status::default());
    let stalls: Stalls = serde_json::from_str(r#"{"stalls": [{"stall": {"pid": 7}}]}"#).unwrap();

    let row = Row::from(stalls.stalls[0].clone());

    assert_eq!(
        (row.pid, row.fate, row.readers, row.deadlock),
        (7, Fate::Unsaid, None, false)
    );
}

#[test]
fn what_a_newer_agent_adds_is_no_error() {
    let text = r#"{"stall": {"id": "s1", "new": 1, "deadlock": [1, 2]},
        "fate": {"state": "absolved", "by": "x"}, "more": []}"#;

    let row = Row::from(serde_json::from_str::<StallState>(text).unwrap());

    assert_eq!((row.fate, row.deadlock), (Fate::Unsaid, true));
    let due = r#"{"state": "due", "in_seconds": 3.5, "since": 1}"#;
    let expected = Fate::Due {
        in_seconds: Some(3.5),
        action: String::new(),
        mode: String::new(),
        unless: None,
    };
    assert_eq!(serde_json::from_str::<Fate>(due).unwrap(), expected);
}

#[test]
fn a_chain_begins_with_the_writer_and_each_link_has_what_is_read_from() {
    let text = r#"{"stall": {"pid": 10,
        "readers": [{"pid": 20, "comm": "gzip", "state": "S", "sleeps_in": null, "kind": "reader", "fd": 0}],
        "culprit": {"pid": 30, "comm": "ssh", "state": "T", "sleeps_in": "do_epoll_wait",
            "kind": "reader", "fd": 4, "clients": [{"fd": 7, "peer": "127.0.0.1:80",
            "queued_bytes": 9, "window_bytes": 0}], "clients_total": 1},
        "chain": [{"pid": 10, "comm": "ffmpeg", "channel": "unix", "inode": 7},
            {"pid": 20, "comm": "gzip", "channel": "pipe", "inode": 8},
            {"pid": 30, "comm": "ssh", "channel": null, "inode": null}],
        "deadlock": null}}"#;

    let row = Row::from(serde_json::from_str::<StallState>(text).unwrap());

    let links: Vec<_> = row
        .chain
        .iter()
        .map(|link| (link.pid, link.channel.as_deref(), link.inode, link.state.as_str()))
        .collect();
    let expected = [(20, Some("unix"), Some(7), "S"), (30, Some("pipe"), Some(8), "T")];
    assert_eq!(links, expected);
    assert_eq!(row.clients[0].queued_bytes, 9);
    assert_eq!(
        (row.deadlock, row.culprit_label().as_deref()),
        (false, Some("ssh[30]"))
    );

    let nobody = r#"{"stall": {"readers": null, "culprit": null, "chain": [], "deadlock": [1, 2]}}"#;
    let row = Row::from(serde_json::from_str::<StallState>(nobody).unwrap());
    assert_eq!((row.readers, row.deadlock), (Some(Vec::new()), true));
}

#[test]
fn every_fate_that_the_agent_tells_is_understood() {
    use crate::api::Fate as Told;
    let told = [
        Told::Unknown,
        Told::NoRule,
        Told::Due {
            in_seconds: Some(1.5),
            action: "kill".into(),
            mode: "enforce".into(),
            unless: None,
        },
        Told::Alerted,
        Told::LeftAlone {
            reason: "dry-run".into(),
            detail: None,
        },
        Told::Held {
            reason: "budget".into(),
            for_seconds: Some(2.0),
        },
        Told::Ending {
            step: "killing".into(),
            for_seconds: None,
        },
        Told::Tried,
    ];
    for fate in told {
        // The compiler leads here from a new one.
        match fate {
            Told::Unknown
            | Told::NoRule
            | Told::Due { .. }
            | Told::Alerted
            | Told::LeftAlone { .. }
            | Told::Held { .. }
            | Told::Ending { .. }
            | Told::Tried => {}
        }
        let json = serde_json::to_value(&fate).unwrap();
        let understood: Fate = serde_json::from_value(json.clone()).unwrap();
        assert_ne!(understood, Fate::Unsaid, "{json}");
    }
}

#[test]
fn ages_that_are_no_durations_are_zero() {
    for age in [-1.0, 1e300] {
        let stall = Stall {
            age_seconds: age,
            ..Stall::default()
        };
        let row = Row::from(StallState {
            stall,
            ..StallState::default()
        });
        assert_eq!(row.age, Duration::ZERO);
    }
}
