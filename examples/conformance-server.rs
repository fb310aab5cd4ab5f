//! The server for the runner of the public Connect conformance suite
//! (<https://github.com/connectrpc/conformance>): speaks its protocol on stdin and stdout.
//!
//! `connectconformance --mode server --conf … -- target/release/examples/conformance-server`

#[path = "conformance/server.rs"]
mod server;
#[path = "conformance/proto.rs"]
#[allow(dead_code, unreachable_pub, reason = "generated: the suite's whole schema")]
#[allow(clippy::all, missing_docs, reason = "generated")]
#[rustfmt::skip]
mod proto;
#[path = "conformance/wire.rs"]
mod wire;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    server::run(tokio::io::stdin(), tokio::io::stdout()).await
}
