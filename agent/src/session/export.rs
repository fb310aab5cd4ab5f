//! A session as Markdown, for people.

use agentwire::context::{AssistantPart, Message};

use super::log::Entry;
use crate::event::ToolStatus;
use crate::record::{Record, text_of};

/// The records of a session as Markdown. Images are named, not shown.
pub fn markdown(title: &str, entries: &[Entry]) -> String {
    let mut out = format!("# {title}\n");
    for entry in entries {
        match &entry.record {
            Record::User { message, .. } => section(&mut out, "User", &text_of(message)),
            Record::Assistant { message, model } => assistant(&mut out, message, model),
            Record::ToolResult { result, status } => {
                let note = match status {
                    ToolStatus::Ok => "",
                    ToolStatus::Error => " (failed)",
                    ToolStatus::Interrupted => " (interrupted)",
                    ToolStatus::NotRun => " (not run)",
                };
                out.push_str(&format!("\n**Result of `{}`**{note}\n\n", result.tool_name));
                fence(&mut out, "", &text_of(&Message::ToolResult(result.clone())));
            }
            Record::Compaction { summary, .. } => section(&mut out, "Summary", summary),
            Record::ToolStarted { .. } | Record::End { .. } => {}
        }
    }
    out
}

fn section(out: &mut String, title: &str, text: &str) {
    out.push_str(&format!("\n## {title}\n\n{}\n", text.trim_end()));
}

fn assistant(out: &mut String, message: &Message, model: &str) {
    let Message::Assistant { content } = message else { return };
    out.push_str(&format!("\n## Assistant ({model})\n"));
    for part in content {
        match part {
            AssistantPart::Text { text } => out.push_str(&format!("\n{}\n", text.trim_end())),
            AssistantPart::Thinking { thinking } => {
                out.push('\n');
                for line in thinking.trim_end().lines() {
                    out.push_str(&format!("> {line}\n"));
                }
            }
            AssistantPart::ToolCall(call) => {
                out.push_str(&format!("\n**Call of `{}`**\n\n", call.name));
                let arguments = serde_json::to_string_pretty(&call.arguments);
                fence(out, "json", &arguments.unwrap_or_default());
            }
        }
    }
}

/// A code block whose fence is longer than any in the text.
fn fence(out: &mut String, language: &str, text: &str) {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    out.push_str(&format!("{fence}{language}\n{}\n{fence}\n", text.trim_end()));
}
