//! The blobs of one conversation: those we made and those the service asked us to keep.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::shelf::{BlobBudget, Charge};

/// Id of a blob that we made: SHA-256 of its content (PROTOCOL 4).
pub type BlobId = [u8; 32];

/// How much a service may have us keep in one conversation (FAULTS M78).
///
/// Our own blobs do not count: they are what the caller said, and dropping one breaks the
/// conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLimits {
    /// Number of blobs. Default 4,096.
    pub count: usize,
    /// Bytes of all blobs with their ids. Default 64 MiB: a conversation stays a small part of a
    /// process that has many.
    pub total: usize,
    /// Bytes of one blob. Default 16 MiB: one message of the wire.
    pub one: usize,
    /// Bytes of one id. Default 256: hashes are 32.
    pub id: usize,
}

impl Default for BlobLimits {
    fn default() -> Self {
        Self { count: 4096, total: 64 << 20, one: 16 << 20, id: 256 }
    }
}

/// Why a blob of the service is not kept; the text goes into `SetBlobResult.error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobRefused {
    /// The id is held already with other content, and stays what it is (FAULTS M80).
    #[error("this blob id is held already with other content")]
    Held,
    /// The blob alone is beyond the limit.
    #[error("the blob is larger than the client keeps")]
    TooLarge,
    /// The id is beyond the limit.
    #[error("the blob id is longer than the client keeps")]
    IdTooLong,
    /// With this one there would be too many, or too much.
    #[error("the client keeps no more blobs for this conversation")]
    Full,
}

/// What is to be said about a blob that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The id is not the hash of the content.
    pub id_mismatch: bool,
}

/// The blobs of one conversation.
#[derive(Clone, Default)]
pub struct BlobStore {
    limits: BlobLimits,
    own: HashMap<BlobId, Own, BuildHasherDefault<IdHasher>>,
    /// Own blobs that the last request no longer names, oldest first. A checkpoint may still name
    /// them, so they go only when there are more of them than the limits allow.
    retired: VecDeque<BlobId>,
    retired_bytes: usize,
    peer: HashMap<Box<[u8]>, Bytes>,
    peer_bytes: usize,
    own_bytes: usize,
    charge: Option<Charge>,
    mismatches: u64,
}

/// A blob that we made.
#[derive(Clone)]
struct Own {
    data: Bytes,
    retired: bool,
}

/// Own ids are hashes already: their first bytes serve as they are.
#[derive(Clone, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl BlobStore {
    /// An empty store.
    pub fn new(limits: BlobLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// An empty store with the same limits and a part in a budget that others share.
    pub(super) fn with_budget(self, budget: BlobBudget) -> Self {
        Self { charge: Some(Charge::new(budget)), ..Self::new(self.limits) }
    }

    /// What an id stands for; any bytes may be asked for (FAULTS M81).
    pub fn get(&self, id: &[u8]) -> Option<&Bytes> {
        let own = <&BlobId>::try_from(id).ok().and_then(|id| self.own.get(id));
        own.map(|own| &own.data).or_else(|| self.peer.get(id))
    }

    /// Keeps a blob of the service under the id it gave.
    ///
    /// An id that is not the hash of the content is kept all the same and counted
    /// ([`Self::mismatches`]); an id that is held is never overwritten.
    ///
    /// # Errors
    ///
    /// [`BlobRefused`], and nothing has changed.
    pub fn set_from_peer(&mut self, id: &[u8], data: &[u8]) -> Result<Stored, BlobRefused> {
        if let Some(held) = self.get(id) {
            let same = Stored { id_mismatch: false };
            return if held == data { Ok(same) } else { Err(BlobRefused::Held) };
        }
        if id.len() > self.limits.id {
            return Err(BlobRefused::IdTooLong);
        }
        if data.len() > self.limits.one {
            return Err(BlobRefused::TooLarge);
        }
        let bytes = self.peer_bytes + id.len() + data.len();
        if self.peer.len() >= self.limits.count || bytes > self.limits.total {
            return Err(BlobRefused::Full);
        }
        let added = id.len() + data.len();
        if !self.charge.as_mut().is_none_or(|charge| charge.take(added)) {
            return Err(BlobRefused::Full);
        }
        self.peer_bytes = bytes;
        let id_mismatch = Sha256::digest(data)[..] != *id;
        self.mismatches += u64::from(id_mismatch);
        self.peer.insert(id.into(), Bytes::copy_from_slice(data));
        Ok(Stored { id_mismatch })
    }

    /// Blobs of the service whose id was not the hash of their content.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Number of blobs, ours and the service's.
    pub fn len(&self) -> usize {
        self.own.len() + self.peer.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.peer.is_empty()
    }

    /// Bytes of the service's blobs with their ids: what counts against [`BlobLimits::total`].
    pub fn peer_bytes(&self) -> usize {
        self.peer_bytes
    }

    /// Bytes of all blobs, ours and the service's.
    pub fn bytes(&self) -> usize {
        self.own_bytes + self.peer_bytes
    }

    /// Every blob, ours first, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.own()
            .map(|(id, data)| (&id[..], data))
            .chain(self.peer.iter().map(|(id, data)| (&id[..], data)))
    }

    /// Our own blobs, in no particular order.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&BlobId, &Bytes)> {
        self.own.iter().map(|(id, own)| (id, &own.data))
    }

    /// The service's blobs, in no particular order.
    pub(crate) fn peer(&self) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.peer.iter().map(|(id, data)| (&id[..], data))
    }

    /// Makes room for so many more blobs of ours.
    pub(crate) fn reserve_own(&mut self, more: usize) {
        self.own.reserve(more);
    }

    /// Keeps a blob that we made, or takes one back that was retired.
    pub(crate) fn insert_own(&mut self, id: BlobId, data: Bytes) {
        self.own_bytes += data.len();
        if let Some(before) = self.own.insert(id, Own { data, retired: false }) {
            self.own_bytes -= before.data.len();
            self.retired_bytes -= if before.retired { before.data.len() } else { 0 };
        }
    }

    /// Says that the last request no longer names these own blobs.
    pub(crate) fn retire(&mut self, ids: impl IntoIterator<Item = BlobId>) {
        for id in ids {
            if let Some(own) = self.own.get_mut(&id).filter(|own| !own.retired) {
                own.retired = true;
                self.retired_bytes += own.data.len();
                self.retired.push_back(id);
            }
        }
        while self.retired.len() > self.limits.count || self.retired_bytes > self.limits.total {
            let Some(oldest) = self.retired.pop_front() else { break };
            // One that was taken back meanwhile is in use and stays.
            if self.own.get(&oldest).is_some_and(|own| own.retired) {
                let len = self.own.remove(&oldest).map_or(0, |own| own.data.len());
                self.retired_bytes -= len;
                self.own_bytes -= len;
            }
        }
    }

    /// Forgets everything but the limits and the count of mismatches.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            limits: self.limits,
            mismatches: self.mismatches,
            charge: self.charge.take().map(Charge::renewed),
            ..Self::default()
        };
    }
}

