//! Files and search in the words of the first family: read, ls, grep, write, delete.

use std::collections::BTreeMap;
use std::time::Duration;

use agentwire::exec::ExecCall;
use agentwire::proto::{
    DeleteArgs, DeleteError, DeleteFileBusy, DeleteFileNotFound, DeleteNotFile,
    DeletePermissionDenied, DeleteRejected, DeleteResult, DeleteSuccess, GrepArgs,
    GrepContentMatch, GrepContentResult, GrepCountResult, GrepError, GrepFileCount, GrepFileMatch,
    GrepFilesResult, GrepResult, GrepSuccess, GrepUnionResult, LsArgs, LsError, LsRejected,
    LsResult, LsSuccess, LsTimeout, ReadArgs, ReadError, ReadFileNotFound, ReadInvalidFile,
    ReadPermissionDenied, ReadRejected, ReadResult, ReadSuccess, WriteArgs, WriteError,
    WriteNoSpace, WritePermissionDenied, WriteRejected, WriteResult, WriteSuccess, delete_result,
    grep_result, grep_union_result, ls_result, read_result, read_success, write_result,
};

use crate::clip::Clip;
use crate::fault::Fault;
use crate::grep::{Found, Hit, Query};
use crate::read::{Body, Keep, Lines};
use crate::tools::Asker;
use crate::{Limits, Workspace};

impl Workspace {
    pub(crate) async fn serve_read(&self, call: &ExecCall, args: ReadArgs) -> ReadResult {
        use read_result::Result as R;
        let asker = Asker { call, tool: "read_args" };
        let lines = Lines::asked(args.offset, args.limit.map(u64::from));
        let keep = Keep::both(self.shared().limits.answer_bytes);
        let path = args.path;
        let result = match self.read_file(asker, &path, lines, keep).await {
            Ok(content) => R::Success(ReadSuccess {
                path,
                total_lines: number(content.total_lines.unwrap_or(0)),
                file_size: i64::try_from(content.size).unwrap_or(i64::MAX),
                truncated: content.truncated,
                output_blob_id: None,
                range_applied: lines != Lines::ALL,
                output: Some(match content.body {
                    Body::Text(text) => read_success::Output::Content(text.into_text()),
                    Body::Data(data) => read_success::Output::Data(data.into()),
                }),
            }),
            Err(Fault::NotFound | Fault::NotADirectory) => {
                R::FileNotFound(ReadFileNotFound { path })
            }
            Err(Fault::Denied) => R::PermissionDenied(ReadPermissionDenied { path }),
            Err(fault @ (Fault::Outside | Fault::Missing(_) | Fault::Refused(_))) => {
                R::Rejected(ReadRejected { path, reason: fault.to_string() })
            }
            Err(fault @ (Fault::Kind { .. } | Fault::Unfit(_))) => {
                R::InvalidFile(ReadInvalidFile { path, reason: fault.to_string() })
            }
            Err(fault) => R::Error(ReadError { path, error: fault.to_string() }),
        };
        ReadResult { result: Some(result) }
    }

    pub(crate) async fn serve_ls(&self, call: &ExecCall, args: LsArgs) -> LsResult {
        use ls_result::Result as R;
        let asker = Asker { call, tool: "ls_args" };
        let time = args.timeout_ms.filter(|time| *time > 0);
        let time = time.map(|time| Duration::from_millis(time.into()));
        let room = self.shared().limits.entries;
        let path = args.path;
        let result = match self.list_folder(asker, &path, args.ignore, room, time).await {
            Ok((tree, false)) => R::Success(LsSuccess { directory_tree_root: Some(tree) }),
            Ok((tree, true)) => R::Timeout(LsTimeout { directory_tree_root: Some(tree) }),
            Err(fault @ (Fault::Outside | Fault::Missing(_) | Fault::Refused(_))) => {
                R::Rejected(LsRejected { path, reason: fault.to_string() })
            }
            Err(fault) => R::Error(LsError { path, error: fault.to_string() }),
        };
        LsResult { result: Some(result) }
    }

    pub(crate) async fn serve_grep(&self, call: &ExecCall, args: GrepArgs) -> GrepResult {
        use grep_result::Result as R;
        let asker = Asker { call, tool: "grep_args" };
        let path = args.path.clone().unwrap_or_default();
        let answer = async {
            let mode = Mode::of(&args)?;
            let page = Page::of(&args, &self.shared().limits);
            let found = self.search(asker, &path, query(&args, mode, &page)?).await?;
            Ok::<_, Fault>((mode, mode.result(found, &page)))
        };
        let result = match answer.await {
            Ok((mode, union)) => R::Success(GrepSuccess {
                pattern: args.pattern,
                path,
                output_mode: mode.as_str().to_owned(),
                workspace_results: BTreeMap::from([(self.shown_root().to_owned(), union)]),
                active_editor_result: None,
            }),
            Err(fault) => R::Error(GrepError { error: fault.to_string() }),
        };
        GrepResult { result: Some(result) }
    }

