//! An answer as a Rust value: the schema comes from the type, a wrong answer is corrected.

use agentwire_agent::Agent;
use agentwire_agent::model::Scripted;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Review {
    /// What is wrong, one sentence each.
    findings: Vec<String>,
    /// Whether the change can be merged as it is.
    approved: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A model that forgets a member first; with an account this is `agentwire::Client`.
    let model = Scripted::answers([
        r#"{"findings": ["The lock is held across an await."]}"#,
        r#"{"findings": ["The lock is held across an await."], "approved": false}"#,
    ]);
    let agent = Agent::builder(model).model("composer-2").build()?;
    let review: Review = agent.prompt("Review this change: ...").generate().await?;
    println!("approved: {}, {} finding(s)", review.approved, review.findings.len());
    Ok(())
}
