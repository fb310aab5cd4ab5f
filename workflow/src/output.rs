//! What becomes of a stage's answer: given as it is, cut, written to a file.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use uuid::Uuid;

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::failure::{Code, Failure};
use crate::stage::StageOptions;

/// Where a stage's answer goes beside its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Output {
    /// Nowhere: the author is given it.
    #[default]
    Inline,
    /// Into this file too, whole; a file that is there is replaced.
    File(PathBuf),
    /// Into this file alone: the author, and so every prompt that is built on it, is given a line
    /// that names the file. The value of a stage with a schema is given all the same.
    FileOnly(PathBuf),
}

/// How much of an answer in text the author is given. What is too long is cut at the end, with a
/// line that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxOutput {
    /// Bytes.
    pub bytes: usize,
    /// Lines.
    pub lines: usize,
}

impl Default for MaxOutput {
    /// 200 KiB and 5,000 lines, as the reference has them: about 50,000 tokens.
    fn default() -> Self {
        Self { bytes: 200 << 10, lines: 5_000 }
    }
}

impl MaxOutput {
    /// The text within the limits.
    pub fn cut(&self, text: &str) -> String {
        let by_lines = text.split_inclusive('\n').take(self.lines).map(str::len).sum::<usize>();
        let kept = text.floor_char_boundary(by_lines.min(self.bytes));
        if kept == text.len() {
            return text.to_owned();
        }
        let Self { bytes, lines } = self;
        let missing = text.len() - kept;
        format!(
            "{}\n[{missing} bytes were cut: the limit is {bytes} bytes and {lines} lines]",
            text.get(..kept).unwrap_or_default().trim_end_matches('\n')
        )
    }
}

/// The answer as the author is given it, once its file is written.
pub(crate) async fn given(
    ctx: &Ctx,
    stage: &str,
    options: &StageOptions,
    answer: Value,
) -> Result<Value> {
    let text = match &answer {
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    };
    let size = text.len();
    match &options.output {
        Output::Inline => {}
        Output::File(path) | Output::FileOnly(path) => {
            let (target, mark) = (path.clone(), ctx.pass.engine.parts.entropy.uuid());
            let written = tokio::task::spawn_blocking(move || write(&target, mark, &text)).await;
            let written = written.map_err(io::Error::other).and_then(|written| written);
            written.map_err(|error| unwritten(stage, path, &error))?;
        }
    }
    Ok(match (answer, &options.output, &options.max_output) {
        // Something else would not fit it.
        (answer, ..) if options.schema.is_some() => answer,
        (_, Output::FileOnly(path), _) => {
            format!("The answer is in the file {} ({size} bytes).", path.display()).into()
        }
        (Value::String(text), _, Some(max)) => max.cut(&text).into(),
        (answer, ..) => answer,
    })
}

/// Writes beside the file and puts it in its place, so that nobody reads a half; on the disk before
/// the record says that it is there.
fn write(path: &Path, mark: Uuid, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".{mark}.part"));
    let part = path.with_file_name(name);
    let written = fs::File::create_new(&part)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // Nothing else knows of it.
        let _left = fs::remove_file(&part);
    }
    // Elsewhere a folder cannot be opened, and its names are written with the file.
    #[cfg(unix)]
    let written = written.and_then(|()| fs::File::open(folder)?.sync_all());
    written
}

fn unwritten(stage: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!(
        "the answer cannot be written to {}: {error}. Put that right and resume the run: the model \
         is not asked again",
        path.display()
    );
    Error::Stage { name: stage.to_owned(), failure: Failure::new(Code::Unknown, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_with_a_word_about_the_limits() {
        let max = MaxOutput { bytes: 9, lines: 3 };
        for whole in ["", "abcdefghi", "a\nb\nc", "a\nb\nc\n"] {
            assert_eq!(max.cut(whole), whole);
        }
        let limits = "the limit is 9 bytes and 3 lines]";
        for (text, kept, missing) in [
            ("abcdefghij", "abcdefghi", 1),
            // Never inside a character.
            ("abcdefghéi", "abcdefgh", 3),
            ("a\nb\nc\nd\n", "a\nb\nc", 2),
        ] {
            let cut = max.cut(text);
            assert_eq!(cut, format!("{kept}\n[{missing} bytes were cut: {limits}"));
        }
    }
}