    pub(crate) async fn serve_write(&self, call: &ExecCall, args: WriteArgs) -> WriteResult {
        use write_result::Result as R;
        let asker = Asker { call, tool: "write_args" };
        let WriteArgs { path, file_text, file_bytes, .. } = args;
        let bytes = if file_bytes.is_empty() { file_text.into_bytes().into() } else { file_bytes };
        let result = match self.write_file(asker, &path, bytes.clone()).await {
            Ok(_) => R::Success(WriteSuccess {
                path,
                lines_created: number(lines(&bytes)),
                file_size: number(bytes.len() as u64),
                file_content_after_write: args.return_file_content_after_write.then(|| {
                    let mut clip = Clip::new(self.shared().limits.answer_bytes);
                    clip.push(&bytes);
                    clip.finish().into_text()
                }),
            }),
            Err(Fault::NoSpace) => R::NoSpace(WriteNoSpace { path }),
            Err(fault @ (Fault::Denied | Fault::ReadOnly | Fault::Missing(_))) => {
                R::PermissionDenied(WritePermissionDenied {
                    directory: folder(&path),
                    path,
                    operation: "write".into(),
                    error: fault.to_string(),
                    is_readonly: fault != Fault::Denied,
                })
            }
            Err(fault @ (Fault::Outside | Fault::Refused(_))) => {
                R::Rejected(WriteRejected { path, reason: fault.to_string() })
            }
            Err(fault) => R::Error(WriteError { path, error: fault.to_string() }),
        };
        WriteResult { result: Some(result) }
    }

    pub(crate) async fn serve_delete(&self, call: &ExecCall, args: DeleteArgs) -> DeleteResult {
        use delete_result::Result as R;
        let path = args.path;
        let asker = Asker { call, tool: "delete_args" };
        let result = match self.delete_file(asker, &path).await {
            Ok((deleted_file, deleted)) => R::Success(DeleteSuccess {
                path,
                deleted_file,
                file_size: i64::try_from(deleted.size).unwrap_or(i64::MAX),
                prev_content: deleted.text,
            }),
            Err(Fault::NotFound | Fault::NotADirectory) => {
                R::FileNotFound(DeleteFileNotFound { path })
            }
            Err(Fault::Kind { is, .. }) => {
                R::NotFile(DeleteNotFile { path, actual_type: is.to_owned() })
            }
            Err(Fault::Busy) => R::FileBusy(DeleteFileBusy { path }),
            Err(fault @ (Fault::Denied | Fault::ReadOnly | Fault::Missing(_))) => {
                R::PermissionDenied(DeletePermissionDenied {
                    path,
                    client_visible_error: fault.to_string(),
                    is_readonly: fault != Fault::Denied,
                })
            }
            Err(fault @ (Fault::Outside | Fault::Refused(_))) => {
                R::Rejected(DeleteRejected { path, reason: fault.to_string() })
            }
            Err(fault) => R::Error(DeleteError { path, error: fault.to_string() }),
        };
        DeleteResult { result: Some(result) }
    }
}

/// A count as the protocol has it.
pub(crate) fn number(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn lines(bytes: &[u8]) -> u64 {
    let open = bytes.last().is_some_and(|last| *last != b'\n');
    memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(open)
}

/// The folder of a path, as it is written.
fn folder(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
}

/// What a search answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Content,
    Files,
    Count,
}

impl Mode {
    /// Without a mode: lines, or files where there is nothing to search for.
    fn of(args: &GrepArgs) -> Result<Self, Fault> {
        match args.output_mode.as_deref().unwrap_or_default() {
            "" | "content" | "files_with_matches" if args.pattern.is_empty() => Ok(Self::Files),
            "" | "content" => Ok(Self::Content),
            "files_with_matches" => Ok(Self::Files),
            "count" => Ok(Self::Count),
            _ => Err(Fault::Invalid(
                "not an output mode: expected `content`, `files_with_matches` or `count`".into(),
            )),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Files => "files_with_matches",
            Self::Count => "count",
        }
    }

