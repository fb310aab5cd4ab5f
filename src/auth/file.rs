//! Tokens in files of this user: a driver, it touches the disk.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::format;
use super::store::{Key, TokenStore};
use super::tokens::Tokens;
use crate::disk::{self, ReadError, System};
use crate::error::{Blame, Error, Kind, Result};

/// Keeps the tokens of each account in a file of its own, so that two programs never write into each
/// other's: mode 0600 in a directory of mode 0700, written whole or not at all. Links are not
/// followed.
#[derive(Debug, Clone)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// A store in `dir`, which is made when something is kept.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The store in this user's configuration directory: `agentwire` below `$XDG_CONFIG_HOME` or
    /// `~/.config`, `~/Library/Application Support` or `%APPDATA%`.
    ///
    /// # Errors
    /// The system does not say where the home directory is.
    #[cfg(feature = "auth")]
    pub fn in_config_dir() -> Result<Self> {
        use etcetera::BaseStrategy as _;
        let dirs = etcetera::base_strategy::choose_native_strategy().map_err(|_| {
            local("this user has no home directory that sign-ins could be kept in".to_owned())
                .with_hint("set HOME")
        })?;
        #[cfg(target_os = "macos")]
        let dir = dirs.data_dir();
        #[cfg(not(target_os = "macos"))]
        let dir = dirs.config_dir();
        Ok(Self::new(dir.join("agentwire")))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of an account: a name that says nothing of it.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(Self::name(key))
    }

    fn name(key: &Key) -> String {
        format!("{}.json", name_of(key))
    }

    fn failed(&self, key: &Key, what: &str, error: &std::io::Error) -> Error {
        local(format!("the sign-in cannot be {what} {}: {error}", self.shown(key)))
            .with_hint("sign-ins need a directory that this user can read and write")
    }

    fn unusable(&self, key: &Key, why: &str) -> Error {
        format::unusable(&format!("the sign-in in {}", self.shown(key)), why)
    }

    /// The file's name for an error.
    fn shown(&self, key: &Key) -> String {
        let path: String = self.path(key).to_string_lossy().chars().take(200).collect();
        path.escape_debug().to_string()
    }
}

/// The name of an account where others may read it: a digest.
pub(super) fn name_of(key: &Key) -> String {
    let digest = Sha256::digest(format!("{}\n{}", key.endpoint, key.account));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("sign-in-{hex}")
}

impl TokenStore for FileStore {
    fn load(&self, key: &Key) -> Result<Option<Tokens>> {
        match disk::read(&self.path(key), format::MAX_TEXT as u64) {
            Ok(text) => {
                let read = format::read(&format::bytes(text), key);
                read.map(Some).map_err(|why| self.unusable(key, why))
            }
            Err(ReadError::Missing) => Ok(None),
            Err(ReadError::NotAFile) => {
                Err(self.unusable(key, "is not a plain file and was left alone"))
            }
            Err(ReadError::TooLarge) => Err(self.unusable(key, format::TOO_LARGE)),
            Err(ReadError::Io(error)) => Err(self.failed(key, "read from", &error)),
        }
    }

    fn check(&self, key: &Key) -> Result<()> {
        disk::check_writable(&System, &self.dir, &Self::name(key))
            .map_err(|error| self.failed(key, "kept in", &error))
    }

    fn save(&self, key: &Key, tokens: &Tokens) -> Result<()> {
        let text = format::encode(key, tokens);
        disk::save(&System, &self.dir, &Self::name(key), text.expose().as_bytes())
            .map_err(|error| self.failed(key, "kept in", &error))
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        match std::fs::remove_file(self.path(key)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(key, "removed from", &error)),
        }
    }
}

fn local(message: String) -> Error {
    Error::new(Kind::Rejected, message).with_blame(Blame::Local)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tokens(n: usize) -> Tokens {
        Tokens::new(format!("access-{n}-{}", "a".repeat(n)), format!("refresh-{n}"), 5)
    }

    #[test]
    fn accounts_are_kept_apart_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("deeper/agentwire"));
        let home = Key::new("https://api.example");
        let work = home.clone().account("work");
        assert_eq!(store.load(&home).unwrap(), None);
        assert!(!store.remove(&home).unwrap());
        store.save(&home, &tokens(1)).unwrap();
        store.save(&work, &tokens(2)).unwrap();
        store.save(&home, &tokens(3)).unwrap();
        assert_eq!(store.load(&home).unwrap(), Some(tokens(3)));
        assert_eq!(store.load(&work).unwrap(), Some(tokens(2)));
        assert!(store.remove(&home).unwrap());
        assert_eq!(
            (store.load(&home).unwrap(), store.load(&work).unwrap()),
            (None, Some(tokens(2)))
        );
    }

    #[cfg(unix)]
    #[test]
    fn m93_files_are_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("agentwire"));
        let key = Key::new("https://api.example");
        store.save(&key, &tokens(1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.path(&key)), mode(store.dir())), (0o600, 0o700));
    }

    #[test]
    fn m92_what_is_no_sign_in_is_refused_and_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path());
        let key = Key::new("https://api.example");
        let path = store.path(&key);
        for damaged in ["", "{\"version\":1", "zz9 secret"] {
            fs::write(&path, damaged).unwrap();
            let error = store.load(&key).unwrap_err();
            assert_eq!(error.kind(), &Kind::Unauthenticated);
            assert!(error.message().contains(path.to_str().unwrap()), "{error}");
            assert!(!format!("{error:?}").contains("zz9"));
        }
        fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(store.load(&key).is_err());
        store.save(&key, &tokens(1)).unwrap();
        assert_eq!(store.load(&key).unwrap(), Some(tokens(1)));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(store.load(&key).is_err());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_found_before_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::new("https://api.example");
        let store = FileStore::new(dir.path().join("deeper/agentwire"));
        store.check(&key).unwrap();
        assert_eq!(fs::read_dir(store.dir()).unwrap().count(), 0);
        // A file where the directory should be stops every user, also one that may do all.
        fs::write(dir.path().join("taken"), "").unwrap();
        let error = FileStore::new(dir.path().join("taken")).check(&key).unwrap_err();
        assert_eq!((error.blame(), error.hint().is_some()), (Blame::Local, true));
        assert!(error.message().contains("taken"), "{error}");
    }

    /// FAULTS M94.
    #[test]
    fn eight_writers_never_leave_a_mix() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path());
        let key = Key::new("https://api.example");
        store.save(&key, &tokens(1)).unwrap();
        std::thread::scope(|scope| {
            for writer in 1..=8 {
                let (store, key) = (&store, &key);
                scope.spawn(move || {
                    for _ in 0..25 {
                        store.save(key, &tokens(writer)).unwrap();
                        let found = store.load(key).unwrap().unwrap();
                        assert!((1..=8).any(|n| found == tokens(n)));
                    }
                });
            }
        });
    }
}
