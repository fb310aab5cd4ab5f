//! Streams one answer: `cargo run --example chat --features server`.
//!
//! The server is started here, so that the example runs anywhere; leave it out and give the client
//! a token to ask the service.

use agentwire::run::Event;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Roots};

#[tokio::main(flavor = "current_thread")]
async fn main() -> agentwire::Result<()> {
    let server = Server::builder().bind().await?;
    let client = Client::builder()
        .endpoint(server.url())
        .roots(Roots::OnlyAdded)
        .ca_pem(server.certificate_pem().unwrap_or_default())
        .build()?;

    let mut run = client.prompt("What is a transport?").model("composer-2").start().await?;
    while let Some(event) = run.next().await {
        match event {
            Event::Text(text) => print!("{text}"),
            Event::Ended(end) => println!("\n[{:?}]", end?.usage),
            _ => {}
        }
    }
    Ok(())
}
