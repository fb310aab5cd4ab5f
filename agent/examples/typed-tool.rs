//! A function with typed arguments as a tool. Runs anywhere: the server side plays the model in
//! memory (`cargo run -p agentwire-agent --example typed-tool`).

use agentwire::server::Script;
use agentwire_agent::model::Local;
use agentwire_agent::tool::{Effect, tool};
use agentwire_agent::{Agent, Event, ToolError};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Weather {
    /// Name of the city, without the country.
    city: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ask().await.map(drop)
}

/// The whole example; gives the answer.
pub(crate) async fn ask() -> Result<String, Box<dyn std::error::Error>> {
    let weather = tool("weather", "The weather of a city, now", |_, Weather { city }| async move {
        match city.as_str() {
            "Paris" => Ok("18 degrees, rain"),
            // The model reads this and can correct itself.
            other => Err(ToolError::new(format!("no weather of {other} is known; try Paris"))),
        }
    })
    .effect(Effect::ReadOnly);

    let script = r#"{"rules": [{"steps": [
        {"call": {"tool": "weather", "args": {"city": "Paris"}}},
        {"text": "In Paris it is {{result}}."}, {"turn_end": {}}]}]}"#;
    let model = Local::new(Script::from_json(script)?)?;

    let agent = Agent::builder(model).model("composer-2").tool(weather).build()?;
    let mut answer = String::new();
    let mut running = agent.prompt("How is the weather in Paris?").start();
    while let Some(event) = running.next().await {
        match event {
            Event::Text { text } => print!("{text}"),
            Event::ToolStarted { call } => println!("[{} {}]", call.name, call.arguments),
            Event::Finished { outcome } => {
                println!("\n[{} turns]", outcome.turns);
                answer = outcome.text;
            }
            _ => {}
        }
    }
    Ok(answer)
}
