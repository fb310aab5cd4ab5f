//! Streams: the two halves of a call that is not unary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{Call, CallOptions, Deadline, RpcClient, check_answer_of, http_error};
use crate::connect::{Code, Decoder};
use crate::rpc::head::Shape;
use crate::rpc::http2::{BodyReceiver, BodySender, OpenStream};
use crate::rpc::message::{Item, Messages, envelope};
use crate::rpc::{Gzip, Metadata, header};
use crate::{Error, Result};

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

pub(super) fn open(
    client: &RpcClient,
    call: Call,
    first: Option<&[u8]>,
) -> Result<(CallSender, CallReceiver)> {
    let deadline = Deadline::of(&call.options);
    let gzip = call.options.send_gzip;
    let first = first.map(|message| envelope(message, gzip));
    let OpenStream { body, send } =
        client.open(&call, Shape::Stream, gzip.is_some(), first, false)?;
    let done = Arc::new(AtomicBool::new(false));
    let sender = CallSender { body: send, gzip, deadline, closed: false, done: Arc::clone(&done) };
    let receiver = CallReceiver {
        state: State::Head(body),
        status: None,
        headers: Vec::new(),
        trailers: Vec::new(),
        options: call.options,
        deadline,
        done,
    };
    Ok((sender, receiver))
}

/// Sends the messages of a call. Dropped before [`CallSender::close`] it cancels the call, unless
/// the answer has ended.
pub struct CallSender {
    body: BodySender,
    gzip: Option<Gzip>,
    deadline: Deadline,
    closed: bool,
    done: Arc<AtomicBool>,
}

impl CallSender {
    /// Sends one message; waits for the peer's window.
    ///
    /// # Errors
    /// When the call is over (the receiver says why), stuck, or past its deadline.
    pub async fn send(&mut self, message: &[u8]) -> Result<()> {
        // A caller whose peer takes everything at once must let others run too.
        tokio::task::coop::consume_budget().await;
        let bytes = envelope(message, self.gzip);
        let deadline = self.deadline;
        deadline.run(async { Ok(self.body.send(bytes).await?) }).await
    }

    /// Ends the messages.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn close(&mut self) -> Result<()> {
        self.closed = true;
        let deadline = self.deadline;
        deadline.run(async { Ok(self.body.finish().await?) }).await
    }

    /// Gives the call up: the peer sees RST_STREAM CANCEL.
    pub fn cancel(mut self) {
        self.closed = true;
        self.body.reset(CANCEL);
    }
}

impl Drop for CallSender {
    fn drop(&mut self) {
        if !self.closed {
            // After the end of the answer it is not a cancel, only "no more" (FAULTS M13).
            let done = self.done.load(Ordering::Acquire);
            self.body.reset(if done { NO_ERROR } else { CANCEL });
        }
    }
}

/// Receives the answer of a call. Dropped before its end it cancels the call.
pub struct CallReceiver {
    state: State,
    status: Option<u16>,
    headers: Metadata,
    trailers: Metadata,
    options: CallOptions,
    deadline: Deadline,
    done: Arc<AtomicBool>,
}

enum State {
    Head(BodyReceiver),
    Open(Box<Messages>),
    Done,
    Failed(Error),
}

impl CallReceiver {
    /// Waits for the headers of the answer. An answer that is an error has them too.
    ///
    /// # Errors
    /// When none came.
    pub async fn headers(&mut self) -> Result<&Metadata> {
        if matches!(self.state, State::Head(_)) {
            self.begin().await;
        }
        match &self.state {
            State::Failed(error) if self.status.is_none() => Err(error.clone()),
            _ => Ok(&self.headers),
        }
    }

    /// The HTTP status, once a head came.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The headers, as far as they came.
    pub fn received_headers(&self) -> &Metadata {
        &self.headers
    }

    /// The trailers, once the answer has ended.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// The next message; `None` at an end without error. An error repeats.
    ///
    /// # Errors
    /// What the peer stated, or what went wrong on the way; everything before it was handed out.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if matches!(self.state, State::Head(_)) {
            self.begin().await;
        }
        let item = match &mut self.state {
            State::Open(messages) => self.deadline.run(messages.next()).await,
            State::Done => return Ok(None),
            State::Failed(error) => return Err(error.clone()),
            State::Head(_) => Err(Error::protocol("no head")),
        };
        match item {
            Ok(Item::Message(message)) => Ok(Some(message)),
            Ok(Item::End(end)) => {
                self.trailers = end.metadata;
                self.done.store(true, Ordering::Release);
                match end.error {
                    Some(error) => Err(self.fail(error)),
                    None => {
                        self.state = State::Done;
                        Ok(None)
                    }
                }
            }
            Ok(Item::Eof) => {
                Err(self.fail(Error::protocol("the stream ended without an end-stream message")))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// The only message of an answer that may have only one, and its end.
    ///
    /// # Errors
    /// As [`Self::next`]; `unimplemented` when there is none or more than one, as the Connect
    /// protocol has it.
    pub async fn one(&mut self) -> Result<Bytes> {
        let wrong = |text| Err(Error::protocol(text).with_code(Code::Unimplemented));
        let Some(message) = self.next().await? else {
            return wrong("the answer has no message");
        };
        match self.next().await? {
            None => Ok(message),
            Some(_) => {
                let error = wrong("the answer has more than one message");
                self.state = State::Done;
                error
            }
        }
    }

    async fn begin(&mut self) {
        let State::Head(mut body) = std::mem::replace(&mut self.state, State::Done) else { return };
        let deadline = self.deadline;
        let opened = deadline.run(async { self.open(&mut body).await }).await;
        self.state = match opened {
            Ok(decoder) => State::Open(Box::new(Messages::new(body, decoder))),
            Err(error) => State::Failed(error),
        };
    }

    async fn open(&mut self, body: &mut BodyReceiver) -> Result<Decoder> {
        let head = body.head().await?;
        let status = head.status.as_u16();
        self.status = Some(status);
        self.headers = header::metadata(&head.headers);
        if status != 200 {
            let error = http_error(status, &head.headers, body, &self.options).await;
            return Err(error);
        }
        let compression = check_answer_of(Shape::Stream, &head.headers, &self.options)?;
        let decoder = Decoder::new(self.options.limits, compression);
        Ok(decoder.with_redactor(self.options.redactor.clone()))
    }

    /// Lets go of the stream; the error stays.
    fn fail(&mut self, error: Error) -> Error {
        self.state = State::Failed(error.clone());
        error
    }
}
