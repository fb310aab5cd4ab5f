//! Base-128 integers, least significant group first.

use super::WireError;

/// The longest varint: 64 bits in groups of seven.
pub const MAX_VARINT_LEN: usize = 10;

/// How many bytes [`put_varint`] writes for `value`: 1 to 10.
#[inline]
pub const fn size_varint(value: u64) -> usize {
    // Bits in use, at least one, divided by seven and rounded up, without a division.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Appends `value` in its shortest form.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one varint off the front of `rest`. Forms longer than needed are fine, up to ten bytes.
#[inline]
pub(super) fn take_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    match *rest {
        [byte, tail @ ..] if *byte < 0x80 => {
            *rest = tail;
            Ok(u64::from(*byte))
        }
        _ => take_long(rest),
    }
}

/// The cases that a single byte does not settle.
fn take_long(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0;
    for (index, &byte) in rest.iter().take(MAX_VARINT_LEN).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            // The tenth byte holds the 64th bit and nothing else.
            if index + 1 == MAX_VARINT_LEN && byte > 1 {
                return Err(WireError::VarintOverflow);
            }
            *rest = rest.get(index + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    if rest.len() < MAX_VARINT_LEN {
        Err(WireError::Truncated)
    } else {
        Err(WireError::VarintOverflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 9] =
        [0, 1, 127, 128, 16_383, 16_384, u32::MAX as u64, u64::MAX >> 1, u64::MAX];

    #[test]
    fn round_trip_with_exact_sizes() {
        for value in EDGES.into_iter().chain((0..64).map(|bit| 1 << bit)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), size_varint(value), "{value}");
            let mut rest = out.as_slice();
            assert_eq!(take_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn refuses_what_is_cut_or_too_long() {
        let refused = |bytes: &[u8]| take_varint(&mut &*bytes).unwrap_err();
        assert_eq!(refused(&[]), WireError::Truncated);
        assert_eq!(refused(&[0x80]), WireError::Truncated);
        assert_eq!(refused(&[0xff; 9]), WireError::Truncated);
        assert_eq!(refused(&[0xff; 10]), WireError::VarintOverflow);
        assert_eq!(refused(&[0xff; 11]), WireError::VarintOverflow);
        let mut tenth = [0xff; 10];
        tenth[9] = 2;
        assert_eq!(refused(&tenth), WireError::VarintOverflow);
        tenth[9] = 1;
        assert_eq!(take_varint(&mut tenth.as_slice()), Ok(u64::MAX));
    }

    #[test]
    fn accepts_forms_longer_than_needed() {
        let mut rest: &[u8] = &[0x81, 0x80, 0x00, 9];
        assert_eq!(take_varint(&mut rest), Ok(1));
        assert_eq!(rest, [9]);
    }
}
