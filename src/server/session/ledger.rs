//! What was asked and what came back: every question gets one answer, every exec one close.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Violation;

/// The field of `ExecClientMessage` that answers a field of `ExecServerMessage`: the result of the
/// same name (the numbers differ from 45 on). `None` for a case that the tables do not know.
pub const fn answer_field(asked: u32) -> Option<u32> {
    match asked {
        2..=5 | 7..=11 | 14 | 16..=18 | 20..=23 | 27..=31 | 36..=38 | 40..=44 | 53 | 54 => {
            Some(asked)
        }
        45..=51 => Some(asked + 1),
        52 => Some(55),
        _ => None,
    }
}

/// Where an exec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing came yet, or a shell stream is under way.
    Open,
    /// The result (or the last shell event, or a throw) is there; the close is not.
    Answered,
    /// Answered and closed.
    Closed,
}

/// One exec that was asked.
#[derive(Debug)]
pub(super) struct Exec {
    field: u32,
    exec_id: String,
    stage: Stage,
    aborted: bool,
    asked: Instant,
}

/// What a blob question was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlobAsk {
    /// `get_blob_args`; the id, to hold the content against.
    Get(Vec<u8>),
    /// `set_blob_args`.
    Set,
}

/// One blob question or query.
#[derive(Debug)]
struct Simple<T> {
    about: T,
    answered: bool,
    asked: Instant,
}

/// All questions of a stream. It grows with what the server asks, never with what the client says.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    execs: BTreeMap<u32, Exec>,
    blobs: BTreeMap<u32, Simple<BlobAsk>>,
    queries: BTreeMap<u32, Simple<u32>>,
    next: u32,
}

/// A question that has no answer yet, or an exec that has no close yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Its numeric id.
    pub id: u32,
    /// Its channel and field number.
    pub question: Question,
    /// Whether the answer is there and only the close is missing.
    pub answered: bool,
    /// When it was asked.
    pub asked: Instant,
}

/// The channel of a question, with the field number of its case where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `exec_server_message`.
    Exec(u32),
    /// `kv_server_message` with `get_blob_args`.
    GetBlob,
    /// `kv_server_message` with `set_blob_args`.
    SetBlob,
    /// `interaction_query`.
    Query(u32),
}

