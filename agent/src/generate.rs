//! Structured output: an answer that fits a schema, with corrections where it does not.

use agentwire::context::Message;
use jsonschema::Validator;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Task};
use crate::event::{Event, Notice};
use crate::outcome::Outcome;
use crate::running::Ended;
use crate::session::Session;
use crate::stage::StageError;
use crate::tool;

impl Task {
    /// Runs it and gives the answer as a value. The model is told the schema of `T`; an answer that
    /// does not fit is handed back to it with what is wrong, as often as
    /// [`Limits::corrections`](crate::Limits::corrections) says.
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
        let done = self.generate_with(&CancellationToken::new(), &mut |_| {}).await?;
        Ok(done.value)
    }

    /// As [`Task::generate`]; `cancel` ends it soon, `heard` is told each event, and the session
    /// comes back. Corrections are part of the task: they use up its limits, there is one
    /// [`Event::Started`] and one [`Event::Finished`], and a [`Notice::FollowedUp`] before each.
    ///
    /// # Errors
    /// As [`Task::generate`]; [`StageError::Cancelled`] after a cancel.
    pub async fn generate_with<T: DeserializeOwned + JsonSchema>(
        self,
        cancel: &CancellationToken,
        heard: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<Generated<T>, StageError> {
        let schema = tool::schema_of::<T>();
        let shape = Shape::new(&schema)?;
        let Self { agent, prompt, session, .. } = self;
        let session = session.unwrap_or_else(Session::in_memory);
        let mut prompt = prompt;
        if let Some(Message::User { content }) = &mut prompt {
            shape.instruct(content);
        }
        let check = |value: Value| serde_json::from_value(value).map_err(|e| e.to_string());
        let asked = Asked { agent: &agent, shape: &shape, cancel };
        asked.answer(prompt, session, check, heard).await
    }
}

/// An answer as a value, and the task that gave it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Generated<T> {
    /// The answer.
    pub value: T,
    /// The task, corrections included: what all of them took together.
    pub ended: Ended,
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
        heard: &mut (dyn FnMut(&Event) + Send),
    ) -> Result<Generated<T>, StageError> {
        let (mut corrections, most) = (0, self.agent.options.limits.corrections);
        let mut before: Option<Outcome> = None;
        loop {
            let mut task = self.agent.task(prompt).session(session);
            if let Some(before) = &before {
                task.settled = true;
                task.agent.options.limits = task.agent.options.limits.after(before);
            }
            let first = before.is_none();
            let mut pass = |event: &Event| match event {
                Event::Finished { .. } => {}
                Event::Started { .. } if !first => {}
                event => heard(event),
            };
            let ended = run(task, self.cancel, &mut pass).await?;
            let outcome = match before.take() {
                Some(before) => before.and(ended.outcome),
                None => ended.outcome,
            };
            let value = match StageError::of(&outcome.stop) {
                Some(error) => Err(error),
                None => match self.shape.read(&outcome.text).and_then(&check) {
                    Ok(value) => Ok(value),
                    Err(wrong) if corrections < most => {
                        corrections += 1;
                        before = Some(outcome);
                        session = ended.session;
                        prompt = Some(Message::user(format!(
                            "That is not what was asked for. {wrong}\nAnswer again with the JSON \
                             value alone."
                        )));
                        heard(&Event::Notice { notice: Notice::FollowedUp });
                        continue;
                    }
                    Err(_) => Err(StageError::Output {
                        message: format!(
                            "after {most} corrections it is still not what was asked for"
                        ),
                    }),
                },
            };
            heard(&Event::Finished { outcome: outcome.clone() });
            let ended = Ended { outcome, ..ended };
            return value.map(|value| Generated { value, ended });
        }
    }
}

/// Runs a task to its end under a token.
pub(crate) async fn run(
    task: Task,
    cancel: &CancellationToken,
    heard: &mut (dyn FnMut(&Event) + Send),
) -> Result<Ended, StageError> {
    let mut running = task.start();
    let mut told = false;
    loop {
        tokio::select! {
            event = running.next() => match event {
                Some(event) => heard(&event),
                None => return running.finish().await,
            },
            () = cancel.cancelled(), if !told => {
                told = true;
                running.control().cancel();
            }
        }
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
