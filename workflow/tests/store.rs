//! Both stores keep the same promises; the one on disk also over damage, versions and size.
#![allow(clippy::disallowed_methods, reason = "real time is what these tests measure")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentwire_workflow::clock::SeededEntropy;
use agentwire_workflow::error::StoreError;
use agentwire_workflow::failure::{Code, Failure};
use agentwire_workflow::key::Kind;
use agentwire_workflow::record::{Change, Owner, Record, Status};
use agentwire_workflow::store::{
    LEASE_MS, Lease, MemoryStore, Mode, NewRoot, Put, SqliteStore, Store, current_owner,
};
use common::map;
use serde_json::{Value, json};

fn owner(n: u128) -> Owner {
    current_owner(uuid_of(n))
}

fn uuid_of(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

fn root(id: &str) -> NewRoot {
    NewRoot { id: id.into(), name: "Flow".into(), inputs: map(json!({"a": 1})), code: "v1".into() }
}

fn record(kind: Kind, key: &str, value: Option<Value>, at: u64) -> Record {
    Record {
        kind,
        key: key.into(),
        scope: String::new(),
        name: "step".into(),
        seq: at,
        print: "p".into(),
        value,
        detail: Some(json!({"session": {"id": "s"}})),
        at,
    }
}

/// Runs `check` against a store in memory and one on disk.
fn both(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::new());
    let dir = tempfile::tempdir().unwrap();
    check(&SqliteStore::open(dir.path().join("flow.db")).unwrap());
}

#[test]
fn the_first_write_wins_and_the_second_is_told_its_value() {
    both(|store| {
        let lease = store.begin(&root("r"), &owner(1), 100).unwrap();
        let first = record(Kind::Tool, "k", Some(json!(1)), 200);
        assert_eq!(store.put(&lease, &first, Mode::IfAbsent), Ok(Put::Stored));
        let second = record(Kind::Tool, "k", Some(json!(2)), 300);
        assert_eq!(
            store.put(&lease, &second, Mode::IfAbsent),
            Ok(Put::Existing(Box::new(first.clone())))
        );
        assert_eq!(store.get("r", Kind::Tool, "k").unwrap(), Some(first));
        assert_eq!(store.get("r", Kind::Stage, "k").unwrap(), None, "kinds are apart");
        assert_eq!(store.put(&lease, &second, Mode::Replace), Ok(Put::Stored));
        assert_eq!(store.get("r", Kind::Tool, "k").unwrap(), Some(second));
        assert_eq!(store.root("r").unwrap().unwrap().records, 1);
    });
}

#[test]
fn nothing_null_and_absent_are_three_things_and_records_come_oldest_first() {
    both(|store| {
        let lease = store.begin(&root("r"), &owner(1), 0).unwrap();
        for (key, value, at) in
            [("b", None, 100), ("a", Some(Value::Null), 50), ("c", Some(json!("")), 200)]
        {
            store.put(&lease, &record(Kind::Stage, key, value, at), Mode::IfAbsent).unwrap();
        }
        let found: Vec<_> =
            store.records("r").unwrap().into_iter().map(|one| (one.key, one.value)).collect();
        let expected = [("a", Some(Value::Null)), ("b", None), ("c", Some(json!("")))];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value)));
        assert_eq!(store.get("r", Kind::Stage, "d").unwrap(), None);
        assert_eq!(store.records("unknown").unwrap(), []);
    });
}

