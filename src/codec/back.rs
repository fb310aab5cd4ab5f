//! A writer that works from the end of its buffer to the front.
//!
//! A message is known in full when its length is to be written, so no size is computed twice and
//! nothing is moved: fields are written last to first, and come out in ascending order. Large
//! content is written once, into the place it is sent from (PERFORMANCE B.3, B.4).

use bytes::Bytes;

use crate::wire::{MAX_VARINT_LEN, WireType};

/// Bytes written so far, at the end of a buffer that grows at its front.
pub(crate) struct Back {
    buffer: Vec<u8>,
    start: usize,
}

impl Back {
    /// A writer whose first `capacity` bytes cost no growth.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity], start: capacity }
    }

    /// Bytes written so far; also the mark that [`Self::wrap`] and [`Self::rewind`] take.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// What was written since `mark`: the bytes nearest to the front.
    pub(crate) fn since(&self, mark: usize) -> &[u8] {
        let end = self.buffer.len().saturating_sub(mark);
        self.buffer.get(self.start..end).unwrap_or_default()
    }

    /// Overwrites the bytes that were written last when [`Self::len`] was `mark`.
    pub(crate) fn patch(&mut self, mark: usize, bytes: &[u8]) {
        let start = self.buffer.len().saturating_sub(mark);
        if let Some(place) = self.buffer.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Forgets what was written since `mark`.
    pub(crate) fn rewind(&mut self, mark: usize) {
        self.start = self.buffer.len().saturating_sub(mark);
    }

    /// Room for `len` bytes in front of what is written, to be filled by the caller.
    pub(crate) fn space(&mut self, len: usize) -> &mut [u8] {
        if self.start < len {
            self.grow(len);
        }
        let end = self.start;
        self.start -= len;
        self.buffer.get_mut(self.start..end).unwrap_or_default()
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let written = self.len();
        let capacity = (written + len).max(self.buffer.len() * 2).max(64);
        let mut buffer = vec![0; capacity];
        let start = capacity - written;
        if let (Some(to), Some(from)) = (buffer.get_mut(start..), self.buffer.get(self.start..)) {
            to.copy_from_slice(from);
        }
        self.buffer = buffer;
        self.start = start;
    }

    /// Bytes as they are.
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn varint(&mut self, mut value: u64) {
        if value < 0x80 {
            self.raw(&[value as u8]);
            return;
        }
        let mut bytes = [0_u8; MAX_VARINT_LEN];
        let mut len = 0;
        for byte in &mut bytes {
            len += 1;
            *byte = value as u8 | 0x80;
            value >>= 7;
            if value == 0 {
                *byte &= 0x7f;
                break;
            }
        }
        self.raw(bytes.get(..len).unwrap_or_default());
    }

    #[inline]
    fn tag(&mut self, field: u32, wire_type: WireType) {
        self.varint(u64::from(field) << 3 | wire_type as u64);
    }

    /// An unsigned integer, enum or bool field, also when it is 0.
    #[inline]
    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        self.varint(value);
        self.tag(field, WireType::Varint);
    }

    /// An unsigned integer field; left out when it is 0, as proto3 does.
    #[inline]
    pub(crate) fn uint_unless_zero(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.uint(field, value);
        }
    }

    /// A double field, also when it is 0.
    #[inline]
    pub(crate) fn double(&mut self, field: u32, value: f64) {
        self.raw(&value.to_bits().to_le_bytes());
        self.tag(field, WireType::I64);
    }

    /// A bytes field, also when it is empty; an encoded message too.
    #[inline]
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        let mark = self.len();
        self.raw(value);
        self.wrap(field, mark);
    }

    /// A string field, also when it is empty.
    #[inline]
    pub(crate) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A string field; left out when it is empty, as proto3 does.
    #[inline]
    pub(crate) fn text_unless_empty(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.text(field, value);
        }
    }

    /// Makes what was written since `mark` the content of a field.
    #[inline]
    pub(crate) fn wrap(&mut self, field: u32, mark: usize) {
        self.head(field, self.len() - mark);
    }

    /// Tag and length of a field whose content is not, or not only, in this writer.
    #[inline]
    pub(crate) fn head(&mut self, field: u32, len: usize) {
        self.varint(len as u64);
        self.tag(field, WireType::Len);
    }

    /// A message field: `write` writes its fields, last to first.
    #[inline]
    pub(crate) fn message<R>(&mut self, field: u32, write: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.len();
        let result = write(self);
        self.wrap(field, mark);
        result
    }

    /// Puts the five bytes of an envelope without flags in front.
    pub(crate) fn envelope(&mut self) {
        // An envelope above 4 GiB would need more than that of memory first; limits stop earlier.
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        self.raw(&len.to_be_bytes());
        self.raw(&[0]);
    }

    /// What was written, without a copy.
    pub(crate) fn finish(self) -> Bytes {
        Bytes::from(self.buffer).slice(self.start..)
    }
}

/// One envelope whose message `write` writes, last field first.
pub(crate) fn envelope(capacity: usize, write: impl FnOnce(&mut Back)) -> Bytes {
    let mut out = Back::new(capacity + 5);
    write(&mut out);
    out.envelope();
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_double, put_str, put_uint};

    #[test]
    fn writes_what_the_forward_writer_writes() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let content = vec![7; len];
            let mut inner = Vec::new();
            put_uint(&mut inner, 1, u64::MAX);
            put_bytes(&mut inner, 2, &content);
            put_double(&mut inner, 300, -0.5);
            let mut expected = Vec::new();
            put_bytes(&mut expected, 4, &inner);
            put_str(&mut expected, 5, "é");

            for capacity in [0, 10, len + 100] {
                let mut out = Back::new(capacity);
                out.text(5, "é");
                out.message(4, |out| {
                    out.double(300, -0.5);
                    out.bytes(2, &content);
                    out.uint(1, u64::MAX);
                });
                assert_eq!(out.since(0), expected, "{len} {capacity}");
                assert_eq!(out.finish(), expected);
            }
        }
    }

    #[test]
    fn patches_what_is_known_later() {
        let mut out = Back::new(0);
        out.raw(b"....tail");
        let mark = out.len();
        out.raw(b"head");
        out.patch(mark, b"late");
        assert_eq!(out.finish(), &b"headlatetail"[..]);
    }

    #[test]
    fn rewinds_to_a_mark() {
        let mut out = Back::new(4);
        out.raw(b"end");
        let mark = out.len();
        out.raw(b"something longer than that");
        assert_eq!(out.since(mark), b"something longer than that");
        out.rewind(mark);
        out.envelope();
        assert_eq!(out.finish(), &[0, 0, 0, 0, 3, b'e', b'n', b'd'][..]);
    }
}
