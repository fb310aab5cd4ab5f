//! Making, checking and migrating the database file.
//!
//! An empty or missing table must never be taken for "nothing was recorded". So the file appears
//! under its name complete, and a file under that name that is not complete is damaged.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreResult, failed};
use crate::error::StoreError;

/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// `PRAGMA application_id` of our files: "agwf".
const APPLICATION_ID: i32 = 0x6167_7766;

/// How long a write waits for another process's: far longer than any transaction here takes. No
/// option: nothing but a disk that hangs makes it wait so long.
const BUSY: Duration = Duration::from_secs(10);

/// What brings a database from each version to the next. Never change one that was published.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE root(
        id TEXT PRIMARY KEY, name TEXT NOT NULL, inputs TEXT NOT NULL, status TEXT NOT NULL,
        resumable INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,
        code TEXT NOT NULL, result TEXT, failure TEXT, retry_at INTEGER,
        host TEXT, pid INTEGER, boot TEXT, nonce TEXT, lease_until INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE record(
        root TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, scope TEXT NOT NULL,
        name TEXT NOT NULL, seq INTEGER NOT NULL, print TEXT NOT NULL, present INTEGER NOT NULL, value TEXT,
        detail TEXT, at INTEGER NOT NULL, PRIMARY KEY(root, key, kind)
    ) STRICT, WITHOUT ROWID;
"];

pub(super) fn open(path: &Path) -> StoreResult<Connection> {
    if !path.exists() {
        create(path)?;
    }
    if !has_magic(path)? {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let connection = match whole_pages(path).and_then(|()| checked(path)) {
        Ok(connection) => connection,
        Err(Refused::Damaged(problem)) => {
            let moved_to = set_aside(path)?;
            return Err(StoreError::Damaged { problem, moved_to });
        }
        Err(Refused::Other(error)) => return Err(error),
    };
    migrate(&connection, MIGRATIONS)?;
    Ok(connection)
}

enum Refused {
    Damaged(String),
    Other(StoreError),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Other(failed(error)),
        }
    }
}

/// Whether the file ends where a page ends. SQLite reads what is missing of the last page as zeros.
/// While there is a log, the end of the file may be in it.
fn whole_pages(path: &Path) -> Result<(), Refused> {
    let unreadable = |error: io::Error| {
        Refused::Other(StoreError::Io(format!("cannot read {}: {error}", path.display())))
    };
    let mut head = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    file.take(18).read_to_end(&mut head).map_err(unreadable)?;
    let page = match head.get(16..18) {
        // The field says 1 for 65,536.
        Some([0, 1]) => 65_536,
        Some([high, low]) => u64::from(*high) << 8 | u64::from(*low),
        _ => return Err(Refused::Damaged("the file is cut in its first page".into())),
    };
    let log = fs::metadata(sibling(path, "-wal")).map_or(0, |log| log.len());
    if log == 0 && page > 0 && length % page != 0 {
        return Err(Refused::Damaged("the file is cut in its last page".into()));
    }
    Ok(())
}

/// Opens an existing file and looks at all of it. Until it is known to be whole nothing may be
/// written back, not even by closing.
fn checked(path: &Path) -> Result<Connection, Refused> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY)?;
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages == 0 {
        return Err(Refused::Damaged("the file is empty".into()));
    }
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(Refused::Other(StoreError::Foreign(path.to_owned())));
    }
    // Linear in the size of the file: about a millisecond for each 2 MB.
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Refused::Damaged(verdict));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    settings(&connection)?;
    Ok(connection)
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Makes the database under another name and links it to its own when it is complete. Of two
/// processes that do so at once the first wins, and both use its file.
fn create(path: &Path) -> StoreResult<()> {
    let io_failed = |error: io::Error| {
        StoreError::Io(format!("cannot make the database {}: {error}", path.display()))
    };
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(directory).map_err(io_failed)?;
    }
    let draft = sibling(path, &format!(".new-{}", std::process::id()));
    // Left over from a process of this pid that died here.
    let _absent = fs::remove_file(&draft);
    private_file(&draft).map_err(io_failed)?;
    let made = (|| {
        let connection = Connection::open(&draft)?;
        settings(&connection)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        migrate(&connection, MIGRATIONS).map_err(Into::into)
    })();
    let linked = match made {
        Ok(()) => match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(io_failed),
        },
        Err(MakeError(error)) => Err(error),
    };
    let _removed = fs::remove_file(&draft);
    linked?;
    sync_directory(path);
    Ok(())
}