#[test]
fn a_lease_keeps_others_out_until_it_is_given_up_or_runs_out() {
    both(|store| {
        let first = store.begin(&root("r"), &owner(1), 1_000).unwrap();
        let busy = store.begin(&root("r"), &owner(2), 1_001);
        assert!(matches!(busy, Err(StoreError::Busy(_))), "{busy:?}");
        store.renew(&first, 10_000).unwrap();
        let still = store.begin(&root("r"), &owner(2), 9_999 + LEASE_MS);
        assert!(matches!(still, Err(StoreError::Busy(_))));
        // It ran out; the old owner is fenced off.
        let second = store.begin(&root("r"), &owner(2), 10_000 + LEASE_MS).unwrap();
        let write = record(Kind::Tool, "k", None, 1);
        assert!(matches!(store.put(&first, &write, Mode::IfAbsent), Err(StoreError::Fenced(_))));
        assert!(matches!(store.renew(&first, 1), Err(StoreError::Fenced(_))));
        let change = Change::to(Status::Completed, false);
        assert!(matches!(store.set(&first, &change, 1), Err(StoreError::Fenced(_))));
        assert_eq!(store.release(&first), Ok(()), "nothing is taken from the new owner");
        assert_eq!(store.put(&second, &write, Mode::IfAbsent), Ok(Put::Stored));
        // Given up: the next has it at once.
        store.release(&second).unwrap();
        assert!(store.begin(&root("r"), &owner(3), 1).is_ok());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_dead_owner_on_this_host_is_taken_at_once_and_one_elsewhere_is_not() {
    both(|store| {
        let dead = Owner { pid: 4_194_305, ..owner(1) };
        store.begin(&root("here"), &dead, 0).unwrap();
        assert!(store.begin(&root("here"), &owner(2), 1).is_ok());
        let elsewhere = Owner { host: "elsewhere".into(), ..dead };
        store.begin(&root("there"), &elsewhere, 0).unwrap();
        assert!(matches!(store.begin(&root("there"), &owner(2), 1), Err(StoreError::Busy(_))));
        assert!(store.begin(&root("there"), &owner(2), LEASE_MS).is_ok());
    });
}

#[test]
fn a_resume_keeps_creation_time_and_inputs_and_what_is_over_stays_over() {
    both(|store| {
        let lease = store.begin(&root("r"), &owner(1), 100).unwrap();
        store.release(&lease).unwrap();
        let other = NewRoot { inputs: map(json!({"a": 2})), ..root("r") };
        let lease = store.begin(&other, &owner(2), 900).unwrap();
        let head = store.root("r").unwrap().unwrap();
        assert_eq!((head.created, head.updated, &head.inputs["a"]), (100, 900, &json!(1)));
        let change =
            Change { result: Some(json!({"out": 1})), ..Change::to(Status::Completed, false) };
        store.set(&lease, &change, 1_000).unwrap();
        store.release(&lease).unwrap();
        let over = store.begin(&root("r"), &owner(3), 2_000);
        assert!(matches!(over, Err(StoreError::NotResumable { .. })));
        assert_eq!(store.root("r").unwrap().unwrap().result, Some(json!({"out": 1})));
    });
}

#[test]
fn what_is_listed_as_resumable() {
    both(|store| {
        let mut n = 0;
        let mut make = |id: &str, status: Status, resumable: bool, kind: Option<Kind>| {
            n += 1;
            let lease = store.begin(&root(id), &owner(n), u64::try_from(n).unwrap()).unwrap();
            if let Some(kind) = kind {
                store.put(&lease, &record(kind, "k", None, 1), Mode::IfAbsent).unwrap();
            }
            let failure = Some(Failure::new(Code::Unknown, "x"));
            let change = Change { failure, retry_at: Some(5), ..Change::to(status, resumable) };
            store.set(&lease, &change, u64::try_from(n).unwrap()).unwrap();
        };
        make("running, nothing", Status::Running, true, None);
        make("running", Status::Running, true, Some(Kind::Tool));
        make("paused, asked", Status::Paused, true, Some(Kind::Asked));
        make("failed", Status::Failed, true, None);
        make("failed for good", Status::Failed, false, None);
        make("blocked", Status::Blocked, true, None);
        make("blocked for good", Status::Blocked, false, None);
        make("completed", Status::Completed, true, Some(Kind::Tool));
        make("cancelled", Status::Cancelled, true, Some(Kind::Tool));
        let listed = store.resumable().unwrap();
        let ids: Vec<&str> = listed.iter().map(|root| root.id.as_str()).collect();
        assert_eq!(ids, ["blocked", "failed", "paused, asked", "running"], "newest first");
        assert_eq!((listed[2].pending, listed[2].records), (1, 0));
        assert_eq!(listed[0].retry_at, Some(5));
        assert_eq!(listed[0].failure.as_ref().unwrap().message, "x");
        // By prefix; an exact id stands alone.
        assert_eq!(store.find("failed").unwrap().len(), 1);
        assert_eq!(store.find("fail").unwrap().len(), 2);
        assert_eq!(store.find("none").unwrap().len(), 0);
        // Finished runs stay for a while.
        assert_eq!(store.prune(5).unwrap(), 0);
        assert_eq!(store.prune(100).unwrap(), 4);
        assert_eq!(store.roots().unwrap().len(), 5);
        assert_eq!(store.records("completed").unwrap(), []);
    });
}

#[test]
fn answers_and_kills_come_from_outside() {
    both(|store| {
        let lease = store.begin(&root("r"), &owner(1), 0).unwrap();
        assert!(matches!(store.answer("r", "q", &json!(1), 5), Err(StoreError::Unknown(_))));
        store.put(&lease, &record(Kind::Asked, "q", None, 1), Mode::IfAbsent).unwrap();
        assert_eq!(store.root("r").unwrap().unwrap().pending, 1);
        assert_eq!(store.answer("r", "q", &json!("yes"), 5), Ok(true));
        assert_eq!(store.answer("r", "q", &json!("no"), 6), Ok(false));
        assert_eq!(store.get("r", Kind::Ask, "q").unwrap().unwrap().value, Some(json!("yes")));
        assert_eq!(store.root("r").unwrap().unwrap().pending, 0);
        assert_eq!(store.kill("r", 9), Ok(true));
        assert_eq!(store.kill("r", 9), Ok(false));
        let killed = store.put(&lease, &record(Kind::Tool, "k", None, 1), Mode::IfAbsent);
        assert_eq!(killed, Err(StoreError::Fenced("it was killed")));
    });
}

// ------------------------------------------------------------------------------ the file on disk

#[test]
#[cfg(unix)]
fn the_database_is_private_and_a_second_process_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state").join("flow.db");
    let store = SqliteStore::open(&path).unwrap();
    let lease = store.begin(&root("r"), &owner(1), 0).unwrap();
    store.put(&lease, &record(Kind::Tool, "k", Some(json!(1)), 1), Mode::IfAbsent).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let other = SqliteStore::open(&path).unwrap();
    assert_eq!(other.records("r").unwrap(), store.records("r").unwrap());
    let mut names: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["flow.db", "flow.db-shm", "flow.db-wal"], "nothing is left over");
}

#[test]
fn a_newer_a_foreign_and_a_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flow.db");
    drop(SqliteStore::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(connection);
    let newer = SqliteStore::open(&path);
    assert!(matches!(newer, Err(StoreError::Newer { found: 99, .. })), "{newer:?}");

    let foreign = dir.path().join("other.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE theirs(x)").unwrap();
    drop(connection);
    assert_eq!(SqliteStore::open(&foreign).err(), Some(StoreError::Foreign(foreign.clone())));
    let text = dir.path().join("notes.txt");
    fs::write(&text, "my notes").unwrap();
    assert_eq!(SqliteStore::open(&text).err(), Some(StoreError::Foreign(text.clone())));
    assert_eq!(fs::read_to_string(&text).unwrap(), "my notes");

    let empty = dir.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    let Err(StoreError::Damaged { moved_to, .. }) = SqliteStore::open(&empty) else {
        panic!("an empty file was taken for an empty database");
    };
    assert!(moved_to.exists() && !empty.exists());
}

/// A database with `roots` runs of 40 records, all of it in the main file.
fn filled(path: &Path, roots: u128) {
    let store = SqliteStore::open(path).unwrap();
    for n in 0..roots {
        let lease = store.begin(&root(&format!("r{n}")), &owner(n), 0).unwrap();
        for k in 0..40 {
            let value = Some(json!("x".repeat(300)));
            let one = record(Kind::Tool, &format!("k{k}"), value, k);
            store.put(&lease, &one, Mode::IfAbsent).unwrap();
        }
    }
}

/// All there, or refused with the file set aside as it was. Never empty, never a part.
fn whole_or_refused(dir: &Path, bytes: &[u8], whole: usize, roots: usize) -> bool {
    let path = dir.join("flow.db");
    fs::write(&path, bytes).unwrap();
    match SqliteStore::open(&path) {
        Ok(store) => {
            let heads = store.roots().expect("it opened and cannot be read");
            assert_eq!(heads.len(), roots, "cut at {}", bytes.len());
            for head in heads {
                assert_eq!(store.records(&head.id).unwrap().len(), 40);
            }
            assert_eq!(bytes.len(), whole, "a part was taken for the whole");
            false
        }
        Err(StoreError::Damaged { moved_to, .. }) => {
            assert!(!path.exists());
            assert!(fs::read(&moved_to).unwrap() == bytes, "the damaged file was changed");
            fs::remove_file(moved_to).unwrap();
            true
        }
        Err(other) => panic!("cut at {}: {other}", bytes.len()),
    }
}

#[test]
fn a_cut_database_is_refused_and_set_aside_at_every_length() {
    const PAGE: usize = 4_096;
    const ROOTS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source.db");
    filled(&source, ROOTS as u128);
    let whole = fs::read(&source).unwrap();
    assert!(!source.with_extension("db-wal").exists(), "some of it is still in the log");
    assert!(whole.len() / PAGE > 20);
    let chance = SeededEntropy::new(5);
    let boundaries = (0..=whole.len() / PAGE)
        .flat_map(|page| [(page * PAGE).wrapping_sub(1), page * PAGE, page * PAGE + 1]);
    let random = (0..512).map(|_| chance.next() as usize % whole.len());
    let (mut refused, mut tried) = (0, 0);
    for length in boundaries.chain(random).filter(|length| *length <= whole.len()) {
        tried += 1;
        refused += usize::from(whole_or_refused(dir.path(), &whole[..length], whole.len(), ROOTS));
    }
    println!("{tried} lengths, {refused} refused");
    assert_eq!(refused, tried - 1, "only the whole file is taken");
}

#[test]
fn a_cut_log_gives_an_earlier_state_and_never_less_than_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let (db, log) = (dir.path().join("a.db"), dir.path().join("a.db-wal"));
    let store = SqliteStore::open(&db).unwrap();
    let lease = store.begin(&root("r"), &owner(1), 0).unwrap();
    for k in 0..30 {
        let one = record(Kind::Tool, &format!("k{k:02}"), Some(json!(k)), k);
        store.put(&lease, &one, Mode::IfAbsent).unwrap();
    }
    // Copied while it is open, as a crash leaves it.
    let (main, wal) = (fs::read(&db).unwrap(), fs::read(&log).unwrap());
    let copy = dir.path().join("b.db");
    let chance = SeededEntropy::new(9);
    // A header of 32 bytes, then frames: a page with a header of 24 bytes.
    const HEADER: usize = 32;
    const FRAME: usize = 4_096 + 24;
    let frames = (wal.len() - HEADER) / FRAME;
    assert!(frames >= 30 && (wal.len() - HEADER).is_multiple_of(FRAME), "{} bytes", wal.len());
    let boundaries = (0..=frames).map(|n| HEADER + n * FRAME).chain([0]);
    let boundaries = boundaries.flat_map(|at| [at.saturating_sub(1), at, at + 1]);
    let random = (0..512).map(|_| chance.next() as usize % wal.len());
    let mut most = 0;
    for length in boundaries.chain(random).filter(|length| *length <= wal.len()) {
        fs::write(&copy, &main).unwrap();
        fs::write(dir.path().join("b.db-wal"), &wal[..length]).unwrap();
        let _absent = fs::remove_file(dir.path().join("b.db-shm"));
        let store = SqliteStore::open(&copy).unwrap();
        let roots = store.roots().unwrap();
        assert_eq!(roots.len(), 1, "a run that began is gone with a log of {length} bytes");
        assert_eq!((roots[0].id.as_str(), roots[0].status), ("r", Status::Running));
        let records = store.records("r").unwrap();
        // A prefix of what was written: nothing in the middle is missing.
        for (k, record) in records.iter().enumerate() {
            assert_eq!(record.value, Some(json!(k)));
        }
        most = most.max(records.len());
    }
    assert_eq!(most, 30);
}

