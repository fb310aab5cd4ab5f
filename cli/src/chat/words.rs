//! What is said to people beside the answer.

use std::fmt::Write as _;

use agentwire::context::ToolCall;
use agentwire::run::{Notice, Remedy, Usage};

pub(super) const TOOLS_ABORTED: &str = "the service no longer waits for these tools";

/// The most characters of a tool call's arguments that are shown to a person.
const ARGUMENTS_SHOWN: usize = 200;

/// A notice as a sentence.
pub(crate) fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Utf8Replaced => {
            "some bytes of the answer were not UTF-8 text and were replaced".to_owned()
        }
        Notice::Unrecognised => {
            "the service sent something that this version does not know; it was skipped".to_owned()
        }
        Notice::Refused { what } => {
            format!("the service asked for {what}, which nothing serves here; it was told so")
        }
        Notice::BlobRefused { why } => {
            format!("a piece of the service's state was not stored: {why}")
        }
        Notice::BlobIdMismatch => {
            "a piece of the service's state came under an id that does not fit it".to_owned()
        }
        Notice::LostAfterEnd => {
            "the connection was lost after the turn had ended; the answer is complete".to_owned()
        }
        Notice::Retrying { attempt, delay_ms, why } => {
            let seconds = *delay_ms as f64 / 1_000.0;
            format!("{why}; attempt {attempt} to go on in {seconds:.1} s")
        }
        Notice::Repairing { remedy } => {
            let what = match remedy {
                Remedy::OtherModelForm => "the model is named the other way",
                Remedy::FreshConversation => "the conversation goes on under a fresh id",
                Remedy::Rebuild => "the conversation is built anew from its history",
                Remedy::OtherToken => "the token is renewed",
                _ => "with a remedy",
            };
            format!("the service refused the request; it is asked again: {what}")
        }
        Notice::Parked => {
            "the stream is gone while tools are at work; the turn goes on when they are done"
                .to_owned()
        }
        Notice::Resuming => "the turn goes on over a new connection".to_owned(),
        Notice::Restarted { text: 0, .. } => "the model thought again".to_owned(),
        Notice::Restarted { text, .. } => {
            format!("the model began again: what follows replaces the last {text} bytes above")
        }
        Notice::NotKept { why } => format!("the conversation could not be kept: {why}"),
        other => format!("{other:?}"),
    }
}

/// A tool call on one line.
pub(super) fn tool_call(call: &ToolCall) -> String {
    let arguments = call.arguments.to_string();
    let mut line = format!("tool call: {} ", call.name);
    match arguments.char_indices().nth(ARGUMENTS_SHOWN) {
        Some((end, _)) => {
            line.push_str(arguments.get(..end).unwrap_or_default());
            line.push('…');
        }
        None => line.push_str(&arguments),
    }
    line
}

/// Tokens on one line: `12 tokens in (8 from the cache), 3 out`.
pub(super) fn usage(usage: &Usage) -> String {
    let mut line = match usage.input {
        Some(input) => format!("{input} tokens in"),
        None => "tokens in unknown".to_owned(),
    };
    if let Some(read) = usage.cache_read.filter(|&read| read > 0) {
        // Writing to a string cannot fail.
        let _ = write!(line, " ({read} from the cache)");
    }
    let _ = write!(line, ", {} out", usage.output);
    if let Some(reasoning) = usage.reasoning.filter(|&tokens| tokens > 0) {
        let _ = write!(line, " ({reasoning} reasoning)");
    }
    if let (Some(used), Some(limit)) = (usage.context_used, usage.context_limit) {
        let _ = write!(line, "; context {used} of {limit}");
    }
    if !usage.billed {
        line.push_str(" (estimated)");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_says_what_is_known() {
        let mut usage = Usage { output: 3, ..Usage::default() };
        assert_eq!(super::usage(&usage), "tokens in unknown, 3 out (estimated)");
        usage.input = Some(12);
        usage.cache_read = Some(8);
        usage.context_used = Some(15);
        usage.context_limit = Some(200);
        usage.billed = true;
        assert_eq!(
            super::usage(&usage),
            "12 tokens in (8 from the cache), 3 out; context 15 of 200"
        );
    }

    #[test]
    fn long_arguments_are_cut_between_characters() {
        let call = |text: String| ToolCall {
            id: String::new(),
            name: "t".to_owned(),
            arguments: json!(text),
        };
        assert_eq!(tool_call(&call("x".to_owned())), "tool call: t \"x\"");
        let line = tool_call(&call("ä".repeat(300)));
        assert!(line.ends_with("ä…"), "{line}");
    }
}
