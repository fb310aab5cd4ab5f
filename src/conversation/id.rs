//! Conversation ids, and other ids that follow from what is said instead of from chance.

use sha2::{Digest, Sha256};

use crate::codec::turn::uuid_shaped;

/// The id of the conversation of a session (BEHAVIOUR 3.9): the same session gives the same id on
/// every machine, so session ids must be random UUIDs (PROTOCOL 4).
///
/// `None` when the session id is blank.
pub fn of_session(session_id: &str) -> Option<String> {
    let trimmed = trim(session_id);
    (!trimmed.is_empty()).then(|| derive(trimmed))
}

/// The id that the reference uses without a session id: derived from the first 200 UTF-16 units of
/// the first user text. Only for comparison with it: everybody who starts with the same words gets
/// the same id (BEHAVIOUR H18).
pub fn of_first_text(text: &str) -> String {
    let units: Vec<u16> = text.encode_utf16().take(200).collect();
    derive(&String::from_utf16_lossy(&units))
}

fn derive(base: &str) -> String {
    let conv = hex(&Sha256::digest(format!("conv:{base}")))[..16].to_owned();
    uuid_shaped(Sha256::new().chain_update(format!("cursor-conv-id:{conv}"))).to_string()
}

/// What JavaScript's `trim` strips: U+FEFF too, U+0085 not (BEHAVIOUR T07).
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_reference() {
        let long = format!("{}\u{1f600}b", "a".repeat(199));
        for (text, id) in [
            ("hello", "bc933415-34b2-474e-9078-cd393275bf94"),
            ("session-1", "8bf21936-13c5-4858-9300-9a9081da60b8"),
            ("session-session_before_switch", "0929748d-ecab-4ecb-8676-d708c1067929"),
            ("", "5d4f5319-474d-4a72-85fb-63995cd7e42b"),
            (&long, "88e7f1d4-0380-4fc3-b377-4300946f5b78"),
        ] {
            assert_eq!(of_first_text(text), id);
        }
        assert_eq!(
            of_session("\u{feff} session-1\t").as_deref(),
            Some("8bf21936-13c5-4858-9300-9a9081da60b8")
        );
        assert_eq!(of_session(" \u{feff}"), None);
        assert_ne!(of_session("\u{85}x"), of_session("x"));
    }
}
