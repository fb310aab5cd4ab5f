//! Where the blobs of one request are written, one behind the other, before they are kept.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::blobs::{BlobId, BlobStore};
use crate::codec::back::Back;
use crate::error::Result;

/// New blobs: one buffer for those of protobuf, one for those of JSON.
pub(crate) struct Arena {
    protobuf: Back,
    /// Marks of the writer before and after each blob.
    messages: Vec<(BlobId, Range<usize>)>,
    json: Vec<u8>,
    texts: Vec<(BlobId, Range<usize>)>,
}

impl Arena {
    /// An arena with room for so many bytes of each kind.
    pub(crate) fn new(protobuf: usize, json: usize) -> Self {
        Self {
            protobuf: Back::new(protobuf),
            messages: Vec::new(),
            json: Vec::with_capacity(json),
            texts: Vec::new(),
        }
    }

    /// A blob of protobuf; `write` writes its fields, last to first.
    pub(crate) fn message(
        &mut self,
        write: impl FnOnce(&mut Back) -> Result<()>,
    ) -> Result<BlobId> {
        let mark = self.protobuf.len();
        write(&mut self.protobuf)?;
        let id = Sha256::digest(self.protobuf.since(mark)).into();
        self.messages.push((id, mark..self.protobuf.len()));
        Ok(id)
    }

    /// A blob of JSON; none when `write` says that there is nothing to say.
    pub(crate) fn json(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<bool>,
    ) -> Result<Option<BlobId>> {
        let start = self.json.len();
        if !write(&mut self.json)? {
            return Ok(None);
        }
        let id = Sha256::digest(self.json.get(start..).unwrap_or_default()).into();
        self.texts.push((id, start..self.json.len()));
        Ok(Some(id))
    }

    /// Puts all blobs into the store; they share the two buffers.
    pub(crate) fn store(self, blobs: &mut BlobStore) {
        blobs.reserve_own(self.messages.len() + self.texts.len());
        let written = self.protobuf.len();
        let protobuf = self.protobuf.finish();
        for (id, marks) in self.messages {
            blobs.insert_own(id, protobuf.slice(written - marks.end..written - marks.start));
        }
        let json = Bytes::from(self.json);
        for (id, range) in self.texts {
            blobs.insert_own(id, json.slice(range));
        }
    }
}