#[test]
fn the_cost_of_a_record_does_not_grow() {
    const RECORDS: u64 = 10_000;
    const WINDOW: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flow.db");
    let store = SqliteStore::open(&path).unwrap();
    let lease = store.begin(&root("r"), &owner(1), 0).unwrap();
    let text = "x".repeat(1_024);
    // The median: what a single fsync takes is noise.
    let window = |from: u64| {
        let mut times: Vec<Duration> = (from..from + WINDOW)
            .map(|k| {
                let one = record(Kind::Stage, &format!("stage:s:{k}"), Some(json!(text)), k);
                let began = Instant::now();
                store.put(&lease, &one, Mode::IfAbsent).unwrap();
                began.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let first = window(0);
    // What lies between is written at once: one fsync instead of thousands.
    let mut connection = rusqlite::Connection::open(&path).unwrap();
    let between = connection.transaction().unwrap();
    for k in WINDOW..RECORDS - WINDOW {
        between
            .execute(
                "INSERT INTO record SELECT root, ?1, kind, scope, name, ?2, print, present, value,
                 detail, ?2 FROM record WHERE key = 'stage:s:0'",
                rusqlite::params![format!("stage:s:{k}"), i64::try_from(k).unwrap()],
            )
            .unwrap();
    }
    between.commit().unwrap();
    let last = window(RECORDS - WINDOW);
    let ratio = last.as_secs_f64() / first.as_secs_f64();
    println!("a record costs {first:?} at the start and {last:?} at 10,000: ratio {ratio:.2}");
    assert!(ratio < 10.0, "the cost of a record grows: {ratio:.2}");
    let began = Instant::now();
    assert_eq!(store.records("r").unwrap().len() as u64, RECORDS);
    println!("reading {RECORDS} records: {:?}", began.elapsed());
}

#[test]
fn processes_that_race_agree_on_every_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flow.db");
    let lease = SqliteStore::open(&path).unwrap().begin(&root("r"), &owner(1), 0).unwrap();
    let lease: Arc<Lease> = Arc::new(lease);
    // Connections of their own, as processes have; one lease, so that only the key decides.
    let told: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (path, lease) = (path.clone(), lease.clone());
                scope.spawn(move || {
                    let store = SqliteStore::open(path).unwrap();
                    (0..50)
                        .map(|k| {
                            let own = record(Kind::Tool, &format!("k{k}"), Some(json!(n)), 1);
                            match store.put(&lease, &own, Mode::IfAbsent).unwrap() {
                                Put::Stored => json!(n),
                                Put::Existing(first) => first.value.unwrap(),
                            }
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for other in &told[1..] {
        assert_eq!(&told[0], other);
    }
}