    fn result(self, found: Found, page: &Page) -> GrepUnionResult {
        use grep_union_result::Result as R;
        let all = found.hits.len();
        let cut = |given: usize| all.saturating_sub(page.skip()) > given;
        let result = match self {
            Self::Content => R::Content(content(found, page)),
            Self::Files => {
                let files: Vec<_> = page.of_entries(found.hits).map(|hit| hit.path).collect();
                R::Files(GrepFilesResult {
                    total_files: number(all as u64),
                    client_truncated: cut(files.len()),
                    ripgrep_truncated: found.stopped,
                    head_limit_applied: page.limit,
                    offset_applied: page.offset,
                    files,
                })
            }
            Self::Count => {
                let counts: Vec<_> = page.of_entries(found.hits).map(count).collect();
                R::Count(GrepCountResult {
                    total_files: number(all as u64),
                    total_matches: number(found.matched),
                    client_truncated: cut(counts.len()),
                    ripgrep_truncated: found.stopped,
                    head_limit_applied: page.limit,
                    offset_applied: page.offset,
                    counts,
                })
            }
        };
        GrepUnionResult { result: Some(result) }
    }
}

fn count(hit: Hit) -> GrepFileCount {
    GrepFileCount { file: hit.path, count: number(hit.matched) }
}

/// The part of a result that was asked for. It counts what the mode answers with: lines, those
/// around matches included, or files.
struct Page {
    offset: Option<i32>,
    limit: Option<i32>,
    /// What is given at most, for files: how many, and bytes of their paths.
    entries: usize,
    bytes: usize,
}

impl Page {
    fn of(args: &GrepArgs, limits: &Limits) -> Self {
        Self {
            offset: args.offset.filter(|offset| *offset > 0),
            limit: args.head_limit.filter(|limit| *limit > 0),
            entries: limits.entries,
            bytes: limits.answer_bytes,
        }
    }

    fn skip(&self) -> usize {
        self.offset.and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0)
    }

    fn take(&self) -> usize {
        self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }

    fn of_entries(&self, hits: Vec<Hit>) -> impl Iterator<Item = Hit> {
        let mut room = self.bytes;
        hits.into_iter().skip(self.skip()).take(self.take().min(self.entries)).take_while(
            move |hit| {
                let fits = room > 0;
                room = room.saturating_sub(hit.path.len());
                fits
            },
        )
    }
}

fn query(args: &GrepArgs, mode: Mode, page: &Page) -> Result<Query, Fault> {
    let around = |own: Option<i32>| match mode {
        Mode::Content => own.or(args.context).and_then(|lines| usize::try_from(lines).ok()),
        _ => None,
    };
    let ascending = args.sort_ascending;
    let newest_first = match args.sort.as_deref().unwrap_or_default() {
        "" | "none" | "path" => None,
        "modified" => Some(!ascending.unwrap_or(false)),
        _ => return Err(Fault::Invalid("not an order: expected `path` or `modified`".into())),
    };
    Ok(Query {
        pattern: args.pattern.clone(),
        literal: false,
        ignore_case: args.case_insensitive.unwrap_or(false),
        multiline: args.multiline.unwrap_or(false),
        glob: args.glob.clone(),
        kind: args.r#type.clone(),
        before: around(args.context_before).unwrap_or(0),
        after: around(args.context_after).unwrap_or(0),
        newest_first,
        descending: ascending == Some(false),
        first_only: mode == Mode::Files,
        keep_lines: match mode {
            Mode::Content => page.skip().saturating_add(page.take()),
            _ => 0,
        },
        max_matches: None,
    })
}

fn content(found: Found, page: &Page) -> GrepContentResult {
    let mut skip = page.skip();
    let mut given: u64 = 0;
    let mut matches = Vec::new();
    for mut hit in found.hits {
        let passed = skip.min(hit.lines.len());
        hit.lines.drain(..passed);
        skip -= passed;
        if hit.lines.is_empty() {
            continue;
        }
        given += hit.lines.len() as u64;
        let line = |line: crate::grep::Line| GrepContentMatch {
            line_number: number(line.number),
            content: line.text,
            content_truncated: line.cut,
            is_context_line: line.context,
        };
        matches.push(GrepFileMatch {
            file: hit.path,
            matches: hit.lines.into_iter().map(line).collect(),
        });
    }
    let behind = found.lines.saturating_sub(page.skip() as u64);
    GrepContentResult {
        matches,
        total_lines: number(found.lines),
        total_matched_lines: number(found.matched),
        client_truncated: behind > given,
        ripgrep_truncated: found.stopped,
        head_limit_applied: page.limit,
        offset_applied: page.offset,
    }
}
