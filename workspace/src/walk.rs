//! Looking through folders: in order, without links, without what is ignored, and with an end.

use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::Limits;
use crate::fault::Fault;
use crate::job::Stop;
use crate::root::{Kind, Root, open_file};

/// Files with ignore rules, the stronger one last.
const RULES: [&str; 2] = [".gitignore", ".ignore"];
/// How much of such a file is read: many times what projects have, and a third of a second of work
/// if all of it is costly patterns. No option: rules beyond it are not read, which shows more and
/// never less.
const RULES_BYTES: u64 = 32 << 10;
/// Always left out: what git keeps for itself.
const GIT: &str = ".git";

/// The ignore rules that hold in a folder: its own, then those of the folders above, up to the
/// root. Rules from outside the root are not read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(Option<Arc<Level>>);

#[derive(Debug)]
struct Level {
    own: Gitignore,
    above: Rules,
}

impl Rules {
    /// The rules that hold in `dir`, which is `names` under the root, given those above it.
    pub(crate) fn enter(&self, dir: &Dir, names: &[OsString]) -> Self {
        let mut lines = Vec::new();
        for file in RULES {
            let Ok((file, _)) = open_file(dir, file.as_ref()) else { continue };
            let mut text = Vec::new();
            if file.take(RULES_BYTES).read_to_end(&mut text).is_err() {
                continue;
            }
            if text.len() as u64 == RULES_BYTES {
                // The last line may be a part of one, which would be another rule.
                text.truncate(memchr::memrchr(b'\n', &text).unwrap_or(0));
            }
            lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        match Self::compile(names, lines) {
            Some(own) => Self(Some(Arc::new(Level { own, above: self.clone() }))),
            None => self.clone(),
        }
    }

    /// As many of the first rules as can be compiled: all, but for a file that is made to be too
    /// much.
    fn compile(names: &[OsString], mut lines: Vec<String>) -> Option<Gitignore> {
        while !lines.is_empty() {
            let mut builder = GitignoreBuilder::new(absolute(names));
            for line in &lines {
                // A rule that cannot be read is no rule, as for git.
                let _ = builder.add_line(None, line);
            }
            match builder.build() {
                Ok(own) => return Some(own).filter(|own| !own.is_empty()),
                Err(_) => lines.truncate(lines.len() / 2),
            }
        }
        None
    }

    /// Rules of the folder at `names`, with those of all folders above it.
    pub(crate) fn of(root: &Root, names: &[OsString]) -> Result<Self, Fault> {
        let mut rules = Self::default();
        for depth in 0..=names.len() {
            let here = &names[..depth];
            rules = rules.enter(&root.open_folder(here)?, here);
        }
        Ok(rules)
    }

    /// Rules of a caller, which are stronger than those of files. Fails with what is wrong.
    pub(crate) fn with_globs(&self, globs: &[String]) -> Result<Self, Fault> {
        if globs.is_empty() {
            return Ok(self.clone());
        }
        let mut builder = GitignoreBuilder::new("/");
        for glob in globs {
            builder
                .add_line(None, glob)
                .map_err(|error| Fault::Invalid(format!("not a valid glob: {error}")))?;
        }
        let own = builder.build().map_err(|error| Fault::Invalid(error.to_string()))?;
        Ok(Self(Some(Arc::new(Level { own, above: self.clone() }))))
    }

    fn ignore(&self, names: &[OsString], name: &OsString, folder: bool) -> bool {
        if self.0.is_none() {
            return false;
        }
        let path = absolute(names).join(name);
        let mut level = &self.0;
        while let Some(rules) = level {
            let verdict = rules.own.matched(&path, folder);
            if !verdict.is_none() {
                return verdict.is_ignore();
            }
            level = &rules.above.0;
        }
        false
    }
}

/// A path as ignore rules want it: under a root of its own.
fn absolute(names: &[OsString]) -> PathBuf {
    std::iter::once(OsString::from("/")).chain(names.iter().cloned()).collect()
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) folder: bool,
    pub(crate) link: bool,
}

impl Entry {
    /// A plain file: not a folder, a link, or something that is not to be opened.
    pub(crate) fn kind(&self) -> Kind {
        match (self.folder, self.link) {
            (true, _) => Kind::Folder,
            (_, true) => Kind::Link,
            _ => Kind::File,
        }
    }
}

