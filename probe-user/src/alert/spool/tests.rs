use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn body(number: Number, text: &str) -> Change {
    Change::Body(number, Some(Arc::from(text.as_bytes())))
}

fn entry(number: Number) -> Entry {
    serde_json::from_value(serde_json::json!({
        "number": number, "message": "msg", "webhook": "ops", "incident": "i", "severity": "critical",
        "title": "t", "made": "2026-11-23T08:00:00Z", "attempts": 3, "next_try": "2026-11-23T08:00:01Z",
        "refused": false, "last_error": "x", "subjects": [1, 2],
    }))
    .unwrap()
}

#[test]
fn what_is_committed_is_there_after_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    {
        let spool = Spool::open(dir.path()).unwrap();
        let empty = spool.load().unwrap();
        assert_eq!((empty.cursor, empty.entries.len()), (None, 0));
        spool
            .commit(&[
                Change::Cursor(7),
                Change::Entry(1, Some(encode(&entry(1)))),
                body(1, "one"),
                Change::Entry(2, Some(encode(&entry(2)))),
                body(2, "two"),
            ])
            .unwrap();
        spool
            .commit(&[Change::Entry(1, None), Change::Body(1, None)])
            .unwrap();
    }
    let left = Spool::open(dir.path()).unwrap().load().unwrap();
    assert_eq!(left.cursor, Some(7));
    let mut expected = entry(2);
    expected.body = Arc::from(&b"two"[..]);
    assert_eq!(left.entries, [expected]);
}

#[test]
fn a_rewrite_leaves_nothing_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    spool
        .commit(&[Change::Entry(1, Some(encode(&entry(1)))), body(1, "one")])
        .unwrap();
    spool.rewrite(&[Change::Cursor(3)]).unwrap();
    let left = spool.load().unwrap();
    assert_eq!((left.cursor, left.entries.len()), (Some(3), 0));
}

#[test]
fn only_one_process_has_it_and_only_its_user_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let _spool = Spool::open(dir.path()).unwrap();
    assert!(matches!(Spool::open(dir.path()), Err(SpoolError::InUse(_))));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path(dir.path())), 0o600);
    assert_eq!(mode(path(dir.path()).parent().unwrap()), 0o700);
}

#[test]
fn what_is_no_spool_is_damaged_and_can_be_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("spool")).unwrap();
    fs::write(
        path(dir.path()),
        "this is no database at all, and long enough to be looked at".repeat(100),
    )
    .unwrap();
    let error = Spool::open(dir.path()).unwrap_err();
    assert!(matches!(error, SpoolError::Damaged(..)), "{error:?}");
    let (spool, aside) = Spool::replace(dir.path()).unwrap();
    assert!(aside.exists());
    assert_eq!(spool.load().unwrap().cursor, None);
}

#[test]
fn a_row_that_cannot_be_understood_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    spool
        .commit(&[Change::Entry(1, Some(b"{".to_vec())), body(1, "one")])
        .unwrap();
    assert!(matches!(spool.load(), Err(SpoolError::Damaged(..))));
}

#[test]
fn a_later_versions_spool_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    spool
        .write(|writing| {
            writing.open_table(META)?.insert(VERSION.0, VERSION.1 + 1)?;
            Ok(())
        })
        .unwrap();
    drop(spool);
    assert!(matches!(Spool::open(dir.path()), Err(SpoolError::Later(_))));
}
