//! Random wire bytes that look like the schema: right and wrong types, odd forms, any order.

use agentwire::inspect::{Side, from_json_as, fuzz, inspect_as};
use agentwire::proto::reflect::{FieldInfo, FieldKind, MessageInfo, Shape};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sorted;

/// Random bytes as a source of choices; zero when used up.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn one_in(&mut self, n: u8) -> bool {
        let choice = self.next();
        choice != 0 && choice.is_multiple_of(n)
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.next() % 8).map(|_| self.next()).collect()
    }

    fn varint(&mut self) -> u64 {
        match self.next() % 6 {
            0 => 0,
            1 => 1,
            2 => u64::from(self.next()),
            3 => u64::from(u32::MAX) + u64::from(self.next() % 2),
            4 => u64::MAX - u64::from(self.next()),
            _ => u64::from(self.next()) << (self.next() % 57),
        }
    }

    /// A varint that is sometimes longer than it has to be.
    fn put_varint(&mut self, out: &mut Vec<u8>, mut value: u64) {
        let value_fits_nine = value < 1 << 63;
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        // At most ten bytes: a value of up to nine has room for one more.
        if value_fits_nine
            && self.one_in(60)
            && let Some(last) = out.last_mut()
        {
            *last |= 0x80;
            out.push(0);
        }
    }

    fn put_tag(&mut self, out: &mut Vec<u8>, number: u32, wire_type: u32) {
        self.put_varint(out, u64::from(number << 3 | wire_type));
    }

    fn put_len(&mut self, out: &mut Vec<u8>, content: &[u8]) {
        self.put_varint(out, content.len() as u64);
        out.extend_from_slice(content);
    }
}

fn message(choices: &mut Choices<'_>, info: &MessageInfo, depth: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let count = choices.next() % 6;
    let mut place = 0;
    for _ in 0..count {
        if choices.one_in(8) || info.fields.is_empty() {
            let number = u32::from(choices.next()) * u32::from(choices.next()) + 1;
            anything(choices, &mut out, number);
            continue;
        }
        // Mostly forward, so that messages in order are common too.
        place += usize::from(choices.next() % 4);
        if place >= info.fields.len() && !choices.one_in(4) {
            break;
        }
        place %= info.fields.len();
        let field = &info.fields[place];
        if choices.one_in(12) {
            anything(choices, &mut out, field.number);
        } else {
            known(choices, &mut out, field, depth);
        }
    }
    out
}

/// A field of any wire type.
fn anything(choices: &mut Choices<'_>, out: &mut Vec<u8>, number: u32) {
    let wire_type = [0, 1, 2, 2, 3, 5][usize::from(choices.next()) % 6];
    choices.put_tag(out, number, wire_type);
    match wire_type {
        0 => {
            let value = choices.varint();
            choices.put_varint(out, value);
        }
        1 => out.extend((0..8).map(|_| choices.next())),
        2 => {
            let content = choices.bytes();
            choices.put_len(out, &content);
        }
        3 => {
            choices.put_tag(out, 1, 0);
            out.push(5);
            choices.put_tag(out, number, 4);
        }
        _ => out.extend((0..4).map(|_| choices.next())),
    }
}

fn known(choices: &mut Choices<'_>, out: &mut Vec<u8>, field: &FieldInfo, depth: u32) {
    match field.shape {
        Shape::Map => {
            for _ in 0..choices.next() % 4 {
                let mut entry = Vec::new();
                if !choices.one_in(10) {
                    choices.put_tag(&mut entry, 1, 2);
                    let key = [b'a' + choices.next() % 5];
                    choices.put_len(&mut entry, &key);
                }
                if !choices.one_in(10) {
                    value(choices, &mut entry, 2, field.kind, depth);
                }
                choices.put_tag(out, field.number, 2);
                choices.put_len(out, &entry);
            }
        }
        Shape::Many if field.kind.is_packable() && !choices.one_in(6) => {
            let mut content = Vec::new();
            for _ in 0..choices.next() % 4 {
                let element = choices.varint();
                choices.put_varint(&mut content, element);
            }
            choices.put_tag(out, field.number, 2);
            choices.put_len(out, &content);
        }
        Shape::Many => {
            for _ in 0..choices.next() % 3 {
                value(choices, out, field.number, field.kind, depth);
            }
        }
        Shape::One => value(choices, out, field.number, field.kind, depth),
    }
}

