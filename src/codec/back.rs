//! A writer that works from the end of its buffer to the front.
//!
//! A message is known in full when its length is to be written, so no size is computed twice and
//! nothing is moved: fields are written last to first, and come out in ascending order. Large
//! content is written once, into the place it is sent from (PERFORMANCE B.3, B.4).

use bytes::Bytes;

use super::image;
use crate::wire::{MAX_VARINT_LEN, WireType};

/// Content from this size on is not copied into the writer, but left where it is until the whole is
/// put together: below, a copy costs less than to remember it.
const LONG: usize = 256;

/// Bytes written so far, at the end of a buffer that grows at its front.
///
/// Long content that outlives the writer leaves a hole: it counts as written, and is put in by
/// [`Back::append_to`], which goes from front to back and so writes every byte once, into memory
/// that nobody had to clear.
pub(crate) struct Back<'a> {
    buffer: Vec<u8>,
    start: usize,
    /// The first hole apart: most messages of a history have one, and need no list then.
    hole: Option<Hole<'a>>,
    more_holes: Vec<Hole<'a>>,
    /// Bytes of all holes.
    hollow: usize,
}

/// Content that is not in the buffer.
struct Hole<'a> {
    /// Bytes of the buffer behind it.
    at: usize,
    content: Content<'a>,
}

enum Content<'a> {
    Bytes(&'a [u8]),
    /// Bytes as base64, and which image of the message it is.
    Image(image::Text<'a>, usize),
}

/// The image at this position is not laid out as it was guessed, or is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit(pub(crate) usize);

impl<'a> Back<'a> {
    /// A writer whose first `capacity` bytes cost no growth.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::over(vec![0; capacity])
    }

    /// A writer in a buffer that served another one.
    pub(crate) fn over(buffer: Vec<u8>) -> Self {
        let start = buffer.len();
        Self { buffer, start, hole: None, more_holes: Vec::new(), hollow: 0 }
    }

    /// The buffer, for another writer.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Bytes written so far; also the mark that [`Self::wrap`] and [`Self::rewind`] take.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.start + self.hollow
    }

    /// What was written since `mark`, without a hole: the bytes nearest to the front.
    pub(crate) fn since(&self, mark: usize) -> &[u8] {
        let end = self.buffer.len().saturating_sub(mark.saturating_sub(self.hollow));
        self.buffer.get(self.start..end).unwrap_or_default()
    }

    /// Forgets what was written since `mark`, without a hole.
    pub(crate) fn rewind(&mut self, mark: usize) {
        self.start = self.buffer.len().saturating_sub(mark.saturating_sub(self.hollow));
    }

    /// Room for `len` bytes in front of what is written, to be filled by the caller.
    #[inline]
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
        let written = self.buffer.len() - self.start;
        let capacity = (written + len).max(self.buffer.len() * 2).max(64);
        let mut buffer = vec![0; capacity];
        let start = capacity - written;
        if let (Some(to), Some(from)) = (buffer.get_mut(start..), self.buffer.get(self.start..)) {
            to.copy_from_slice(from);
        }
        self.buffer = buffer;
        self.start = start;
    }

    /// Bytes that outlive the writer: not copied when they are many.
    pub(crate) fn long(&mut self, bytes: &'a [u8]) {
        if bytes.len() < LONG {
            self.raw(bytes);
        } else {
            self.hole(bytes.len(), Content::Bytes(bytes));
        }
    }

    /// The bytes of an image, to be decoded into their place.
    pub(crate) fn image(&mut self, text: image::Text<'a>, index: usize) {
        self.hole(text.decoded_len(), Content::Image(text, index));
    }

    fn hole(&mut self, len: usize, content: Content<'a>) {
        let hole = Hole { at: self.buffer.len() - self.start, content };
        if self.hole.is_none() {
            self.hole = Some(hole);
        } else {
            self.more_holes.push(hole);
        }
        self.hollow += len;
    }

    /// Appends the whole to `out` and gives the hashes of its images, first to last.
    ///
    /// # Errors
    ///
    /// [`Misfit`], and nothing is appended.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) -> Result<Vec<[u8; 32]>, Misfit> {
        let start = out.len();
        if out.capacity() == 0 {
            out.reserve_exact(self.len());
        }
        let mut hashes = Vec::new();
        let mut from = self.start;
        for hole in self.more_holes.iter().rev().chain(&self.hole) {
            let to = self.buffer.len() - hole.at;
            out.extend_from_slice(self.buffer.get(from..to).unwrap_or_default());
            from = to;
            match &hole.content {
                Content::Bytes(bytes) => out.extend_from_slice(bytes),
                Content::Image(text, index) => match text.append_hashed(out) {
                    Some(hash) => hashes.push(hash),
                    None => {
                        out.truncate(start);
                        return Err(Misfit(*index));
                    }
                },
            }
        }
        out.extend_from_slice(self.buffer.get(from..).unwrap_or_default());
        Ok(hashes)
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

    /// A bytes field of bytes that outlive the writer.
    pub(crate) fn long_bytes(&mut self, field: u32, value: &'a [u8]) {
        let mark = self.len();
        self.long(value);
        self.wrap(field, mark);
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

    /// What was written, without a copy; there are no holes.
    pub(crate) fn finish(self) -> Bytes {
        debug_assert!(self.hole.is_none(), "a hole is filled by append_to()");
        let bytes = Bytes::from(self.buffer);
        // A part of a buffer is shared, which takes an allocation.
        if self.start == 0 { bytes } else { bytes.slice(self.start..) }
    }
}

/// One envelope whose message `write` writes, last field first.
pub(crate) fn envelope(capacity: usize, write: impl FnOnce(&mut Back<'_>)) -> Bytes {
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
    fn holes_are_filled_in_their_places() {
        let long = vec![7; LONG];
        let image = image::Text::new(b"aGk=");
        let (mut plain, mut hollow) = (Back::new(0), Back::new(0));
        for out in [&mut plain, &mut hollow] {
            out.raw(b"tail");
        }
        plain.bytes(2, &long);
        hollow.long_bytes(2, &long);
        plain.bytes(3, b"hi");
        let mark = hollow.len();
        hollow.image(image, 5);
        hollow.wrap(3, mark);
        for out in [&mut plain, &mut hollow] {
            let mark = out.len();
            out.raw(b"rewound");
            assert_eq!(out.since(mark), b"rewound");
            out.rewind(mark);
            out.wrap(1, 0);
            out.raw(b"head");
        }
        assert_eq!(plain.len(), hollow.len());
        let mut bytes = b"before".to_vec();
        let hashes = hollow.append_to(&mut bytes).unwrap();
        assert_eq!(bytes, [b"before", plain.since(0)].concat());
        assert_eq!(hashes.len(), 1);

        hollow.image(image::Text::new(b"a Gk="), 6);
        assert_eq!(hollow.append_to(&mut bytes), Err(Misfit(6)));
        assert_eq!(bytes.len(), 6 + plain.len());
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
