//! The service's own list: what `GetUsableModels` answered (BEHAVIOUR 1.4, FAULTS M45, M91).

use prost::Message;

use super::catalog::Entry;
use super::intake::{Dropped, Intake, IntakeLimits};
use crate::connect::{Compression, Decoder, Envelope, FLAGS_RESERVED, Limits};
use crate::error::Kind;
use crate::proto::ModelDetails;
use crate::redact::Redactor;
use crate::wire::{Reader, WireError};
use crate::{Error, Result};

/// The models that the service listed, and what was not taken of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// What can be used. Never empty.
    pub entries: Vec<Entry>,
    /// What cannot.
    pub dropped: Dropped,
    /// Whether the answer came inside a Connect envelope, which a unary call's should not.
    pub enveloped: bool,
}

impl From<ModelDetails> for Entry {
    /// The best name is the first that is not empty of display name, short one, display id. A model
    /// with thinking details thinks, and reasons; so does one that says max mode (BEHAVIOUR 1.4).
    fn from(model: ModelDetails) -> Self {
        let names = [model.display_name, model.display_name_short, model.display_model_id];
        let thinks = model.thinking_details.is_some();
        Self {
            id: model.model_id,
            display_name: names.into_iter().find(|name| !name.trim().is_empty()),
            supports_reasoning: Some(thinks || model.max_mode == Some(true)),
            supports_thinking: Some(thinks),
            aliases: model.aliases,
            ..Self::default()
        }
    }
}

/// Reads the body of an answer with status 200: the message itself, or an envelope with it, also a
/// compressed one. An entry that cannot be read or sent is dropped and counted; the others stand.
///
/// # Errors
/// `ModelNotAvailable` when no model is left; what the service stated, when the envelope holds an
/// error instead; `Protocol` for a body that is neither (a page, JSON, a cut or damaged envelope);
/// `LimitExceeded` for one beyond `limits`.
pub fn decode_listing(
    body: &[u8],
    limits: Limits,
    intake: IntakeLimits,
    redactor: &Redactor,
) -> Result<Listing> {
    if body.len() > limits.message {
        let limit = limits.message;
        return Err(Error::limit(format!("the list of models is longer than {limit} bytes")));
    }
    // An envelope starts with its flags, and no message starts with a byte this small.
    let enveloped = body.first().is_some_and(|flags| flags & FLAGS_RESERVED == 0);
    let (entries, dropped) = if enveloped {
        from_envelopes(body, limits, intake, redactor)?
    } else {
        read(body, intake).map_err(|_| {
            Error::protocol("the answer to GetUsableModels is not a list of models")
                .with_hint("is the base URL that of the service, or does a proxy answer?")
        })?
    };
    if entries.is_empty() {
        return Err(no_models(&dropped));
    }
    Ok(Listing { entries, dropped, enveloped })
}

/// The first message counts; an end-stream message before it is passed over unless it is an error.
fn from_envelopes(
    mut body: &[u8],
    limits: Limits,
    intake: IntakeLimits,
    redactor: &Redactor,
) -> Result<(Vec<Entry>, Dropped)> {
    while !body.is_empty() {
        let mut decoder = Decoder::new(limits, Compression::Gzip).with_redactor(redactor.clone());
        match decoder.next(&mut body)? {
            Some(Envelope::Message(message)) => {
                return read(message, intake).map_err(|_| {
                    Error::protocol("the answer to GetUsableModels holds a damaged list of models")
                });
            }
            Some(Envelope::EndStream(end)) => end.error.map_or(Ok(()), Err)?,
            None => decoder.finish()?,
        }
    }
    Ok((Vec::new(), Dropped::default()))
}

/// The entries of a `GetUsableModelsResponse`. Read one by one: a damaged one costs only itself, and a
/// list of a million takes no more room than the models that are kept.
fn read(message: &[u8], limits: IntakeLimits) -> Result<(Vec<Entry>, Dropped), WireError> {
    const MODELS: u32 = 1;
    let (mut reader, mut broken) = (Reader::new(message), None);
    let entries = std::iter::from_fn(|| {
        loop {
            match reader.field() {
                Ok(Some(field)) if field.number == MODELS => match field.value.bytes() {
                    Ok(bytes) => return Some(ModelDetails::decode(bytes).ok().map(Entry::from)),
                    Err(error) => broken = Some(error),
                },
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => broken = Some(error),
            }
            if broken.is_some() {
                return None;
            }
        }
    });
    let taken = Intake::collect(entries, limits);
    broken.map_or(Ok(taken), Err)
}

fn no_models(dropped: &Dropped) -> Error {
    let what = match dropped.total() {
        0 => "the service lists no models for this account".to_owned(),
        n => format!("of the {n} models that the service lists none can be used"),
    };
    Error::new(Kind::ModelNotAvailable, what)
        .with_hint("check that the account has a plan, or try again later")
}
