//! What each condition is asked of, and what it says.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::core::model::{Channel, DrainToken, Process, WriteSyscall, WriterId};

const ID: &str = "3e74d8f0c7a94b1f8c2d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708";

pub(in crate::core) fn at(seconds: u64) -> Mono {
    Mono::default().after(Duration::from_secs(seconds))
}

/// The incident's writer, a thousand seconds after the clock's zero.
pub(in crate::core) fn sighting() -> Sighting {
    Sighting {
        writer: WriterId {
            tid: 43,
            process: Process { tgid: 42, start: 1 },
        },
        at: at(1000),
        channel: Channel {
            kind: ChannelKind::Unix,
            dev: 1,
            inode: 2,
        },
        token: DrainToken([1, 2]),
        entered: None,
        token_since: None,
        last_ran: None,
        untouched: true,
        exec: 0,
        ppid: 41,
        uid: 1000,
        fd: 3,
        syscall: WriteSyscall::Write,
        stream: Some(Stream::Stdout),
        queued: None,
        counted: None,
        comm: "ffmpeg-linux-x8".into(),
        thread: "mux0:mp4".into(),
    }
}

pub(in crate::core) fn facts() -> Facts {
    let group = |gid, name: Option<&str>| Group {
        gid,
        name: name.map(str::to_owned),
    };
    Facts {
        cmdline: ["ffmpeg", "-i", "pipe:0", "-f", "mp4", "pipe:1"]
            .map(str::to_owned)
            .to_vec(),
        exe: Some(PathBuf::from("/usr/bin/ffmpeg")),
        user: Some("peertube".into()),
        groups: vec![
            group(1000, Some("peertube")),
            group(44, Some("video")),
            group(777, None),
        ],
        parent: Some("node".into()),
        ancestors: ["node", "npm", "systemd"].map(str::to_owned).to_vec(),
        cgroup: Some("/system.slice/peertube.service".into()),
        unit: Some("peertube.service".into()),
        container: Some(ID.into()),
        pod: None,
        born: Some(at(900)),
    }
}

/// A match with one condition on a text.
fn only(key: &str, pattern: &str) -> Match {
    let pattern = Some(Pattern::parse(pattern).unwrap());
    let none = Match::default();
    match key {
        "comm" => Match {
            comm: pattern,
            ..none
        },
        "thread" => Match {
            thread: pattern,
            ..none
        },
        "exe" => Match { exe: pattern, ..none },
        "cmdline" => Match {
            cmdline: pattern,
            ..none
        },
        "user" => Match {
            user: pattern,
            ..none
        },
        "group" => Match {
            group: pattern,
            ..none
        },
        "parent" => Match {
            parent: pattern,
            ..none
        },
        "ancestor" => Match {
            ancestor: pattern,
            ..none
        },
        "cgroup" => Match {
            cgroup: pattern,
            ..none
        },
        "unit" => Match {
            unit: pattern,
            ..none
        },
        "container" => Match {
            container: pattern,
            ..none
        },
        other => panic!("{other}"),
    }
}

#[test]
fn each_condition_on_a_text_asks_what_it_says() {
    for (key, pattern, expected) in [
        ("comm", "ffmpeg*", true),
        ("comm", "~^ffmpeg-", true),
        ("comm", "ffmpeg", false),
        ("thread", "mux*:mp4", true),
        ("thread", "ffmpeg*", false),
        ("exe", "/usr/bin/ffmpeg", true),
        ("exe", "*/ffmpeg", true),
        ("exe", "ffmpeg", false),
        ("cmdline", "*pipe:1", true),
        ("cmdline", "~ -f mp4 ", true),
        ("cmdline", "pipe:1", false),
        ("user", "peertube", true),
        ("user", "1000", true),
        ("user", "root", false),
        ("user", "~^(peertube|root)$", true),
        ("user", "peertube (1000)", false),
        ("group", "peertube", true),
        ("group", "video", true),
        ("group", "44", true),
        ("group", "777", true),
        ("group", "7", false),
        ("group", "audio", false),
        ("parent", "node", true),
        ("parent", "npm", false),
        ("ancestor", "node", true),
        ("ancestor", "npm", true),
        ("ancestor", "system?", true),
        ("ancestor", "ffmpeg*", false),
        ("ancestor", "node, npm*", false),
        ("cgroup", "/system.slice/*", true),
        ("cgroup", "peertube.service", false),
        ("unit", "peertube*.service", true),
        ("unit", "peertube", false),
        ("container", ID, true),
        ("container", "3e74d8f0c7a9", true),
        ("container", "3e74d8f0c7a94b1f", true),
        ("container", "3e74d8f0c7a", false),
        ("container", "3e74*", true),
        ("container", "~^3e74", true),
        ("container", "d8f0c7a94b1f", false),
        ("container", "3e74d8f0c7a94b2", false),
    ] {
        let holds = only(key, pattern).holds(Subject::writing(&sighting(), &facts()));
        assert_eq!(holds, expected, "{key} = {pattern}");
    }
}

#[test]
fn what_is_not_known_of_a_process_matches_nothing() {
    let none = Facts::default();
    for key in [
        "exe",
        "group",
        "parent",
        "ancestor",
        "cgroup",
        "unit",
        "container",
    ] {
        assert!(
            !only(key, "*").holds(Subject::writing(&sighting(), &none)),
            "{key}"
        );
    }
    // A process without arguments has an empty command line, and a user without a name a number.
    assert!(only("cmdline", "").holds(Subject::writing(&sighting(), &none)));
    assert!(only("user", "1000").holds(Subject::writing(&sighting(), &none)));
}

