//! A review that survives its worker: a draft, two critiques side by side, a person's word. Each
//! step is one of DBOS's; kill the program while it waits and start it again.
//!
//!     export DBOS_DATABASE_URL=postgres://postgres@localhost/review
//!     cargo run --example review -- run tides
//!     cargo run --example review -- answer tides yes      # in another terminal

use std::time::Duration;

use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::session::Store;
use agentwire_agent::{Agent, StageError, StageSpec};
use agentwire_dbos::stage;
use dbos::{
    Client, ClientConfig, Config, DBOS, Enqueue, QueueConflict, QueueOptions, StartOptions,
};

const QUEUE: &str = "reviews";

async fn review(agent: Agent, topic: String) -> dbos::Result<String, StageError> {
    let spec = StageSpec::new(format!("Write a paragraph about {topic}."));
    let draft = stage(&agent, "draft", spec).await?;
    let critique = |what: &str| {
        let spec = StageSpec::new(format!("Judge the {what} of this:\n{}", draft.text()));
        stage::<StageError>(&agent, what, spec)
    };
    let (style, facts) = tokio::join!(critique("style"), critique("facts"));
    println!("{}\n- {}\n- {}", draft.text(), style?.text(), facts?.text());

    println!("Waiting for: cargo run --example review -- answer {topic} yes");
    let day = Duration::from_secs(24 * 3600);
    let answer: Option<String> = dbos::recv(Some("publish"), day).await?;
    if answer.as_deref() != Some("yes") {
        return Ok("nothing was published".into());
    }
    // An effect of your own: recorded once it is done, and not done again after that.
    dbos::step("publish", || async {
        println!("published");
        Ok(())
    })
    .await?;
    Ok(draft.text().to_owned())
}

async fn run(topic: &str) -> Result<(), Box<dyn std::error::Error>> {
    // A model that plays a script; `agentwire::Client` is another.
    let model = Scripted::new(|_| Reply::new().text("Tides follow the moon."));
    let sessions = Store::new(std::env::temp_dir().join("agentwire-reviews"));
    let agent = Agent::builder(model).model("any").sessions(sessions).build()?;

    let config = Config { app_version: Some("1".into()), ..Config::from_env("review") };
    let dbos = DBOS::new(config);
    let reviews =
        dbos.register_workflow("review", move |topic: String| review(agent.clone(), topic))?;
    dbos.launch().await?;
    // A review holds a worker's place while it waits for its models, and no more than two here.
    let limits = QueueOptions { worker_concurrency: Some(2), ..QueueOptions::default() };
    dbos.register_queue(QUEUE, limits, QueueConflict::UpdateIfLatestVersion).await?;
    let options = StartOptions {
        workflow_id: Some(topic),
        queue: Some(Enqueue::new(QUEUE)),
        ..StartOptions::default()
    };
    let said = reviews.start_with(topic.to_owned(), options).await?.result().await?;
    println!("{said}");
    dbos.shutdown().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["run", topic] => run(topic).await,
        ["answer", topic, word] => {
            let config =
                ClientConfig { app_name: Some("review".into()), ..ClientConfig::from_env() };
            let client = Client::connect(config).await?;
            let options = dbos::SendOptions { topic: Some("publish"), ..Default::default() };
            client.send_with(topic, word, options).await?;
            client.close().await;
            Ok(())
        }
        _ => Err("use: review run TOPIC | review answer TOPIC yes".into()),
    }
}
