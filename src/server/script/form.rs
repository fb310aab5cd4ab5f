//! Forms that a person writes short: a string where a table with one member would do.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A table that may be written as its main text alone.
pub(super) trait Short: Sized {
    /// What is expected, for the error message.
    const EXPECTED: &'static str;

    /// The table that the text stands for.
    fn short(text: &str) -> Result<Self, String>;
}

/// Reads a [`Short`] from a string or from its table, with the table's own error messages.
///
/// `Table` is the derived form of `T`; serde's untagged enums would hide what was wrong inside.
pub(super) fn string_or_table<'de, D, T, Table>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Short + From<Table>,
    Table: Deserialize<'de>,
{
    deserializer.deserialize_any(ShortVisitor::<T, Table>(PhantomData))
}

struct ShortVisitor<T, Table>(PhantomData<(T, Table)>);

impl<'de, T, Table> Visitor<'de> for ShortVisitor<T, Table>
where
    T: Short + From<Table>,
    Table: Deserialize<'de>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::short(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(T::from)
    }
}

/// Bytes of a text in hexadecimal; spaces and line breaks may stand anywhere.
pub(in crate::server) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of hex digits".into());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            &[high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| "not a hex digit".into())
}

/// Bytes of a text in base64 (standard alphabet, padding optional).
pub(in crate::server) fn base64(text: &str) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    ENGINE.decode(text.trim()).map_err(|_| "not base64".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_takes_spaces_and_refuses_the_rest() {
        assert_eq!(hex("00 fF\n7a"), Ok(vec![0, 255, 122]));
        assert_eq!(hex(""), Ok(vec![]));
        assert!(hex("0").is_err());
        assert!(hex("0g").is_err());
    }

    #[test]
    fn base64_takes_both_paddings() {
        assert_eq!(base64("aGk="), Ok(b"hi".to_vec()));
        assert_eq!(base64("aGk"), Ok(b"hi".to_vec()));
        assert!(base64("a?").is_err());
    }
}
