//! Values that are no messages, in both directions.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use serde_json::{Number, Value};

use crate::proto::reflect::FieldKind;
use crate::wire::{Value as Wire, WireType, put_varint};

/// Bytes as text.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Text as bytes; the padding may be missing.
pub(super) fn from_base64(value: &Value) -> Option<Vec<u8>> {
    STANDARD_PAD_INDIFFERENT.decode(value.as_str()?).ok()
}

/// How a value of this type stands on the wire, when it is not packed.
pub(super) const fn wire_type(kind: FieldKind) -> WireType {
    match kind {
        FieldKind::Double => WireType::I64,
        FieldKind::Bytes | FieldKind::String | FieldKind::Message(_) => WireType::Len,
        _ => WireType::Varint,
    }
}

/// The value of a field that is not there.
pub(super) const fn zero(kind: FieldKind) -> Wire<'static> {
    match wire_type(kind) {
        WireType::I64 => Wire::I64(0),
        WireType::Len => Wire::Len(&[]),
        _ => Wire::Varint(0),
    }
}

/// The JSON of a number, and whether [`to_wire`] gives the same bits again. A varint that is too
/// long for its type is cut, as every decoder does.
pub(super) fn number(kind: FieldKind, wire: Wire<'_>) -> (Value, bool) {
    let bits = match wire {
        Wire::Varint(bits) | Wire::I64(bits) => bits,
        _ => 0,
    };
    match kind {
        FieldKind::Bool => ((bits != 0).into(), bits <= 1),
        FieldKind::Double => double(bits),
        FieldKind::Int64 => ((bits as i64).to_string().into(), true),
        FieldKind::Uint32 => ((bits as u32).into(), bits <= u64::from(u32::MAX)),
        FieldKind::Uint64 => (bits.to_string().into(), true),
        FieldKind::Enum(info) => {
            let value = bits as i32;
            let shown = info.name_of(value).map_or_else(|| value.into(), Value::from);
            (shown, i64::from(value) as u64 == bits)
        }
        _ => {
            let value = bits as i32;
            (value.into(), i64::from(value) as u64 == bits)
        }
    }
}

/// A double as a number; as a string where JSON has no number for it (the names are those of proto
/// JSON) or where reading the number would give a neighbour, which readers in a hurry do. Only the
/// bits of a NaN can be lost.
fn double(bits: u64) -> (Value, bool) {
    let value = f64::from_bits(bits);
    let name = if value.is_nan() {
        return ("NaN".into(), bits == f64::NAN.to_bits());
    } else if value == f64::INFINITY {
        "Infinity".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Infinity".to_owned()
    } else {
        value.to_string()
    };
    let shown = Number::from_f64(value).map(Value::Number).filter(|number| {
        let again = serde_json::from_str::<f64>(&number.to_string());
        again.is_ok_and(|again| again.to_bits() == bits)
    });
    (shown.unwrap_or_else(|| name.into()), true)
}

/// The bits of a double.
fn from_double(value: &Value) -> Option<u64> {
    let double = match value {
        Value::String(name) => match name.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            digits => digits.parse().ok()?,
        },
        other => other.as_f64()?,
    };
    Some(double.to_bits())
}

/// A whole number, as a number or as digits in a string.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_i64().map(i128::from).or_else(|| other.as_u64().map(i128::from)),
    }
}

/// The bits of a number on the wire, or what was expected.
pub(super) fn to_wire(kind: FieldKind, value: &Value) -> Result<u64, &'static str> {
    let whole = integer(value);
    let signed = |expected| {
        let value = whole.and_then(|whole| i32::try_from(whole).ok()).ok_or(expected)?;
        Ok(i64::from(value) as u64)
    };
    match kind {
        FieldKind::Bool => value.as_bool().map(u64::from).ok_or("expected true or false"),
        FieldKind::Double => from_double(value).ok_or("expected a number"),
        FieldKind::Int64 => whole
            .and_then(|whole| i64::try_from(whole).ok())
            .map(|value| value as u64)
            .ok_or("expected a whole number of 64 bits, as a string or a number"),
        FieldKind::Uint64 => whole
            .and_then(|whole| u64::try_from(whole).ok())
            .ok_or("expected a whole number of 64 bits without a sign, as a string or a number"),
        FieldKind::Uint32 => whole
            .and_then(|whole| u32::try_from(whole).ok())
            .map(u64::from)
            .ok_or("expected a whole number of 32 bits without a sign"),
        FieldKind::Enum(info) => match value.as_str().and_then(|name| info.number_of(name)) {
            Some(known) => Ok(i64::from(known) as u64),
            None => signed("expected the name of a value of the enum, or its number"),
        },
        _ => signed("expected a whole number of 32 bits"),
    }
}

/// Appends the bits of a number, without a tag.
pub(super) fn put_number(out: &mut Vec<u8>, kind: FieldKind, bits: u64) {
    match wire_type(kind) {
        WireType::I64 => out.extend_from_slice(&bits.to_le_bytes()),
        _ => put_varint(out, bits),
    }
}
