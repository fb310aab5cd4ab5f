//! What an exec answered, as text for a script and for those who read what it says.

use prost::Message as _;
use serde_json::Value;

use super::facts::cut;
use crate::inspect::inspect_as;
use crate::proto::exec_client_message::Message as M;
use crate::proto::reflect::MessageInfo;
use crate::proto::{
    self, LsDirectoryTreeNode, ls_result, read_result, read_success, shell_result, shell_stream,
};

/// The most entries of a listing that are named.
const ENTRIES: usize = 200;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) is_error: bool,
}

impl Outcome {
    fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false }
    }

    /// The content of a file, the names of a listing, the output of a command; of everything else
    /// the result as JSON by proto names.
    pub(super) fn of(result: &proto::ExecClientMessage) -> Self {
        match &result.message {
            Some(M::ReadResult(read)) => match &read.result {
                Some(read_result::Result::Success(success)) => match &success.output {
                    Some(read_success::Output::Content(text)) => Self::ok(text),
                    Some(read_success::Output::Data(data)) => {
                        Self::ok(format!("{} bytes that are not text", data.len()))
                    }
                    None => Self::ok(""),
                },
                _ => Self::json(result),
            },
            Some(M::LsResult(listed)) => match &listed.result {
                Some(ls_result::Result::Success(success)) => {
                    Self::ok(names(success.directory_tree_root.as_ref()))
                }
                _ => Self::json(result),
            },
            Some(M::ShellResult(shell)) => match &shell.result {
                Some(shell_result::Result::Success(success)) => {
                    Self::ok(format!("{}{}", success.stdout, success.stderr))
                }
                _ => Self::json(result),
            },
            Some(M::ShellStream(stream)) => match &stream.event {
                Some(shell_stream::Event::Stdout(piece)) => Self::ok(&piece.data),
                Some(shell_stream::Event::Stderr(piece)) => Self::ok(&piece.data),
                _ => Self::ok(""),
            },
            _ => Self::json(result),
        }
    }

    fn json(result: &proto::ExecClientMessage) -> Self {
        let plain = proto::ExecClientMessage { message: result.message.clone(), ..<_>::default() };
        let json = json("ExecClientMessage", &plain.encode_to_vec());
        let case = json.as_object().and_then(|cases| cases.values().next()).unwrap_or(&Value::Null);
        let failed = case.as_object().and_then(|result| result.iter().next());
        let failed = failed.filter(|(name, _)| name.as_str() != "success");
        // The reason alone, where there is one.
        let reason = failed.and_then(|(_, failure)| {
            let names = ["reason", "error", "client_visible_error"];
            names.into_iter().find_map(|name| failure.get(name)?.as_str())
        });
        let text = reason.map_or_else(|| case.to_string(), str::to_owned);
        Self { text, is_error: failed.is_some() }
    }
}

/// A message as JSON by proto names.
pub(super) fn json(message: &str, bytes: &[u8]) -> Value {
    let known = MessageInfo::named(message).and_then(|info| inspect_as(info, bytes).ok());
    known.map(|inspected| inspected.value).unwrap_or_default()
}

/// One name a line, folders with `/` and before what is in them, relative to the root.
fn names(root: Option<&LsDirectoryTreeNode>) -> String {
    let Some(root) = root else { return String::new() };
    let mut lines = Vec::new();
    let mut ahead = vec![root];
    while let Some(folder) = ahead.pop().filter(|_| lines.len() < ENTRIES) {
        let below = folder.abs_path.strip_prefix(&root.abs_path).unwrap_or(&folder.abs_path);
        let below = below.trim_start_matches('/');
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        if !prefix.is_empty() {
            lines.push(prefix.clone());
        }
        lines.extend(folder.children_files.iter().map(|file| format!("{prefix}{}", file.name)));
        ahead.extend(folder.children_dirs.iter().rev());
    }
    if lines.len() > ENTRIES {
        lines.truncate(ENTRIES);
        lines.push("…".into());
    }
    lines.join("\n")
}

/// The next thing to look at in a workspace: a case, its arguments, and what it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    List,
    Read(String),
}

