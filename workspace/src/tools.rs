//! What is done, for whichever family asks: permission, path, approval, work.

use std::io::Read;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use agentwire::exec::ExecCall;
use agentwire::proto::LsDirectoryTreeNode;

use crate::approval::{Scope, Wish};
use crate::fault::Fault;
use crate::grep::{self, Found, Query};
use crate::job::Stop;
use crate::read::{self, Content, Keep, Lines};
use crate::root::{Kind, Last, Place, Stamp, must_be_file};
use crate::walk::{Budget, Verdict};
use crate::write::{Deleted, Expect};
use crate::{Access, Shared, Workspace, diff, edit, ls, walk, write};

/// Who asks: the exec, and the name of its case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) call: &'a ExecCall,
    pub(crate) tool: &'static str,
}

/// What an edit did.
#[derive(Debug)]
pub(crate) struct Edited {
    pub(crate) hunks: String,
    pub(crate) first_line: usize,
    pub(crate) path: String,
}

/// What a search by name found.
#[derive(Debug)]
pub(crate) struct Names {
    /// Relative to the root; folders end with `/`.
    pub(crate) paths: Vec<String>,
    pub(crate) complete: bool,
}

impl Workspace {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn permit(&self, access: Access) -> Result<(), Fault> {
        if self.allows(access) { Ok(()) } else { Err(Fault::Missing(access)) }
    }

    /// Looks a path up. An empty one is the root.
    pub(crate) async fn find(&self, path: &str, last: Last) -> Result<Place, Fault> {
        let path = path.to_owned();
        self.job(move |shared, _| shared.root.find(&path, last)).await
    }