#[test]
fn channel_and_stream_are_those_of_the_write() {
    let channel = |kind| Match {
        channel: Some(kind),
        ..Match::default()
    };
    let stream = |stream| Match {
        stream: Some(stream),
        ..Match::default()
    };
    let nowhere = Sighting {
        stream: None,
        ..sighting()
    };
    assert!(channel(ChannelKind::Unix).holds(Subject::writing(&sighting(), &facts())));
    assert!(!channel(ChannelKind::Pipe).holds(Subject::writing(&sighting(), &facts())));
    assert!(stream(Stream::Stdout).holds(Subject::writing(&sighting(), &facts())));
    assert!(!stream(Stream::Stderr).holds(Subject::writing(&sighting(), &facts())));
    assert!(!stream(Stream::Stdout).holds(Subject::writing(&nowhere, &facts())));
}

#[test]
fn a_young_process_matches_and_its_rule_waits() {
    let aged = |seconds| Match {
        min_process_age: Some(Duration::from_secs(seconds)),
        ..Match::default()
    };
    let holds = |seconds, facts: &Facts| {
        let matches = aged(seconds);
        let sighting = sighting();
        let explained = matches.explain(Subject::writing(&sighting, facts));
        (
            explained[0].holds,
            matches.holds(Subject::writing(&sighting, facts)),
            matches.not_before(facts),
        )
    };
    assert_eq!(holds(100, &facts()), (Holds::Yes, true, at(1000)));
    assert_eq!(holds(101, &facts()), (Holds::From(at(1001)), true, at(1001)));
    assert_eq!(holds(1, &Facts::default()), (Holds::No, false, Mono::NEVER));
    assert_eq!(Match::default().not_before(&Facts::default()), Mono::default());
}

#[test]
fn an_explanation_lists_what_is_asked_with_what_was_found() {
    let (sighting, facts) = (sighting(), facts());
    let matches = Match {
        stream: Some(Stream::Stderr),
        channel: Some(ChannelKind::Unix),
        min_process_age: Some(Duration::from_mins(2)),
        group: Some(Pattern::parse("video").unwrap()),
        ancestor: Some(Pattern::parse("bash").unwrap()),
        user: Some(Pattern::parse("root").unwrap()),
        ..only("comm", "ffmpeg*")
    };

    let explained: Vec<_> = matches
        .explain(Subject::writing(&sighting, &facts))
        .into_iter()
        .map(|c| {
            (
                c.key,
                c.pattern.into_owned(),
                c.found.unwrap_or_default().into_owned(),
                c.holds,
            )
        })
        .collect();

    let expected = [
        ("comm", "ffmpeg*", "ffmpeg-linux-x8", Holds::Yes),
        ("user", "root", "peertube (1000)", Holds::No),
        ("group", "video", "video (44)", Holds::Yes),
        ("ancestor", "bash", "node, npm, systemd", Holds::No),
        ("channel", "unix", "unix", Holds::Yes),
        ("stream", "stderr", "stdout", Holds::No),
        ("min_process_age", "2m", "100s", Holds::From(at(1020))),
    ]
    .map(|(key, pattern, found, holds)| (key, pattern.to_owned(), found.to_owned(), holds));
    assert_eq!(explained, expected);
}

#[test]
fn what_depends_on_a_write_is_unknown_of_a_process_that_is_not_seen_in_one() {
    let (sighting, facts) = (sighting(), facts());
    let subject = Subject {
        write: None,
        ..Subject::writing(&sighting, &facts)
    };
    let matches = Match {
        channel: Some(ChannelKind::Pipe),
        stream: Some(Stream::Stderr),
        comm: Some(Pattern::parse("ffmpeg*").unwrap()),
        ..only("thread", "nothing")
    };

    let holds: Vec<_> = matches
        .explain(subject)
        .iter()
        .map(|c| (c.key, c.holds))
        .collect();

    assert_eq!(
        holds,
        [
            ("comm", Holds::Yes),
            ("thread", Holds::Unknown),
            ("channel", Holds::Unknown),
            ("stream", Holds::Unknown),
        ]
    );
}

proptest! {
    #[test]
    fn a_match_holds_exactly_if_each_of_its_conditions_does(
        chosen in prop::collection::vec((0usize..11, prop::bool::ANY), 0..6),
    ) {
        const KEYS: [&str; 11] = [
            "comm", "thread", "exe", "cmdline", "user", "group", "parent", "ancestor", "cgroup", "unit", "container",
        ];
        let mut all = Match::default();
        let mut last = [None; 11];
        for (key, right) in chosen {
            let pattern = if right { "*" } else { "nothing" };
            let one = only(KEYS[key], pattern);
            all = Match {
                comm: one.comm.or(all.comm),
                thread: one.thread.or(all.thread),
                exe: one.exe.or(all.exe),
                cmdline: one.cmdline.or(all.cmdline),
                user: one.user.or(all.user),
                group: one.group.or(all.group),
                parent: one.parent.or(all.parent),
                ancestor: one.ancestor.or(all.ancestor),
                cgroup: one.cgroup.or(all.cgroup),
                unit: one.unit.or(all.unit),
                container: one.container.or(all.container),
                ..Match::default()
            };
            last[key] = Some(right);
        }
        let expected = last.iter().all(|right| right.unwrap_or(true));
        prop_assert_eq!(all.holds(Subject::writing(&sighting(), &facts())), expected);
    }
}
