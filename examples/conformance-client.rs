//! The client for the runner of the public Connect conformance suite
//! (<https://github.com/connectrpc/conformance>): speaks its protocol on stdin and stdout.
//!
//! `connectconformance --mode client --conf … -- target/release/examples/conformance-client`

#[path = "conformance/client.rs"]
mod client;
#[path = "conformance/proto.rs"]
#[allow(dead_code, unreachable_pub, reason = "generated: the suite's whole schema")]
#[allow(clippy::all, missing_docs, reason = "generated")]
#[rustfmt::skip]
mod proto;
#[path = "conformance/wire.rs"]
mod wire;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    client::run(tokio::io::stdin(), tokio::io::stdout()).await
}
