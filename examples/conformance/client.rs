//! The client under test: makes the calls that the runner asks for and says what came of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use agentwire::connect::{Code, Limits};
use agentwire::error::Kind;
use agentwire::redact::Redactor;
use agentwire::rpc::client::{Call, CallOptions, CallReceiver, CallSender, RpcClient};
use agentwire::rpc::http2::{ClientConnection, Http2Config};
use agentwire::rpc::{Gzip, Reply};
use agentwire::{Error, Result};
use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::proto::client_compat_request::cancel::CancelTiming;
use super::proto::client_compat_response::Result as Outcome;
use super::proto::{
    BidiStreamResponse, ClientCompatRequest, ClientCompatResponse, ClientErrorResult,
    ClientResponseResult, ClientStreamResponse, Compression, ConformancePayload,
    Error as ProtoError, ServerStreamResponse, StreamType, UnaryResponse,
};
use super::wire::{SERVICE, TYPE_PREFIX, headers, metadata, read, write};

/// Calls at once; the suite does not say how many, and many are idle waits.
const PARALLEL: usize = 16;

/// Answers the runner's requests until the input ends.
pub(crate) async fn run<I, O>(mut input: I, output: O) -> io::Result<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
{
    let output = Arc::new(Mutex::new(output));
    let slots = Arc::new(Semaphore::new(PARALLEL));
    let mut calls = JoinSet::new();
    while let Some(request) = read::<ClientCompatRequest>(&mut input).await? {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let output = Arc::clone(&output);
        calls.spawn(async move {
            let test_name = request.test_name.clone();
            let result = match call(request).await {
                Ok(result) => Outcome::Response(result),
                Err(error) => Outcome::Error(ClientErrorResult { message: error.to_string() }),
            };
            let response = ClientCompatResponse { test_name, result: Some(result) };
            drop(slot);
            write(&mut *output.lock().await, &response).await
        });
        while let Some(done) = calls.try_join_next() {
            done.map_err(io::Error::other)??;
        }
    }
    while let Some(done) = calls.join_next().await {
        done.map_err(io::Error::other)??;
    }
    Ok(())
}

/// One call on a connection of its own. An error is "could not even try".
pub(crate) async fn call(request: ClientCompatRequest) -> Result<ClientResponseResult> {
    let address = format!("{}:{}", request.host, request.port);
    let tcp = TcpStream::connect(&address).await.map_err(|error| cannot(&error))?;
    let connection = connect(tcp, &request).await?;
    let scheme = if request.server_tls_cert.is_empty() { "http" } else { "https" };
    invoke(RpcClient::new(connection, &format!("{scheme}://{address}"))?, request).await
}

/// HTTP/2 on a socket, with TLS when the request names a certificate.
pub(crate) async fn connect(
    tcp: TcpStream,
    request: &ClientCompatRequest,
) -> Result<ClientConnection> {
    if request.server_tls_cert.is_empty() {
        return start(tcp).await;
    }
    let config = tls(&request.server_tls_cert).map_err(|error| cannot(&*error))?;
    let name = ServerName::try_from(request.host.clone()).map_err(|error| cannot(&error))?;
    let connector = TlsConnector::from(Arc::new(config));
    start(connector.connect(name, tcp).await.map_err(|error| cannot(&error))?).await
}

fn cannot(error: &dyn std::error::Error) -> Error {
    Error::invalid(error.to_string())
}

async fn start<T>(io: T) -> Result<ClientConnection>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (connection, driver) = ClientConnection::handshake(io, Http2Config::default()).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn tls(pem: &[u8]) -> std::result::Result<ClientConfig, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn invoke(client: RpcClient, request: ClientCompatRequest) -> Result<ClientResponseResult> {
    let mut options = CallOptions::default();
    let limit = match request.message_receive_limit {
        0 => Limits::default().message,
        limit => limit as usize,
    };
    options.limits = Limits { message: limit, decompressed: limit, ..Limits::default() };
    options.timeout = request.timeout_ms.map(|millis| Duration::from_millis(millis.into()));
    options.send_gzip = (request.compression() == Compression::Gzip).then_some(Gzip { min: 0 });
    options.redactor = Redactor::verbatim();
    let call = Call::new(format!("{SERVICE}{}", request.method()))
        .with_headers(metadata(&request.request_headers))
        .with_options(options);
    let run = Run::new(request);
    match run.request.method() {
        "Unary" | "IdempotentUnary" | "Unimplemented" => run.unary(client, call).await,
        "ServerStream" | "ClientStream" | "BidiStream" => run.stream(client, call).await,
        other => Err(Error::invalid(format!("no method {other}"))),
    }
}

/// A call and what came of it so far.
struct Run {
    request: ClientCompatRequest,
    timing: Option<CancelTiming>,
    result: ClientResponseResult,
}

/// Why nothing more is asked for.
enum Stop {
    End,
    Failed(Error),
}

impl Run {
    fn new(request: ClientCompatRequest) -> Self {
        let timing = request.cancel.and_then(|cancel| cancel.cancel_timing);
        Self { request, timing, result: ClientResponseResult::default() }
    }

