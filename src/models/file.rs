//! The catalog cache on the disk: the driver of [`super::decode_cache`] and [`super::encode_cache`].

use std::io;
use std::path::Path;

use super::cache::{self, CacheKey, CacheNote, CacheOptions, Loaded};
use super::catalog::Catalog;
use crate::disk::{self, ReadError, System};

/// What the cache in `dir` holds for this account and endpoint. Never fails: what cannot be used is no
/// catalog and a note; a file that is not there is no catalog and no note.
pub fn load_cache(dir: &Path, key: &CacheKey, now_ms: u64, options: &CacheOptions) -> Loaded {
    match disk::read(&dir.join(key.file_name()), options.max_bytes) {
        Ok(text) => cache::decode(&text, key, now_ms, options),
        Err(ReadError::Missing) => Loaded::default(),
        Err(ReadError::NotAFile) => Loaded::nothing(CacheNote::NotAFile),
        Err(ReadError::TooLarge) => Loaded::nothing(CacheNote::TooLarge),
        Err(ReadError::Io(error)) => Loaded::nothing(CacheNote::Unreadable(error.kind())),
    }
}

/// Keeps a live catalog in `dir`, which is made if it is not there: temporary file, fsync, rename, mode
/// 0600. Says whether there was anything to keep ([`super::encode_cache`]).
///
/// A catalog that cannot be kept is as good as one that was: use it, and tell the error (BEHAVIOUR 13,
/// H34).
///
/// # Errors
/// What the system said; the file is then the old one.
pub fn save_cache(dir: &Path, key: &CacheKey, catalog: &Catalog) -> io::Result<bool> {
    let Some(text) = cache::encode(catalog, key) else { return Ok(false) };
    disk::save(&System, dir, &key.file_name(), text.as_bytes())?;
    Ok(true)
}

/// Removes the catalog of this account and endpoint from `dir`: after signing out.
///
/// # Errors
/// What the system said; that there was none is no error.
pub fn remove_cache(dir: &Path, key: &CacheKey) -> io::Result<()> {
    match std::fs::remove_file(dir.join(key.file_name())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
