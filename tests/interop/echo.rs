//! Our side of `interop.proto`.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use agentwire::connect::Code;
use agentwire::error::{Detail, Kind};
use agentwire::rpc::server::{Router, ServerOptions, StreamCall};
use agentwire::rpc::{Metadata, Reply};
use agentwire::{Error, Result};
use bytes::Bytes;
use prost::Message as _;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EchoRequest {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(uint32, tag = "2")]
    pub(crate) fail: u32,
    #[prost(bool, tag = "3")]
    pub(crate) hang: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EchoResponse {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(string, tag = "2")]
    pub(crate) asked: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Trouble {
    #[prost(string, tag = "1")]
    pub(crate) what: String,
    #[prost(int32, tag = "2")]
    pub(crate) number: i32,
}

/// Counts itself when it is dropped before it is done: the caller gave up.
struct Held(Arc<AtomicU32>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn hang(cancelled: &Arc<AtomicU32>) {
    let _held = Held(Arc::clone(cancelled));
    pending::<()>().await;
}

pub(crate) fn router() -> Router {
    let cancelled = Arc::new(AtomicU32::new(0));
    let of_streams = Arc::clone(&cancelled);
    Router::new(ServerOptions::default())
        .unary("/agentwire.interop.v1.EchoService/Unary", move |request, message| {
            let cancelled = Arc::clone(&cancelled);
            async move {
                let mut reply = Reply::new(unary(&request.headers, message, &cancelled).await);
                reply.headers = one("x-head", "1");
                reply.trailers = one("x-trail", "3");
                reply
            }
        })
        .stream("/agentwire.interop.v1.EchoService/Bidi", move |call| {
            let cancelled = Arc::clone(&of_streams);
            Box::pin(async move { bidi(call, &cancelled).await })
        })
}

async fn unary(headers: &Metadata, message: Bytes, cancelled: &Arc<AtomicU32>) -> Result<Bytes> {
    let request = decode(message)?;
    if request.hang {
        hang(cancelled).await;
    }
    if request.fail != 0 {
        return Err(stated(request.fail));
    }
    let text = match request.text.as_str() {
        "how many gave up?" => cancelled.load(Ordering::Relaxed).to_string(),
        _ => request.text,
    };
    let asked = headers.iter().find(|(name, _)| name == "x-asked");
    let asked = asked.map(|(_, value)| value.clone()).unwrap_or_default();
    Ok(EchoResponse { text, asked }.encode_to_vec().into())
}

async fn bidi(call: &mut StreamCall, cancelled: &Arc<AtomicU32>) -> Result<()> {
    call.headers = one("x-head", "1");
    call.trailers = one("x-trail", "3");
    while let Some(message) = call.next().await? {
        let request = decode(message)?;
        let answer = EchoResponse { text: request.text, asked: String::new() };
        call.send(&answer.encode_to_vec()).await?;
        if request.hang {
            hang(cancelled).await;
        }
        if request.fail != 0 {
            return Err(stated(request.fail));
        }
    }
    Ok(())
}

fn one(name: &str, value: &str) -> Metadata {
    vec![(name.to_owned(), value.to_owned())]
}

fn decode(message: Bytes) -> Result<EchoRequest> {
    EchoRequest::decode(message).map_err(|error| Error::invalid(error.to_string()))
}

fn stated(code: u32) -> Error {
    assert_eq!(code, 11, "the peer asks for out_of_range");
    let trouble = Trouble { what: "told".to_owned(), number: -7 };
    let detail = Detail {
        type_name: "agentwire.interop.v1.Trouble".to_owned(),
        value: trouble.encode_to_vec().into(),
        debug: None,
    };
    Error::new(Kind::Rejected, "stated")
        .with_code(Code::OutOfRange)
        .with_details(vec![detail])
        .with_metadata(one("x-error", "4"))
}