struct MakeError(StoreError);

impl From<rusqlite::Error> for MakeError {
    fn from(error: rusqlite::Error) -> Self {
        Self(failed(error))
    }
}

impl From<StoreError> for MakeError {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

fn migrate(connection: &Connection, migrations: &[&str]) -> StoreResult<()> {
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let version = || connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
    let found = version().map_err(failed)?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (step, sql) in migrations.iter().enumerate().skip(found as usize) {
        let after = step + 1;
        // The version is read again under the lock: another process may have been here first.
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let done = version().and_then(|now| {
            if now as usize >= after {
                return Ok(());
            }
            connection.execute_batch(sql)?;
            connection.execute_batch(&format!("PRAGMA user_version = {after}"))
        });
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = connection.execute_batch(end);
        done.and(ended).map_err(failed)?;
    }
    Ok(())
}

/// Whether the file begins as an SQLite file does, as far as it goes: one that was cut there is
/// ours and damaged, anything else is somebody's.
fn has_magic(path: &Path) -> StoreResult<bool> {
    let mut head = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut head))
        .map_err(|error| StoreError::Io(format!("cannot read {}: {error}", path.display())))?;
    Ok(MAGIC.starts_with(&head))
}

/// Renames the file and its log to a name that is free.
fn set_aside(path: &Path) -> StoreResult<PathBuf> {
    let free = (1..=u32::MAX)
        .map(|n| sibling(path, &format!(".corrupt-{n}")))
        .find(|candidate| !candidate.exists())
        .ok_or_else(|| StoreError::Io("no name is free for the damaged database".into()))?;
    fs::rename(path, &free)
        .map_err(|error| StoreError::Io(format!("cannot set {} aside: {error}", path.display())))?;
    for suffix in ["-wal", "-shm"] {
        // Most often there is none.
        let _absent = fs::rename(sibling(path, suffix), sibling(&free, suffix));
    }
    Ok(free)
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(unix)]
fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

fn private_file(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Makes the new name durable. Where directories cannot be opened there is nothing to do.
fn sync_directory(path: &Path) {
    if let Some(directory) = path.parent()
        && let Ok(directory) = fs::File::open(directory)
    {
        let _unsupported = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_migrated_one_after_the_other_and_newer_ones_refused() {
        let connection = Connection::open_in_memory().unwrap();
        let steps =
            ["CREATE TABLE a(x)", "ALTER TABLE a ADD COLUMN y", "INSERT INTO a VALUES (1, 2)"];
        let version = || -> u32 {
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
        };
        migrate(&connection, &steps[..1]).unwrap();
        assert_eq!(version(), 1);
        migrate(&connection, &steps).unwrap();
        migrate(&connection, &steps).unwrap();
        assert_eq!(version(), 3);
        let rows: u32 =
            connection.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1, "a migration ran twice");
        let refused = migrate(&connection, &steps[..2]);
        assert_eq!(refused, Err(StoreError::Newer { found: 3, known: 2 }));
    }

    #[test]
    fn a_failing_migration_changes_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a(x)", "CREATE TABLE b(x); CREATE TABLE a(x)"];
        assert!(migrate(&connection, &steps).is_err());
        let version: u32 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 1);
        assert!(connection.prepare("SELECT * FROM b").is_err());
    }
}
