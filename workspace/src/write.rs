//! Writing and deleting: whole files at once, by rename, through open folders.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Read, Write};

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, Metadata, OpenOptions};

use crate::fault::Fault;
use crate::job::Stop;
use crate::root::{Place, Root, Stamp, must_be_file, open_file};

const BLOCK: usize = 1 << 20;

/// What must be at a place for it to be written: what a person saw when they said yes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// Nothing, or any file.
    Anything,
    Nothing,
    /// The file, as it was.
    As(Stamp),
}

impl Expect {
    fn holds(self, now: Option<&Metadata>) -> Result<(), Fault> {
        let holds = match self {
            Self::Anything => true,
            Self::Nothing => now.is_none(),
            Self::As(seen) => now.map(Stamp::of) == Some(seen),
        };
        if holds { Ok(()) } else { Err(Fault::Changed) }
    }
}

/// A number that nobody can guess, for names that must not be there yet.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Puts `bytes` at `place`: into a new file beside it, which then takes its name. A reader sees
/// the old content or the new, never a part. Permissions stay; missing folders are made.
pub(crate) fn replace(
    root: &Root,
    place: &Place,
    bytes: &[u8],
    expect: Expect,
    stop: &Stop,
) -> Result<(), Fault> {
    let Some((name, parents)) = place.names.split_last() else {
        return Err(Fault::Kind { is: "the root of the workspace", wanted: "a file" });
    };
    let dir = make_folders(root, parents)?;
    let before = present(&dir, name)?;
    expect.holds(before.as_ref())?;
    let temp = Temp::new(&dir, before.is_some())?;
    temp.fill(bytes, before.as_ref(), stop)?;
    // Whoever wrote in between is noticed up to here; rename itself cannot be told to look.
    let now = present(&dir, name)?;
    let as_before = || before.as_ref().map_or(Expect::Anything, |file| Expect::As(Stamp::of(file)));
    match expect {
        Expect::Anything => as_before().holds(now.as_ref())?,
        expect => expect.holds(now.as_ref())?,
    }
    stop.check()?;
    temp.take_name(name)
}

/// What is at `name`: nothing, or a file that may be replaced.
fn present(dir: &Dir, name: &OsStr) -> Result<Option<Metadata>, Fault> {
    let metadata = match dir.symlink_metadata(name) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    must_be_file(metadata.file_type().into())?;
    // Rename would not ask.
    if metadata.permissions().readonly() { Err(Fault::ReadOnly) } else { Ok(Some(metadata)) }
}

fn make_folders(root: &Root, names: &[OsString]) -> Result<Dir, Fault> {
    let mut dir = root.open_folder(&[])?;
    for name in names {
        dir = match dir.open_dir_nofollow(name) {
            Ok(next) => next,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match dir.create_dir(name) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error.into());
                    }
                    _ => {}
                }
                dir.open_dir_nofollow(name)?
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(dir)
}

/// A file without a name of its own yet; it goes away unless it takes one.
struct Temp<'a> {
    dir: &'a Dir,
    file: cap_std::fs::File,
    name: String,
    done: bool,
}

impl<'a> Temp<'a> {
    /// `private`: for nobody else to read until it has the permissions of the file it replaces.
    fn new(dir: &'a Dir, private: bool) -> Result<Self, Fault> {
        let name = format!(".agentwire-{:016x}.tmp", random());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if private {
            cap_std::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        #[cfg(not(unix))]
        let _ = private;
        let file = dir.open_with(&name, &options)?;
        Ok(Self { dir, file, name, done: false })
    }

    fn fill(&self, bytes: &[u8], like: Option<&Metadata>, stop: &Stop) -> Result<(), Fault> {
        let mut file = &self.file;
        for block in bytes.chunks(BLOCK) {
            stop.check()?;
            file.write_all(block)?;
        }
        if let Some(like) = like {
            self.file.set_permissions(like.permissions())?;
        }
        // Else a power cut could leave the new name with no content.
        self.file.sync_all()?;
        Ok(())
    }

    fn take_name(mut self, name: &OsStr) -> Result<(), Fault> {
        self.dir.rename(&self.name, self.dir, name)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.done {
            // Nothing is left to be told if this fails too.
            self.dir.remove_file(&self.name).ok();
        }
    }
}

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    pub(crate) size: u64,
    /// The text, if it was asked for, is one, and is short enough.
    pub(crate) text: String,
}

/// Deletes the file, or the link, at `place`. Its text is kept if it has at most `keep` bytes.
pub(crate) fn delete(root: &Root, place: &Place, keep: usize) -> Result<Deleted, Fault> {
    let (dir, name) = root.open_parent(place)?;
    let kind = dir.symlink_metadata(name)?.file_type();
    let mut deleted = Deleted::default();
    if !kind.is_symlink() {
        must_be_file(kind.into())?;
        deleted.size = dir.symlink_metadata(name)?.len();
        if keep > 0 && deleted.size <= keep as u64 {
            deleted.text = text_of(&dir, name, keep).unwrap_or_default();
        }
    }
    dir.remove_file(name)?;
    Ok(deleted)
}

fn text_of(dir: &Dir, name: &OsStr, keep: usize) -> Option<String> {
    let (file, _) = open_file(dir, name).ok()?;
    let mut text = String::new();
    file.take(keep as u64 + 1).read_to_string(&mut text).ok()?;
    Some(text).filter(|text| text.len() <= keep)
}
