//! Messages over byte streams, for both sides.

use bytes::Bytes;

use super::Gzip;
use super::http2::{BodyReceiver, Lost};
use crate::connect::{Decoder, EndStream, Envelope, FLAG_COMPRESSED, gzip, put_envelope};
use crate::{Error, Result};

/// One thing that came.
pub(super) enum Item {
    Message(Bytes),
    End(EndStream),
    /// The body ended without an end-stream message.
    Eof,
}

/// Reads envelopes from a body. Window credit goes back when a chunk is used up.
pub(super) struct Messages {
    body: BodyReceiver,
    decoder: Decoder,
    chunk: Bytes,
    /// How much of `chunk` the decoder took.
    at: usize,
}

impl Messages {
    pub(super) fn new(body: BodyReceiver, decoder: Decoder) -> Self {
        Self { body, decoder, chunk: Bytes::new(), at: 0 }
    }

    /// The next thing. After `End`, `Eof` and an error there is nothing more to ask for.
    pub(super) async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(item) = self.decode()? {
                return Ok(item);
            }
            self.body.release(self.chunk.len());
            self.at = 0;
            self.chunk = match self.body.chunk().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(lost)) => {
                    self.chunk = Bytes::new();
                    return Err(lost.into());
                }
                None => {
                    self.chunk = Bytes::new();
                    self.decoder.finish()?;
                    return Ok(Item::Eof);
                }
            };
        }
    }

    fn decode(&mut self) -> Result<Option<Item>> {
        let mut rest = self.chunk.get(self.at..).unwrap_or_default();
        let item = match self.decoder.next(&mut rest)? {
            Some(Envelope::Message(message)) => Item::Message(Bytes::copy_from_slice(message)),
            Some(Envelope::EndStream(end)) => {
                // What came with it is a breach (FAULTS M12); what may come later is not waited
                // for (M13).
                self.decoder.next(&mut rest)?;
                Item::End(end)
            }
            None => return Ok(None),
        };
        self.at = self.chunk.len() - rest.len();
        Ok(Some(item))
    }
}

/// Why a whole body could not be read.
pub(super) enum BodyError {
    TooLong,
    Lost(Lost),
}

/// Reads a whole body of at most `limit` bytes. What came until then stays in `out`.
pub(super) async fn read_all(
    body: &mut BodyReceiver,
    limit: usize,
    out: &mut Vec<u8>,
) -> std::result::Result<(), BodyError> {
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(BodyError::Lost)?;
        let room = limit - out.len();
        if chunk.len() > room {
            out.extend_from_slice(chunk.get(..room).unwrap_or_default());
            return Err(BodyError::TooLong);
        }
        out.extend_from_slice(&chunk);
        body.release(chunk.len());
    }
    Ok(())
}

/// The error for a body above its limit.
pub(super) fn too_long(limit: usize) -> Error {
    Error::limit(format!("the message has more than {limit} bytes"))
}

/// One message as an envelope.
pub(super) fn envelope(message: &[u8], compression: Option<Gzip>) -> Bytes {
    let mut out = Vec::new();
    match compression.filter(|gzip| message.len() >= gzip.min) {
        Some(_) => put_envelope(&mut out, FLAG_COMPRESSED, &gzip::compress(message)),
        None => put_envelope(&mut out, 0, message),
    }
    Bytes::from(out)
}
