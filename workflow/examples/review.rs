//! A review in three stages with a group in the middle and a question at the end, durable in
//! `review.db`. Run it, answer with yes or no; stop it at any moment and run it again: what was done
//! is not done again.
//!
//!     cargo run -p agentwire-workflow --example review

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use agentwire_agent::Agent;
use agentwire_agent::model::{Reply as Turn, Scripted};
use agentwire_workflow::clock::Boxed;
use agentwire_workflow::ports::{Ask, Question, Reply};
use agentwire_workflow::store::SqliteStore;
use agentwire_workflow::{
    Control, Ctx, Engine, Exit, ExitStatus, Input, Parallel, Result, TaskStep, Workflow,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Inputs {
    topic: String,
}

#[derive(Serialize)]
struct Outputs {
    text: String,
}

async fn review(ctx: Ctx, inputs: Inputs) -> Result<Outputs> {
    let draft = ctx.stage("draft").prompt(&format!("Write about {}.", inputs.topic)).await?;
    let critics = ["style", "facts", "tone"].map(|what| {
        TaskStep::new(what).prompt(format!("Criticise the {what} of this:\n{}", draft.text()))
    });
    let critiques = ctx.parallel(critics.to_vec(), Parallel::default()).await?;
    let all: Vec<String> = critiques.into_iter().map(|one| one.text).collect();
    let prompt = format!("Improve this:\n{}\nwith this:\n{}", draft.text(), all.join("\n"));
    let better = ctx.stage("improve").prompt(&prompt).await?;
    if !ctx.confirm("Publish it?").await? {
        return Err(ctx.exit(Exit::new(ExitStatus::Skipped).reason("not to be published")));
    }
    Ok(Outputs { text: better.text() })
}

/// Asks at the terminal.
struct Terminal;

impl Ask for Terminal {
    fn ask(&self, question: Question) -> Boxed<'_, std::result::Result<Reply, String>> {
        let answer = tokio::task::spawn_blocking(move || -> std::io::Result<Reply> {
            write!(std::io::stderr(), "{} [yes/no] ", question.message)?;
            let mut line = String::new();
            if std::io::stdin().lock().read_line(&mut line)? == 0 {
                return Ok(Reply::Nobody);
            }
            Ok(Reply::Answer((line.trim() == "yes").into()))
        });
        Box::pin(async move {
            let asked = answer.await.map_err(|error| error.to_string())?;
            asked.map_err(|error| error.to_string())
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let workflow = Workflow::builder("review")
        .input("topic", Input::text().default_value("tides"))
        .output("text")
        .body(review)?;
    // Plays the model; `agentwire::Client` talks to one.
    let model = Scripted::new(|request| {
        Turn::new().text(format!("[answer to {} messages]", request.context.messages.len()))
    });
    let agent = Agent::builder(model).model("any").build()?;
    let store = SqliteStore::open("review.db")?;
    let engine = Engine::builder(Arc::new(store), Arc::new(agent))
        .ask(Terminal)
        .observer(|event: &agentwire_workflow::event::Event| eprintln!("{event:?}"))
        .build();
    // The same id each time: a run that is there is gone on with.
    let outcome =
        engine.run_as("review-1", &workflow, &serde_json::Map::new(), &Control::new()).await?;
    println!("{:?}: {:?}", outcome.status, outcome.outputs);
    Ok(())
}