    pub(crate) async fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Stop) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = Arc::clone(&self.shared);
        self.shared.jobs.run(move |stop| work(&shared, stop)).await
    }

    pub(crate) async fn ask(
        &self,
        asker: Asker<'_>,
        (access, scope): (Access, Scope),
        place: &Place,
        description: String,
        preview: Option<&str>,
    ) -> Result<(), Fault> {
        let path = self.shared.root.show(&place.names);
        let wish = Wish {
            call: asker.call,
            access,
            scope,
            tool: asker.tool,
            description,
            path: &path,
            preview,
        };
        self.desk.ask(wish).await
    }

    /// Looks a path up for reading, and asks.
    async fn admit(
        &self,
        asker: Asker<'_>,
        path: &str,
        what: impl FnOnce(&str) -> String,
    ) -> Result<Place, Fault> {
        self.permit(Access::Read)?;
        let place = self.find(path, Last::Follow).await?;
        if place.kind == Kind::Absent {
            return Err(Fault::NotFound);
        }
        let description = what(&place.relative());
        self.ask(asker, (Access::Read, Scope::Reads), &place, description, None).await?;
        Ok(place)
    }

    pub(crate) async fn read_file(
        &self,
        asker: Asker<'_>,
        path: &str,
        lines: Lines,
        keep: Keep,
    ) -> Result<Content, Fault> {
        let place = self.admit(asker, path, |path| format!("read the file `{path}`")).await?;
        must_be_file(place.kind)?;
        self.job(move |shared, stop| {
            let (mut file, _) = shared.root.open_file(&place)?;
            read::read(&mut file, lines, keep, &shared.limits, stop)
        })
        .await
    }

    /// The tree, and whether time ran out.
    pub(crate) async fn list_folder(
        &self,
        asker: Asker<'_>,
        path: &str,
        globs: Vec<String>,
        room: usize,
        time: Option<Duration>,
    ) -> Result<(LsDirectoryTreeNode, bool), Fault> {
        let limits = &self.shared.limits;
        if globs.len() > limits.globs {
            return Err(Fault::Invalid(format!("more than {} globs to ignore", limits.globs)));
        }
        globs.iter().try_for_each(|glob| grep::short(glob, limits))?;
        let place = self.admit(asker, path, |path| format!("list the folder `{path}`")).await?;
        must_be_folder(&place)?;
        let shared = Arc::clone(&self.shared);
        let time = time.unwrap_or(self.shared.limits.file_time);
        let work = move |stop: &Stop| {
            let mut budget = Budget::new(&shared.limits, stop);
            let room = (room, shared.limits.answer_bytes);
            let tree = ls::tree(&shared.root, &place.names, &globs, room, &mut budget)?;
            Ok((tree, stop.is_set()))
        };
        self.shared.jobs.run_for(time, work).await
    }

    /// The first `keep` names of a folder, those of folders with `/`, and how many there are:
    /// what is ignored counts too.
    pub(crate) async fn list_names(
        &self,
        asker: Asker<'_>,
        path: &str,
        keep: usize,
    ) -> Result<(Vec<String>, u64), Fault> {
        let place = self.admit(asker, path, |path| format!("list the folder `{path}`")).await?;
        must_be_folder(&place)?;
        self.job(move |shared, stop| {
            let dir = shared.root.open_folder(&place.names)?;
            let mut budget = Budget::new(&shared.limits, stop);
            let rules = walk::Rules::default();
            let listing = walk::list(&dir, &place.names, &rules, keep, &mut budget, |_| {})?;
            let name = |entry: walk::Entry| {
                let end = if entry.folder { "/" } else { "" };
                format!("{}{end}", entry.name.to_string_lossy())
            };
            Ok((listing.entries.into_iter().map(name).collect(), listing.seen))
        })
        .await
    }

    pub(crate) async fn search(
        &self,
        asker: Asker<'_>,
        path: &str,
        query: Query,
    ) -> Result<Found, Fault> {
        let pattern = query.pattern.clone();
        let place = self
            .admit(asker, path, |path| match pattern.as_str() {
                "" => format!("list the files under `{path}`"),
                pattern => format!("search `{path}` for `{pattern}`"),
            })
            .await?;
        self.job(move |shared, stop| {
            grep::search(&shared.root, &place, &query, &shared.limits, stop)
        })
        .await
    }

    /// Files, folders and links whose name, or whose path if the glob has a `/`, matches.
    pub(crate) async fn find_names(
        &self,
        asker: Asker<'_>,
        path: &str,
        glob: &str,
    ) -> Result<Names, Fault> {
        grep::short(glob, &self.shared.limits)?;
        let by_path = glob.contains('/');
        let matcher = globset::GlobBuilder::new(glob.trim_start_matches('/'))
            .literal_separator(true)
            .build()
            .map_err(|error| Fault::Invalid(format!("not a valid glob: {error}")))?
            .compile_matcher();
        let what = |path: &str| format!("find files named `{glob}` under `{path}`");
        let place = self.admit(asker, path, what).await?;
        must_be_folder(&place)?;
        self.job(move |shared, stop| {
            let mut budget = Budget::new(&shared.limits, stop);
            let above = place.names.len();
            let mut folders = std::collections::HashSet::new();
            let mut found = walk::files(&shared.root, &place.names, &mut budget, |names, kind| {
                let below = names.get(above..).unwrap_or_default();
                let subject: std::path::PathBuf = match by_path {
                    true => below.iter().collect(),
                    false => below.last().map(std::path::PathBuf::from).unwrap_or_default(),
                };
                if !matcher.is_match(subject) {
                    return Verdict::Pass;
                }
                if kind == Kind::Folder {
                    folders.insert(names.to_vec());
                }
                Verdict::Take
            })?;
            found.complete &= !stop.is_set();
            let show = |names: Vec<_>| match folders.contains(&names) {
                true => crate::root::relative(&names) + "/",
                false => crate::root::relative(&names),
            };
            let paths = found.paths.into_iter().map(show).collect();
            Ok(Names { paths, complete: found.complete })
        })
        .await
    }

    /// Gives the path as the service knows it.
    pub(crate) async fn write_file(
        &self,
        asker: Asker<'_>,
        path: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<String, Fault> {
        self.permit(Access::Write)?;
        let length = bytes.as_ref().len();
        self.fits(length as u64)?;
        let place = self.find(path, Last::Follow).await?;
        self.unprotected(&place)?;
        let (what, relative) = match place.kind {
            Kind::Absent => ("create the file", place.relative()),
            kind => (must_be_file(kind).map(|()| "overwrite the file")?, place.relative()),
        };
        let description = format!("{what} `{relative}` with {length} bytes");
        let preview = std::str::from_utf8(bytes.as_ref()).ok();
        self.ask(asker, (Access::Write, Scope::Writes), &place, description, preview).await?;
        let shown = self.shared.root.show(&place.names);
        // Who said yes to a new file did not say yes to overwriting one.
        let expect = match place.kind {
            Kind::Absent if self.desk.asks() => Expect::Nothing,
            _ => Expect::Anything,
        };
        self.job(move |shared, stop| {
            let _one = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
            write::replace(&shared.root, &place, bytes.as_ref(), expect, stop)
        })
        .await?;
        Ok(shown)
    }

    pub(crate) async fn edit_file(
        &self,
        asker: Asker<'_>,
        path: &str,
        edits: Vec<(String, String)>,
    ) -> Result<Edited, Fault> {
        self.permit(Access::Write)?;
        self.permit(Access::Read)?;
        if edits.is_empty() || edits.len() > self.shared.limits.edits {
            let most = self.shared.limits.edits;
            return Err(Fault::Invalid(format!("an edit takes 1 to {most} replacements")));
        }
        let place = self.find(path, Last::Follow).await?;
        self.unprotected(&place)?;
        must_be_file(place.kind)?;
        let count = edits.len();
        let at = place.clone();
        let draft = self.job(move |shared, stop| draft(shared, &at, &edits, stop)).await;
        let relative = place.relative();
        let draft = match draft {
            Ok(draft) => draft,
            Err(fault) => {
                // Why an edit does not fit tells what is in the file: that is reading.
                let description = format!("tell why an edit of `{relative}` does not fit it");
                let wish = (Access::Read, Scope::Reads);
                self.ask(asker, wish, &place, description, None).await?;
                return Err(fault);
            }
        };
        let description = format!("edit the file `{relative}` in {count} places");
        let wish = (Access::Write, Scope::Writes);
        self.ask(asker, wish, &place, description, Some(&draft.hunks)).await?;
        let shown = self.shared.root.show(&place.names);
        self.job(move |shared, stop| {
            let _one = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
            write::replace(
                &shared.root,
                &place,
                draft.text.as_bytes(),
                Expect::As(draft.seen),
                stop,
            )?;
            Ok(Edited { hunks: draft.hunks, first_line: draft.first_line, path: shown })
        })
        .await
    }

    /// Gives the path as the service knows it, and what was there.
    pub(crate) async fn delete_file(
        &self,
        asker: Asker<'_>,
        path: &str,
    ) -> Result<(String, Deleted), Fault> {
        self.permit(Access::Write)?;
        let place = self.find(path, Last::Keep).await?;
        self.unprotected(&place)?;
        if place.kind != Kind::Link {
            must_be_file(place.kind)?;
        }
        let description = format!("delete `{}`, {}", place.relative(), place.kind.words());
        self.ask(asker, (Access::Write, Scope::Deletes), &place, description, None).await?;
        // What was there is told only to whom everything may be read.
        let readable = self.allows(Access::Read) && self.desk.has(&Scope::Reads);
        let keep = if readable { self.shared.limits.answer_bytes } else { 0 };
        let shown = self.shared.root.show(&place.names);
        let deleted = self
            .job(move |shared, _| {
                let _one = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
                write::delete(&shared.root, &place, keep)
            })
            .await?;
        Ok((shown, deleted))
    }

    fn fits(&self, length: u64) -> Result<(), Fault> {
        let most = self.shared.limits.write_bytes;
        if length <= most {
            return Ok(());
        }
        Err(Fault::Unfit(format!("{length} bytes are too many; the limit for one file is {most}")))
    }

    fn unprotected(&self, place: &Place) -> Result<(), Fault> {
        let protected = |name: &std::ffi::OsString| {
            self.shared.protected.iter().any(|own| name.eq_ignore_ascii_case(own))
        };
        match place.names.iter().find(|name| protected(name)) {
            None => Ok(()),
            Some(name) => Err(Fault::Refused(format!(
                "nothing in `{}` is written in this workspace; what is there can hold commands",
                name.to_string_lossy()
            ))),
        }
    }
}

