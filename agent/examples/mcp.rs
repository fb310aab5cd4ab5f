//! The tools of an MCP server, for instance
//! `cargo run -p agentwire-agent --features mcp --example mcp -- npx -y @modelcontextprotocol/server-everything`.
//! Needs an account's token in `AGENTWIRE_TOKEN`.

use agentwire_agent::mcp::Server;
use agentwire_agent::tool::{Approval, Effect};
use agentwire_agent::{Agent, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tools = Server::process("server", std::env::args_os().skip(1)).connect().await?;
    for tool in &tools {
        println!("{}: {:?}", tool.name(), tool.effect());
    }
    let client = agentwire::Client::builder().token(std::env::var("AGENTWIRE_TOKEN")?).build()?;
    let agent = Agent::builder(client).model("composer-2").shared_tools(tools).approve(
        |call, effect| async move {
            match effect {
                Effect::ReadOnly => Approval::Allow,
                _ => Approval::Deny(format!("{} may change something", call.name)),
            }
        },
    );
    let mut running = agent.build()?.prompt("What can your tools do? Try one.").start();
    while let Some(event) = running.next().await {
        match event {
            Event::Text { text } => print!("{text}"),
            Event::ToolFinished { result, status } => {
                println!("\n[{}: {}]", result.tool_name, status.as_str());
            }
            _ => {}
        }
    }
    Ok(())
}