/// What is in a folder: the first names in order, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    /// All entries that were seen and are not ignored.
    pub(crate) seen: u64,
    /// Nothing was left out: not by `keep`, the budget, or the time.
    pub(crate) complete: bool,
}

/// What one listing or search may look at, in all its folders.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    left: u64,
    pub(crate) depth: usize,
    pub(crate) stop: &'a Stop,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &Limits, stop: &'a Stop) -> Self {
        Self { left: limits.walk_entries, depth: limits.depth, stop }
    }

    pub(crate) fn spent(&self) -> bool {
        self.left == 0 || self.stop.is_set()
    }
}

/// Lists a folder: the `keep` first names in order, out of all of them, in memory for `keep`.
/// `each` is called for every entry that is not ignored, in no order.
pub(crate) fn list(
    dir: &Dir,
    names: &[OsString],
    rules: &Rules,
    keep: usize,
    budget: &mut Budget<'_>,
    mut each: impl FnMut(&Entry),
) -> Result<Listing, Fault> {
    let mut first = BinaryHeap::new();
    let mut listing = Listing { complete: true, ..Listing::default() };
    for entry in dir.entries()? {
        if budget.spent() {
            listing.complete = false;
            break;
        }
        budget.left -= 1;
        // An entry that is gone again, or whose type cannot be had, is none.
        let Ok(entry) = entry else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let entry =
            Entry { name: entry.file_name(), folder: kind.is_dir(), link: kind.is_symlink() };
        if entry.name == GIT || rules.ignore(names, &entry.name, entry.folder) {
            continue;
        }
        listing.seen += 1;
        each(&entry);
        first.push(entry);
        if first.len() > keep {
            first.pop();
            listing.complete = false;
        }
    }
    listing.entries = first.into_sorted_vec();
    Ok(listing)
}

/// Files under a folder, in the order of their paths, as far as the budget goes.
#[derive(Debug)]
pub(crate) struct Files {
    /// Names under the root.
    pub(crate) paths: Vec<Vec<OsString>>,
    /// All of it was looked at.
    pub(crate) complete: bool,
}

/// What is done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Take,
    Pass,
    /// Not taken, and not gone into.
    Prune,
}

/// Finds what `wanted` takes of everything under `names`. It is given names under the root.
/// Links are offered, but not followed.
pub(crate) fn files(
    root: &Root,
    names: &[OsString],
    budget: &mut Budget<'_>,
    wanted: impl FnMut(&[OsString], Kind) -> Verdict,
) -> Result<Files, Fault> {
    let rules = Rules::of(root, names)?;
    let mut walk = Walk {
        budget,
        wanted,
        path: names.to_vec(),
        found: Files { paths: Vec::new(), complete: true },
    };
    walk.folder(&root.open_folder(names)?, &rules, 0)?;
    Ok(walk.found)
}

struct Walk<'a, 'b, W> {
    budget: &'a mut Budget<'b>,
    wanted: W,
    path: Vec<OsString>,
    found: Files,
}

impl<W: FnMut(&[OsString], Kind) -> Verdict> Walk<'_, '_, W> {
    fn folder(&mut self, dir: &Dir, rules: &Rules, depth: usize) -> Result<(), Fault> {
        let listing = list(dir, &self.path, rules, usize::MAX, self.budget, |_| {})?;
        self.found.complete &= listing.complete;
        for entry in listing.entries {
            let kind = entry.kind();
            self.path.push(entry.name);
            let verdict = (self.wanted)(&self.path, kind);
            if verdict == Verdict::Take {
                self.found.paths.push(self.path.clone());
            }
            if kind == Kind::Folder && verdict != Verdict::Prune {
                self.found.complete &= self.enter(dir, rules, depth + 1).is_ok();
            }
            self.path.pop();
        }
        Ok(())
    }

    /// Goes into the folder that `path` ends with.
    fn enter(&mut self, dir: &Dir, rules: &Rules, depth: usize) -> Result<(), Fault> {
        let Some(name) = self.path.last().filter(|_| depth < self.budget.depth) else {
            return Err(Fault::TimedOut);
        };
        self.budget.stop.check()?;
        let dir = dir.open_dir_nofollow(name)?;
        let rules = rules.enter(&dir, &self.path);
        self.folder(&dir, &rules, depth)
    }
}