    async fn unary(mut self, client: RpcClient, call: Call) -> Result<ClientResponseResult> {
        let message = self.request.request_messages.first().map(|any| any.value.clone());
        let call = client.unary(call, Bytes::from(message.unwrap_or_default()));
        let after = match self.timing {
            Some(CancelTiming::AfterCloseSendMs(millis)) => Some(millis),
            _ => None,
        };
        let reply = tokio::select! {
            reply = call => reply,
            error = cancel_after(after) => Reply::new(Err(error)),
        };
        self.result.response_headers = headers(&reply.headers);
        self.result.response_trailers = headers(&reply.trailers);
        self.result.http_status_code = reply.status.map(i32::from);
        match reply.result {
            Ok(message) => self.result.payloads.push(payload("Unary", &message)?),
            Err(error) => self.result.error = Some(error_to_proto(&error)),
        }
        Ok(self.result)
    }

    async fn stream(mut self, client: RpcClient, call: Call) -> Result<ClientResponseResult> {
        let (mut send, mut recv) = client.stream(call, None)?;
        let stop = match self.talk(&mut send, &mut recv).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        };
        self.result.response_headers = headers(recv.received_headers());
        self.result.response_trailers = headers(recv.trailers());
        self.result.http_status_code = recv.status().map(i32::from);
        if let Stop::Failed(error) = stop {
            self.result.error = Some(error_to_proto(&error));
        }
        Ok(self.result)
    }

    /// Sends, receives and cancels as asked; comes back with the reason for the end.
    async fn talk(
        &mut self,
        send: &mut CallSender,
        recv: &mut CallReceiver,
    ) -> std::result::Result<std::convert::Infallible, Stop> {
        let full_duplex = self.request.stream_type() == StreamType::FullDuplexBidiStream;
        let messages = std::mem::take(&mut self.request.request_messages);
        for (at, message) in messages.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(self.request.request_delay_ms.into())).await;
            if send.send(&message.value).await.is_err() {
                let unsent = messages.len() - at;
                self.result.num_unsent_requests = i32::try_from(unsent).unwrap_or(i32::MAX);
                break;
            }
            if full_duplex {
                self.receive(recv).await?;
            }
        }
        if let Some(CancelTiming::BeforeCloseSend(())) = self.timing {
            return Err(Stop::Failed(cancelled()));
        }
        // A failure shows on the receiver, which knows more.
        let _ = send.close().await;
        if let Some(CancelTiming::AfterCloseSendMs(millis)) = self.timing {
            tokio::select! {
                error = cancel_after(Some(millis)) => return Err(Stop::Failed(error)),
                stop = self.receive_all(recv) => return stop,
            }
        }
        self.receive_all(recv).await
    }

    async fn receive_all(
        &mut self,
        recv: &mut CallReceiver,
    ) -> std::result::Result<std::convert::Infallible, Stop> {
        if self.request.method() == "ClientStream" {
            let message = recv.one().await.map_err(Stop::Failed)?;
            self.keep(&message)?;
            return Err(Stop::End);
        }
        loop {
            self.receive(recv).await?;
        }
    }

    async fn receive(&mut self, recv: &mut CallReceiver) -> std::result::Result<(), Stop> {
        match recv.next().await {
            Ok(Some(message)) => self.keep(&message)?,
            Ok(None) => return Err(Stop::End),
            Err(error) => return Err(Stop::Failed(error)),
        }
        match self.timing {
            Some(CancelTiming::AfterNumResponses(count))
                if self.result.payloads.len() >= count as usize =>
            {
                Err(Stop::Failed(cancelled()))
            }
            _ => Ok(()),
        }
    }

    fn keep(&mut self, message: &[u8]) -> std::result::Result<(), Stop> {
        let payload = payload(self.request.method(), message).map_err(Stop::Failed)?;
        self.result.payloads.push(payload);
        Ok(())
    }
}

fn payload(method: &str, message: &[u8]) -> Result<ConformancePayload> {
    let decoded = match method {
        "ServerStream" => ServerStreamResponse::decode(message).map(|message| message.payload),
        "ClientStream" => ClientStreamResponse::decode(message).map(|message| message.payload),
        "BidiStream" => BidiStreamResponse::decode(message).map(|message| message.payload),
        // The other unary answers have the same shape.
        _ => UnaryResponse::decode(message).map(|message| message.payload),
    };
    let decoded = decoded.map_err(|_| Error::protocol("a message cannot be decoded"))?;
    Ok(decoded.unwrap_or_default())
}

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "cancelled by the caller").with_code(Code::Canceled)
}

async fn cancel_after(millis: Option<u32>) -> Error {
    match millis {
        Some(millis) => tokio::time::sleep(Duration::from_millis(millis.into())).await,
        None => std::future::pending().await,
    }
    cancelled()
}

/// An error as the suite has it.
fn error_to_proto(error: &Error) -> ProtoError {
    let details = error.details().iter().map(|detail| Any {
        type_url: format!("{TYPE_PREFIX}{}", detail.type_name),
        value: detail.value.to_vec(),
    });
    ProtoError {
        code: error.code().number().into(),
        message: Some(error.message().to_owned()),
        details: details.collect(),
    }
}
