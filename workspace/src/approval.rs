//! Asking a person before something is done.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use agentwire::exec::ExecCall;

use crate::Access;
use crate::clip::cut;
use crate::fault::Fault;

/// What a person says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Do it, this time.
    Allow,
    /// Do it, and do not ask again for the same: see [`ApprovalRequest::for_run`]. It holds for
    /// this [`Workspace`](crate::Workspace), which is one run; see
    /// [`Workspace::new_run`](crate::Workspace::new_run).
    AllowForRun,
    /// Do not do it. The model is told that the person said no.
    Deny,
    /// Do not do it, and tell the model why.
    DenyBecause(String),
}

/// What the service wants done, in words for a person.
///
/// Everything here can come from a model that was tricked. The texts are safe to print to a
/// terminal: control characters and marks that turn the direction of writing are escaped.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApprovalRequest {
    /// The permission it falls under.
    pub access: Access,
    /// The case of the protocol that asks, for instance `write_args`.
    pub tool: &'static str,
    /// One sentence: what would be done, and where. A command is shown in full.
    pub description: String,
    /// What [`Decision::AllowForRun`] would cover, as the end of "allow … for this run".
    pub for_run: String,
    /// The file or folder, with links resolved, under the name that the service knows it by. For
    /// a command the folder it starts in.
    pub path: String,
    /// What would be written: the diff of an edit, the beginning of a file.
    pub preview: Option<String>,
    /// The number of the exec, to tell several questions apart.
    pub exec: u32,
}

impl fmt::Debug for ApprovalRequest {
    /// Without the texts: a command can hold anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalRequest")
            .field("access", &self.access)
            .field("tool", &self.tool)
            .field("exec", &self.exec)
            .finish_non_exhaustive()
    }
}

/// The caller's answer to a request; see [`Builder::approve`](crate::Builder::approve).
pub(crate) type Approver =
    Arc<dyn Fn(ApprovalRequest) -> Pin<Box<dyn Future<Output = Decision> + Send>> + Send + Sync>;

/// What "for this run" covers: as much as a person can take in from one question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Reads,
    Writes,
    Deletes,
    /// Exactly this command in exactly this folder.
    Command {
        command: String,
        folder: String,
    },
}

impl Scope {
    fn words(&self) -> &'static str {
        match self {
            Self::Reads => "every read, listing and search in the workspace",
            Self::Writes => "every write and edit in the workspace",
            Self::Deletes => "every deletion in the workspace",
            Self::Command { .. } => "exactly this command in this folder",
        }
    }
}

/// A request as a tool makes it.
pub(crate) struct Wish<'a> {
    pub(crate) call: &'a ExecCall,
    pub(crate) access: Access,
    pub(crate) scope: Scope,
    pub(crate) tool: &'static str,
    pub(crate) description: String,
    pub(crate) path: &'a str,
    pub(crate) preview: Option<&'a str>,
}

/// How much of what would be written is shown, in bytes: a few screens. No option: it is for a person
/// to read.
const PREVIEW: usize = 8 << 10;

/// Who is asked, and what they allowed for the run.
#[derive(Default)]
pub(crate) struct Desk {
    approver: Option<Approver>,
    granted: Mutex<HashSet<Scope>>,
    /// One question at a time: an answer "for this run" also answers those that wait.
    asking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("asks", &self.approver.is_some()).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(approver: Option<Approver>) -> Self {
        Self { approver, ..Self::default() }
    }

    /// The same person, who has allowed nothing yet.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.approver.clone())
    }

    /// Whether anybody is asked at all.
    pub(crate) fn asks(&self) -> bool {
        self.approver.is_some()
    }

    /// Whether this can be done without a question, now.
    pub(crate) fn has(&self, scope: &Scope) -> bool {
        !self.asks() || self.grants().contains(scope)
    }

    /// Ends when the request is allowed, or with the refusal.
    pub(crate) async fn ask(&self, wish: Wish<'_>) -> Result<(), Fault> {
        let Some(approver) = &self.approver else { return Ok(()) };
        let _turn = self.asking.lock().await;
        if self.grants().contains(&wish.scope) {
            return Ok(());
        }
        let request = ApprovalRequest {
            access: wish.access,
            tool: wish.tool,
            description: plain(&wish.description),
            for_run: wish.scope.words().to_owned(),
            path: plain(wish.path),
            preview: wish.preview.map(|text| plain(cut(text, PREVIEW))),
            exec: wish.call.id,
        };
        match approver(request).await {
            Decision::Allow => Ok(()),
            Decision::AllowForRun => {
                self.grants().insert(wish.scope);
                Ok(())
            }
            Decision::Deny => Err(Fault::Refused(
                "the person was asked and said no; do not try it in another way, ask what they \
                 would rather have"
                    .into(),
            )),
            Decision::DenyBecause(why) => {
                Err(Fault::Refused(format!("the person was asked and said no: {why}")))
            }
        }
    }

    fn grants(&self) -> std::sync::MutexGuard<'_, HashSet<Scope>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Escapes what could make a terminal show something else than what would be done.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Marks of direction, joiners and tags: not to be seen, and used to make text look different.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_what_would_be_done() {
        assert_eq!(
            plain("rm x\u{1b}[2K\r\u{202e}ok\nnext"),
            "rm x\\u{1b}[2K\\u{d}\\u{202e}ok\nnext"
        );
    }
}
