//! The clients that run against each other. Each gives the sum of the lengths of the texts, so that
//! one that loses something is found out.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;

use agentwire::run::{Event, EventRef};
use agentwire::transport::{Client, Roots, Run};
use bytes::Bytes;
use connectrpc::client::{CallOptions, ClientConfig, Http2Connection, SharedHttp2Connection};
use connectrpc::{Spec, StreamType};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig as TlsConfig, RootCertStore};

use super::plan::{self, TEXT};
use super::{PATH, Server};
use crate::rivals::{self, NaiveSplitter, Trimmed, buffa};

/// Windows that never close: the rivals are not to wait for what ours does not wait for either.
const WINDOW: u32 = (1 << 31) - 1;

/// The runtime that all clients of a race share: one thread, whose CPU time is counted.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

/// Our client, as a user makes it; not connected yet.
pub fn ours(server: &Server) -> Client {
    let builder = Client::builder().endpoint(server.url()).retries(0);
    let builder = if server.certificate.is_empty() {
        builder
    } else {
        builder.roots(Roots::OnlyAdded).ca_pem(server.certificate.clone())
    };
    builder.build().expect("the settings are right")
}

/// A run that is on its way.
pub async fn ours_open(client: &Client) -> Run {
    client.prompt("go").model("composer-2").start().await.expect("the request can be sent")
}

/// One run, read to its end by way of borrowed events.
pub async fn ours_read(client: &Client) -> u64 {
    ours_rest(ours_open(client).await).await
}

pub async fn ours_rest(mut run: Run) -> u64 {
    let mut sum = 0;
    let mut sink = |event: EventRef<'_>| match event {
        EventRef::Text(text) => sum += text.len() as u64,
        EventRef::Other(event) => {
            if let Event::Ended(end) = *event {
                end.expect("the run is complete");
            }
        }
        _ => {}
    };
    while run.next_batch(&mut sink).await.is_some() {}
    sum
}

/// The same by way of the `Stream` of owned events.
pub async fn ours_owned(client: &Client) -> u64 {
    let mut run = ours_open(client).await;
    let mut sum = 0;
    while let Some(event) = run.next().await {
        match event {
            Event::Text(text) => sum += text.len() as u64,
            Event::Ended(end) => drop(end.expect("the run is complete")),
            _ => {}
        }
    }
    sum
}

/// Reads until the first text.
pub async fn ours_first(run: &mut Run) -> u64 {
    loop {
        match run.next().await.expect("a text comes before the end") {
            Event::Text(text) => return text.len() as u64,
            Event::Ended(end) => panic!("no text: {end:?}"),
            _ => {}
        }
    }
}

/// A connection of bare `h2`, driven by a task of its own.
#[derive(Clone)]
pub struct H2 {
    requests: SendRequest<Bytes>,
    uri: String,
}

impl H2 {
    pub async fn connect(server: &Server) -> Self {
        Self::over(tcp(server).await, server.url()).await
    }

    async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, url: String) -> Self {
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .data_frame_budget(1 << 30)
            .enable_push(false)
            .handshake(io)
            .await
            .expect("the server speaks HTTP/2");
        // Its end shows at the streams.
        tokio::spawn(async move { drop(connection.await) });
        Self { requests, uri: format!("{url}{PATH}") }
    }

    /// Sends a request with a small body, and leaves its direction open when it is asked to.
    async fn open(&self, last: bool) -> (RecvStream, SendStream<Bytes>) {
        let mut ready = self.requests.clone().ready().await.expect("the connection is open");
        let request = http::Request::post(&self.uri)
            .header("content-type", "application/connect+proto")
            .header("connect-protocol-version", "1");
        let request = request.body(()).expect("a request");
        let (response, mut body) = ready.send_request(request, false).expect("a stream");
        body.send_data(Bytes::from_static(&[0; 5]), last).expect("the body is sent");
        (response.await.expect("a response").into_body(), body)
    }

    /// Reads nothing but the number of bytes, which tells how much text there was.
    pub async fn discard(&self) -> u64 {
        let (body, _open) = self.open(true).await;
        Self::texts(body).await
    }

    /// The reference's shape: every piece copied, a channel to the reader, the algorithm that one
    /// writes first, prost with the full schema.
    pub async fn like_the_reference(&self) -> u64 {
        let (send, mut receive) = mpsc::channel(32);
        let this = self.clone();
        tokio::spawn(async move {
            let (mut body, _open) = this.open(true).await;
            while let Some(chunk) = body.data().await {
                let chunk = chunk.expect("the stream is whole");
                let _ = body.flow_control().release_capacity(chunk.len());
                // The reader takes all there is.
                let _ = send.send(chunk.to_vec()).await;
            }
        });
        let mut splitter = NaiveSplitter::default();
        let mut sum = 0;
        while let Some(chunk) = receive.recv().await {
            splitter.push(&chunk, |frame| sum += rivals::full(&frame[..]) as u64);
        }
        sum
    }

    /// Answers every question with as many bytes as our client does; gives what is asked.
    pub async fn ping(&self, answer: &Bytes) -> u64 {
        let (mut body, mut send) = self.open(false).await;
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.expect("the stream is whole");
            // It cannot fail for bytes that were received.
            let _ = body.flow_control().release_capacity(chunk.len());
            bytes += chunk.len();
            // After the last question the stream is over.
            if send.send_data(answer.clone(), false).is_err() {
                break;
            }
        }
        bytes as u64
    }

    /// The same over TLS.
    pub async fn connect_tls(server: &Server) -> Self {
        Self::over(tls(server).await, server.url()).await
    }

    /// Counts the bytes of a stream, or of what is left of it.
    pub async fn texts(mut body: RecvStream) -> u64 {
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.expect("the stream is whole");
            let _ = body.flow_control().release_capacity(chunk.len());
            bytes += chunk.len();
        }
        texts_of(bytes)
    }

    /// Waits for the first piece of a stream and leaves the rest.
    pub async fn first(&self) -> (RecvStream, SendStream<Bytes>) {
        let (mut body, send) = self.open(false).await;
        poll_fn(|cx| body.poll_data(cx)).await.expect("a body").expect("the stream is whole");
        (body, send)
    }
}

