//! How large a message may become before prost builds it (FAULTS M37).

use crate::connect::Limits;
use crate::error::{Error, Result};
use crate::proto::reflect::MessageInfo;
use crate::proto::weigh;

/// Below this size, in bytes on the wire, a message is decoded without being weighed: what it can
/// become is bounded by its size, and weighing would cost as much as decoding.
const UNWEIGHED: usize = 64 * 1024;

/// Refuses a message of this type that would take too much memory when decoded. `what` it is goes
/// into the error.
pub(crate) fn check(name: &str, what: &str, payload: &[u8], limits: &Limits) -> Result<()> {
    if payload.len() <= UNWEIGHED {
        return Ok(());
    }
    let Some(info) = MessageInfo::named(name) else { return Ok(()) };
    let weight = weigh(info, payload)?;
    let limit = (payload.len() as u64).saturating_mul(limits.decoded_factor).min(limits.decoded);
    if weight <= limit {
        return Ok(());
    }
    Err(Error::limit(format!(
        "a {what} of {} bytes would take {weight} bytes when decoded, the limit is {limit}",
        payload.len()
    )))
}

#[cfg(test)]
mod tests {
    use crate::codec::hot::{decode, decode_within};
    use crate::connect::Limits;
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
    fn both_limits_can_be_set() {
        let million = exec(11, &[0x12, 0].repeat(1_500_000));
        let wide = Limits { decoded: 1 << 30, decoded_factor: 1_000, ..Limits::default() };
        assert!(decode_within(&million, &wide).is_ok());

        let mut write = Vec::new();
        put_str(&mut write, 2, &"x".repeat(1 << 20));
        let plain = exec(3, &write);
        assert!(decode(&plain).is_ok());
        let small = Limits { decoded: 1 << 20, ..Limits::default() };
        let dense = Limits { decoded_factor: 1, ..Limits::default() };
        for (limits, limit) in [(small, 1 << 20), (dense, plain.len())] {
            let error = decode_within(&plain, &limits).unwrap_err();
            assert_eq!(error.kind(), &Kind::LimitExceeded);
            assert!(error.message().ends_with(&format!("the limit is {limit}")), "{error}");
        }
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
