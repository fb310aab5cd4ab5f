//! The one folder, and the only way to a path under it.
//!
//! A path is looked up link by link to a [`Place`]: names without any link. That is what a person
//! is asked about. Then the place is opened name by name, following no link at all: if somebody
//! put a link there in between, opening fails. So what was approved is what is touched, and no
//! race leads out of the root. All of it goes through handles of `cap-std`, none through paths.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use cap_fs_ext::{
    DirExt, FollowSymlinks, MetadataExt as _, OpenOptionsFollowExt, OpenOptionsSyncExt,
};
use cap_std::fs::{Dir, File, FileType, Metadata, OpenOptions};

use crate::fault::Fault;

/// How many links one path may lead over; what Linux allows. No option: the system has none.
const LINKS: usize = 40;
/// How many names one path may have: each is an open folder while a path is looked up, and several
/// are looked up at once. No option: no tree that people made is as deep.
const NAMES: usize = 128;

/// The folder that a workspace is about.
#[derive(Debug)]
pub(crate) struct Root {
    dir: Dir,
    /// Where it is, without links: commands start here.
    real: PathBuf,
    /// As the caller wrote it, made absolute.
    given: PathBuf,
    /// What the service sees instead.
    shown: String,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Absent,
    File,
    Folder,
    /// Only where the last name is not followed.
    Link,
    Other,
}

impl Kind {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::File => "a file",
            Self::Folder => "a folder",
            Self::Link => "a link",
            Self::Other => "a device, a socket or a pipe",
        }
    }
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            kind if kind.is_file() => Self::File,
            kind if kind.is_dir() => Self::Folder,
            kind if kind.is_symlink() => Self::Link,
            _ => Self::Other,
        }
    }
}

/// A path under the root, without links when it was looked up.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) names: Vec<OsString>,
    pub(crate) kind: Kind,
}

impl Place {
    /// Relative to the root, with `/`; the root itself is `.`.
    pub(crate) fn relative(&self) -> String {
        relative(&self.names)
    }
}

/// Relative to the root, with `/`; the root itself is `.`.
pub(crate) fn relative(names: &[OsString]) -> String {
    if names.is_empty() {
        return ".".into();
    }
    let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
    names.join("/")
}

/// Whether the last name of a path is followed when it is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Follow,
    Keep,
}

impl Root {
    /// `real` and `given` are absolute; `shown` has no `/` at its end, unless it is all of it.
    pub(crate) fn new(dir: Dir, real: PathBuf, given: PathBuf, shown: String) -> Self {
        Self { dir, real, given, shown }
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// What the service sees of a place.
    pub(crate) fn show(&self, names: &[OsString]) -> String {
        match (names, self.shown.as_str()) {
            ([], shown) => shown.to_owned(),
            (names, "/") => format!("/{}", relative(names)),
            (names, shown) => format!("{shown}/{}", relative(names)),
        }
    }

    /// Where a place is on this machine; for a command to start in.
    pub(crate) fn real(&self, place: &Place) -> PathBuf {
        self.real.join(place.names.iter().collect::<PathBuf>())
    }

    /// Looks a path up. Absolute ones are understood under the name of the root that the service
    /// sees and under its real one.
    pub(crate) fn find(&self, text: &str, last: Last) -> Result<Place, Fault> {
        let path = Path::new(text);
        let names = if path.has_root() { self.strip(path).ok_or(Fault::Outside)? } else { path };
        let mut lookup = Lookup { root: self, done: Vec::new(), dirs: Vec::new(), links: 0 };
        let kind = lookup.walk(lexical(names)?, last)?;
        Ok(Place { names: lookup.done, kind })
    }

    fn strip<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        [Path::new(&self.shown), &self.given, &self.real]
            .into_iter()
            .find_map(|root| path.strip_prefix(root).ok())
    }

    /// Opens a folder name by name, following no link.
    pub(crate) fn open_folder(&self, names: &[OsString]) -> Result<Dir, Fault> {
        let mut dir = self.dir.try_clone()?;
        for name in names {
            dir = dir.open_dir_nofollow(name)?;
        }
        Ok(dir)
    }

    /// The folder that a place is in, and its name there.
    pub(crate) fn open_parent<'a>(&self, place: &'a Place) -> Result<(Dir, &'a OsStr), Fault> {
        let Some((name, parents)) = place.names.split_last() else {
            return Err(Fault::Kind { is: "the root of the workspace", wanted: "a file" });
        };
        Ok((self.open_folder(parents)?, name))
    }

    /// Opens a file for reading, following no link.
    pub(crate) fn open_file(&self, place: &Place) -> Result<(File, Metadata), Fault> {
        let (dir, name) = self.open_parent(place)?;
        open_file(&dir, name)
    }
}

