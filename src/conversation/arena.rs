//! Where the blobs of one request are written, one behind the other, before they are kept.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::blobs::{BlobId, BlobStore};
use crate::codec::back::Back;
use crate::codec::turn::{UserMessage, with_images};
use crate::error::Result;

/// New blobs, one behind the other in one buffer: written once, hashed while they are in the cache.
///
/// The memory goes back when the last blob of it goes. That suits a history, whose blobs live and
/// die together; and one large piece is kept by the allocator for the next, where many small ones
/// would be taken from the system anew.
pub(crate) struct Arena {
    bytes: Vec<u8>,
    blobs: Vec<(BlobId, Range<usize>)>,
    /// The writer's buffer, which serves every blob of protobuf.
    scratch: Vec<u8>,
}

impl Arena {
    /// An arena with room for so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), blobs: Vec::new(), scratch: vec![0; 512] }
    }

    /// A blob of protobuf without selected images; `write` writes its fields, last to first.
    pub(crate) fn message<'a>(
        &mut self,
        write: impl FnOnce(&mut Back<'a>) -> Result<()>,
    ) -> Result<BlobId> {
        let start = self.bytes.len();
        let mut out = Back::over(std::mem::take(&mut self.scratch));
        write(&mut out)?;
        // There is no image to be laid out otherwise.
        let _ = out.append_to(&mut self.bytes);
        self.scratch = out.into_buffer();
        Ok(self.keep(start))
    }

    /// The blob of a user message.
    pub(crate) fn user(&mut self, message: &UserMessage<'_>) -> Result<BlobId> {
        let start = self.bytes.len();
        with_images(message.images, |images| {
            let message = UserMessage { images, ..*message };
            let mut out = Back::over(std::mem::take(&mut self.scratch));
            let late = message.write(&mut out);
            let hashes = out.append_to(&mut self.bytes)?;
            self.scratch = out.into_buffer();
            message.settle(&late, self.bytes.get_mut(start..).unwrap_or_default(), &hashes);
            Ok(())
        })?;
        Ok(self.keep(start))
    }

    /// A blob of JSON; none when `write` says that there is nothing to say.
    pub(crate) fn json(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<bool>,
    ) -> Result<Option<BlobId>> {
        let start = self.bytes.len();
        Ok(write(&mut self.bytes)?.then(|| self.keep(start)))
    }

    /// Makes what was written since `start` a blob.
    fn keep(&mut self, start: usize) -> BlobId {
        let id = Sha256::digest(self.bytes.get(start..).unwrap_or_default()).into();
        self.blobs.push((id, start..self.bytes.len()));
        id
    }

    /// Puts all blobs into the store; they share the buffer.
    pub(crate) fn store(self, blobs: &mut BlobStore) {
        blobs.reserve_own(self.blobs.len());
        let bytes = Bytes::from(self.bytes);
        for (id, range) in self.blobs {
            blobs.insert_own(id, bytes.slice(range));
        }
    }
}
