//! Conversations as files: one each, whole or not at all (FAULTS M92-M94).
//!
//! A file is a line `agentwire conversation 1`, 32 bytes of SHA-256 over the rest, and the rest:
//! what [`Conversation::to_bytes`] gives. Its name is a digest of the conversation's id, for an id
//! may hold what no file system takes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::disk::{self, ReadError, System};
use crate::error::{Blame, Error, Kind, Result};
use crate::wire::Reader;

use super::{BlobLimits, Conversation, ConversationStore};

/// What a file begins with; the number is the version of the form around the state.
const HEADER: &[u8] = b"agentwire conversation 1\n";
const DIGEST: usize = 32;
const SUFFIX: &str = ".conversation";
/// What is read of a file to find the id in it: header, digest, version and the longest id.
const HEAD: u64 = 512;
/// Files that are looked at for a list: more than anybody goes back to. No option: the folder is this
/// side's own, and a conversation is opened by its id whether it is listed or not.
const LISTED: usize = 100_000;

/// Keeps each conversation in a file of its own in one directory.
///
/// The directory is made when something is first saved, for this user alone (0700), and so are the
/// files (0600). Links are not followed. A file that is damaged is renamed to `….damaged` and
/// reported once; the conversation can then be started from its history.
#[derive(Debug, Clone)]
pub struct DiskStore {
    dir: PathBuf,
    limits: BlobLimits,
    most: u64,
}

