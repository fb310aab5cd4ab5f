//! Cancelling a task from elsewhere: the model's run is stopped, the tool is dropped and told, and
//! the session keeps what was said.

use std::time::Duration;

use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::tool::tool;
use agentwire_agent::{Agent, Ended, Event, ToolContext};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ended = build().await?;
    println!("{:?}, {} messages are kept", ended.outcome.stop, ended.session.messages().len());
    Ok(())
}

/// The whole example; gives how the task ended.
pub(crate) async fn build() -> Result<Ended, Box<dyn std::error::Error>> {
    let slow = tool("build", "Builds the project", |context: ToolContext, _: Value| async move {
        for percent in (0..).step_by(10) {
            context.progress(format!("{percent} %"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok("never comes")
    });
    let reply = Reply::new().text("I build it. ").call("c1", "build", json!({}));
    let agent =
        Agent::builder(Scripted::replies([reply])).model("composer-2").tool(slow).build()?;

    let mut running = agent.prompt("Build the project").start();
    let control = running.control();
    while let Some(event) = running.next().await {
        match event {
            Event::Text { text } => println!("{text}"),
            Event::ToolProgress { text, .. } => {
                println!("{text}");
                if text == "50 %" {
                    control.cancel();
                }
            }
            Event::ToolFinished { status, .. } => println!("tool: {}", status.as_str()),
            _ => {}
        }
    }
    Ok(running.finish().await?)
}
