//! gzip with a limit of its own: what a compressed payload may become is bounded before it is
//! known, so a bomb stops at the limit (FAULTS M28).

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

/// The name of the only encoding spoken here besides `identity`.
pub const GZIP: &str = "gzip";

/// Room for the output at first; it doubles from there up to the limit.
const FIRST: usize = 8 * 1024;

/// Why a payload cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// The output would be longer than the limit.
    #[error("a compressed message becomes longer than the limit of {limit} bytes")]
    TooLong {
        /// The longest output allowed.
        limit: usize,
    },
    /// Not gzip, cut short, with a wrong checksum, or followed by something else.
    #[error("a compressed message is not valid gzip")]
    Invalid,
}

/// Decompresses `input` into `out`, which is cleared first; at most `limit` bytes.
///
/// Several gzip members after each other are one payload, as RFC 1952 has it (FAULTS M27). An
/// empty input is an empty payload, as other Connect peers send it (FAULTS M26). On an error
/// `out` is empty: a part of a message never looks like a message.
pub fn decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), GzipError> {
    out.clear();
    if input.is_empty() {
        return Ok(());
    }
    let result = inflate(input, limit, out);
    if result.is_err() {
        out.clear();
    }
    result
}

fn inflate(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), GzipError> {
    let mut gzip = MultiGzDecoder::new(input);
    let mut len = 0;
    loop {
        if len == out.len() {
            if len > limit {
                return Err(GzipError::TooLong { limit });
            }
            // One byte beyond the limit tells "exactly the limit" from "more than that".
            let target = (len * 2).max(FIRST).min(limit.saturating_add(1));
            out.reserve_exact(target - len);
            out.resize(target, 0);
        }
        let room = out.get_mut(len..).unwrap_or_default();
        match gzip.read(room) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(_) => return Err(GzipError::Invalid),
        }
    }
    if len > limit {
        return Err(GzipError::TooLong { limit });
    }
    out.truncate(len);
    Ok(())
}

/// Compresses `input` at the fastest level: what it saves is the network's time, not ours.
pub fn compress(input: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(input.len() / 2 + 32), Compression::fast());
    // Writing into a `Vec` has no error to give; an empty result would be refused by the peer.
    match gzip.write_all(input) {
        Ok(()) => gzip.finish().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflated(input: &[u8], limit: usize) -> Result<Vec<u8>, GzipError> {
        let mut out = b"old".to_vec();
        let result = decompress(input, limit, &mut out);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| out)
    }

    #[test]
    fn round_trip_at_the_edges_of_the_limit() {
        for len in [0, 1, FIRST - 1, FIRST, FIRST + 1, 100_000] {
            let data: Vec<u8> = (0..len).map(|byte| (byte % 251) as u8).collect();
            let packed = compress(&data);
            assert!(inflated(&packed, len) == Ok(data.clone()), "{len}");
            assert!(inflated(&packed, usize::MAX) == Ok(data), "{len}");
            if len > 0 {
                assert_eq!(inflated(&packed, len - 1), Err(GzipError::TooLong { limit: len - 1 }));
            }
        }
    }

    #[test]
    fn m26_damage_of_every_kind_is_an_error() {
        let packed = compress(b"some text that is long enough to be worth it, twice, twice");
        assert_eq!(inflated(b"plain", 100), Err(GzipError::Invalid));
        for cut in 1..packed.len() {
            assert_eq!(inflated(&packed[..cut], 100), Err(GzipError::Invalid), "cut at {cut}");
        }
        let crc = packed.len() - 8;
        for at in crc..packed.len() {
            let mut bad = packed.clone();
            bad[at] ^= 1;
            assert_eq!(inflated(&bad, 100), Err(GzipError::Invalid), "trailer byte {at}");
        }
        for junk in [&b"x"[..], &[0], &[0; 20], b"\x1f\x8b", b"trailing junk that is longer"] {
            let trailing = [&packed, junk].concat();
            assert_eq!(inflated(&trailing, 100), Err(GzipError::Invalid), "{junk:?}");
        }
        assert_eq!(inflated(b"", 100), Ok(Vec::new()));
    }

    #[test]
    fn m27_two_members_are_one_payload() {
        let two = [compress(b"one "), compress(b"two")].concat();
        assert_eq!(inflated(&two, 100), Ok(b"one two".to_vec()));
        assert_eq!(inflated(&two, 6), Err(GzipError::TooLong { limit: 6 }));
    }

    #[test]
    fn m28_a_bomb_stops_at_the_limit() {
        let bomb = compress(&vec![0; 32 << 20]);
        let mut out = Vec::new();
        let limit = 1 << 20;
        assert_eq!(decompress(&bomb, limit, &mut out), Err(GzipError::TooLong { limit }));
        assert!(out.capacity() <= limit + 1, "{}", out.capacity());
    }
}
