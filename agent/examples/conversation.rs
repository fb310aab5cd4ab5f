//! Chat in ten lines. Needs an account's token in `AGENTWIRE_TOKEN`.

use agentwire_agent::{Agent, Event, Session};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = agentwire::Client::builder().token(std::env::var("AGENTWIRE_TOKEN")?).build()?;
    let agent = Agent::builder(client).model("composer-2").build()?;
    let mut session = Session::in_memory();
    for line in std::io::stdin().lines() {
        let mut running = agent.prompt(line?).session(session).start();
        while let Some(event) = running.next().await {
            if let Event::Text { text } = event {
                print!("{text}");
            }
        }
        println!();
        session = running.finish().await?.session;
    }
    Ok(())
}
