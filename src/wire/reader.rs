//! A reader that borrows: fields of a message as slices of the input.

use super::varint::take_varint;
use super::{WireError, WireType};

/// How deep messages and groups may nest, as in prost: a stack is never spent on input. No option:
/// prost has none, and both must refuse the same bytes.
pub const MAX_DEPTH: u32 = 100;

/// The value of one field, borrowed where it is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// The integer of a varint field.
    Varint(u64),
    /// Eight bytes as a number.
    I64(u64),
    /// The content of a length-delimited field.
    Len(&'a [u8]),
    /// The fields of a group, checked for well-formedness, without its end tag.
    Group(&'a [u8]),
    /// Four bytes as a number.
    I32(u32),
}

impl<'a> Value<'a> {
    /// The content of a length-delimited field; another wire type is an error.
    #[inline]
    pub fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Len(bytes) => Ok(bytes),
            _ => Err(WireError::WrongWireType),
        }
    }

    /// The content as text; another wire type or invalid UTF-8 is an error.
    #[inline]
    pub fn text(self) -> Result<&'a str, WireError> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| WireError::InvalidUtf8)
    }

    /// The integer of a varint field; another wire type is an error.
    #[inline]
    pub fn varint(self) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WireError::WrongWireType),
        }
    }
}

/// One field as it came: number, value, and the bytes of both for copying it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field number, 1 to 2²⁹ − 1.
    pub number: u32,
    /// What it holds.
    pub value: Value<'a>,
    /// Tag and value as they stand in the input; for a group up to and with its end tag.
    pub raw: &'a [u8],
}

/// A cursor over the bytes of one message. After an error it stays where it was or further on;
/// reading on is harmless and pointless.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `message`.
    #[inline]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What is not read yet.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything is read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next varint.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        take_varint(&mut self.rest)
    }

    /// The next tag: field number and wire type.
    #[inline]
    pub fn tag(&mut self) -> Result<(u32, WireType), WireError> {
        let key = u32::try_from(self.varint()?).map_err(|_| WireError::InvalidTag)?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::I64,
            2 => WireType::Len,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::I32,
            _ => return Err(WireError::InvalidTag),
        };
        match key >> 3 {
            0 => Err(WireError::InvalidTag),
            number => Ok((number, wire_type)),
        }
    }

    /// A length and that many bytes. The length is a full `u64` on the wire; one that is longer
    /// than the rest is refused before anything else happens.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// The value after a tag. Groups are walked to their end, without recursion.
    #[inline]
    pub fn value(&mut self, number: u32, wire_type: WireType) -> Result<Value<'a>, WireError> {
        Ok(match wire_type {
            WireType::Varint => Value::Varint(self.varint()?),
            WireType::I64 => Value::I64(u64::from_le_bytes(self.array()?)),
            WireType::Len => Value::Len(self.bytes()?),
            WireType::StartGroup => Value::Group(self.group(number, MAX_DEPTH)?),
            WireType::EndGroup => return Err(WireError::InvalidGroup),
            WireType::I32 => Value::I32(u32::from_le_bytes(self.array()?)),
        })
    }

    /// Passes over the value after a tag of a message that may hold `depth` more levels, this
    /// value being one: [`MAX_DEPTH`] at the top, one less in each message inside.
    #[inline]
    pub fn skip(&mut self, number: u32, wire_type: WireType, depth: u32) -> Result<(), WireError> {
        if depth == 0 {
            return Err(WireError::TooDeep);
        }
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::I64 => self.array::<8>().map(drop),
            WireType::Len => self.bytes().map(drop),
            WireType::StartGroup => self.group(number, depth).map(drop),
            WireType::EndGroup => Err(WireError::InvalidGroup),
            WireType::I32 => self.array::<4>().map(drop),
        }
    }

    /// The next field, or `None` at the end of the message.
    #[inline]
    pub fn field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.rest;
        let (number, wire_type) = self.tag()?;
        let value = self.value(number, wire_type)?;
        let raw = start.get(..start.len() - self.rest.len()).unwrap_or_default();
        Ok(Some(Field { number, value, raw }))
    }

    /// The fields of a group whose start tag is read; leaves the reader after its end tag.
    #[cold]
    fn group(&mut self, number: u32, depth: u32) -> Result<&'a [u8], WireError> {
        let start = self.rest;
        // Open groups, innermost last: a heap of at most MAX_DEPTH numbers instead of the stack.
        let mut open = vec![number];
        loop {
            let before = self.rest;
            match self.tag()? {
                (inner, WireType::EndGroup) => {
                    if open.pop() != Some(inner) {
                        return Err(WireError::InvalidGroup);
                    }
                    if open.is_empty() {
                        let content = start.len() - before.len();
                        return Ok(start.get(..content).unwrap_or_default());
                    }
                }
                // A value inside the k-th group of the nest is at level k + 1.
                _ if open.len() >= depth as usize => return Err(WireError::TooDeep),
                (inner, WireType::StartGroup) => open.push(inner),
                (inner, wire_type) => self.skip(inner, wire_type, 1)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field<'_>>, WireError> {
        let mut reader = Reader::new(bytes);
        let mut out = Vec::new();
        while let Some(field) = reader.field()? {
            out.push(field);
        }
        Ok(out)
    }

    #[test]
    fn fields_borrow_and_keep_their_bytes() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x23, 0x08, 1, 0x24];
        let fields = fields(&bytes).unwrap();
        let values: Vec<_> = fields.iter().map(|field| (field.number, field.value)).collect();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Len(b"hi")),
            (3, Value::I32(1)),
            (4, Value::Group(&[0x08, 1])),
        ];
        assert_eq!(values, expected);
        assert_eq!(fields.iter().map(|field| field.raw).collect::<Vec<_>>().concat(), bytes);
    }

    #[test]
    fn refusals_by_cause() {
        let cases: [(&[u8], WireError); 10] = [
            (&[0x0a, 5, 1], WireError::Truncated),
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                WireError::Truncated,
            ),
            (&[0x09, 1, 2, 3], WireError::Truncated),
            (&[0x0d, 1, 2, 3], WireError::Truncated),
            (&[0x00], WireError::InvalidTag),
            (&[0x0e], WireError::InvalidTag),
            (&[0x88, 0x80, 0x80, 0x80, 0x10, 1], WireError::InvalidTag),
            (&[0x0c], WireError::InvalidGroup),
            (&[0x0b, 0x14], WireError::InvalidGroup),
            (&[0x0b, 0x08, 1], WireError::Truncated),
        ];
        for (bytes, expected) in cases {
            assert_eq!(fields(bytes), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn groups_nest_to_the_limit_and_no_further() {
        let nest = |depth: usize| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        assert!(fields(&nest(MAX_DEPTH as usize)).is_ok());
        assert_eq!(fields(&nest(MAX_DEPTH as usize + 1)), Err(WireError::TooDeep));
        let full = |depth: usize| [vec![0x0b; depth], vec![0x08, 1], vec![0x0c; depth]].concat();
        assert!(fields(&full(MAX_DEPTH as usize - 1)).is_ok());
        assert_eq!(fields(&full(MAX_DEPTH as usize)), Err(WireError::TooDeep));
        assert_eq!(fields(&vec![0x0b; 100_000]), Err(WireError::TooDeep));
    }
}