fn value(choices: &mut Choices<'_>, out: &mut Vec<u8>, number: u32, kind: FieldKind, depth: u32) {
    match kind {
        FieldKind::Message(inner) => {
            let content = match depth {
                8.. => choices.bytes(),
                _ if choices.one_in(15) => choices.bytes(),
                _ => message(choices, inner, depth + 1),
            };
            choices.put_tag(out, number, 2);
            choices.put_len(out, &content);
        }
        FieldKind::Bytes => {
            let content = choices.bytes();
            choices.put_tag(out, number, 2);
            choices.put_len(out, &content);
        }
        FieldKind::String => {
            let content = if choices.one_in(20) { choices.bytes() } else { "naïve".into() };
            choices.put_tag(out, number, 2);
            choices.put_len(out, &content);
        }
        FieldKind::Double => {
            choices.put_tag(out, number, 1);
            out.extend((0..8).map(|_| choices.next()));
        }
        _ => {
            let element = choices.varint();
            choices.put_tag(out, number, 0);
            choices.put_varint(out, element);
        }
    }
}

/// Any message of the schema, not only the two that reach the others.
fn any_message() -> impl Strategy<Value = &'static MessageInfo> {
    prop_oneof![
        Just(Side::Server.message()),
        Just(Side::Client.message()),
        (0..MessageInfo::all().len()).prop_map(|place| MessageInfo::all()[place]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn soup_comes_back(info in any_message(), entropy in vec(any::<u8>(), 0..400)) {
        let bytes = message(&mut Choices(entropy.iter()), info, 0);
        let shown = inspect_as(info, &bytes).expect("soup is well-formed").value;
        let again = from_json_as(info, &sorted(&shown));
        prop_assert_eq!(again.as_ref(), Ok(&bytes), "{}", shown);
        // Anything cut off is either still a message or an error inside it.
        let cut = entropy.first().map_or(0, |&byte| usize::from(byte) % (bytes.len() + 1));
        match inspect_as(info, &bytes[..cut]) {
            Ok(shown) => prop_assert_eq!(from_json_as(info, &shown.value), Ok(bytes[..cut].to_vec())),
            Err(error) => prop_assert!(error.offset().is_some_and(|at| at <= cut as u64)),
        }
    }

    #[test]
    fn the_fuzz_body_holds(server in any::<bool>(), entropy in vec(any::<u8>(), 0..200), flags in 0..8_u8) {
        let side = if server { Side::Server } else { Side::Client };
        let bytes = message(&mut Choices(entropy.iter()), side.message(), 0);
        fuzz::inspect_round_trip(&bytes);
        fuzz::inspect_round_trip(&entropy);
        let mut stream = Vec::new();
        agentwire::connect::put_envelope(&mut stream, 0, &bytes);
        agentwire::connect::put_envelope(&mut stream, 1, &agentwire::connect::gzip::compress(&bytes));
        agentwire::connect::put_envelope(&mut stream, flags, &entropy);
        fuzz::inspect_round_trip(&stream);
    }
}

/// How often soup is in the one form that is written: both kinds have to be common above.
#[test]
fn soup_is_sometimes_plain_and_sometimes_not() {
    let mut state = 1_u32;
    let mut counts = [0_u32; 2];
    for _ in 0..2000 {
        let entropy: Vec<u8> = (0..120)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let info = Side::Server.message();
        let bytes = message(&mut Choices(entropy.iter()), info, 0);
        let shown = inspect_as(info, &bytes).expect("soup is well-formed").value;
        if !bytes.is_empty() {
            counts[usize::from(shown.to_string().contains("\"raw\""))] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
}