fn must_be_folder(place: &Place) -> Result<(), Fault> {
    match place.kind {
        Kind::Folder => Ok(()),
        Kind::Absent => Err(Fault::NotFound),
        kind => Err(Fault::Kind { is: kind.words(), wanted: "a folder" }),
    }
}

/// An edit before anybody said yes to it.
struct Draft {
    text: String,
    hunks: String,
    first_line: usize,
    /// The file that it is about.
    seen: Stamp,
}

fn draft(
    shared: &Shared,
    place: &Place,
    edits: &[(String, String)],
    stop: &Stop,
) -> Result<Draft, Fault> {
    let (mut file, metadata) = shared.root.open_file(place)?;
    let seen = Stamp::of(&metadata);
    let most = shared.limits.write_bytes;
    if seen.len > most {
        return Err(Fault::Unfit(format!(
            "the file has {} bytes; the limit for an edit is {most}",
            seen.len
        )));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(most + 1).read_to_end(&mut bytes)?;
    stop.check()?;
    if Stamp::of(&file.metadata()?) != seen {
        return Err(Fault::Changed);
    }
    if bytes.contains(&0) {
        return Err(Fault::Unfit("a binary file cannot be edited".into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Fault::Unfit("the file is not UTF-8 and cannot be edited without damage".into())
    })?;
    let edits: Vec<_> = edits.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
    let changes = edit::changes(&text, &edits).map_err(Fault::Invalid)?;
    let (hunks, first_line) = diff::hunks(&text, &changes);
    let text = edit::apply(&text, &changes);
    if text.len() as u64 > most {
        return Err(Fault::Unfit(format!(
            "the file would be longer than the limit of {most} bytes"
        )));
    }
    Ok(Draft { text, hunks, first_line, seen })
}
