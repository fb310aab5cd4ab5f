//! What the unary calls answer.

use serde::{Deserialize, Serialize};

use super::form;
use super::step::{ErrorStep, Status};
use crate::{Error, Result};

/// One model of the list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// `model_id`.
    pub id: String,
    /// `display_name`; empty: left out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether `thinking_details` is there.
    pub thinking: bool,
    /// `max_mode`; left out when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mode: Option<bool>,
    /// `aliases`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Answers of the unary calls, where they are to differ from the plain ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unary {
    /// GetUsableModels.
    pub usable_models: UnaryReply,
    /// GetDefaultModelForCli.
    pub default_model: UnaryReply,
    /// NameAgent.
    pub name_agent: UnaryReply,
    /// The name that NameAgent gives; without it the first words of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How one unary call answers. The default is the plain answer at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnaryReply {
    /// Milliseconds before the answer.
    pub delay_ms: u64,
    /// A Connect error, as JSON with the status of its code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorStep>,
    /// Another HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The body in base64, right or wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Put the message into a Connect envelope, as some servers do.
    pub enveloped: bool,
    /// Never answer.
    pub silence: bool,
    /// How often this holds; after that the answer is the plain one. Without it: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Unary {
    pub(super) fn check(&self) -> Result<()> {
        let replies = [
            ("usable_models", &self.usable_models),
            ("default_model", &self.default_model),
            ("name_agent", &self.name_agent),
        ];
        for (name, reply) in replies {
            reply
                .check()
                .map_err(|error| Error::invalid(format!("script: unary.{name}: {error}")))?;
        }
        Ok(())
    }
}

impl UnaryReply {
    fn check(&self) -> Result<(), String> {
        if let Some(status) = &self.status {
            status.check()?;
        }
        match &self.base64 {
            Some(text) => form::base64(text).map(drop),
            None => Ok(()),
        }
    }
}
