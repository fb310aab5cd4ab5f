//! Small files on a disk that fails: bounded reads, and writes of which the whole arrives or nothing.
//!
//! A driver: it touches the disk and decides nothing about what the bytes mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// What kept a file from being read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// There is none.
    Missing,
    /// A directory, a link, a pipe: no plain file. Links are not followed.
    NotAFile,
    /// Larger than the limit.
    TooLarge,
    /// The system said no.
    Io(io::Error),
}

/// The bytes of the plain file at `path`, at most `limit` of them.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let file = open_plain(path)?;
    let length = file.metadata().map_err(ReadError::Io)?.len();
    if length > limit {
        return Err(ReadError::TooLarge);
    }
    // Room for all of it and the byte that shows the end: it never moves in memory, which matters for
    // what the caller wipes.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
    // One more than allowed: a file that grows meanwhile is noticed.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > limit { Err(ReadError::TooLarge) } else { Ok(bytes) }
}

/// The first bytes of the plain file at `path`, at most `limit` of them.
pub(crate) fn read_head(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    open_plain(path)?.take(limit).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    Ok(bytes)
}

/// Opens what is a plain file by its name and still the same file when it is open.
fn open_plain(path: &Path) -> Result<File, ReadError> {
    /// A save of another process between the two looks is harmless, and over at once.
    const LOOKS: usize = 32;
    let absent = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => ReadError::Missing,
        _ => ReadError::Io(error),
    };
    for _ in 0..LOOKS {
        let named = fs::symlink_metadata(path).map_err(absent)?;
        // Before opening: opening a pipe would wait for a writer.
        if !named.is_file() {
            break;
        }
        let file = File::open(path).map_err(absent)?;
        if same_file(&named, &file.metadata().map_err(ReadError::Io)?) {
            return Ok(file);
        }
    }
    Err(ReadError::NotAFile)
}

/// Whether the file that was opened is the one that was looked at: nobody put a link in its place.
#[cfg(unix)]
fn same_file(named: &fs::Metadata, opened: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (named.dev(), named.ino()) == (opened.dev(), opened.ino())
}

#[cfg(not(unix))]
fn same_file(_: &fs::Metadata, opened: &fs::Metadata) -> bool {
    opened.is_file()
}

/// The steps of a save, so that a test can make each of them fail.
pub(crate) trait Disk {
    /// Makes a directory and those above it, for this user alone.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file that was not there, for this user alone; a link in its place is an error.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes all of `bytes`.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the disk has it.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Puts `from` in the place of `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The system's disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

impl Disk for System {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// Puts `bytes` at `dir`/`name`: whoever reads finds the old file or the new one, never a mix, also after
/// a crash. The file is readable by this user alone. A link at that place is replaced, not followed.
pub(crate) fn save(disk: &impl Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    disk.make_dir(dir)?;
    let (mut file, temp) = create_temp(disk, dir, name)?;
    let written = disk
        .write(&mut file, bytes)
        .and_then(|()| disk.sync(&file))
        .and_then(|()| disk.rename(&temp, &dir.join(name)));
    let written_at = file.metadata().and_then(|file| file.modified());
    drop(file);
    if let Err(error) = written {
        // The first error is the one to tell; a file that cannot be removed is left for a person.
        let _ = disk.remove(&temp);
        return Err(error);
    }
    // The new name is there; that it survives a power cut is as good as the system makes it.
    #[cfg(unix)]
    if let Ok(dir) = File::open(dir) {
        let _ = disk.sync(&dir);
    }
    if let Ok(now) = written_at {
        sweep(disk, dir, name, now);
    }
    Ok(())
}

/// Whether a file could be put into `dir`, which is made if it is not there: nothing is left of the try.
pub(crate) fn check_writable(disk: &impl Disk, dir: &Path, name: &str) -> io::Result<()> {
    disk.make_dir(dir)?;
    let (_file, temp) = create_temp(disk, dir, name)?;
    disk.remove(&temp)
}

/// Removes temporary files that a killed process left an hour ago or earlier, by the disk's own clock.
fn sweep(disk: &impl Disk, dir: &Path, name: &str, now: SystemTime) {
    /// Far longer than any save.
    const ABANDONED: Duration = Duration::from_secs(60 * 60);
    /// Names looked at; the rest is for the next save.
    const LOOKED_AT: usize = 1000;
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.take(LOOKED_AT).flatten() {
        let path = entry.path();
        let leftover = entry.file_name().to_str().is_some_and(|other| {
            other
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".tmp"))
        });
        let modified = || entry.metadata().and_then(|file| file.modified()).ok();
        let age = leftover.then(modified).flatten().and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age >= ABANDONED) {
            // Another process may have been faster.
            let _ = disk.remove(&path);
        }
    }
}

