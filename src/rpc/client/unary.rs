//! Unary calls.

use std::future::pending;

use bytes::Bytes;

use super::{Call, CallOptions, Deadline, RpcClient, check_answer_of, http_error};
use crate::connect::{Compression, Decoder, Envelope, gzip};
use crate::rpc::head::Shape;
use crate::rpc::http2::{BodyReceiver, BodySender, OpenStream, SendError};
use crate::rpc::message::{BodyError, read_all, too_long};
use crate::rpc::{Reply, header};
use crate::{Error, Result};

pub(super) async fn unary(client: &RpcClient, call: Call, message: Bytes) -> Reply {
    let deadline = Deadline::of(&call.options);
    let compress = call.options.send_gzip.is_some_and(|gzip| message.len() >= gzip.min);
    let message = if compress { Bytes::from(gzip::compress(&message)) } else { message };
    let opened = client.open(&call, Shape::Unary, compress, Some(message), true);
    let OpenStream { mut body, mut send } = match opened {
        Ok(opened) => opened,
        Err(error) => return Reply::new(Err(error)),
    };
    let mut reply = Reply::new(Err(Error::protocol("no answer")));
    let exchange = async {
        tokio::select! {
            result = read(&mut body, &call.options, &mut reply) => result,
            error = upload(&mut send) => Err(error),
        }
    };
    reply.result = deadline.run(exchange).await;
    // An answer may come before the request was read whole; dropping both sides resets the rest.
    reply
}

/// Writes what did not leave with the headers. Comes back only with an error that the receiving
/// side cannot tell better.
async fn upload(send: &mut BodySender) -> Error {
    match send.sent().await {
        Err(SendError::Stalled) => SendError::Stalled.into(),
        Ok(()) | Err(_) => pending().await,
    }
}

async fn read(body: &mut BodyReceiver, options: &CallOptions, reply: &mut Reply) -> Result<Bytes> {
    let head = body.head().await?;
    let status = head.status.as_u16();
    reply.status = Some(status);
    (reply.headers, reply.trailers) = header::split_trailers(header::metadata(&head.headers));
    if status != 200 {
        let error = http_error(status, &head.headers, body, options).await;
        return Err(error);
    }
    let shape = match (check_answer_of(Shape::Unary, &head.headers, options), options) {
        // The documented fallback also takes the content type of a stream.
        (Err(_), CallOptions { accept_enveloped: true, .. }) => {
            check_answer_of(Shape::Stream, &head.headers, options)
                .map(|compression| (Shape::Stream, compression))
        }
        (checked, _) => checked.map(|compression| (Shape::Unary, compression)),
    };
    let (shape, compression) = shape?;
    let raw = whole(body, options).await?;
    let enveloped = shape == Shape::Stream || raw.first().is_some_and(|first| *first < 8);
    if options.accept_enveloped && enveloped {
        return unwrap(&raw, options, compression);
    }
    match compression {
        Compression::None => Ok(Bytes::from(raw)),
        Compression::Gzip => {
            let mut plain = Vec::new();
            gzip::decompress(&raw, options.limits.decompressed, &mut plain)?;
            Ok(Bytes::from(plain))
        }
    }
}

async fn whole(body: &mut BodyReceiver, options: &CallOptions) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    match read_all(body, options.limits.message, &mut raw).await {
        Ok(()) => Ok(raw),
        Err(BodyError::TooLong) => Err(too_long(options.limits.message)),
        Err(BodyError::Lost(lost)) => Err(lost.into()),
    }
}

/// The one message inside envelopes. An end-stream message may follow and may state an error.
fn unwrap(raw: &[u8], options: &CallOptions, compression: Compression) -> Result<Bytes> {
    let mut decoder =
        Decoder::new(options.limits, compression).with_redactor(options.redactor.clone());
    let mut rest = raw;
    let mut message = None;
    while let Some(envelope) = decoder.next(&mut rest)? {
        match envelope {
            Envelope::Message(bytes) if message.is_none() => {
                message = Some(Bytes::copy_from_slice(bytes));
            }
            Envelope::Message(_) => {
                return Err(Error::protocol("the answer has more than one message"));
            }
            Envelope::EndStream(end) => {
                if let Some(error) = end.error {
                    return Err(error);
                }
            }
        }
    }
    decoder.finish()?;
    message.ok_or_else(|| Error::protocol("the answer has no message"))
}
