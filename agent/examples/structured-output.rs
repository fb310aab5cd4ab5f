//! An answer as a Rust value: the schema comes from the type, a wrong answer is corrected.

use agentwire_agent::Agent;
use agentwire_agent::model::Scripted;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Review {
    /// What is wrong, one sentence each.
    pub(crate) findings: Vec<String>,
    /// Whether the change can be merged as it is.
    pub(crate) approved: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let review = review().await?;
    println!("approved: {}, {} finding(s)", review.approved, review.findings.len());
    Ok(())
}

/// The whole example; gives the value.
pub(crate) async fn review() -> Result<Review, Box<dyn std::error::Error>> {
    // A model that forgets a member first; with an account this is `agentwire::Client`.
    let model = Scripted::answers([
        r#"{"findings": ["The lock is held across an await."]}"#,
        r#"{"findings": ["The lock is held across an await."], "approved": false}"#,
    ]);
    let agent = Agent::builder(model).model("composer-2").build()?;
    Ok(agent.prompt("Review this change: ...").generate().await?)
}
