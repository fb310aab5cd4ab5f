//! Text that grows piece by piece, and views of how far it had come, without a copy for each.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What came so far of something that comes piece by piece.
///
/// All snapshots of one call share one text that is only ever appended to, so that each costs what
/// its own piece costs. The text up to here is copied out by whoever reads it ([`Snapshot::as_str`]),
/// once for each snapshot and its later clones; one that nobody reads is never copied.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// May be longer by now. What is in it never changes.
    text: SharedText,
    len: usize,
    /// The text up to `len`, once somebody has asked.
    whole: OnceLock<Arc<str>>,
}

impl Snapshot {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.whole.get_or_init(|| self.text.lock().get(..self.len).unwrap_or_default().into())
    }

    /// Bytes of the text; copies nothing.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no text; copies nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Deref for Snapshot {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Snapshot {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<String> for Snapshot {
    fn from(text: String) -> Self {
        let len = text.len();
        Self { text: SharedText(Arc::new(Mutex::new(text))), len, whole: OnceLock::new() }
    }
}

impl From<&str> for Snapshot {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl PartialEq for Snapshot {
    /// By the text.
    fn eq(&self, other: &Self) -> bool {
        let same = || Arc::ptr_eq(&self.text.0, &other.text.0) || self.as_str() == other.as_str();
        self.len == other.len && same()
    }
}

impl Eq for Snapshot {}

impl PartialEq<str> for Snapshot {
    fn eq(&self, other: &str) -> bool {
        self.len == other.len() && self.as_str() == other
    }
}

impl PartialEq<&str> for Snapshot {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Snapshot {
    /// The size alone: arguments are a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} bytes)", self.len)
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Not from under the lock: what takes the text may be a pipe that nobody reads.
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// A text that one side appends to and others read the beginning of.
#[derive(Clone, Default)]
struct SharedText(Arc<Mutex<String>>);

impl SharedText {
    /// Held for one copy or one append. Neither leaves the text half done, so a panic elsewhere
    /// does not make it unusable.
    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that appends.
#[derive(Default)]
pub(super) struct Growing {
    text: SharedText,
    len: usize,
    /// Something was left out: nothing more is taken in, so that a snapshot has no gap.
    is_cut: bool,
}

impl Growing {
    /// Appends as much of `piece` as keeps the whole within `limit` bytes, and gives what there is.
    pub(super) fn push(&mut self, piece: &str, limit: usize) -> Snapshot {
        let room = if self.is_cut { 0 } else { limit.saturating_sub(self.len) };
        let taken = &piece[..piece.floor_char_boundary(room.min(piece.len()))];
        self.is_cut |= taken.len() < piece.len();
        self.text.lock().push_str(taken);
        self.len += taken.len();
        Snapshot { text: self.text.clone(), len: self.len, whole: OnceLock::new() }
    }
}

impl fmt::Debug for Growing {
    /// Sizes alone: arguments are a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Growing({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_what_it_was_while_the_text_grows() {
        let mut growing = Growing::default();
        let pieces = ["{\"a\"", ":", "", "\"é\"}"];
        let snapshots: Vec<_> = pieces.iter().map(|piece| growing.push(piece, 100)).collect();
        let texts: Vec<&str> = snapshots.iter().map(Snapshot::as_str).collect();
        assert_eq!(texts, ["{\"a\"", "{\"a\":", "{\"a\":", "{\"a\":\"é\"}"]);
        let sizes: Vec<usize> = snapshots.iter().map(Snapshot::len).collect();
        assert_eq!(sizes, [4, 5, 5, 10]);
    }

    #[test]
    fn snapshots_are_equal_when_their_texts_are() {
        let mut growing = Growing::default();
        let (one, two) = (growing.push("one", 100), growing.push(" two", 100));
        assert_eq!(one, one.clone());
        assert_eq!(one, Snapshot::from("one"));
        assert_eq!(two, "one two");
        for other in ["", "on", "owe", "one two"] {
            assert_ne!(one, Snapshot::from(other));
            assert_ne!(one, other);
        }
        assert_eq!(Snapshot::default(), Snapshot::from(""));
    }

    #[test]
    fn what_is_beyond_the_limit_is_cut_between_characters_and_leaves_no_gap() {
        let mut growing = Growing::default();
        assert_eq!(growing.push("abé", 6), "abé");
        // One byte is left of the two that the next character takes.
        assert_eq!(growing.push("cé", 6), "abéc");
        assert_eq!(growing.push("d", 6), "abéc", "a piece that would fit after what was left out");
        assert_eq!(Growing::default().push("é", 0), "");
    }

    #[test]
    fn a_snapshot_is_written_as_its_text_and_shown_by_its_size() {
        let snapshot = Snapshot::from("{\"key\": \"secret\"}");
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(json, "\"{\\\"key\\\": \\\"secret\\\"}\"");
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
        assert_eq!(format!("{snapshot:?}"), "Snapshot(17 bytes)");
        assert_eq!(snapshot.to_string(), "{\"key\": \"secret\"}");
    }

    #[test]
    fn snapshots_are_read_on_other_threads_while_the_text_grows() {
        let mut growing = Growing::default();
        std::thread::scope(|scope| {
            for n in 1..=100 {
                let snapshot = growing.push("ab", 1_000);
                scope.spawn(move || assert_eq!(snapshot, "ab".repeat(n).as_str()));
            }
        });
    }
}
