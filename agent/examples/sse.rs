//! An agent inside an axum handler: a browser gets its events as server-sent events. Open
//! `http://127.0.0.1:3000/?q=hello`; closing the page cancels the task.

use std::convert::Infallible;

use agentwire::server::Script;
use agentwire_agent::model::Local;
use agentwire_agent::{Agent, Event};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::routing::get;
use tokio_stream::{Stream, StreamExt as _};

#[derive(serde::Deserialize)]
struct Ask {
    q: String,
}

/// Dropping the stream drops the task, and that cancels it.
async fn ask(
    State(agent): State<Agent>,
    Query(ask): Query<Ask>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let events = agent.prompt(ask.q).start().filter_map(|event| match event {
        Event::Text { .. } | Event::ToolStarted { .. } | Event::Finished { .. } => {
            sse::Event::default().json_data(event).ok().map(Ok)
        }
        _ => None,
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// An agent at `/`.
pub(crate) fn app() -> Result<Router, Box<dyn std::error::Error>> {
    let model = Local::new(Script::assistant())?;
    let agent = Agent::builder(model).model("composer-2").build()?;
    Ok(Router::new().route("/", get(ask)).with_state(agent))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{}/?q=hello", listener.local_addr()?);
    axum::serve(listener, app()?).await?;
    Ok(())
}
