//! What a command reads: files and stdin, bounded, with errors that name the source.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use crate::failure::Failure;

/// The most that is read as a prompt, a system prompt or a context. 64 MiB: well above what a model
/// takes, and an endless pipe does not fill the memory.
pub(crate) const TEXT_LIMIT: u64 = 64 << 20;

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `-`
    Stdin,
    /// A path.
    File(std::path::PathBuf),
}

impl From<std::ffi::OsString> for Source {
    fn from(argument: std::ffi::OsString) -> Self {
        if argument == "-" { Self::Stdin } else { Self::File(argument.into()) }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("stdin"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Source {
    /// Opens the source for reading piece by piece.
    pub(crate) fn open(&self) -> Result<Box<dyn Read>, Failure> {
        match self {
            Self::Stdin => Ok(Box::new(io::stdin().lock())),
            Self::File(path) => Ok(Box::new(open(path)?)),
        }
    }

    /// Everything, as text.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        let name = self.to_string();
        let bytes = read_all(self.open()?, TEXT_LIMIT, &name)?;
        String::from_utf8(bytes).map_err(|error| {
            Failure::usage(format!(
                "{name} is not UTF-8 text: byte {} is not valid",
                error.utf8_error().valid_up_to()
            ))
        })
    }
}

/// A file's bytes, at most `limit`.
pub(crate) fn file(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    read_all(open(path)?, limit, &path.display().to_string())
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path)
        .map_err(|error| Failure::usage(format!("cannot open {}: {error}", path.display())))
}

fn read_all(source: impl Read, limit: u64, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = source
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    if read as u64 > limit {
        return Err(Failure::usage(format!("{name} is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// What is wrong with a JSON text, without the pieces of it that `serde_json` would repeat.
pub(crate) fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Some(start) = text.find("string \"") else { return text };
    let end = text.rfind("\", expected").map_or(text.len(), |end| end + 1);
    match (text.get(..start), text.get(end.max(start)..)) {
        (Some(before), Some(after)) => format!("{before}a string{after}"),
        _ => "it is not of the expected form".to_owned(),
    }
}

/// Whether a person would have to type what is read from stdin; tells them so if they can see it.
pub(crate) fn announce_stdin() {
    use std::io::IsTerminal as _;
    if io::stdin().is_terminal() {
        let _unread = io::stderr().write_all(b"reading from the terminal; end with Ctrl-D\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_up_to_its_limit() {
        assert!(matches!(read_all(&b"12345"[..], 5, "x"), Ok(bytes) if bytes == b"12345"));
        assert!(matches!(read_all(&b"123456"[..], 5, "x"), Err(Failure::Usage(error))
            if error.message() == "x is larger than 5 bytes"));
    }

    #[test]
    fn a_json_fault_repeats_no_content() {
        let fault = |text| {
            let result: Result<Vec<u32>, _> = serde_json::from_str(text);
            result.err().map(|error| json_fault(&error))
        };
        assert_eq!(
            fault(r#"["my \", expected secret"]"#).as_deref(),
            Some("invalid type: a string, expected u32 at line 1 column 25")
        );
        assert_eq!(
            fault("[true]").as_deref(),
            Some("invalid type: boolean `true`, expected u32 at line 1 column 5")
        );
    }

    #[test]
    fn a_dash_is_stdin() {
        assert_eq!(Source::from(std::ffi::OsString::from("-")), Source::Stdin);
        assert_eq!(Source::from(std::ffi::OsString::from("./-")), Source::File("./-".into()));
    }
}
