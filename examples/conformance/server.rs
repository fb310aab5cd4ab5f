//! The server under test: serves the suite's service until its input ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use agentwire::connect::{Code, Limits};
use agentwire::error::{Detail, Kind};
use agentwire::rpc::http2::Http2Config;
use agentwire::rpc::server::{Request, Router, ServerOptions, StreamCall, serve_connection};
use agentwire::rpc::{Gzip, Reply};
use agentwire::{Error, Result};
use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

use super::proto::conformance_payload::RequestInfo;
use super::proto::unary_response_definition::Response;
use super::proto::{
    BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse,
    ConformancePayload, Error as ProtoError, IdempotentUnaryRequest, IdempotentUnaryResponse,
    ServerCompatRequest, ServerCompatResponse, ServerStreamRequest, ServerStreamResponse,
    StreamResponseDefinition, TlsCreds, UnaryRequest, UnaryResponse, UnaryResponseDefinition,
};
use super::wire::{SERVICE, TYPE_PREFIX, headers, metadata, read, write};

/// Reads the one request, says where it listens, and serves until the input ends.
pub(crate) async fn run<I, O>(mut input: I, mut output: O) -> io::Result<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
{
    let Some(request) = read::<ServerCompatRequest>(&mut input).await? else { return Ok(()) };
    let creds = if request.use_tls { Some(creds(request.server_creds)?) } else { None };
    let acceptor = creds.as_ref().map(acceptor).transpose()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let response = ServerCompatResponse {
        host: address.ip().to_string(),
        port: address.port().into(),
        pem_cert: creds.map(|creds| creds.cert).unwrap_or_default(),
    };
    let router = router(request.message_receive_limit as usize);
    write(&mut output, &response).await?;
    tokio::select! {
        result = serve(listener, acceptor, router) => result,
        end = input.read_u8() => end.map_or(Ok(()), |_| Ok(())),
    }
}