/// Opens a file in `dir` for reading: never through a link, and nothing that is no plain file.
pub(crate) fn open_file(dir: &Dir, name: &OsStr) -> Result<(File, Metadata), Fault> {
    // Opening a device can do something, opening a pipe can wait for ever: look before, and open
    // so that it does not wait if it was exchanged since.
    must_be_file(dir.symlink_metadata(name)?.file_type().into())?;
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No).nonblock(true);
    let file = dir.open_with(name, &options)?;
    let metadata = file.metadata()?;
    must_be_file(metadata.file_type().into())?;
    Ok((file, metadata))
}

pub(crate) fn must_be_file(kind: Kind) -> Result<(), Fault> {
    match kind {
        Kind::File => Ok(()),
        Kind::Absent => Err(Fault::NotFound),
        // It was none when the path was looked up.
        Kind::Link => Err(Fault::Changed),
        Kind::Folder | Kind::Other => Err(Fault::Kind { is: kind.words(), wanted: "a file" }),
    }
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) len: u64,
    modified: Option<cap_std::time::SystemTime>,
    file: (u64, u64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            file: (metadata.dev(), metadata.ino()),
        }
    }

    #[cfg(test)]
    pub(crate) fn made(len: u64, version: u64) -> Self {
        Self { len, modified: None, file: (0, version) }
    }
}

/// The names of a relative path; `..` takes one away, and may not take what is not there.
fn lexical(path: &Path) -> Result<VecDeque<OsString>, Fault> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if names.len() < NAMES => names.push_back(name.to_owned()),
            Component::Normal(_) => return Err(Fault::Invalid("the path is too long".into())),
            Component::CurDir => {}
            Component::ParentDir => {
                names.pop_back().ok_or(Fault::Outside)?;
            }
            Component::RootDir | Component::Prefix(_) => return Err(Fault::Outside),
        }
    }
    Ok(names)
}

/// One path on its way to a place.
struct Lookup<'a> {
    root: &'a Root,
    done: Vec<OsString>,
    /// The open folders of `done`.
    dirs: Vec<Dir>,
    links: usize,
}

impl Lookup<'_> {
    fn walk(&mut self, mut ahead: VecDeque<OsString>, last: Last) -> Result<Kind, Fault> {
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                // Of a link: without links in `done`, the parent is the one before.
                self.done.pop().ok_or(Fault::Outside)?;
                self.dirs.pop();
                continue;
            }
            let here = self.dirs.last().unwrap_or(&self.root.dir);
            let kind = match here.symlink_metadata(&name) {
                Ok(metadata) => metadata.file_type().into(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return self.absent(name, ahead);
                }
                Err(error) => return Err(error.into()),
            };
            match kind {
                Kind::Link if last == Last::Follow || !ahead.is_empty() => {
                    self.link(&name, &mut ahead)?;
                }
                Kind::Folder => {
                    let dir = here.open_dir_nofollow(&name)?;
                    self.dirs.push(dir);
                    self.done.push(name);
                }
                kind if ahead.is_empty() => {
                    self.done.push(name);
                    return Ok(kind);
                }
                _ => return Err(Fault::NotADirectory),
            }
        }
        Ok(Kind::Folder)
    }

    /// Nothing is there: the rest of the path is as it is written.
    fn absent(&mut self, name: OsString, ahead: VecDeque<OsString>) -> Result<Kind, Fault> {
        if ahead.iter().any(|name| name == "..") {
            return Err(Fault::NotFound);
        }
        self.done.push(name);
        self.done.extend(ahead);
        Ok(Kind::Absent)
    }

    /// Puts the target of a link before what is still ahead.
    fn link(&mut self, name: &OsStr, ahead: &mut VecDeque<OsString>) -> Result<(), Fault> {
        self.links += 1;
        if self.links > LINKS {
            return Err(Fault::Invalid("the path leads over too many links".into()));
        }
        let here = self.dirs.last().unwrap_or(&self.root.dir);
        let target = here.read_link_contents(name)?;
        let mut relative = target.as_path();
        if target.has_root() {
            // A link that names the root as it really is stays inside; the shown name is ours.
            relative = [&self.root.real, &self.root.given]
                .into_iter()
                .find_map(|root| target.strip_prefix(root).ok())
                .ok_or(Fault::Outside)?;
            self.done.clear();
            self.dirs.clear();
        }
        for component in relative.components().rev() {
            match component {
                Component::Normal(name) => ahead.push_front(name.to_owned()),
                Component::ParentDir => ahead.push_front("..".into()),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return Err(Fault::Outside),
            }
        }
        if ahead.len() > NAMES {
            return Err(Fault::Invalid("the path leads over too many links".into()));
        }
        Ok(())
    }
}
