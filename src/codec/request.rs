//! What a run is asked for, in our own types.

use std::borrow::Cow;

use super::ToolRules;
use super::model::Model;
use crate::context::Context;
use crate::error::{Error, Result};

/// Longest model, conversation and request id: they become header and log text. No option: the caller
/// gives them.
const MAX_ID: usize = 256;

/// How the history of a context reaches the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum History {
    /// Every message as an entry of `root_prompt_messages_json`, which the service builds the
    /// model's prompt from, and as turns for display (PROTOCOL 4).
    #[default]
    Full,
    /// As the reference of 2026-06 does it, byte for byte: the system entry and turns only, a
    /// checkpoint as it came, tools in the request context only.
    Legacy,
}

/// The names a request carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Naming {
    /// `client_name` of the conversation state. Default `agentwire`.
    pub client_name: Cow<'static, str>,
    /// `provider_identifier` of tools: the model sees `mcp_<provider>_<tool>`. Default `agentwire`.
    pub provider_identifier: Cow<'static, str>,
    /// What paths of inline images start with. Default `/agentwire/inline-images/`.
    pub image_path_prefix: Cow<'static, str>,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            client_name: "agentwire".into(),
            provider_identifier: "agentwire".into(),
            image_path_prefix: "/agentwire/inline-images/".into(),
        }
    }
}

impl Naming {
    /// The names of the reference, for the vectors and for comparison.
    pub fn reference() -> Self {
        Self {
            client_name: "pi".into(),
            provider_identifier: "pi".into(),
            image_path_prefix: "/atomic/inline-images/".into(),
        }
    }
}

/// The ways a host's system prompt reaches the model under [`History::Full`] (PROTOCOL 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PromptRoutes {
    /// The first entry of the prompt list. Default true; the service often replaces it.
    pub system_entry: bool,
    /// A global rule of source USER in the request context. Default true: the way that works.
    pub rule: bool,
    /// `custom_system_prompt`. Default false: allowed for some accounts only.
    pub custom: bool,
}

impl Default for PromptRoutes {
    fn default() -> Self {
        Self { system_entry: true, rule: true, custom: false }
    }
}

/// What the service is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Action {
    /// Answer the last message of the context. Under [`History::Full`] a context that does not end
    /// with a user message (tool results after a pause that was too long, a cut answer) puts all of
    /// it into the history and is continued by `resume_action`: a made-up user message would be
    /// answered instead. Under [`History::Legacy`] its text is sent as a user message, as the
    /// reference does.
    #[default]
    UserMessage,
    /// Go on from the last checkpoint (PROTOCOL 3, retry). A checkpoint that a run of this same
    /// context brought is sent as it came: it knows more of the turn than the context does.
    Resume,
}

/// One run, to be encoded by [`crate::conversation::encode_run`].
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// The conversation; `None`: that of the `Conversation` value, or a fresh one.
    pub conversation_id: Option<String>,
    /// Id of this request, a UUID; also sent as a header.
    pub request_id: String,
    /// The model that is asked.
    pub model: Model,
    /// System prompt, messages, tools.
    pub context: Context,
    /// How the history is sent.
    pub history: History,
    /// The names it carries.
    pub naming: Naming,
    /// What the service is to do.
    pub action: Action,
    /// Where the system prompt goes; [`History::Legacy`] has the system entry only.
    pub prompt: PromptRoutes,
    /// What the service takes of tools.
    pub tool_rules: ToolRules,
    /// Whether the action carries the request context, tools included, besides the answer to the
    /// service's question for it. Default false: the service asks at the start of a run, and the
    /// tools are in the request already, so it would take twice the bytes. Under
    /// [`History::Legacy`] it never does.
    pub carry_context: bool,
}

impl RunRequest {
    /// Whether every id can be sent: printable ASCII without spaces, 1 to 256 characters.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` that names the id, never its value (FAULTS M87).
    pub fn check_ids(&self) -> Result<()> {
        check_id("model id", &self.model.id)?;
        self.model.other.as_ref().map_or(Ok(()), |other| check_id("model id", &other.id))?;
        check_id("request id", &self.request_id)?;
        self.conversation_id.as_deref().map_or(Ok(()), |id| check_id("conversation id", id))
    }
}

/// Whether an id can be sent.
pub(crate) fn check_id(what: &str, id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(Error::invalid(format!("the {what} must have 1 to {MAX_ID} characters")));
    }
    if !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid(format!(
            "the {what} may hold printable ASCII characters without spaces only"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_ids_are_refused_without_their_value() {
        let good = RunRequest {
            request_id: "req-1".into(),
            model: Model::new("composer-2"),
            ..RunRequest::default()
        };
        assert!(good.check_ids().is_ok());
        let huge = "a".repeat(1 << 20);
        for bad in ["", "sneaky\r\nx", "sneaky\0", "sneaky id", "snéaky", "\u{202e}sneaky", &huge]
        {
            for place in 0..3 {
                let mut request = good.clone();
                match place {
                    0 => request.model.id = bad.into(),
                    1 => request.request_id = bad.into(),
                    _ => request.conversation_id = Some(bad.into()),
                }
                let error = request.check_ids().unwrap_err();
                assert!(!error.to_string().contains("neaky"), "{error}");
                assert!(error.to_string().len() < 200);
            }
        }
    }
}
