//! How large a message may become before prost builds it (FAULTS M37).

use crate::error::{Error, Result};
use crate::proto::reflect::MessageInfo;
use crate::proto::weigh;

/// The most memory that one message may take when decoded, in bytes (FAULTS, promises).
pub const MAX_DECODED: u64 = 64 << 20;
/// The most memory that it may take for each byte on the wire.
pub const MAX_FACTOR: u64 = 64;
/// Below this size, in bytes on the wire, a message is decoded without being weighed: what it can
/// become is bounded by its size.
const UNWEIGHED: usize = 64 * 1024;

/// Refuses a message that would take too much memory when decoded.
pub(super) fn check(payload: &[u8]) -> Result<()> {
    if payload.len() <= UNWEIGHED {
        return Ok(());
    }
    let Some(info) = MessageInfo::named("AgentServerMessage") else { return Ok(()) };
    let weight = weigh(info, payload)?;
    let limit = (payload.len() as u64).saturating_mul(MAX_FACTOR).min(MAX_DECODED);
    if weight <= limit {
        return Ok(());
    }
    Err(Error::limit(format!(
        "a server message of {} bytes would take {weight} bytes when decoded, the limit is {limit}",
        payload.len()
    )))
}

#[cfg(test)]
mod tests {
    use crate::codec::hot::decode;
    use crate::error::Kind;
    use crate::wire::{put_bytes, put_nested, put_str};

    /// An exec whose case `field` holds `content`.
    fn exec(field: u32, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_nested(&mut out, 2, |out| put_bytes(out, field, content));
        out
    }

    #[test]
    fn m37_elements_are_weighed_before_they_are_built() {
        // `mcp_args.args`: a map entry for each two bytes.
        let million = exec(11, &[0x12, 0].repeat(1_500_000));
        assert_eq!(decode(&million).unwrap_err().kind(), &Kind::LimitExceeded);
    }

    #[test]
    fn large_contents_pass() {
        for unit in ["fn main() {}\n", "\n", "0", "\0", "\n\0"] {
            let mut write = Vec::new();
            put_str(&mut write, 2, &unit.repeat((8 << 20) / unit.len()));
            assert!(decode(&exec(3, &write)).is_ok(), "{unit:?}");
        }
    }
}
