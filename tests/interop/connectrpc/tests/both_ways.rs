//! Both sides of the Connect protocol, and a run of `agent.v1`, against the `connectrpc` crate (FAULTS
//! M98), in clear text over HTTP/2. `.ci/full.d/interop` runs this.
#![allow(missing_docs)]

use std::time::Duration;

use agentwire::Error;
use agentwire::codec::{Model, RunRequest};
use agentwire::connect::Code;
use agentwire::context::Context;
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::CountingIds;
use agentwire::inspect::{self, Side};
use agentwire::rpc::Gzip;
use agentwire::rpc::client::{Call, CallOptions, RpcClient};
use agentwire::rpc::http2::{ClientConnection, Http2Config};
use agentwire::run::Event;
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::Client;
use buffa::Message as _;
use buffa_types::google::protobuf::__buffa::view::EmptyView;
use buffa_types::google::protobuf::{Empty, StringValue};
use connectrpc::client::{
    CallOptions as PeerOptions, ClientConfig, HttpClient, call_bidi_stream, call_unary,
};
use connectrpc::handler::{FnBidiStreamingHandler, handler_fn};
use connectrpc::{
    ConnectError, ErrorCode, RequestContext, Response, Router, Server as PeerServer, ServiceStream,
    Spec, StreamType,
};
use futures::StreamExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Ten times what the slowest of these takes.
const GUARD: Duration = Duration::from_secs(30);

const RUN: Spec = Spec::client("/agent.v1.AgentService/Run", StreamType::BidiStream);
const MODELS: Spec = Spec::client("/agent.v1.AgentService/GetUsableModels", StreamType::Unary);

/// A message without known fields keeps the bytes of all the others: it stands for any message.
fn any(message: &[u8]) -> Empty {
    Empty::decode_from_slice(message).unwrap()
}

async fn our_server(script: &str) -> (Server, HttpClient, ClientConfig) {
    let script = Script::from_toml(script).unwrap();
    let server = Server::builder().script(script).cleartext().bind().await.unwrap();
    let config = ClientConfig::new(server.url().parse().unwrap());
    (server, HttpClient::plaintext_http2_only(), config)
}

/// The first message of a run.
fn request(prompt: &str) -> Empty {
    let request = RunRequest {
        request_id: "req-1".to_owned(),
        model: Model::new("m"),
        context: Context::prompt(prompt),
        ..RunRequest::default()
    };
    let mut ids = CountingIds::hex();
    let encoded = encode_run(&request, &mut Conversation::new(), &mut ids).unwrap();
    any(&encoded.envelope[5..])
}

#[tokio::test]
async fn the_peers_client_against_our_server() {
    timeout(GUARD, async {
        let text = "all work and no play ".repeat(400);
        let script = format!(
            r#"
gzip = true
[[rules]]
when = {{ prompt = "fail" }}
steps = [{{ text = "so far" }}, {{ error = {{ code = "out_of_range", message = "stated" }} }}]
[[rules]]
steps = [{{ text = {{ text = "{text}", delta = 5000 }} }}, {{ turn_end = {{}} }}]
"#
        );
        let (server, http, config) = our_server(&script).await;
        let (said, error) = peer_run(&http, &config, "hello").await;
        assert!(said == text && error.is_none(), "{error:?}");
        let (said, error) = peer_run(&http, &config, "fail").await;
        assert_eq!(said, "so far");
        let error = error.unwrap();
        assert_eq!((error.code, error.message.as_deref()), (ErrorCode::OutOfRange, Some("stated")));

        let options = PeerOptions::default();
        let models = call_unary::<_, _, EmptyView<'static>>(
            &http,
            &config,
            MODELS,
            Empty::default(),
            options,
        );
        let models = models.await.unwrap().into_owned().encode_to_vec();
        assert!(String::from_utf8_lossy(&models).contains("composer-2"));
        let unknown = Spec::client("/agent.v1.AgentService/Nothing", StreamType::Unary);
        let refused = call_unary::<_, _, EmptyView<'static>>(
            &http,
            &config,
            unknown,
            Empty::default(),
            PeerOptions::default(),
        );
        assert_eq!(refused.await.err().map(|error| error.code), Some(ErrorCode::Unimplemented));
        let report = server.shutdown().await;
        assert_eq!(report.violation_count, 0, "{:?}", report.violations);
    })
    .await
    .unwrap();
}

/// The text of a run, and the error that the stream ended with.
async fn peer_run(
    http: &HttpClient,
    config: &ClientConfig,
    prompt: &str,
) -> (String, Option<ConnectError>) {
    let stream =
        call_bidi_stream::<_, Empty, EmptyView<'static>>(http, config, RUN, PeerOptions::default());
    let mut stream = stream.await.unwrap();
    stream.send(request(prompt)).await.unwrap();
    let mut said = String::new();
    loop {
        match stream.message::<Empty>().await {
            Ok(Some(message)) => {
                let message = inspect::to_json(Side::Server, message.bytes()).unwrap();
                let text = &message["interaction_update"]["text_delta"]["text"];
                said.push_str(text.as_str().unwrap_or_default());
            }
            Ok(None) => return (said, stream.error().cloned()),
            Err(error) => return (said, Some(error)),
        }
    }
}

