//! What a client may do wrong on a Run stream.

/// A breach of the protocol by the client. It is recorded; the stream goes on where it can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The first message is neither a run request nor a prewarm.
    #[error("the first message is not a run request")]
    NotARunRequest,
    /// A second run request on the same stream.
    #[error("a second run request on one stream")]
    SecondRunRequest,
    /// A result, close, throw or heartbeat for an id that was never asked.
    #[error("exec {id} was never asked")]
    UnknownExec {
        /// The numeric id.
        id: u32,
    },
    /// A blob answer for an id that was never asked.
    #[error("blob question {id} was never asked")]
    UnknownBlobQuestion {
        /// The numeric id.
        id: u32,
    },
    /// An answer to a query that was never asked.
    #[error("query {id} was never asked")]
    UnknownQuery {
        /// The numeric id.
        id: u32,
    },
    /// A second answer to one question.
    #[error("question {id} is answered twice")]
    AnsweredTwice {
        /// The numeric id.
        id: u32,
    },
    /// An answer after the close.
    #[error("exec {id} is answered after its close")]
    AnswerAfterClose {
        /// The numeric id.
        id: u32,
    },
    /// A close before any answer.
    #[error("exec {id} is closed without an answer")]
    CloseWithoutAnswer {
        /// The numeric id.
        id: u32,
    },
    /// A second close.
    #[error("exec {id} is closed twice")]
    ClosedTwice {
        /// The numeric id.
        id: u32,
    },
    /// A heartbeat for an exec that is answered already.
    #[error("a heartbeat for exec {id}, which is answered already")]
    HeartbeatAfterAnswer {
        /// The numeric id.
        id: u32,
    },
    /// The answer repeats another exec id than the question's.
    #[error("the answer to exec {id} has another exec id")]
    WrongExecId {
        /// The numeric id.
        id: u32,
    },
    /// The answer is of another case than the question.
    #[error("question {id} of case {asked} is answered with case {got}")]
    WrongCase {
        /// The numeric id.
        id: u32,
        /// Field number of the question.
        asked: u32,
        /// Field number of the answer.
        got: u32,
    },
    /// An answer without a result, where a typed refusal exists.
    #[error("question {id} is answered with an empty message")]
    EmptyAnswer {
        /// The numeric id.
        id: u32,
    },
    /// The content of a blob does not hash to its id.
    #[error("the content served for blob question {id} does not have its hash")]
    WrongBlob {
        /// The numeric id.
        id: u32,
    },
    /// A message without any case that the tables know.
    #[error("a client message of an unknown case")]
    UnknownMessage,
    /// An end-stream envelope from the client, which ends its stream by half-closing it.
    #[error("an end-stream envelope from the client")]
    EndStream,
    /// Bytes that are not an envelope or not a message; nothing after them is read.
    #[error("the request body is broken")]
    Broken,
}