/// A file of a name that nobody else uses: `NAME.PID.COUNT.tmp`.
fn create_temp(disk: &impl Disk, dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    /// Names taken by leftovers of a crashed process with our id.
    const TRIES: usize = 64;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut last = io::Error::from(ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temp = dir.join(format!("{name}.{}.{count}.tmp", process::id()));
        match disk.create(&temp) {
            Ok(file) => return Ok((file, temp)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The system's disk, of which the `fault`th step fails; after a crash every later one, too.
    struct Faulty {
        step: Cell<usize>,
        fault: usize,
        crash: bool,
    }

    impl Faulty {
        fn step(&self) -> io::Result<()> {
            self.step.set(self.step.get() + 1);
            let at = self.step.get();
            if at == self.fault || (self.crash && at > self.fault) {
                return Err(ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl Disk for Faulty {
        fn make_dir(&self, path: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.make_dir(path))
        }
        fn create(&self, path: &Path) -> io::Result<File> {
            self.step().and_then(|()| System.create(path))
        }
        fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            let done = self.step();
            let part = if done.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
            System.write(file, part).and(done)
        }
        fn sync(&self, file: &File) -> io::Result<()> {
            self.step().and_then(|()| System.sync(file))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.rename(from, to))
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step().and_then(|()| System.remove(path))
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// FAULTS M93: a fault or a crash at each of the five steps (and none at the sixth).
    #[test]
    fn a_save_is_whole_or_nothing() {
        const STEPS: usize = 5;
        for crash in [false, true] {
            for fault in 1..=STEPS + 1 {
                let dir = tempfile::tempdir().unwrap();
                save(&System, dir.path(), "f", b"the old one").unwrap();
                let disk = Faulty { step: Cell::new(0), fault, crash };
                let result = save(&disk, dir.path(), "f", b"the new one");
                let now = fs::read(dir.path().join("f")).unwrap();
                if fault <= STEPS {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
                    assert_eq!(now, b"the old one", "fault {fault}");
                } else {
                    assert_eq!((result.is_ok(), now.as_slice()), (true, &b"the new one"[..]));
                }
                if !crash {
                    assert_eq!(names(dir.path()), ["f"], "fault {fault}");
                }
                // Whatever a crash left, the next save works.
                save(&System, dir.path(), "f", b"later").unwrap();
                assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"later");
            }
        }
    }

    #[test]
    fn leftovers_of_killed_processes_are_removed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["f.1.2.tmp", "f.3.4.tmp", "g.1.2.tmp", "f.old"] {
            File::create(dir.path().join(name)).unwrap();
        }
        let old = File::create(dir.path().join("f.1.2.tmp")).unwrap();
        old.set_modified(old.metadata().unwrap().modified().unwrap() - Duration::from_secs(3601))
            .unwrap();
        save(&System, dir.path(), "f", b"x").unwrap();
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, ["f", "f.3.4.tmp", "f.old", "g.1.2.tmp"]);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        save(&System, &inner, "f", b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner.join("f")), mode(&inner)), (0o600, 0o700));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_neither_followed_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, link) = (dir.path().join("outside"), dir.path().join("f"));
        fs::write(&outside, "not ours").unwrap();
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        assert!(matches!(read(&link, 100), Err(ReadError::NotAFile)));
        save(&System, dir.path(), "f", b"ours").unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"not ours");
        assert_eq!(read(&link, 100).unwrap(), b"ours");
    }

    #[test]
    fn reads_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(matches!(read(&path, 4), Err(ReadError::Missing)));
        assert!(matches!(read(dir.path(), 4), Err(ReadError::NotAFile)));
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        fs::write(&path, "12345").unwrap();
        assert!(matches!(read(&path, 4), Err(ReadError::TooLarge)));
        // A gibibyte without a block on the disk.
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(matches!(read(&path, 4), Err(ReadError::TooLarge)));
    }
}
