//! The lines of `chat --json`. Their shape is a promise: docs/CLI.md describes it.

use agentwire::Error;
use agentwire::run::{CheckpointInfo, Event, EventRef, Notice, Usage};
use serde::Serialize;
use serde_json::Value;

use super::words;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Text {
        text: &'a str,
    },
    Thinking {
        text: &'a str,
    },
    ToolCall {
        id: &'a str,
        name: &'a str,
        arguments: &'a Value,
    },
    Usage(&'a Usage),
    Checkpoint(&'a CheckpointInfo),
    Notice {
        #[serde(flatten)]
        notice: &'a Notice,
        text: String,
    },
    #[serde(rename = "notice")]
    ToolsAborted {
        kind: &'static str,
        ids: &'a [String],
        text: &'static str,
    },
    Done {
        usage: &'a Usage,
    },
    Error(ErrorLine<'a>),
}

#[derive(Debug, Serialize)]
struct ErrorLine<'a> {
    kind: &'static str,
    code: &'static str,
    blame: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
}

/// Appends the lines of one event to `out`, each with its line feed.
///
/// Most events make one line. A batch of tool calls makes one each; output tokens make none, they
/// are in the usage.
pub(super) fn put_event(out: &mut Vec<u8>, event: &EventRef<'_>) {
    match event {
        EventRef::Text(text) => put(out, &Line::Text { text }),
        EventRef::Thinking(text) => put(out, &Line::Thinking { text }),
        EventRef::Other(event) => put_cold(out, event),
        // Events may grow: a kind that has no documented line makes none.
        _ => {}
    }
}

fn put_cold(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::ToolCalls(calls) => {
            for call in calls {
                let (id, name) = (&call.id, &call.name);
                put(out, &Line::ToolCall { id, name, arguments: &call.arguments });
            }
        }
        Event::ToolsAborted(ids) => {
            let (kind, text) = ("tools_aborted", words::TOOLS_ABORTED);
            put(out, &Line::ToolsAborted { kind, ids, text });
        }
        Event::Checkpoint(info) => put(out, &Line::Checkpoint(info)),
        Event::Usage(usage) => put(out, &Line::Usage(usage)),
        Event::Notice(notice) => put(out, &Line::Notice { notice, text: words::notice(notice) }),
        Event::Ended(Ok(finish)) => put(out, &Line::Done { usage: &finish.usage }),
        Event::Ended(Err(error)) => put_error(out, error),
        _ => {}
    }
}

/// The line that a failed command ends with.
pub(crate) fn put_error(out: &mut Vec<u8>, error: &Error) {
    let line = ErrorLine {
        kind: error.kind().as_str(),
        code: error.code().as_str(),
        blame: error.blame().as_str(),
        message: error.message(),
        hint: error.hint(),
        retryable: error.is_retryable(),
        http_status: error.http_status(),
    };
    put(out, &Line::Error(line));
}

fn put(out: &mut Vec<u8>, line: &Line<'_>) {
    let start = out.len();
    // Writing to memory cannot fail, and no key here is anything but a string.
    if serde_json::to_writer(&mut *out, line).is_err() {
        out.truncate(start);
        return;
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use agentwire::context::ToolCall;
    use agentwire::error::Kind;
    use agentwire::run::Finish;
    use serde_json::json;

    use super::*;

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        put_event(&mut out, &borrowed(event));
        String::from_utf8(out).unwrap_or_default()
    }

    fn borrowed(event: &Event) -> EventRef<'_> {
        match event {
            Event::Text(text) => EventRef::Text(text),
            Event::Thinking(text) => EventRef::Thinking(text),
            Event::OutputTokens(tokens) => EventRef::OutputTokens(*tokens),
            other => EventRef::Other(Box::new(other.clone())),
        }
    }

    /// One row for each line of docs/CLI.md.
    #[test]
    fn lines_keep_their_shape() {
        let usage = Usage { input: Some(7), output: 3, billed: true, ..Usage::default() };
        let call = |id: &str| ToolCall {
            id: id.to_owned(),
            name: "ls".to_owned(),
            arguments: json!({"path": "."}),
        };
        let table = [
            (Event::Text("a\nb".to_owned()), "{\"type\":\"text\",\"text\":\"a\\nb\"}\n".to_owned()),
            (
                Event::Thinking("hm".to_owned()),
                "{\"type\":\"thinking\",\"text\":\"hm\"}\n".to_owned(),
            ),
            (Event::OutputTokens(3), String::new()),
            (
                Event::ToolCalls(vec![call("a"), call("b")]),
                ["a", "b"]
                    .map(|id| {
                        format!(
                            "{{\"type\":\"tool_call\",\"id\":\"{id}\",\"name\":\"ls\",\
                             \"arguments\":{{\"path\":\".\"}}}}\n"
                        )
                    })
                    .concat(),
            ),
            (
                Event::Usage(usage),
                "{\"type\":\"usage\",\"input\":7,\"output\":3,\"cache_read\":null,\
                 \"cache_write\":null,\"reasoning\":null,\"context_used\":null,\
                 \"context_limit\":null,\"billed\":true}\n"
                    .to_owned(),
            ),
            (
                Event::Checkpoint(CheckpointInfo {
                    bytes: 9,
                    used_tokens: Some(5),
                    max_tokens: None,
                }),
                "{\"type\":\"checkpoint\",\"bytes\":9,\"used_tokens\":5,\"max_tokens\":null}\n"
                    .to_owned(),
            ),
        ];
        for (event, expected) in &table {
            assert_eq!(&line(event), expected, "{event:?}");
        }
        let done = line(&Event::Ended(Ok(Finish { usage })));
        assert!(done.starts_with("{\"type\":\"done\",\"usage\":{\"input\":7,"), "{done}");
    }

    #[test]
    fn notices_keep_their_kind_and_say_it_in_words() {
        let notice = Notice::Refused { what: "shell_args".to_owned() };
        let value: Value = serde_json::from_str(&line(&Event::Notice(notice))).unwrap_or_default();
        assert_eq!(value["type"], "notice");
        assert_eq!(value["kind"], "refused");
        assert_eq!(value["what"], "shell_args");
        assert!(value["text"].as_str().is_some_and(|text| text.contains("shell_args")));
        let aborted = line(&Event::ToolsAborted(vec!["c1".to_owned()]));
        assert!(
            aborted.starts_with(
                "{\"type\":\"notice\",\"kind\":\"tools_aborted\",\"ids\":[\"c1\"],\"text\":\""
            ),
            "{aborted}"
        );
    }

    #[test]
    fn an_error_says_kind_code_blame_and_hint() {
        let error = Error::new(Kind::Unauthenticated, "no token").with_hint("sign in");
        assert_eq!(
            line(&Event::Ended(Err(error))),
            "{\"type\":\"error\",\"kind\":\"unauthenticated\",\"code\":\"unauthenticated\",\
             \"blame\":\"caller\",\"message\":\"no token\",\"hint\":\"sign in\",\
             \"retryable\":false}\n"
        );
    }
}
