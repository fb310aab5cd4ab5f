//! From what a script says to bytes, and the checks that need the bytes.

use super::form;
use super::step::{
    Ask, Bytes, Call, Checkpoint, ErrorStep, GetBlob, SetBlob, Status, Step, content,
};
use crate::codec::value;
use crate::server::reflect;
use crate::server::session::EndError;
use crate::{Error, Result};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The channel of a question, with its case's field number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Case {
    Exec(u32),
    Query(u32),
}

impl Ask {
    /// The case and the bytes of its message.
    pub(in crate::server) fn encode(&self) -> Result<(Case, Vec<u8>)> {
        let by_number = || form::hex(&self.hex).map_err(Error::invalid);
        match (&self.exec, &self.query, self.exec_field, self.query_field) {
            (Some(name), None, None, None) => {
                let case = reflect::case("ExecServerMessage", name)?;
                Ok((Case::Exec(case.field), case.encode(&self.args)?))
            }
            (None, Some(name), None, None) => {
                let case = reflect::case("InteractionQuery", name)?;
                Ok((Case::Query(case.field), case.encode(&self.args)?))
            }
            (None, None, Some(field), None) => Ok((Case::Exec(number(field)?), by_number()?)),
            (None, None, None, Some(field)) => Ok((Case::Query(number(field)?), by_number()?)),
            _ => Err(Error::invalid(
                "exactly one of `exec`, `query`, `exec_field` and `query_field` is wanted",
            )),
        }
    }
}

/// A field number that a case may have.
fn number(field: u32) -> Result<u32> {
    match field {
        2..0x2000_0000 => Ok(field),
        _ => Err(Error::invalid("a field number is 2 to 536870911")),
    }
}

impl Call {
    fn check(&self) -> Result<(), String> {
        let mut out = Vec::new();
        let mut encode = |value: &Value| value::from_json(value, &mut out);
        self.args.values().try_for_each(&mut encode).map_err(|error| error.to_string())
    }
}

impl GetBlob {
    /// The blob's id.
    pub(in crate::server) fn bytes(&self) -> Result<Vec<u8>, String> {
        form::hex(&self.id)
    }
}

impl SetBlob {
    /// The blob's id and content.
    pub(in crate::server) fn bytes(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let data = content(self.text.as_ref(), None, self.base64.as_ref(), self.zeros)?;
        let id = match &self.id {
            Some(id) => form::hex(id)?,
            None => Sha256::digest(&data).to_vec(),
        };
        Ok((id, data))
    }
}

impl Checkpoint {
    /// The bytes that are given, if any are.
    pub(in crate::server) fn bytes(&self) -> Result<Option<Vec<u8>>, String> {
        self.base64.as_deref().map(form::base64).transpose()
    }
}

impl Bytes {
    /// The bytes, without the envelope.
    pub(in crate::server) fn content(&self) -> Result<Vec<u8>, String> {
        content(self.text.as_ref(), self.hex.as_ref(), self.base64.as_ref(), self.zeros)
    }
}

impl Status {
    /// The body.
    pub(in crate::server) fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            json => json.to_string().into_bytes(),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_head(self.status, self.headers.iter())
    }
}

impl From<ErrorStep> for EndError {
    fn from(step: ErrorStep) -> Self {
        let ErrorStep { code, message, details, metadata } = step;
        Self { code, message, details, metadata }
    }
}

impl Step {
    /// Whether this step says itself what the response head looks like.
    pub(in crate::server) fn makes_head(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Head(_) | Self::Reset(_) | Self::Cut)
    }

    /// Checks what types alone cannot say.
    pub(super) fn check(&self) -> Result<()> {
        let checked = match self {
            Self::Ask(ask) => return ask.encode().map(drop),
            Self::Update(json) => return reflect::encode("InteractionUpdate", json).map(drop),
            Self::Send(json) => return reflect::encode("AgentServerMessage", json).map(drop),
            Self::Checkpoint(Checkpoint { state: Some(state), .. }) => {
                return reflect::encode("ConversationStateStructure", state).map(drop);
            }
            Self::Checkpoint(checkpoint) => checkpoint.bytes().map(drop),
            Self::Call(call) => call.check(),
            Self::Calls(calls) => calls.iter().try_for_each(Call::check),
            Self::GetBlob(blob) => blob.bytes().map(drop),
            Self::SetBlob(blob) => blob.bytes().map(drop),
            Self::Bytes(bytes) => bytes.content().map(drop),
            Self::Status(status) => status.check(),
            Self::Head(head) => check_head(head.status.unwrap_or(200), head.headers.iter()),
            _ => Ok(()),
        };
        checked.map_err(Error::invalid)
    }
}

/// A status and headers that HTTP can carry.
fn check_head<'a>(
    status: u16,
    headers: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(), String> {
    if !(200..=599).contains(&status) {
        return Err("`status` is 200 to 599".into());
    }
    for (name, value) in headers {
        let token = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        };
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("`{}` is not a header name in lower case", name.escape_debug()));
        }
        if value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
            return Err(format!("the value of header `{name}` has control characters"));
        }
    }
    Ok(())
}