impl DiskStore {
    /// The store in this directory. Nothing is touched yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), limits: BlobLimits::default(), most: 256 << 20 }
    }

    /// Limits for the service's blobs of the conversations that are loaded.
    #[must_use]
    pub fn blob_limits(mut self, limits: BlobLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The largest file that is written or read, in bytes. 256 MiB: four times what the service may
    /// have us keep in one conversation.
    #[must_use]
    pub fn max_file(mut self, bytes: u64) -> Self {
        self.most = bytes;
        self
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves a damaged file out of the way and says so.
    fn set_aside(&self, name: &str, why: &str) -> Error {
        let aside = format!("{name}.damaged");
        let moved = fs::rename(self.dir.join(name), self.dir.join(&aside));
        let place = match moved {
            Ok(()) => format!("it is now the file {aside}"),
            Err(error) => format!("and it cannot be set aside ({})", error.kind()),
        };
        failure(format!("the kept conversation is damaged: {why}; {place}"))
            .with_hint("start the conversation from its history")
    }

    fn decode(&self, bytes: Vec<u8>, id: &str) -> Result<Conversation, String> {
        let bytes = Bytes::from(bytes);
        let state = bytes.slice_ref(state(&bytes)?);
        let conversation =
            Conversation::from_bytes(&state, self.limits).map_err(|e| e.message().to_owned())?;
        match conversation.id() == Some(id) {
            true => Ok(conversation),
            false => Err("it is another conversation's".to_owned()),
        }
    }
}

impl ConversationStore for DiskStore {
    fn load(&self, id: &str) -> Result<Option<Conversation>> {
        let name = file_name(id);
        match disk::read(&self.dir.join(&name), self.most) {
            Ok(bytes) => {
                self.decode(bytes, id).map(Some).map_err(|why| self.set_aside(&name, &why))
            }
            Err(ReadError::Missing) => Ok(None),
            Err(ReadError::NotAFile) => {
                Err(failure(format!("{name} is not a plain file and was left alone")))
            }
            Err(ReadError::TooLarge) => {
                Err(failure(format!("{name} has more than {} bytes and was left alone", self.most)))
            }
            Err(ReadError::Io(error)) => Err(no_access("read", &error)),
        }
    }

    fn save(&self, conversation: &Conversation) -> Result<()> {
        let Some(id) = conversation.id() else { return Ok(()) };
        let state = conversation.to_bytes();
        let mut bytes = Vec::with_capacity(HEADER.len() + DIGEST + state.len());
        bytes.extend_from_slice(HEADER);
        bytes.extend_from_slice(&Sha256::digest(&state));
        bytes.extend_from_slice(&state);
        if bytes.len() as u64 > self.most {
            let message =
                format!("the conversation needs {} bytes, more than {}", bytes.len(), self.most);
            return Err(Error::limit(message).with_blame(Blame::Local));
        }
        disk::save(&System, &self.dir, &file_name(id), &bytes)
            .map_err(|error| no_access("written", &error))
    }

    fn remove(&self, id: &str) -> Result<()> {
        match fs::remove_file(self.dir.join(file_name(id))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(no_access("removed", &error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(no_access("listed", &error)),
        };
        let mut ids = Vec::new();
        for entry in entries.take(LISTED).flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| name.ends_with(SUFFIX)) {
                continue;
            }
            // One that cannot be read is reported when it is loaded.
            let head = disk::read_head(&entry.path(), HEAD).ok();
            ids.extend(head.and_then(|head| id_in(&head)));
        }
        Ok(ids)
    }
}

/// The file of a conversation: nothing of the id is in it but that it is this one.
fn file_name(id: &str) -> String {
    format!("{}{SUFFIX}", super::id::hex(&Sha256::digest(id)[..16]))
}

/// The state in a whole file.
fn state(bytes: &[u8]) -> Result<&[u8], String> {
    let Some(rest) = bytes.strip_prefix(HEADER) else {
        return Err("it is not one, or of another version".to_owned());
    };
    match rest.split_at_checked(DIGEST) {
        Some((digest, state)) if Sha256::digest(state)[..] == *digest => Ok(state),
        _ => Err("it is cut, or its bytes have changed".to_owned()),
    }
}

/// The id in the first bytes of a file: it comes first in the state, after the version.
fn id_in(head: &[u8]) -> Option<String> {
    let state = head.strip_prefix(HEADER)?.get(DIGEST..)?;
    let mut reader = Reader::new(state);
    while let Ok(Some(field)) = reader.field() {
        if field.number == 2 {
            return field.value.text().ok().map(ToOwned::to_owned);
        }
    }
    None
}

fn failure(message: String) -> Error {
    Error::new(Kind::InvalidRequest, message).with_blame(Blame::Local)
}

/// The system's reason, without a path: it may name a person.
fn no_access(what: &str, error: &io::Error) -> Error {
    failure(format!("the kept conversation could not be {what} ({})", error.kind()))
        .with_hint("check the permissions of the conversation directory, and the space on its disk")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::{AssistantPart, Message, ToolCall, ToolResult};
    use crate::conversation::OpenTurn;

    fn conversation(id: &str) -> Conversation {
        let mut conversation = Conversation::with_id(id);
        conversation.set_blob(b"blob", b"secret words").unwrap();
        conversation.commit(Bytes::from_static(&[0x2a, 2, 0x08, 9])).unwrap();
        let call =
            ToolCall { id: "c1".into(), name: "ls".into(), arguments: serde_json::json!({}) };
        let content = vec![
            AssistantPart::ToolCall(call.clone()),
            AssistantPart::ToolCall(ToolCall { id: "c2".into(), ..call }),
        ];
        let messages = vec![
            Arc::new(Message::Assistant { content }),
            Arc::new(Message::ToolResult(ToolResult::text("c1", "ls", "a.rs"))),
        ];
        conversation.set_open_turn(Some(OpenTurn::new(3, true, messages)));
        conversation
    }

    fn store() -> (tempfile::TempDir, DiskStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::new(dir.path().join("conversations"));
        (dir, store)
    }

    fn files(store: &DiskStore) -> Vec<String> {
        let entries = fs::read_dir(store.dir()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_is_loaded_listed_and_removed() {
        let (_dir, store) = store();
        assert_eq!(store.list().unwrap(), [""; 0]);
        assert!(store.load("a").unwrap().is_none());
        let ids = ["a", "../../etc/passwd", &"x".repeat(256)];
        for id in ids {
            store.save(&conversation(id)).unwrap();
            let loaded = store.load(id).unwrap().unwrap();
            assert_eq!(loaded.id(), Some(id));
            assert_eq!(loaded.blobs().get(b"blob").unwrap(), &b"secret words"[..]);
            assert_eq!(loaded.checkpoint().unwrap().used_tokens(), Some(9));
            let open = loaded.open_turn().unwrap();
            assert_eq!((open.covers(), open.messages().len()), (3, 2));
            assert_eq!(open.pending()[0].id, "c2");
            assert_eq!(Some(open), conversation(id).open_turn());
        }
        store.save(&Conversation::new()).unwrap();
        assert_eq!(files(&store).len(), 3);
        let mut listed = store.list().unwrap();
        listed.sort();
        let mut expected = ids.map(ToOwned::to_owned);
        expected.sort();
        assert_eq!(listed, expected);
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
    }

    /// FAULTS M92: cut, empty, changed, of another version, another's.
    #[test]
    fn a_damaged_file_is_set_aside_and_reported_once() {
        let (_dir, store) = store();
        store.save(&conversation("a")).unwrap();
        let path = store.dir().join(file_name("a"));
        let good = fs::read(&path).unwrap();
        let mut cases: Vec<Vec<u8>> = (0..good.len()).map(|at| good[..at].to_vec()).collect();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            cases.push(flipped);
        }
        cases.push([&good[..], b"x"].concat());
        store.save(&conversation("b")).unwrap();
        cases.push(fs::read(store.dir().join(file_name("b"))).unwrap());
        for bytes in cases {
            fs::write(&path, &bytes).unwrap();
            let error = store.load("a").unwrap_err();
            assert!(error.message().contains("damaged"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(error.blame(), Blame::Local);
            assert!(store.load("a").unwrap().is_none(), "the next load finds none");
            let aside = fs::read(store.dir().join(format!("{}.damaged", file_name("a")))).unwrap();
            assert_eq!(aside, bytes);
        }
        store.save(&conversation("a")).unwrap();
        assert!(store.load("a").unwrap().is_some());
    }

    #[test]
    fn files_are_bounded_both_ways() {
        let (_dir, store) = store();
        store.save(&conversation("a")).unwrap();
        let small = store.clone().max_file(100);
        assert!(small.load("a").unwrap_err().message().contains("100 bytes"));
        let refused = small.save(&conversation("a")).unwrap_err();
        assert_eq!(refused.kind(), &Kind::LimitExceeded);
        assert!(store.load("a").unwrap().is_some(), "left alone");
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_this_user_alone_and_links_are_not_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (dir, store) = store();
        store.save(&conversation("a")).unwrap();
        let path = store.dir().join(file_name("a"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(store.dir())), (0o600, 0o700));

        let outside = dir.path().join("outside");
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        assert!(store.load("a").unwrap_err().message().contains("not a plain file"));
        assert_eq!(store.list().unwrap(), [""; 0]);
        let before = fs::read(&outside).unwrap();
        store.save(&Conversation::with_id("a")).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), before, "the link is replaced, not followed");

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(store.load("a").unwrap_err().message().contains("not a plain file"));
        assert!(store.save(&conversation("a")).is_err());
        assert_eq!(files(&store), [file_name("a")], "no leftovers");
    }

    /// FAULTS M94.
    #[test]
    fn writers_at_the_same_time_leave_one_whole_file() {
        let (_dir, store) = store();
        store.save(&conversation("a")).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..10 {
                        let mut conversation = conversation("a");
                        conversation.set_blob(&[writer], &[writer; 1000]).unwrap();
                        store.save(&conversation).unwrap();
                        assert!(store.load("a").unwrap().is_some());
                    }
                });
            }
        });
        assert_eq!(files(&store), [file_name("a")]);
    }
}
