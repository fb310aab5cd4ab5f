//! One stream call as a handler sees it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::time::Instant;

use crate::connect::{Code, EndStream};
use crate::rpc::head::Shape;
use crate::rpc::http2::{BodySender, Responder, SendError};
use crate::rpc::message::{Item, Messages, envelope};
use crate::rpc::{Gzip, Metadata, header};
use crate::{Error, Result};

/// What came with the request's head.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path, as it came.
    pub path: String,
    /// All headers.
    pub headers: Metadata,
    /// What the caller's `connect-timeout-ms` said.
    pub timeout: Option<Duration>,
    /// When the call has to be over: the caller's timeout, at most the server's own.
    pub deadline: Option<Instant>,
}

/// A stream of any shape: messages come from [`Self::next`], go to [`Self::send`]; the router ends
/// it with what the handler returns.
pub struct StreamCall {
    /// What came with the head.
    pub request: Request,
    /// Headers of the answer; to be set before the first message is sent.
    pub headers: Metadata,
    /// Trailers of the answer, sent at its end, with or without an error.
    pub trailers: Metadata,
    messages: Messages,
    answer: Arc<Mutex<Answer>>,
    gzip: Option<Gzip>,
}

/// The answering side. Shared, so that the router can watch for the caller's reset while the
/// handler writes.
pub(super) enum Answer {
    Waiting(Responder),
    Open(BodySender),
    Gone,
}

impl Answer {
    /// Ready when the caller gave up.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<u32> {
        match self {
            Self::Waiting(respond) => respond.poll_cancelled(cx),
            Self::Open(body) => body.poll_cancelled(cx),
            Self::Gone => Poll::Pending,
        }
    }
}

fn with<T>(answer: &Mutex<Answer>, work: impl FnOnce(&mut Answer) -> T) -> T {
    work(&mut answer.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Ready when the caller gave up.
pub(super) async fn cancelled(answer: Arc<Mutex<Answer>>) -> u32 {
    poll_fn(|cx| with(&answer, |answer| answer.poll_cancelled(cx))).await
}

impl StreamCall {
    pub(super) fn new(
        request: Request,
        messages: Messages,
        respond: Responder,
        gzip: Option<Gzip>,
    ) -> Self {
        Self {
            request,
            headers: Vec::new(),
            trailers: Vec::new(),
            messages,
            answer: Arc::new(Mutex::new(Answer::Waiting(respond))),
            gzip,
        }
    }

    pub(super) fn answer(&self) -> Arc<Mutex<Answer>> {
        Arc::clone(&self.answer)
    }

    /// The next message; `None` when the caller has sent all.
    ///
    /// # Errors
    /// A breach of the protocol, a limit, or the loss of the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.messages.next().await? {
            Item::Message(message) => Ok(Some(message)),
            Item::Eof => Ok(None),
            Item::End(_) => Err(Error::invalid("a request has no end-stream message")),
        }
    }

    /// The only message of a request that may have only one.
    ///
    /// # Errors
    /// As [`Self::next`]; `unimplemented` when there is none or more than one, as the Connect
    /// protocol has it.
    pub async fn one(&mut self) -> Result<Bytes> {
        let wrong = |text| Err(Error::invalid(text).with_code(Code::Unimplemented));
        let Some(message) = self.next().await? else {
            return wrong("the request has no message");
        };
        match self.next().await? {
            None => Ok(message),
            Some(_) => wrong("the request has more than one message"),
        }
    }

    /// Sends one message, after the headers when it is the first; waits for the caller's window.
    ///
    /// # Errors
    /// When the caller is gone or takes nothing.
    pub async fn send(&mut self, message: &[u8]) -> Result<()> {
        // A handler whose caller takes everything at once must let others run too.
        tokio::task::coop::consume_budget().await;
        let bytes = envelope(message, self.gzip);
        self.write(bytes, false).await
    }

    /// Ends the answer.
    pub(super) async fn finish(&mut self, error: Option<Error>) -> Result<()> {
        let mut metadata = std::mem::take(&mut self.trailers);
        metadata.extend(error.iter().flat_map(|error| error.metadata().iter().cloned()));
        let end = EndStream { error, metadata };
        self.write(Bytes::from(end.to_envelope()), true).await
    }

    async fn write(&mut self, bytes: Bytes, end: bool) -> Result<()> {
        self.start()?;
        with(&self.answer, |answer| match answer {
            Answer::Open(body) => {
                body.push(bytes)?;
                if end {
                    body.push_finish();
                }
                Ok(())
            }
            Answer::Waiting(_) | Answer::Gone => Err(SendError::Ended),
        })?;
        let answer = &self.answer;
        poll_fn(|cx| {
            with(answer, |answer| match answer {
                Answer::Open(body) => body.poll_flush(cx),
                Answer::Waiting(_) | Answer::Gone => Poll::Ready(Err(SendError::Ended)),
            })
        })
        .await?;
        Ok(())
    }

    /// Sends the head, once.
    fn start(&mut self) -> Result<()> {
        let head = if with(&self.answer, |answer| matches!(answer, Answer::Waiting(_))) {
            self.head()?
        } else {
            return Ok(());
        };
        with(&self.answer, |answer| match std::mem::replace(answer, Answer::Gone) {
            Answer::Waiting(respond) => {
                *answer = Answer::Open(respond.send_head(head, false)?);
                Ok(())
            }
            other => {
                *answer = other;
                Ok(())
            }
        })
    }

    fn head(&self) -> Result<Response<()>> {
        let mut headers = HeaderMap::new();
        header::add(&mut headers, &self.headers)?;
        headers.insert("content-type", HeaderValue::from_static(Shape::Stream.content_type()));
        let gzip = HeaderValue::from_static("gzip");
        if self.gzip.is_some() {
            headers.insert(Shape::Stream.encoding(), gzip.clone());
        }
        headers.insert(Shape::Stream.accept(), gzip);
        let mut head = Response::new(());
        *head.headers_mut() = headers;
        Ok(head)
    }
}