impl Ledger {
    /// A numeric id that no question has used.
    pub(super) fn fresh(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1).max(1);
            let id = self.next;
            if !self.uses(id) {
                return id;
            }
        }
    }

    fn uses(&self, id: u32) -> bool {
        self.execs.contains_key(&id)
            || self.blobs.contains_key(&id)
            || self.queries.contains_key(&id)
    }

    /// Whether `id` belongs to an exec that is not closed, so a second one would be ambiguous.
    pub(super) fn exec_is_open(&self, id: u32) -> bool {
        self.execs.get(&id).is_some_and(|exec| exec.stage != Stage::Closed && !exec.aborted)
    }

    pub(super) fn query_is_open(&self, id: u32) -> bool {
        self.queries.get(&id).is_some_and(|query| !query.answered)
    }

    pub(super) fn ask_exec(&mut self, id: u32, field: u32, exec_id: &str, now: Instant) {
        let exec = Exec {
            field,
            exec_id: exec_id.to_owned(),
            stage: Stage::Open,
            aborted: false,
            asked: now,
        };
        self.execs.insert(id, exec);
    }

    pub(super) fn ask_blob(&mut self, id: u32, about: BlobAsk, now: Instant) {
        self.blobs.insert(id, Simple { about, answered: false, asked: now });
    }

    pub(super) fn ask_query(&mut self, id: u32, field: u32, now: Instant) {
        self.queries.insert(id, Simple { about: field, answered: false, asked: now });
    }

    /// Marks an exec as aborted; its result is no longer awaited.
    pub(super) fn abort(&mut self, id: u32) {
        if let Some(exec) = self.execs.get_mut(&id) {
            exec.aborted = true;
        }
    }

    /// A result came. `field` is its case, `None` for an empty oneof; `last` is false for an event
    /// of a shell stream after which more may come. Gives the field that was asked.
    pub(super) fn exec_result(
        &mut self,
        id: u32,
        exec_id: &str,
        field: Option<u32>,
        last: bool,
    ) -> Result<u32, Violation> {
        let exec = self.execs.get_mut(&id).ok_or(Violation::UnknownExec { id })?;
        match exec.stage {
            Stage::Closed => return Err(Violation::AnswerAfterClose { id }),
            Stage::Answered => return Err(Violation::AnsweredTwice { id }),
            Stage::Open => {}
        }
        if last {
            exec.stage = Stage::Answered;
        }
        if exec.exec_id != exec_id {
            return Err(Violation::WrongExecId { id });
        }
        match field {
            None => Err(Violation::EmptyAnswer { id }),
            Some(field) if answer_field(exec.field) == Some(field) => Ok(exec.field),
            Some(got) => Err(Violation::WrongCase { id, asked: exec.field, got }),
        }
    }

    /// A throw came: an answer like any other.
    pub(super) fn exec_thrown(&mut self, id: u32) -> Result<(), Violation> {
        let exec = self.execs.get_mut(&id).ok_or(Violation::UnknownExec { id })?;
        match exec.stage {
            Stage::Closed => Err(Violation::AnswerAfterClose { id }),
            Stage::Answered => Err(Violation::AnsweredTwice { id }),
            Stage::Open => {
                exec.stage = Stage::Answered;
                Ok(())
            }
        }
    }

    /// A close came.
    pub(super) fn exec_closed(&mut self, id: u32) -> Result<(), Violation> {
        let exec = self.execs.get_mut(&id).ok_or(Violation::UnknownExec { id })?;
        let before = std::mem::replace(&mut exec.stage, Stage::Closed);
        match before {
            Stage::Closed => Err(Violation::ClosedTwice { id }),
            Stage::Open if !exec.aborted => Err(Violation::CloseWithoutAnswer { id }),
            Stage::Open | Stage::Answered => Ok(()),
        }
    }

    /// A heartbeat of a running exec came.
    pub(super) fn exec_heartbeat(&self, id: u32) -> Result<(), Violation> {
        match self.execs.get(&id).map(|exec| exec.stage) {
            None => Err(Violation::UnknownExec { id }),
            Some(Stage::Open) => Ok(()),
            Some(Stage::Answered | Stage::Closed) => Err(Violation::HeartbeatAfterAnswer { id }),
        }
    }

    /// A blob answer came; `get` says which result case it has. Gives the blob's id for a get.
    pub(super) fn blob_answered(
        &mut self,
        id: u32,
        get: bool,
    ) -> Result<Option<Vec<u8>>, Violation> {
        let blob = self.blobs.get_mut(&id).ok_or(Violation::UnknownBlobQuestion { id })?;
        if std::mem::replace(&mut blob.answered, true) {
            return Err(Violation::AnsweredTwice { id });
        }
        match (&blob.about, get) {
            (BlobAsk::Get(blob_id), true) => Ok(Some(blob_id.clone())),
            (BlobAsk::Set, false) => Ok(None),
            (BlobAsk::Get(_), false) => Err(Violation::WrongCase { id, asked: 2, got: 3 }),
            (BlobAsk::Set, true) => Err(Violation::WrongCase { id, asked: 3, got: 2 }),
        }
    }

    /// An answer to a query came. The case must be the one asked; none at all is right only for a
    /// case that the tables do not know, and for 8, which has no refusing answer.
    pub(super) fn query_answered(&mut self, id: u32, field: Option<u32>) -> Result<(), Violation> {
        let query = self.queries.get_mut(&id).ok_or(Violation::UnknownQuery { id })?;
        if std::mem::replace(&mut query.answered, true) {
            return Err(Violation::AnsweredTwice { id });
        }
        match field {
            None if matches!(query.about, 2..=7) => Err(Violation::EmptyAnswer { id }),
            None => Ok(()),
            Some(got) if got == query.about => Ok(()),
            Some(got) => Err(Violation::WrongCase { id, asked: query.about, got }),
        }
    }

    /// The questions that wait for an answer or a close; aborted execs do not wait for anything.
    pub(super) fn open(&self) -> impl Iterator<Item = Open> + '_ {
        let execs =
            self.execs.iter().filter(|(_, exec)| exec.stage != Stage::Closed && !exec.aborted).map(
                |(&id, exec)| Open {
                    id,
                    question: Question::Exec(exec.field),
                    answered: exec.stage == Stage::Answered,
                    asked: exec.asked,
                },
            );
        let blobs = self.blobs.iter().filter(|(_, blob)| !blob.answered).map(|(&id, blob)| {
            let question = match blob.about {
                BlobAsk::Get(_) => Question::GetBlob,
                BlobAsk::Set => Question::SetBlob,
            };
            Open { id, question, answered: false, asked: blob.asked }
        });
        let queries =
            self.queries.iter().filter(|(_, query)| !query.answered).map(|(&id, query)| Open {
                id,
                question: Question::Query(query.about),
                answered: false,
                asked: query.asked,
            });
        execs.chain(blobs).chain(queries)
    }

    /// How many questions of all kinds wait. Cheaper than [`Ledger::open`] only in words.
    pub(super) fn asked(&self) -> usize {
        self.execs.len() + self.blobs.len() + self.queries.len()
    }
}
