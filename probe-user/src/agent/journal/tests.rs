use super::*;
use crate::event::{Event, Stamp};

const KEEP: Keep = Keep {
    rotate_bytes: 1 << 20,
    files: 3,
    age: Duration::from_hours(1),
};

fn line(event: &Event) -> String {
    serde_json::to_string(event).unwrap()
}

fn record_with(dir: &Path, keep: Keep, kinds: &[&'static str]) -> u64 {
    let (mut journal, last) = Journal::open(dir, keep).unwrap();
    let mut stamp = Stamp::after(last);
    for kind in kinds {
        let event = stamp.agent(kind, None);
        journal.append(event.seq, &line(&event));
        journal.flush().unwrap();
    }
    journal.commit().unwrap();
    last
}

fn record(dir: &Path, kinds: &[&'static str]) -> u64 {
    record_with(dir, KEEP, kinds)
}

fn seqs_after(dir: &Path, after: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    read_after(dir, after, |line| {
        seqs.push(line.seq);
        true
    })
    .unwrap();
    seqs
}

fn seqs(dir: &Path) -> Vec<u64> {
    seqs_after(dir, 0)
}

#[test]
fn numbers_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(record(dir.path(), &["agent.started", "agent.stopping"]), 0);
    assert_eq!(record(dir.path(), &["agent.started"]), 2);
    assert_eq!(seqs(dir.path()), [1, 2, 3]);
    assert_eq!(seqs_after(dir.path(), 2), [3]);
}

#[test]
fn a_new_file_that_there_was_no_room_for_is_begun_later() {
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep {
        rotate_bytes: 1,
        ..KEEP
    };
    let (mut journal, last) = Journal::open(dir.path(), keep).unwrap();
    let mut stamp = Stamp::after(last);
    let mut append = |journal: &mut Journal| {
        let event = stamp.agent("agent.started", None);
        journal.append(event.seq, &line(&event));
    };
    append(&mut journal);
    journal.commit().unwrap();
    // What is left when the name is changed and no new file can be made.
    fs::rename(dir.path().join(NAME), dir.path().join(rotated_name(1))).unwrap();

    append(&mut journal);
    journal.flush().unwrap();
    append(&mut journal);
    journal.commit().unwrap();

    assert!(dir.path().join(NAME).is_file());
    assert_eq!(seqs(dir.path()), [1, 2, 3]);
}

#[test]
fn a_line_cut_off_anywhere_is_removed_and_the_rest_kept() {
    let whole = tempfile::tempdir().unwrap();
    record(whole.path(), &["agent.started", "agent.stopping"]);
    let bytes = fs::read(whole.path().join(NAME)).unwrap();
    let first = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    for cut in first..bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), &bytes[..cut]).unwrap();
        assert_eq!(record(dir.path(), &["agent.started"]), 1, "cut at {cut}");
        assert_eq!(seqs(dir.path()), [1, 2], "cut at {cut}");
    }
}

#[test]
fn what_a_power_cut_leaves_after_the_last_event_is_removed_however_long() {
    for garbage in [
        vec![0; 10],
        vec![0; 300_000],
        b"\n\n\n".to_vec(),
        [vec![0; 100_000], b"\n{\"seq\":".to_vec(), vec![b'\n'; 70_000]].concat(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), &["agent.started", "agent.stopping"]);
        let path = dir.path().join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(&garbage);
        fs::write(&path, bytes).unwrap();
        assert_eq!(
            record(dir.path(), &["agent.started"]),
            2,
            "{} bytes",
            garbage.len()
        );
        assert_eq!(seqs(dir.path()), [1, 2, 3]);
    }
}

#[test]
fn files_are_begun_anew_by_size_and_only_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let small = Keep {
        rotate_bytes: 1,
        ..KEEP
    };
    record_with(dir.path(), small, &["agent.started"; 5]);
    // Each event fills a file; two of those and the empty one are kept.
    assert_eq!(seqs(dir.path()), [4, 5]);
    assert_eq!(seqs_after(dir.path(), 4), [5]);
    // What has been rotated away still counts.
    assert_eq!(record_with(dir.path(), small, &["agent.started"]), 5);
    assert_eq!(seqs(dir.path()), [5, 6]);
}

#[test]
fn what_is_older_than_it_may_be_is_forgotten_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let small = Keep {
        rotate_bytes: 1,
        ..KEEP
    };
    record_with(dir.path(), small, &["agent.started"; 2]);
    let old = dir.path().join(rotated_name(1));
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    record_with(dir.path(), small, &[]);
    assert_eq!(seqs(dir.path()), [2]);
}

#[test]
fn a_second_agent_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path(), KEEP).unwrap();
    let error = format!("{:#}", Journal::open(dir.path(), KEEP).unwrap_err());
    assert!(error.contains("another agent"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_and_what_was_to_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), KEEP).unwrap();
    let disk = std::mem::replace(
        // /dev/full takes no byte; what a journal does with a failing write is the same there.
        &mut journal.file,
        OpenOptions::new().append(true).open("/dev/full").unwrap(),
    );
    let mut stamp = Stamp::after(0);
    for _ in 0..2 {
        let event = stamp.agent("agent.started", None);
        journal.append(event.seq, &line(&event));
        let error = format!("{:#}", journal.commit().unwrap_err());
        assert!(error.contains("No space left"), "{error}");
    }
    journal.file = disk;
    journal.commit().unwrap();
    assert_eq!(seqs(dir.path()), [1, 2]);
    assert_eq!((journal.lost(), journal.pending()), (0, 0));
}

#[test]
fn what_cannot_be_written_takes_a_bounded_amount_of_memory_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), KEEP).unwrap();
    let large = "x".repeat(PENDING / 4);
    for seq in 1..=10 {
        journal.append(seq, &large);
    }
    assert!(journal.pending() <= PENDING);
    assert_eq!(journal.lost(), 7);
    // Whoever waits for the record of one of those must not think that it is there.
    assert!(journal.commit().is_err());
    assert!(journal.commit().is_ok());
}