const UNARY: &str = "/agentwire.interop.v1.EchoService/Unary";
const BIDI: &str = "/agentwire.interop.v1.EchoService/Bidi";

async fn echo(
    _: RequestContext,
    asked: StringValue,
) -> Result<Response<StringValue>, ConnectError> {
    if asked.value == "fail" {
        return Err(ConnectError::out_of_range("stated"));
    }
    Ok(Response::new(asked).with_header("x-head", "1").with_trailer("x-trail", "3"))
}

async fn echo_all(
    _: RequestContext,
    asked: ServiceStream<StringValue>,
) -> Result<Response<ServiceStream<StringValue>>, ConnectError> {
    let answers = asked.map(|asked| match asked {
        Ok(asked) if asked.value == "fail" => Err(ConnectError::out_of_range("stated")),
        other => other,
    });
    Ok(Response::new(Box::pin(answers) as ServiceStream<StringValue>))
}

/// A run as the peer's server plays it: some text and the end of the turn.
async fn play(
    _: RequestContext,
    mut asked: ServiceStream<Empty>,
) -> Result<Response<ServiceStream<Empty>>, ConnectError> {
    let first =
        asked.next().await.ok_or_else(|| ConnectError::invalid_argument("no request"))??;
    let request = inspect::to_json(Side::Client, &first.encode_to_vec())
        .map_err(|error| ConnectError::invalid_argument(error.to_string()))?;
    let prompt = request["run_request"]["action"]["user_message_action"]["user_message"]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let said = inspect::from_json(
        Side::Server,
        &serde_json::json!({"interaction_update": {"text_delta": {"text": prompt}}}),
    );
    let over = inspect::from_json(
        Side::Server,
        &serde_json::json!({"interaction_update": {"turn_ended": {"input_tokens": "3"}}}),
    );
    let messages = [said.unwrap(), over.unwrap()].map(|message| Ok(any(&message)));
    Ok(Response::new(Box::pin(futures::stream::iter(messages)) as ServiceStream<Empty>))
}

/// The peer's server; gives its address.
async fn their_server() -> String {
    let router = Router::new()
        .route("agentwire.interop.v1.EchoService", "Unary", handler_fn(echo))
        .route_bidi_stream(
            "agentwire.interop.v1.EchoService",
            "Bidi",
            FnBidiStreamingHandler::new(echo_all),
        )
        .route_bidi_stream("agent.v1.AgentService", "Run", FnBidiStreamingHandler::new(play));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(PeerServer::from_listener(listener).serve(router));
    addr.to_string()
}

fn call(path: &str) -> Call {
    let mut options = CallOptions::default();
    options.send_gzip = Some(Gzip::default());
    Call::new(path).with_options(options)
}

fn message(text: &str) -> Vec<u8> {
    StringValue { value: text.to_owned(), ..StringValue::default() }.encode_to_vec()
}

fn text(message: &[u8]) -> String {
    StringValue::decode_from_slice(message).unwrap().value
}

fn judge(error: &Error) {
    assert_eq!((error.code(), error.message()), (Code::OutOfRange, "stated"));
}

#[tokio::test]
async fn our_client_against_the_peers_server() {
    timeout(GUARD, async {
        let addr = their_server().await;
        let socket = TcpStream::connect(&addr).await.unwrap();
        let connected = ClientConnection::handshake(socket, Http2Config::default()).await.unwrap();
        let (connection, driver) = connected;
        tokio::spawn(driver);
        let client = RpcClient::new(connection, &format!("http://{addr}")).unwrap();
        let long = "all work and no play ".repeat(4_000);
        for asked in ["short", &long] {
            let reply = client.unary(call(UNARY), message(asked).into()).await;
            assert_eq!(text(&reply.result.unwrap()), asked);
            let has = |metadata: &[(String, String)], name: &str, value: &str| {
                metadata.iter().any(|(known, said)| known == name && said == value)
            };
            assert!(has(&reply.headers, "x-head", "1") && has(&reply.trailers, "x-trail", "3"));
        }
        judge(&client.unary(call(UNARY), message("fail").into()).await.result.unwrap_err());

        let (mut send, mut receive) = client.stream(call(BIDI), None).unwrap();
        for round in 0..50 {
            let asked = if round % 10 == 0 { long.clone() } else { round.to_string() };
            send.send(&message(&asked)).await.unwrap();
            assert_eq!(text(&receive.next().await.unwrap().unwrap()), asked);
        }
        send.send(&message("fail")).await.unwrap();
        judge(&receive.next().await.unwrap_err());

        let client = Client::builder().endpoint(format!("http://{addr}")).build().unwrap();
        let mut run = client.prompt("what was that?").model("m").start().await.unwrap();
        let mut said = String::new();
        while let Some(event) = run.next().await {
            match event {
                Event::Text(text) => said.push_str(&text),
                Event::Ended(ended) => assert_eq!(ended.unwrap().usage.input, Some(3)),
                _ => {}
            }
        }
        assert_eq!(said, "what was that?");
    })
    .await
    .unwrap();
}
