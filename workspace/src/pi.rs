//! The same tools in the words of the second family: one text as the answer, one as the error.

use agentwire::exec::ExecCall;
use agentwire::proto::{
    PiEditExecArgs, PiEditExecError, PiEditExecRejected, PiEditExecResult, PiEditExecSuccess,
    PiFindExecArgs, PiFindExecError, PiFindExecResult, PiFindExecSuccess, PiGrepExecArgs,
    PiGrepExecError, PiGrepExecResult, PiGrepExecSuccess, PiLsExecArgs, PiLsExecError,
    PiLsExecResult, PiLsExecSuccess, PiReadExecArgs, PiReadExecError, PiReadExecResult,
    PiReadExecSuccess, PiTruncation, PiWriteExecArgs, PiWriteExecError, PiWriteExecRejected,
    PiWriteExecResult, PiWriteExecSuccess, pi_edit_exec_result, pi_find_exec_result,
    pi_grep_exec_result, pi_ls_exec_result, pi_read_exec_result, pi_write_exec_result,
};

use crate::Workspace;
use crate::clip::cut;
use crate::fault::Fault;
use crate::grep::{Found, Query};
use crate::read::{Body, Keep, Lines};
use crate::tools::Asker;

/// Entries and matches when the service names no limit. No option: the form of the service has these
/// defaults, and [`Limits`](crate::Limits) bounds what it names.
const FIND: usize = 1_000;
const LS: usize = 500;
const GREP: usize = 100;

impl Workspace {
    pub(crate) async fn serve_pi_read(
        &self,
        call: &ExecCall,
        args: PiReadExecArgs,
    ) -> PiReadExecResult {
        use pi_read_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_read_args" };
        let limit = args.limit.and_then(|limit| u64::try_from(limit).ok());
        let lines = Lines::asked(args.offset, limit);
        let max = self.shared().limits.answer_bytes;
        // The head only: the next call asks for the lines behind it.
        let keep = Keep { head: max, tail: 0 };
        let read = self.read_file(asker, &args.path, lines, keep).await.and_then(|content| {
            let Body::Text(text) = content.body else {
                return Err(Fault::Unfit("a binary file; it cannot be shown as text".into()));
            };
            if content.lines == 0 && content.total_lines.is_some_and(|total| total > 0) {
                let total = content.total_lines.unwrap_or_default();
                return Err(Fault::Invalid(format!("the file has {total} lines, and none there")));
            }
            Ok(match (content.truncated, content.total_lines) {
                (false, _) => PiReadExecSuccess { output: text.head, truncation: None },
                // Not all lines were counted, and the text itself says what is missing.
                (true, None) => {
                    let truncation = Some(truncation(&text.head, max, content.lines));
                    PiReadExecSuccess { output: text.head, truncation }
                }
                (true, Some(total)) => go_on(&text.head, lines.from, total, max),
            })
        });
        let result = match read {
            Ok(success) => R::Success(success),
            Err(fault) => R::Error(PiReadExecError { error: fault.to_string() }),
        };
        PiReadExecResult { result: Some(result) }
    }

    pub(crate) async fn serve_pi_write(
        &self,
        call: &ExecCall,
        args: PiWriteExecArgs,
    ) -> PiWriteExecResult {
        use pi_write_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_write_args" };
        let length = args.content.len();
        let result = match self.write_file(asker, &args.path, args.content).await {
            Ok(path) => {
                R::Success(PiWriteExecSuccess { output: format!("wrote {length} bytes to {path}") })
            }
            Err(fault) if is_refusal(&fault) => {
                R::Rejected(PiWriteExecRejected { reason: fault.to_string() })
            }
            Err(fault) => R::Error(PiWriteExecError { error: fault.to_string() }),
        };
        PiWriteExecResult { result: Some(result) }
    }

    pub(crate) async fn serve_pi_edit(
        &self,
        call: &ExecCall,
        args: PiEditExecArgs,
    ) -> PiEditExecResult {
        use pi_edit_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_edit_args" };
        let count = args.edits.len();
        let edits = args.edits.into_iter().map(|edit| (edit.old_text, edit.new_text)).collect();
        let result = match self.edit_file(asker, &args.path, edits).await {
            Ok(edited) => {
                let max = self.shared().limits.answer_bytes;
                let name = edited.path.trim_start_matches('/');
                // Half a patch would apply to nothing.
                let patch = match edited.hunks.len() <= max {
                    true => format!("--- a/{name}\n+++ b/{name}\n{}", edited.hunks),
                    false => String::new(),
                };
                R::Success(PiEditExecSuccess {
                    output: format!("replaced text in {count} places of {}", edited.path),
                    diff: cut(&edited.hunks, max).to_owned(),
                    patch,
                    first_changed_line: u32::try_from(edited.first_line).ok(),
                })
            }
            Err(fault) if is_refusal(&fault) => {
                R::Rejected(PiEditExecRejected { reason: fault.to_string() })
            }
            Err(fault) => {
                R::Error(PiEditExecError { error: format!("{fault}. Nothing was changed") })
            }
        };
        PiEditExecResult { result: Some(result) }
    }

    pub(crate) async fn serve_pi_grep(
        &self,
        call: &ExecCall,
        args: PiGrepExecArgs,
    ) -> PiGrepExecResult {
        use pi_grep_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_grep_args" };
        let limit = most(args.limit, GREP);
        let context = args.context.and_then(|lines| usize::try_from(lines).ok()).unwrap_or(0);
        let query = Query {
            pattern: args.pattern,
            literal: args.literal.unwrap_or(false),
            ignore_case: args.ignore_case.unwrap_or(false),
            glob: args.glob,
            before: context,
            after: context,
            max_matches: Some(limit as u64),
            keep_lines: usize::MAX,
            ..Query::default()
        };
        let path = args.path.unwrap_or_default();
        let result = match self.search(asker, &path, query).await {
            Ok(found) => R::Success(self.pi_lines(&found, limit)),
            Err(fault) => R::Error(PiGrepExecError { error: fault.to_string() }),
        };
        PiGrepExecResult { result: Some(result) }
    }

