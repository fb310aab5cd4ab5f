//! The same stage without this crate's engine: `run_stage` is one call with serde on both sides, so
//! it fits into a plain task, and unchanged into a step of any other engine.
//!
//!     cargo run -p agentwire-workflow --example plain

use std::sync::Arc;

use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::{Agent, CancellationToken, SessionRef, StageSpec, run_stage};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Scripted::new(|_| Reply::new().text("Tides follow the moon."));
    let runner = Arc::new(Agent::builder(model).model("any").build()?);
    let task = tokio::spawn(async move {
        let spec = StageSpec::new("Write about tides.");
        // Called before the first byte is sent: keep it, and give it as `prior` to go on later.
        let mut keep = |session: &SessionRef| println!("session {}", session.id);
        run_stage(&*runner, &spec, None, &mut keep, &CancellationToken::new()).await
    });
    println!("{}", task.await??.text());
    Ok(())
}
