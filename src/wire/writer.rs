//! A forward writer: functions that append to a `Vec<u8>`, and the sizes they will write.
//!
//! `put_*` functions write what they are given, empty and zero too: whether a default is left out
//! is the caller's rule (BEHAVIOUR T15). An encoder that knows its sizes writes each byte once:
//! `size_*` first, [`put_len`] with the sum, then the fields. One that does not uses
//! [`put_nested`], which pays one move of the content when it is 128 bytes or longer.

use super::WireType;
use super::varint::{put_varint, size_varint};

/// Bytes of the tag of `field`: 1 to 5.
#[inline]
pub const fn size_tag(field: u32) -> usize {
    size_varint((field as u64) << 3)
}

/// Bytes of a length-delimited value of `len` bytes with its length, without a tag.
#[inline]
pub const fn size_len(len: usize) -> usize {
    size_varint(len as u64) + len
}

/// Bytes of a whole bytes, string or message field with `len` bytes of content.
#[inline]
pub const fn size_bytes(field: u32, len: usize) -> usize {
    size_tag(field) + size_len(len)
}

/// Bytes of a whole unsigned, bool or non-negative enum field.
#[inline]
pub const fn size_uint(field: u32, value: u64) -> usize {
    size_tag(field) + size_varint(value)
}

/// Bytes of a whole `int32` field: negative values take ten.
#[inline]
pub const fn size_int32(field: u32, value: i32) -> usize {
    size_uint(field, value as i64 as u64)
}

/// Appends a tag.
#[inline]
pub fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: WireType) {
    put_varint(out, u64::from(field) << 3 | wire_type as u64);
}

/// Appends the head of a length-delimited field: tag and length. The content follows.
#[inline]
pub fn put_len(out: &mut Vec<u8>, field: u32, len: usize) {
    put_tag(out, field, WireType::Len);
    put_varint(out, len as u64);
}

/// Appends a bytes field, or a message that is encoded already.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_len(out, field, value.len());
    out.extend_from_slice(value);
}

/// Appends a string field.
#[inline]
pub fn put_str(out: &mut Vec<u8>, field: u32, value: &str) {
    put_bytes(out, field, value.as_bytes());
}

/// Appends an unsigned integer field, or an enum that is not negative.
#[inline]
pub fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, WireType::Varint);
    put_varint(out, value);
}

/// Appends an `int32` field; negative values are sign-extended to ten bytes, as protobuf says.
#[inline]
pub fn put_int32(out: &mut Vec<u8>, field: u32, value: i32) {
    put_uint(out, field, i64::from(value) as u64);
}

/// Appends a bool field.
#[inline]
pub fn put_bool(out: &mut Vec<u8>, field: u32, value: bool) {
    put_uint(out, field, u64::from(value));
}

/// Appends a double field.
#[inline]
pub fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_tag(out, field, WireType::I64);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends a message field whose content `write` appends, and puts its length before it.
#[inline]
pub fn put_nested<R>(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    put_tag(out, field, WireType::Len);
    out.push(0);
    let start = out.len();
    let result = write(out);
    set_length(out, start);
    result
}

/// Writes the length of the content from `start` on into the one byte kept for it before, and
/// makes room where one byte is not enough.
fn set_length(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if len < 0x80 {
        out[start - 1] = len as u8;
        return;
    }
    let end = out.len();
    let extra = size_varint(len as u64) - 1;
    out.resize(end + extra, 0);
    out.copy_within(start..end, start + extra);
    let mut rest = len as u64;
    for byte in &mut out[start - 1..start + extra] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + extra - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Reader, Value};

    #[test]
    fn sizes_are_what_is_written() {
        for field in [1, 15, 16, 2047, 2048, (1 << 29) - 1] {
            for value in [0, 1, 127, 128, 1 << 20, u64::MAX] {
                let mut out = Vec::new();
                put_uint(&mut out, field, value);
                assert_eq!(out.len(), size_uint(field, value));
            }
            for len in [0, 1, 127, 128, 20_000] {
                let mut out = Vec::new();
                put_bytes(&mut out, field, &vec![7; len]);
                assert_eq!(out.len(), size_bytes(field, len));
            }
        }
        let mut out = Vec::new();
        put_int32(&mut out, 1, -2);
        assert_eq!(out, [8, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(out.len(), size_int32(1, -2));
    }

    #[test]
    fn nested_lengths_of_every_width() {
        for len in [0_usize, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let content = vec![0x5a; len];
            let mut expected = Vec::new();
            put_bytes(&mut expected, 3, &content);
            let mut out = Vec::new();
            put_nested(&mut out, 3, |out| out.extend_from_slice(&content));
            assert!(out == expected, "{len}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut out = Vec::new();
        put_nested(&mut out, 1, |out| {
            put_str(out, 2, "text");
            put_bool(out, 3, true);
            put_double(out, 4, 0.5);
        });
        let outer = Reader::new(&out).field().unwrap().unwrap();
        let mut inner = Reader::new(outer.value.bytes().unwrap());
        assert_eq!(inner.field().unwrap().unwrap().value.text(), Ok("text"));
        assert_eq!(inner.field().unwrap().unwrap().value.varint(), Ok(1));
        let double = inner.field().unwrap().unwrap().value;
        assert_eq!(double, Value::I64(0.5_f64.to_bits()));
        assert!(inner.is_empty());
    }
}
