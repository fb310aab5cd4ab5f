//! Structured output: an answer that fits a schema, with corrections where it does not.

use agentwire::context::Message;
use jsonschema::Validator;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Task};
use crate::outcome::Outcome;
use crate::session::Session;
use crate::stage::StageError;
use crate::tool;

/// How often the model may correct its answer.
const CORRECTIONS: u32 = 3;

impl Task {
    /// Runs it and gives the answer as a value. The model is told the schema of `T`; an answer that
    /// does not fit is handed back to it with what is wrong, up to three times.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use agentwire_agent::{Agent, model::Scripted};
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct City {
    ///     name: String,
    ///     people: u64,
    /// }
    ///
    /// let answers = [r#"{"name": "Paris"}"#, r#"{"name": "Paris", "people": 2102650}"#];
    /// let agent = Agent::builder(Scripted::answers(answers)).model("m").build()?;
    /// let city: City = agent.prompt("The capital of France?").generate().await?;
    /// assert_eq!((city.name.as_str(), city.people), ("Paris", 2_102_650));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StageError::Output`] when no answer fits, else why the task did not complete.
    pub async fn generate<T: DeserializeOwned + JsonSchema>(self) -> Result<T, StageError> {
        let schema = tool::schema_of::<T>();
        let shape = Shape::new(&schema)?;
        let Self { agent, prompt, session } = self;
        let session = session.unwrap_or_else(Session::in_memory);
        let mut prompt = prompt;
        if let Some(Message::User { content }) = &mut prompt {
            shape.instruct(content);
        }
        let check = |value: Value| serde_json::from_value(value).map_err(|e| e.to_string());
        let cancel = CancellationToken::new();
        let asked = Asked { agent: &agent, shape: &shape, cancel: &cancel };
        asked.answer(prompt, session, check).await.map(|(value, ..)| value)
    }
}

/// A schema, ready to check against.
pub(crate) struct Shape {
    text: String,
    validator: Validator,
}

impl Shape {
    pub(crate) fn new(schema: &Value) -> Result<Self, StageError> {
        let validator = jsonschema::validator_for(schema).map_err(|error| StageError::Spec {
            message: format!("the schema is none: {error}"),
        })?;
        Ok(Self { text: schema.to_string(), validator })
    }

    /// Adds what is expected to the prompt.
    pub(crate) fn instruct(&self, content: &mut agentwire::context::UserContent) {
        use agentwire::context::{Part, UserContent};
        let text = format!(
            "Answer with one JSON value that fits this JSON schema, and with nothing else:\n{}",
            self.text
        );
        match content {
            UserContent::Text(prompt) => *prompt = format!("{prompt}\n\n{text}"),
            UserContent::Parts(parts) => parts.push(Part::Text { text }),
        }
    }

    /// The value in an answer, or what is wrong with it, for the model.
    pub(crate) fn read(&self, answer: &str) -> Result<Value, String> {
        let json = json_in(answer);
        let value = serde_json::from_str(json)
            .map_err(|error| format!("The answer is not one JSON value: {error}"))?;
        match tool::faults(&self.validator, &value) {
            None => Ok(value),
            Some(faults) => Err(faults),
        }
    }
}

/// The JSON of an answer: without a code fence, without words before and after an object.
fn json_in(answer: &str) -> &str {
    let answer = answer.trim();
    if serde_json::from_str::<serde::de::IgnoredAny>(answer).is_ok() {
        return answer;
    }
    let open = answer.find(['{', '[']);
    let close = answer.rfind(['}', ']']);
    match (open, close) {
        (Some(open), Some(close)) if open < close => &answer[open..=close],
        _ => answer,
    }
}

/// A question whose answer has a shape.
pub(crate) struct Asked<'a> {
    pub(crate) agent: &'a Agent,
    pub(crate) shape: &'a Shape,
    pub(crate) cancel: &'a CancellationToken,
}

impl Asked<'_> {
    /// Asks, and asks for corrections. `prompt` `None`: goes on with the session.
    pub(crate) async fn answer<T>(
        &self,
        mut prompt: Option<Message>,
        mut session: Session,
        check: impl Fn(Value) -> Result<T, String>,
    ) -> Result<(T, Outcome, Session), StageError> {
        let mut corrections = 0;
        loop {
            let task = Task { agent: self.agent.clone(), prompt, session: Some(session) };
            let (outcome, next) = run(task, self.cancel).await?;
            let wrong = match self.shape.read(&outcome.text).and_then(&check) {
                Ok(value) => return Ok((value, outcome, next)),
                Err(wrong) => wrong,
            };
            if corrections == CORRECTIONS {
                let message =
                    format!("after {CORRECTIONS} corrections it is still not what was asked for");
                return Err(StageError::Output { message });
            }
            corrections += 1;
            session = next;
            prompt = Some(Message::user(format!(
                "That is not what was asked for. {wrong}\nAnswer again with the JSON value alone."
            )));
        }
    }
}

/// Runs a task to its end under a token.
pub(crate) async fn run(
    task: Task,
    cancel: &CancellationToken,
) -> Result<(Outcome, Session), StageError> {
    let running = task.start();
    let control = running.control();
    let finish = running.finish();
    tokio::pin!(finish);
    let ended = tokio::select! {
        ended = &mut finish => ended?,
        () = cancel.cancelled() => {
            control.cancel();
            finish.await?
        }
    };
    match StageError::of(&ended.outcome.stop) {
        None => Ok((ended.outcome, ended.session)),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_between_words_and_fences() {
        for (answer, json) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("```json\n{\"a\": 1}\n```", "{\"a\": 1}"),
            ("Here it is: [1, 2]. Done.", "[1, 2]"),
            ("3", "3"),
            ("none", "none"),
            ("}{", "}{"),
        ] {
            assert_eq!(json_in(answer), json);
        }
    }
}