impl fmt::Debug for BlobStore {
    /// Numbers and sizes only: blobs hold what people said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStore")
            .field("limits", &self.limits)
            .field("own", &self.own.len())
            .field("peer", &self.peer.len())
            .field("peer_bytes", &self.peer_bytes)
            .field("mismatches", &self.mismatches)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(store: &mut BlobStore, data: &'static [u8]) -> BlobId {
        let id = Sha256::digest(data).into();
        store.insert_own(id, Bytes::from_static(data));
        id
    }

    fn set(store: &mut BlobStore, id: &[u8], data: &[u8]) -> Result<(), BlobRefused> {
        let before = store.mismatches();
        let stored = store.set_from_peer(id, data);
        assert_eq!(stored.is_ok_and(|s| s.id_mismatch), store.mismatches() > before);
        stored.map(drop)
    }

    #[test]
    fn a_held_id_is_never_overwritten() {
        let mut store = BlobStore::default();
        let id = own(&mut store, b"system prompt");
        assert_eq!(set(&mut store, &id, b"evil"), Err(BlobRefused::Held));
        assert_eq!(set(&mut store, &id, b"system prompt"), Ok(()));
        assert_eq!(store.get(&id).unwrap(), &b"system prompt"[..]);

        assert_eq!(set(&mut store, b"x", b"1"), Ok(()));
        assert_eq!(store.mismatches(), 1);
        assert_eq!(set(&mut store, b"x", b"2"), Err(BlobRefused::Held));
        assert_eq!(set(&mut store, b"x", b"1"), Ok(()));
        assert_eq!(store.get(b"x").unwrap(), &b"1"[..]);
        let good: BlobId = Sha256::digest(b"good").into();
        assert_eq!(set(&mut store, &good, b"good"), Ok(()));
        assert_eq!(store.mismatches(), 1);
    }

    #[test]
    fn a_flood_stops_at_each_limit() {
        let limits = BlobLimits { count: 3, total: 100, one: 40, id: 4 };
        let mut store = BlobStore::new(limits);
        own(&mut store, &[7; 200]);
        assert_eq!(set(&mut store, b"12345", b""), Err(BlobRefused::IdTooLong));
        assert_eq!(set(&mut store, b"a", &[0; 41]), Err(BlobRefused::TooLarge));
        assert_eq!(set(&mut store, b"a", &[0; 40]), Ok(()));
        assert_eq!(set(&mut store, b"b", &[0; 40]), Ok(()));
        assert_eq!(set(&mut store, b"c", &[0; 40]), Err(BlobRefused::Full));
        assert_eq!(set(&mut store, b"", b""), Ok(()));
        assert_eq!(set(&mut store, b"d", b""), Err(BlobRefused::Full));
        assert_eq!((store.len(), store.peer_bytes()), (4, 82));
        for unknown in [&b"zz"[..], &[0; 32], &vec![0; 1 << 20]] {
            assert_eq!(store.get(unknown), None);
        }
    }

    #[test]
    fn retired_blobs_go_oldest_first_and_only_beyond_the_limit() {
        let mut store = BlobStore::new(BlobLimits { count: 2, ..BlobLimits::default() });
        let ids = [own(&mut store, b"1"), own(&mut store, b"2"), own(&mut store, b"3")];
        store.retire(ids[..2].iter().copied());
        assert_eq!(store.len(), 3);
        own(&mut store, b"1");
        store.retire([ids[2], ids[2]]);
        assert_eq!(store.len(), 3, "the first was taken back, so nothing has to go");
        let fourth = own(&mut store, b"4");
        store.retire([fourth]);
        assert_eq!(store.get(&ids[1]), None);
        assert_eq!(store.len(), 3);
    }
}