impl Look {
    /// After nothing, the list; after a list, the file that the prompt names, else a README, else
    /// the first one.
    pub(super) fn next(prompt: &str, seen: &[super::facts::Called]) -> Option<Self> {
        let listed = match seen {
            [] => return Some(Self::List),
            [listed] if listed.tool == Self::List.name() && !listed.is_error => listed,
            _ => return None,
        };
        let files = || {
            let lines = listed.text.as_deref().unwrap_or_default().lines();
            lines.filter(|line| !line.ends_with('/') && !line.starts_with('…'))
        };
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_lowercase();
        let prompt = prompt.to_lowercase();
        let named = files().find(|file| prompt.contains(&base(file)));
        let readme = || files().find(|file| base(file).starts_with("readme"));
        named.or_else(readme).or_else(|| files().next()).map(|file| Self::Read(file.to_owned()))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::List => "ls",
            Self::Read(_) => "read",
        }
    }

    pub(super) fn path(&self) -> &str {
        match self {
            Self::List => ".",
            Self::Read(path) => path,
        }
    }

    /// Field number and message of the exec (PROTOCOL 3).
    pub(super) fn encode(&self) -> (u32, Vec<u8>) {
        /// Lines that are read: the beginning of a file says what it is.
        const LINES: u32 = 40;
        let path = self.path().to_owned();
        match self {
            Self::List => (8, proto::LsArgs { path, ..<_>::default() }.encode_to_vec()),
            Self::Read(_) => {
                let limit = Some(LINES);
                (7, proto::ReadArgs { path, limit, ..<_>::default() }.encode_to_vec())
            }
        }
    }
}

impl super::Facts {
    /// Takes over what an `ask` was answered; pieces of a stream come together.
    pub(super) fn heard(&mut self, result: &proto::ExecClientMessage) {
        let text = Outcome::of(result).text;
        match &result.message {
            Some(M::ShellStream(stream)) => {
                if matches!(stream.event, Some(shell_stream::Event::Start(_))) {
                    self.answer.clear();
                }
                self.answer.push_str(&text);
            }
            _ => self.answer = text,
        }
        self.answer = cut(&self.answer, super::facts::MAX_RESULT);
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Called;
    use super::*;

    #[test]
    fn list_then_the_file_that_fits_best() {
        let listed =
            |text: &str| Called { tool: "ls".into(), text: Some(text.into()), ..Called::default() };
        assert_eq!(Look::next("x", &[]), Some(Look::List));
        let some = [listed("a.rs\nREADME.md\nsrc/\nsrc/Main.rs")];
        for (prompt, file) in [("what is this?", "README.md"), ("explain main.rs", "src/Main.rs")] {
            assert_eq!(Look::next(prompt, &some), Some(Look::Read(file.into())));
        }
        assert_eq!(Look::next("x", &[listed("z/\nb\na")]), Some(Look::Read("b".into())));
        assert_eq!(Look::next("x", &[listed("")]), None);
        assert_eq!(Look::next("x", &[Called { is_error: true, ..listed("a") }]), None);
    }

    #[test]
    fn refusals_are_their_reason_and_other_results_json() {
        let rejected = read_result::Result::Rejected(proto::ReadRejected {
            path: "p".into(),
            reason: "said no".into(),
        });
        let result = |message| proto::ExecClientMessage {
            id: 7,
            message: Some(message),
            ..proto::ExecClientMessage::default()
        };
        let read = proto::ReadResult { result: Some(rejected) };
        let outcome = Outcome::of(&result(M::ReadResult(Box::new(read))));
        assert_eq!(outcome, Outcome { text: "said no".into(), is_error: true });
        let wrote = proto::write_result::Result::Success(proto::WriteSuccess {
            path: "p".into(),
            ..proto::WriteSuccess::default()
        });
        let wrote = proto::WriteResult { result: Some(wrote) };
        let outcome = Outcome::of(&result(M::WriteResult(Box::new(wrote))));
        assert!(!outcome.is_error && outcome.text.contains("\"success\""), "{outcome:?}");
    }
}