/// Accepts connections for ever; they end with this future.
pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    router: Router,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (tcp, _) = accepted?;
                let (acceptor, router) = (acceptor.clone(), router.clone());
                connections.spawn(async move {
                    let handler = move |accepted| router.clone().serve(accepted);
                    let never = std::future::pending();
                    let config = Http2Config::server();
                    match acceptor {
                        None => {
                            serve_connection(tcp, config, handler, never).await;
                        }
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                serve_connection(tls, config, handler, never).await;
                            }
                        }
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The credentials given, or new ones.
pub(crate) fn creds(given: Option<TlsCreds>) -> io::Result<TlsCreds> {
    if let Some(given) = given {
        return Ok(given);
    }
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    let key = made.signing_key.serialize_pem().into_bytes();
    Ok(TlsCreds { cert: made.cert.pem().into_bytes(), key })
}

/// Accepts TLS with ALPN `h2`.
pub(crate) fn acceptor(creds: &TlsCreds) -> io::Result<TlsAcceptor> {
    let certs: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&creds.cert).collect();
    let key = PrivateKeyDer::from_pem_slice(&creds.key).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(certs.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The suite's service. `limit`: the longest message taken; 0 is the default.
pub(crate) fn router(limit: usize) -> Router {
    let mut options = ServerOptions::default();
    if limit > 0 {
        options.limits = Limits { message: limit, decompressed: limit, ..Limits::default() };
    }
    options.gzip = Some(Gzip { min: 0 });
    let path = |method: &str| format!("{SERVICE}{method}");
    Router::new(options)
        .unary(&path("Unary"), |request, message| async move {
            match UnaryRequest::decode(message.clone()) {
                Ok(asked) => {
                    let seen = any("UnaryRequest", message.to_vec());
                    let wrap = |payload| UnaryResponse { payload: Some(payload) }.encode_to_vec();
                    answer(&request, asked.response_definition, vec![seen], wrap).await
                }
                Err(_) => Reply::new(Err(undecodable())),
            }
        })
        .unary(&path("IdempotentUnary"), |request, message| async move {
            match IdempotentUnaryRequest::decode(message.clone()) {
                Ok(asked) => {
                    let seen = any("IdempotentUnaryRequest", message.to_vec());
                    let wrap = |payload| {
                        IdempotentUnaryResponse { payload: Some(payload) }.encode_to_vec()
                    };
                    answer(&request, asked.response_definition, vec![seen], wrap).await
                }
                Err(_) => Reply::new(Err(undecodable())),
            }
        })
        .unary(&path("Unimplemented"), |_, _| async move {
            let code = Code::Unimplemented;
            let error = Error::invalid("this method is not implemented").with_code(code);
            Reply::new(Err(error))
        })
        .stream(&path("ServerStream"), |call| Box::pin(server_stream(call)))
        .stream(&path("ClientStream"), |call| Box::pin(client_stream(call)))
        .stream(&path("BidiStream"), |call| Box::pin(bidi_stream(call)))
}

fn undecodable() -> Error {
    Error::invalid("a message cannot be decoded")
}

fn info(request: &Request, requests: Vec<Any>) -> RequestInfo {
    let left = request.deadline.map(|at| at.saturating_duration_since(Instant::now()));
    RequestInfo {
        request_headers: headers(&request.headers),
        timeout_ms: left.map(|left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX)),
        requests,
        connect_get_info: None,
    }
}

/// What a definition of one answer asks for.
async fn answer(
    request: &Request,
    definition: Option<UnaryResponseDefinition>,
    seen: Vec<Any>,
    wrap: impl FnOnce(ConformancePayload) -> Vec<u8>,
) -> Reply {
    let definition = definition.unwrap_or_default();
    let info = info(request, seen);
    tokio::time::sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
    let result = match definition.response {
        Some(Response::Error(error)) => Err(with_info(error, &info)),
        Some(Response::ResponseData(data)) => {
            Ok(wrap(ConformancePayload { data, request_info: Some(info) }))
        }
        None => Ok(wrap(ConformancePayload { data: Vec::new(), request_info: Some(info) })),
    };
    let mut reply = Reply::new(result.map(Bytes::from));
    reply.headers = metadata(&definition.response_headers);
    reply.trailers = metadata(&definition.response_trailers);
    reply
}

fn with_info(mut error: ProtoError, info: &RequestInfo) -> Error {
    error.details.push(any("ConformancePayload.RequestInfo", info.encode_to_vec()));
    error_from_proto(&error)
}

async fn client_stream(call: &mut StreamCall) -> Result<()> {
    let mut definition = None;
    let mut seen = Vec::new();
    while let Some(message) = call.next().await? {
        let asked = ClientStreamRequest::decode(message.clone()).map_err(|_| undecodable())?;
        if seen.is_empty() {
            definition = asked.response_definition;
        }
        seen.push(any("ClientStreamRequest", message.to_vec()));
    }
    let wrap = |payload| ClientStreamResponse { payload: Some(payload) }.encode_to_vec();
    let reply = answer(&call.request, definition, seen, wrap).await;
    (call.headers, call.trailers) = (reply.headers, reply.trailers);
    call.send(&reply.result?).await
}

async fn server_stream(call: &mut StreamCall) -> Result<()> {
    let message = call.one().await?;
    let asked = ServerStreamRequest::decode(message.clone()).map_err(|_| undecodable())?;
    let wrap = |payload| ServerStreamResponse { payload: Some(payload) }.encode_to_vec();
    let mut answers = Answers::new(call, asked.response_definition.unwrap_or_default(), wrap);
    answers.seen.push(any("ServerStreamRequest", message.to_vec()));
    answers.rest(call).await
}

async fn bidi_stream(call: &mut StreamCall) -> Result<()> {
    let wrap = |payload| BidiStreamResponse { payload: Some(payload) }.encode_to_vec();
    let mut answers = None;
    let mut full_duplex = false;
    while let Some(message) = call.next().await? {
        let asked = BidiStreamRequest::decode(message.clone()).map_err(|_| undecodable())?;
        let answers = answers.get_or_insert_with(|| {
            full_duplex = asked.full_duplex;
            Answers::new(call, asked.response_definition.unwrap_or_default(), wrap)
        });
        answers.seen.push(any("BidiStreamRequest", message.to_vec()));
        if full_duplex && !answers.next(call).await? {
            break;
        }
    }
    match answers {
        Some(mut answers) => answers.rest(call).await,
        None => Ok(()),
    }
}

/// The answers that a definition of a stream asks for.
struct Answers<W> {
    definition: StreamResponseDefinition,
    seen: Vec<Any>,
    sent: usize,
    wrap: W,
}

impl<W: Fn(ConformancePayload) -> Vec<u8>> Answers<W> {
    fn new(call: &mut StreamCall, definition: StreamResponseDefinition, wrap: W) -> Self {
        call.headers = metadata(&definition.response_headers);
        call.trailers = metadata(&definition.response_trailers);
        Self { definition, seen: Vec::new(), sent: 0, wrap }
    }

    /// Sends the next one; says whether there was one.
    async fn next(&mut self, call: &mut StreamCall) -> Result<bool> {
        let Some(data) = self.definition.response_data.get(self.sent).cloned() else {
            return Ok(false);
        };
        let seen = std::mem::take(&mut self.seen);
        let request_info = match (self.sent, seen.is_empty()) {
            (0, _) => Some(info(&call.request, seen)),
            (_, true) => None,
            (_, false) => Some(RequestInfo { requests: seen, ..RequestInfo::default() }),
        };
        let delay = Duration::from_millis(self.definition.response_delay_ms.into());
        tokio::time::sleep(delay).await;
        call.send(&(self.wrap)(ConformancePayload { data, request_info })).await?;
        self.sent += 1;
        Ok(true)
    }

    /// Sends those that are left, then the error if there is one.
    async fn rest(&mut self, call: &mut StreamCall) -> Result<()> {
        while self.next(call).await? {}
        match self.definition.error.take() {
            Some(error) if self.sent == 0 => {
                let info = info(&call.request, std::mem::take(&mut self.seen));
                Err(with_info(error, &info))
            }
            Some(error) => Err(error_from_proto(&error)),
            None => Ok(()),
        }
    }
}

/// An error that the suite asks a server for.
fn error_from_proto(error: &ProtoError) -> Error {
    let code = Code::ALL.into_iter().find(|code| i32::from(code.number()) == error.code);
    let details = error.details.iter().map(|any| Detail {
        type_name: any.type_url.trim_start_matches(TYPE_PREFIX).to_owned(),
        value: any.value.clone().into(),
        debug: None,
    });
    Error::new(Kind::Rejected, error.message.clone().unwrap_or_default())
        .with_code(code.unwrap_or(Code::Unknown))
        .with_details(details.collect())
}

/// Wraps a message.
fn any(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("{TYPE_PREFIX}connectrpc.conformance.v1.{name}"), value }
}