fn texts_of(bytes: usize) -> u64 {
    let message = 5 + 6 + TEXT;
    let texts = bytes - plan::last().len() - plan::end().len();
    assert_eq!(texts % message, 0, "bytes are missing");
    (texts / message * TEXT) as u64
}

async fn tcp(server: &Server) -> TcpStream {
    let tcp =
        TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).await.expect("the server listens");
    tcp.set_nodelay(true).expect("a socket option");
    tcp
}

/// A TLS connection whose configuration is made for it.
async fn tls(server: &Server) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(server.certificate.as_bytes());
    roots.add(certificate.expect("a certificate")).expect("it can be trusted");
    let mut config = TlsConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let tcp = tcp(server).await;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake")
}

/// The reference's way to open a stream: everything new for each.
pub async fn reference_open(server: &Server) {
    drop(H2::connect_tls(server).await.first().await);
}

/// tonic's client, on prost's types of nothing but the hot messages.
#[derive(Clone)]
pub struct Tonic(tonic::transport::Channel);

impl Tonic {
    pub async fn connect(server: &Server) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(server.url()).expect("a URL");
        let endpoint = endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        Self(endpoint.connect().await.expect("the server listens"))
    }

    pub async fn open(&self) -> tonic::Streaming<Trimmed> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.expect("the channel is open");
        let path = http::uri::PathAndQuery::from_static(PATH);
        let codec = tonic_prost::ProstCodec::<(), Trimmed>::default();
        let answer = grpc.server_streaming(tonic::Request::new(()), path, codec).await;
        answer.expect("a response").into_inner()
    }

    pub async fn read(&self) -> u64 {
        Self::rest(self.open().await).await
    }

    pub async fn first(stream: &mut tonic::Streaming<Trimmed>) -> u64 {
        let message = stream.message().await.expect("the stream is whole");
        message.map_or(0, Trimmed::text_len) as u64
    }

    pub async fn rest(mut stream: tonic::Streaming<Trimmed>) -> u64 {
        let mut sum = 0;
        while let Some(message) = stream.message().await.expect("the stream is whole") {
            sum += message.text_len() as u64;
        }
        sum
    }
}

/// connectrpc's client, on buffa's borrowed views of the hot messages.
#[derive(Clone)]
pub struct Connect {
    transport: SharedHttp2Connection,
    config: ClientConfig,
}

/// What connectrpc reads from.
pub type ConnectStream = connectrpc::client::ServerStream<
    <SharedHttp2Connection as connectrpc::client::ClientTransport>::ResponseBody,
    buffa::TrimmedView<'static>,
>;

impl Connect {
    pub async fn connect(server: &Server) -> Self {
        let uri: http::Uri = server.url().parse().expect("a URL");
        let builder = Http2Connection::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let connection = builder.connect_plaintext(uri.clone()).await.expect("the server listens");
        Self { transport: connection.shared(4_096), config: ClientConfig::new(uri) }
    }

    pub async fn open(&self) -> ConnectStream {
        const SPEC: Spec = Spec::client(PATH, StreamType::ServerStream);
        let (ask, options) = (buffa::Ask::default(), CallOptions::default());
        let call = connectrpc::client::call_server_stream;
        call(&self.transport, &self.config, SPEC, ask, options).await.expect("a response")
    }

    pub async fn read(&self) -> u64 {
        Self::rest(self.open().await).await
    }

    pub async fn first(stream: &mut ConnectStream) -> u64 {
        let message = stream.message().await.expect("the stream is whole");
        message.map_or(0, |message| rivals::view_len(message.view())) as u64
    }

    pub async fn rest(mut stream: ConnectStream) -> u64 {
        let mut sum = 0;
        while let Some(message) = stream.message().await.expect("the stream is whole") {
            sum += rivals::view_len(message.view()) as u64;
        }
        sum
    }
}
