//! A peer over real sockets that does exactly what a test says, good or bad.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentwire::connect::{Compression, Decoder, Envelope, Limits, put_envelope};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::proto::agent_server_message::Message as FromServer;
use agentwire::proto::exec_server_message::Message as Exec;
use agentwire::proto::interaction_update::Message as Update;
use agentwire::proto::{
    AgentClientMessage, AgentServerMessage, ExecServerMessage, InteractionUpdate, McpArgs,
    TextDeltaUpdate,
};
use agentwire::rpc::http2::{
    Accepted, BodyReceiver, BodySender, Http2Config, Lost, ServerConnection,
};
use bytes::Bytes;
use prost::Message as _;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

/// A listening peer; its tasks end with it.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Connections that are open now.
    pub(crate) open: Arc<AtomicUsize>,
    /// Connections whose TLS session was one of before.
    pub(crate) resumed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Peer {
    /// Speaks HTTP/2 in clear text and hands each request to `handler`.
    pub(crate) async fn cleartext<F>(handler: impl Fn(Call) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(None, Http2Config::server(), handler).await
    }

    /// The same over TLS.
    pub(crate) async fn tls<F>(
        config: ServerConfig,
        handler: impl Fn(Call) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(Some(Arc::new(config)), Http2Config::server(), handler).await
    }

    pub(crate) async fn listen<F>(
        tls: Option<Arc<ServerConfig>>,
        http2: Http2Config,
        handler: impl Fn(Call) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let resumed = Arc::new(AtomicUsize::new(0));
        let counters = (Arc::clone(&connections), Arc::clone(&open), Arc::clone(&resumed));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counters.0.fetch_add(1, Ordering::SeqCst);
                counters.1.fetch_add(1, Ordering::SeqCst);
                let (tls, http2, handler) = (tls.clone(), http2.clone(), handler.clone());
                let (open, resumed) = (Arc::clone(&counters.1), Arc::clone(&counters.2));
                served.spawn(async move {
                    match tls {
                        None => serve(socket, http2, handler).await,
                        Some(tls) => {
                            if let Ok(socket) = TlsAcceptor::from(tls).accept(socket).await {
                                let kind = socket.get_ref().1.handshake_kind();
                                let again = kind == Some(HandshakeKind::Resumed);
                                resumed.fetch_add(usize::from(again), Ordering::SeqCst);
                                serve(socket, http2, handler).await;
                            }
                        }
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, connections, open, resumed, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The name is the one that certificates of [`Authority`] are for.
    pub(crate) fn tls_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<T, F>(io: T, config: Http2Config, handler: impl Fn(Call) -> F)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = ServerConnection::handshake(io, config).await else { return };
    let mut calls = JoinSet::new();
    while let Ok(accepted) = connection.accept().await {
        calls.spawn(handler(Call::new(accepted)));
    }
    // The last words of streams that were reset are being written by the driver of their own side.
    calls.shutdown().await;
}

/// One request at the peer.
pub(crate) struct Call {
    pub(crate) head: http::request::Parts,
    pub(crate) body: BodyReceiver,
    respond: Option<agentwire::rpc::http2::Responder>,
    send: Option<BodySender>,
    decoder: Decoder,
    messages: std::collections::VecDeque<AgentClientMessage>,
    /// How the client's side ended, once it has.
    pub(crate) ended: Option<Result<(), Lost>>,
}

impl Call {
    pub(crate) fn new(accepted: Accepted) -> Self {
        Self {
            head: accepted.head,
            body: accepted.body,
            respond: Some(accepted.respond),
            send: None,
            decoder: Decoder::new(Limits::default(), Compression::Gzip),
            messages: Default::default(),
            ended: None,
        }
    }

    /// Answers with a head of any kind.
    pub(crate) fn respond(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let responder = self.respond.take().expect("one head");
        self.send = responder.send_head(response.body(()).unwrap(), false).ok();
    }

    /// The head of a Run.
    pub(crate) fn accept(&mut self) {
        self.respond(200, &[("content-type", "application/connect+proto")]);
    }

    /// The client's next message, heartbeats left out; `None` when its side is over.
    pub(crate) async fn next(&mut self) -> Option<FromClient> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                match message.message {
                    Some(FromClient::ClientHeartbeat(_)) => continue,
                    other => return other,
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Takes the next chunk in. False when the client's side is over.
    async fn fill(&mut self) -> bool {
        let chunk = match self.body.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(lost)) => {
                self.ended = Some(Err(lost));
                return false;
            }
            None => {
                self.ended = Some(Ok(()));
                return false;
            }
        };
        let mut rest = &chunk[..];
        while let Some(envelope) = self.decoder.next(&mut rest).unwrap() {
            let Envelope::Message(payload) = envelope else { panic!("no end-stream upwards") };
            self.messages.push_back(AgentClientMessage::decode(payload).unwrap());
        }
        true
    }

    /// Waits for a heartbeat of the client; anything else is kept for [`Call::next`].
    pub(crate) async fn heartbeat_came(&mut self) {
        let beat = |message: &AgentClientMessage| {
            matches!(message.message, Some(FromClient::ClientHeartbeat(_)))
        };
        loop {
            if let Some(at) = self.messages.iter().position(beat) {
                self.messages.remove(at);
                return;
            }
            assert!(self.fill().await, "the client is gone");
        }
    }

    /// Writes raw body bytes. False when the stream is gone.
    pub(crate) async fn raw(&mut self, bytes: impl Into<Bytes>) -> bool {
        match &mut self.send {
            Some(send) => send.send(bytes.into()).await.is_ok(),
            None => false,
        }
    }

    pub(crate) async fn say(&mut self, message: FromServer) -> bool {
        self.raw(envelope(message)).await
    }

    pub(crate) async fn text(&mut self, text: &str) -> bool {
        self.raw(text_envelope(text)).await
    }

    pub(crate) async fn tool_call(&mut self, id: u32, call_id: &str, name: &str) {
        let args = McpArgs {
            name: format!("mcp_agentwire_{name}"),
            tool_call_id: call_id.to_owned(),
            provider_identifier: "agentwire".to_owned(),
            tool_name: name.to_owned(),
            ..McpArgs::default()
        };
        let exec = ExecServerMessage {
            id,
            exec_id: format!("exec-{id}"),
            message: Some(Exec::McpArgs(Box::new(args))),
            ..ExecServerMessage::default()
        };
        self.say(FromServer::ExecServerMessage(Box::new(exec))).await;
    }

    pub(crate) async fn turn_ended(&mut self) {
        self.say(update(Update::TurnEnded(Box::default()))).await;
    }

    /// The end-stream and the end of the body.
    pub(crate) async fn end(&mut self, json: &str) {
        let mut out = Vec::new();
        put_envelope(&mut out, 2, json.as_bytes());
        self.raw(out).await;
        self.finish().await;
    }

    /// The end of the body.
    pub(crate) async fn finish(&mut self) {
        if let Some(mut send) = self.send.take() {
            let _ = send.finish().await;
        }
    }

    /// Resets the stream.
    pub(crate) fn reset(&mut self, code: u32) {
        if let Some(send) = &mut self.send {
            send.reset(code);
        }
    }

    /// A turn that says `text` a letter at a time.
    pub(crate) async fn complete(&mut self, text: &str) {
        self.accept();
        for c in text.chars() {
            self.text(&c.to_string()).await;
        }
        self.turn_ended().await;
        self.end("{}").await;
        self.linger().await;
    }

    /// Reads the client's side to its end, so that the stream is not reset under it.
    pub(crate) async fn linger(&mut self) {
        while self.next().await.is_some() {}
    }
}

fn update(message: Update) -> FromServer {
    FromServer::InteractionUpdate(InteractionUpdate { message: Some(message) })
}

pub(crate) fn envelope(message: FromServer) -> Vec<u8> {
    let message = AgentServerMessage { message: Some(message) };
    let mut out = Vec::new();
    put_envelope(&mut out, 0, &message.encode_to_vec());
    out
}

pub(crate) fn text_envelope(text: &str) -> Vec<u8> {
    envelope(update(Update::TextDelta(TextDeltaUpdate { text: text.to_owned() })))
}

/// A certificate authority of this test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for `name`, changed by `change`, that offers `alpn`.
    pub(crate) fn server(
        &self,
        name: &str,
        alpn: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// Waits for something that another task brings about, with a limit.
pub(crate) async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let waiting = async {
        while !true_now() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(done.is_ok(), "in vain: {what}");
}

/// A place for what a handler saw.
pub(crate) type Seen<T> = Arc<Mutex<Option<T>>>;