    /// Lines as one text, as many as fit. `all` is how many there are; with `more`, at least.
    fn page(&self, lines: Vec<String>, all: u64, more: bool) -> (String, Option<PiTruncation>) {
        let max = self.shared().limits.answer_bytes;
        let mut output = String::new();
        let mut given: u64 = 0;
        for line in lines {
            if output.len() + line.len() >= max {
                break;
            }
            output += &line;
            output.push('\n');
            given += 1;
        }
        let truncated = more || given < all;
        let flags = truncated.then(|| {
            let mut flags = truncation(&output, max, all);
            if given == all || output.len() + self.shared().limits.line_bytes < max {
                flags.truncated_by = "limit".into();
            }
            flags
        });
        (output, flags)
    }

    fn pi_lines(&self, found: &Found, limit: usize) -> PiGrepExecSuccess {
        let mut lines_truncated = false;
        let mut lines = Vec::new();
        for hit in &found.hits {
            if hit.matched == 0 || hit.lines.is_empty() {
                lines.push(hit.path.clone());
            }
            for line in &hit.lines {
                lines_truncated |= line.cut;
                let mark = if line.context { '-' } else { ':' };
                let more = if line.cut { "…" } else { "" };
                lines.push(format!("{}{mark}{}{mark} {}{more}", hit.path, line.number, line.text));
            }
        }
        let (output, truncation) = self.page(lines, found.lines, found.stopped);
        let reached = found.matched >= limit as u64;
        PiGrepExecSuccess {
            output: if output.is_empty() { "no matches".into() } else { output },
            truncation,
            match_limit_reached: reached.then_some(u32::try_from(limit).unwrap_or(u32::MAX)),
            lines_truncated,
        }
    }

    pub(crate) async fn serve_pi_find(
        &self,
        call: &ExecCall,
        args: PiFindExecArgs,
    ) -> PiFindExecResult {
        use pi_find_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_find_args" };
        let limit = most(args.limit, FIND).min(self.shared().limits.entries);
        let path = args.path.unwrap_or_default();
        let result = match self.find_names(asker, &path, &args.pattern).await {
            Ok(mut names) => {
                let all = names.paths.len();
                names.paths.truncate(limit);
                let (output, truncation) = self.page(names.paths, all as u64, !names.complete);
                R::Success(PiFindExecSuccess {
                    output: if output.is_empty() { "no files found".into() } else { output },
                    truncation,
                    result_limit_reached: (all > limit)
                        .then_some(u32::try_from(limit).unwrap_or(u32::MAX)),
                })
            }
            Err(fault) => R::Error(PiFindExecError { error: fault.to_string() }),
        };
        PiFindExecResult { result: Some(result) }
    }

    pub(crate) async fn serve_pi_ls(&self, call: &ExecCall, args: PiLsExecArgs) -> PiLsExecResult {
        use pi_ls_exec_result::Result as R;
        let asker = Asker { call, tool: "pi_ls_args" };
        let limit = most(args.limit, LS).min(self.shared().limits.entries);
        let path = args.path.unwrap_or_default();
        let result = match self.list_names(asker, &path, limit).await {
            Ok((names, all)) => {
                let cut = all > names.len() as u64;
                let (output, truncation) = self.page(names, all, false);
                R::Success(PiLsExecSuccess {
                    output: if output.is_empty() { "the folder is empty".into() } else { output },
                    truncation,
                    entry_limit_reached: cut.then_some(u32::try_from(limit).unwrap_or(u32::MAX)),
                })
            }
            Err(fault) => R::Error(PiLsExecError { error: fault.to_string() }),
        };
        PiLsExecResult { result: Some(result) }
    }
}

/// A refusal by a person or a rule, not a failure.
fn is_refusal(fault: &Fault) -> bool {
    matches!(fault, Fault::Outside | Fault::Missing(_) | Fault::Refused(_))
}

fn most(limit: Option<i32>, default: usize) -> usize {
    limit
        .filter(|limit| *limit > 0)
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(default)
}

/// The whole lines of a text that was cut, and where the next call goes on.
fn go_on(text: &str, from: i64, total: u64, max: usize) -> PiReadExecSuccess {
    let whole = text.rfind('\n').map_or(text, |end| &text[..=end]);
    let mut success = PiReadExecSuccess {
        output: whole.to_owned(),
        truncation: Some(truncation(whole, max, total)),
    };
    let shown = whole.lines().count() as i64;
    let first = if from < 0 { (total as i64).saturating_add(from + 1).max(1) } else { from };
    if !success.output.ends_with('\n') {
        success.output.push('\n');
    }
    success.output += &format!(
        "[… lines {first} to {} of {total}; go on with offset {} …]",
        first + shown - 1,
        first + shown
    );
    success
}

/// What the flags say about `output`, which is all that is left of `total` lines.
pub(crate) fn truncation(output: &str, max: usize, total: u64) -> PiTruncation {
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    PiTruncation {
        truncated: true,
        truncated_by: "bytes".into(),
        total_lines: small(total),
        output_lines: small(output.lines().count() as u64),
        output_bytes: small(output.len() as u64),
        max_lines: None,
        max_bytes: Some(small(max as u64)),
        first_line_exceeds_limit: !output.contains('\n'),
        last_line_partial: !output.ends_with('\n'),
    }
}
