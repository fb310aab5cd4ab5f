//! What `chat` asks: the context of `--context` with system prompt, prompt and pictures added.

use std::path::Path;

use agentwire::context::{Context, Message, Part, UserContent};

use super::Args;
use crate::failure::Failure;
use crate::image;
use crate::input::{self, Source};

pub(super) fn build(args: &Args) -> Result<Context, Failure> {
    let mut context = match &args.context {
        Some(path) => read_context(path)?,
        None => Context::default(),
    };
    if let Some(system) = system(args)? {
        context.system_prompt = Some(system);
    }
    if args.prompt.is_some() {
        context.push(prompt(args)?);
    }
    if context.messages.is_empty() {
        return Err(Failure::usage("the context has no messages; add a prompt"));
    }
    Ok(context)
}

/// The system prompt that is named.
pub(crate) fn system(args: &Args) -> Result<Option<String>, Failure> {
    args.system.as_deref().map(at_file).transpose()
}

/// The prompt with its pictures.
pub(crate) fn prompt(args: &Args) -> Result<Message, Failure> {
    user_message(prompt_text(args.prompt.as_deref().unwrap_or_default())?, &args.image)
}

/// A context from a file, in the JSON form of the vectors.
pub(crate) fn read_context(path: &Path) -> Result<Context, Failure> {
    let bytes = input::file(path, input::TEXT_LIMIT)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let fault = input::json_fault(&error);
        Failure::usage(format!("{} is not a context: {fault}", path.display()))
    })
}

fn prompt_text(prompt: &str) -> Result<String, Failure> {
    let text = if prompt == "-" {
        input::announce_stdin();
        Source::Stdin.text()?
    } else {
        prompt.to_owned()
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty"));
    }
    Ok(text)
}

/// The text itself, or the content of the file that it names with `@`.
fn at_file(text: &str) -> Result<String, Failure> {
    match text.strip_prefix('@') {
        Some(path) => Source::File(path.into()).text(),
        None => Ok(text.to_owned()),
    }
}

fn user_message(text: String, images: &[std::path::PathBuf]) -> Result<Message, Failure> {
    if images.is_empty() {
        return Ok(Message::user(text));
    }
    let mut parts = vec![Part::Text { text }];
    for path in images {
        parts.push(image::read(path)?);
    }
    Ok(Message::User { content: UserContent::Parts(parts) })
}
