//! Fuzz bodies: what must hold for any input.

use serde_json::Value;

use super::{Side, envelope_from_json, from_json, inspect, lines};
use crate::connect::Limits;

/// Any bytes, read as a message and as a stream from either side: whatever gives JSON gives, also
/// after that JSON was text, the same bytes again.
///
/// # Panics
///
/// When it does not; that is the finding.
pub fn inspect_round_trip(data: &[u8]) {
    for side in [Side::Server, Side::Client] {
        if let Ok(inspected) = inspect(side, data) {
            let again = from_json(side, &reread(&inspected.value));
            assert_eq!(again.as_deref(), Ok(data), "{side:?}");
        }
        stream(side, data);
    }
}

fn stream(side: Side, data: &[u8]) {
    let mut rest = data;
    for line in lines(side, data, Limits::default()) {
        match line {
            Ok(line) => {
                let envelope = envelope_from_json(side, &reread(&line.value));
                let after =
                    envelope.as_ref().ok().and_then(|envelope| rest.strip_prefix(&**envelope));
                assert!(after.is_some(), "{side:?}: the envelope again");
                rest = after.unwrap_or_default();
            }
            Err(error) => {
                let offset = error.offset().unwrap_or(u64::MAX);
                assert!(offset <= data.len() as u64, "{side:?}: an offset outside the stream");
                return;
            }
        }
    }
    assert!(rest.is_empty(), "{side:?}: the whole stream");
}

/// The JSON as a reader of the printed text sees it.
fn reread(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or_default()
}
