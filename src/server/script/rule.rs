//! Which rule of a script answers a request.

use serde::{Deserialize, Serialize};

use super::step::Step;

/// What is played when `when` fits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// A name for people; it has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the request must look like; every member that is given must fit.
    pub when: When,
    /// How often the rule may be used over the server's life; after that it is passed over.
    /// Without it: always. With `times = 1` a first attempt fails and the next succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Keep the response head back until the first message goes out. Default off: the head goes
    /// out as soon as the rule is chosen.
    pub hold_head: bool,
    /// What to do, in order. After the last one the stream ends well.
    pub steps: Vec<Step>,
}

/// Conditions of a rule. A member that is not given fits everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Text that the prompt contains, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The model id; `*` stands for any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The number of the turn in the conversation, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// What the client asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionKind>,
    /// The tokens that the state names, 0 where it names none: which checkpoint it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_tokens: Option<u32>,
    /// Whether the request offers tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    /// Whether the message has images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
}

/// What a run request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// An answer to a message of the user.
    User,
    /// To go on after a broken stream.
    Resume,
    /// Another action of the protocol.
    Other,
}

/// What a request looks like, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Facets<'a> {
    /// The user's text; empty for a resume.
    pub prompt: &'a str,
    /// The model id.
    pub model: &'a str,
    /// The number of the turn, from 1.
    pub turn: u32,
    /// What is asked for.
    pub action: ActionKind,
    /// The tokens of the state's token details; 0 without them.
    pub used_tokens: u32,
    /// Tools that came with the request itself.
    pub tools: usize,
    /// Images of the message.
    pub images: usize,
}

impl When {
    /// Whether a request fits.
    pub fn fits(&self, facets: &Facets<'_>) -> bool {
        let prompt = |part: &String| facets.prompt.to_lowercase().contains(&part.to_lowercase());
        self.prompt.as_ref().is_none_or(prompt)
            && self.model.as_ref().is_none_or(|pattern| glob(pattern, facets.model))
            && self.turn.is_none_or(|turn| turn == facets.turn)
            && self.action.is_none_or(|action| action == facets.action)
            && self.used_tokens.is_none_or(|tokens| tokens == facets.used_tokens)
            && self.tools.is_none_or(|tools| tools == (facets.tools > 0))
            && self.images.is_none_or(|images| images == (facets.images > 0))
    }
}

/// Whether `text` is of the form of `pattern`, where `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("composer-2", "composer-2", true),
            ("composer-2", "composer-2-fast", false),
            ("composer-*", "composer-2-fast", true),
            ("*-fast", "composer-2-fast", true),
            ("gpt*codex*high", "gpt-5.4-codex-high", true),
            ("gpt*high*codex", "gpt-5.4-codex-high", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn every_member_must_fit() {
        let facets = Facets {
            prompt: "What is the Weather?",
            model: "composer-2",
            turn: 2,
            action: ActionKind::User,
            used_tokens: 7,
            tools: 1,
            images: 0,
        };
        let all = When {
            prompt: Some("weather".into()),
            model: Some("composer-*".into()),
            turn: Some(2),
            action: Some(ActionKind::User),
            used_tokens: Some(7),
            tools: Some(true),
            images: Some(false),
        };
        assert!(When::default().fits(&facets));
        assert!(all.fits(&facets));
        for (name, change) in [
            ("prompt", When { prompt: Some("storm".into()), ..all.clone() }),
            ("model", When { model: Some("gpt-*".into()), ..all.clone() }),
            ("turn", When { turn: Some(1), ..all.clone() }),
            ("action", When { action: Some(ActionKind::Resume), ..all.clone() }),
            ("used_tokens", When { used_tokens: Some(8), ..all.clone() }),
            ("tools", When { tools: Some(false), ..all.clone() }),
            ("images", When { images: Some(true), ..all.clone() }),
        ] {
            assert!(!change.fits(&facets), "{name}");
        }
    }
}
