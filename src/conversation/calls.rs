//! Ids of tool calls: what the host knows and what the service may see.
//!
//! The service takes `[A-Za-z0-9_-]` only; another character in an id that is sent back poisons the
//! conversation for good, while its own ids sometimes hold a line break and more (PROTOCOL 4). So an
//! id goes either way in a safe form that follows from it, and the pair is remembered.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::id::hex;

/// Longest part of an id that its safe form repeats.
const KEPT: usize = 48;
/// Longest id that is safe as it is: the peer chooses it, and it is kept. Ids of the service have
/// 40 characters or so. No option: a longer one is shortened, nothing is refused.
const LONGEST: usize = 256;
/// Pairs that are remembered; beyond it the map starts over. Forward the form needs no memory, so
/// only the way back from a very old id is lost. No option: nothing is refused for it.
const PAIRS: usize = 16_384;

/// The ids of one conversation in both forms.
#[derive(Debug, Clone, Default)]
pub struct CallIds {
    /// From the safe form to the form the host knows, where they differ.
    to_host: HashMap<String, String>,
}

impl CallIds {
    /// The form of a host's id that the service may see.
    pub fn to_wire<'a>(&mut self, host_id: &'a str) -> Cow<'a, str> {
        let wire = safe(host_id);
        if let Cow::Owned(wire) = &wire {
            self.remember(wire.clone(), host_id.to_owned());
        }
        wire
    }

    /// The form of a service's id that the host sees: the host's own id where it is one that
    /// [`Self::to_wire`] gave, else the id in its safe form.
    pub fn to_host<'a>(&self, service_id: &'a str) -> Cow<'a, str> {
        match safe(service_id) {
            Cow::Owned(id) => Cow::Owned(id),
            Cow::Borrowed(id) => match self.to_host.get(id) {
                Some(host) => Cow::Owned(host.clone()),
                None => Cow::Borrowed(id),
            },
        }
    }

    /// The pairs of safe form and host's form that are remembered.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.to_host.iter().map(|(wire, host)| (wire.as_str(), host.as_str()))
    }

    /// Remembers a pair.
    pub(crate) fn remember(&mut self, wire: String, host: String) {
        if self.to_host.len() >= PAIRS && !self.to_host.contains_key(&wire) {
            self.to_host.clear();
        }
        self.to_host.insert(wire, host);
    }
}

/// The id itself when it is safe and not too long, else its safe characters and a few digits of its hash, so that
/// different ids stay different.
fn safe(id: &str) -> Cow<'_, str> {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=LONGEST).contains(&id.len()) && id.chars().all(is_safe) {
        return Cow::Borrowed(id);
    }
    let kept: String = id.chars().take(KEPT).map(|c| if is_safe(c) { c } else { '_' }).collect();
    let digest = hex(&Sha256::digest(id));
    Cow::Owned(format!("{kept}_{}", digest.get(..12).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_ids_pass_and_others_come_back() {
        let mut ids = CallIds::default();
        assert_eq!(ids.to_wire("call_1-A"), "call_1-A");
        let wire = ids.to_wire("toolu|fc_1").into_owned();
        assert!(wire.starts_with("toolu_fc_1_"), "{wire}");
        assert!(wire.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        assert_ne!(ids.to_wire("toolu fc_1"), wire);
        assert_eq!(ids.to_wire("toolu|fc_1"), wire);
        assert_eq!(ids.to_host(&wire), "toolu|fc_1");
        assert_eq!(ids.to_host("call_1-A"), "call_1-A");
        assert!(!ids.to_wire("").is_empty());
    }

    #[test]
    fn ids_of_the_service_are_made_safe_the_same_way_each_time() {
        let mut ids = CallIds::default();
        let host = ids.to_host("call_1\nfc_2").into_owned();
        assert!(!host.contains('\n'));
        assert_eq!(ids.to_host("call_1\nfc_2"), host);
        assert_eq!(ids.to_wire(&host), host, "it goes back as the host knows it");
        for long in ["é".repeat(500), "a".repeat(1 << 20)] {
            assert!(ids.to_wire(&long).len() < 64 && ids.to_host(&long).len() < 64);
        }
    }
}
