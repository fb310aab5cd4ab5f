//! `ctx.input`, `ctx.confirm`, `ctx.select`, `ctx.ask`: what a person said is asked once.

use serde_json::Value;

use crate::ctx::Ctx;
use crate::error::{Error, QuestionError, Result};
use crate::key::Kind;
use crate::ports::{Question, Reply};
use crate::run::{Entry, Slot};

impl Ctx {
    /// Asks for a line of text.
    ///
    /// # Errors
    /// [`Error::Question`] when nobody is there or the asking fails; when the run is called off.
    pub async fn input(&self, message: &str) -> Result<String> {
        let answer = self.question("input", message, Value::Null, Value::is_string).await?;
        text_of(answer)
    }

    /// Asks yes or no.
    ///
    /// # Errors
    /// As [`Ctx::input`].
    pub async fn confirm(&self, message: &str) -> Result<bool> {
        let answer = self.question("confirm", message, Value::Null, Value::is_boolean).await?;
        answer.as_bool().ok_or(Error::Question(QuestionError::WrongAnswer("true or false")))
    }

    /// Asks for one of these options. They are part of the question: with others it is asked anew.
    ///
    /// # Errors
    /// As [`Ctx::input`]; [`QuestionError::NoOptions`].
    pub async fn select(&self, message: &str, options: &[&str]) -> Result<String> {
        if options.is_empty() {
            return Err(Error::Question(QuestionError::NoOptions));
        }
        let fits = |v: &Value| v.as_str().is_some_and(|one| options.contains(&one));
        text_of(self.question("select", message, Value::from(options.to_vec()), fits).await?)
    }

    /// Asks anything: `kind` says which question it is, any JSON may be the answer.
    ///
    /// # Errors
    /// As [`Ctx::input`].
    pub async fn ask(&self, kind: &str, message: &str, details: Value) -> Result<Value> {
        self.question(kind, message, details, |_| true).await
    }

    async fn question(
        &self,
        kind: &str,
        message: &str,
        details: Value,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let slot = self.reserve(kind, |ordinals| ordinals.ask(kind, message, &details));
        let mut entry = self.enter(&slot, "")?;
        if let Entry::Replay(record) = &entry {
            let answer = record.value.clone().unwrap_or(Value::Null);
            if fits(&answer) {
                return Ok(answer);
            }
            // It was answered with something else, for instance from the command line.
            entry = self.pass.run().reject(&slot);
        }
        let replace = matches!(entry, Entry::Live { replace: true });
        let question = Question {
            run: self.pass.root.clone(),
            key: slot.key.key.clone(),
            name: self.place.as_ref().map(|place| place.name.to_string()),
            kind: kind.to_owned(),
            message: message.to_owned(),
            details,
        };
        let began = self.step_started(&slot);
        let answered = self.put_question(&slot, question, replace, &fits).await;
        self.step_ended(&slot, began, &answered);
        answered
    }

    async fn put_question(
        &self,
        slot: &Slot,
        question: Question,
        replace: bool,
        fits: &impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let wrong = || {
            Error::Question(QuestionError::WrongAnswer(match question.kind.as_str() {
                "confirm" => "true or false",
                "select" => "one of the options",
                _ => "text",
            }))
        };
        if !self.pass.run().was_asked(slot) {
            let mut asked = slot.record("", None, self.now());
            asked.kind = Kind::Asked;
            // What is asked is kept, so that it can be listed and answered elsewhere.
            asked.detail = serde_json::to_value(&question).ok();
            self.record(asked, false).await?;
        } else if !replace
            && let Some(record) = self.recorded_meanwhile(Kind::Ask, &slot.key.key).await?
            && let Some(answer) = record.value.clone().filter(|answer| fits(answer))
        {
            self.pass.run().recorded(record);
            return Ok(answer);
        }
        let key = question.key.clone();
        let reply = tokio::select! {
            biased;
            () = self.token.cancelled() => return Err(self.why()),
            reply = self.pass.engine.parts.ask.ask(question.clone()) => reply,
        };
        let answer = match reply {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::Nobody) => return Err(Error::Question(QuestionError::Waiting { key })),
            Err(message) => return Err(Error::Question(QuestionError::Failed(message))),
        };
        if !fits(&answer) {
            return Err(wrong());
        }
        let stands = self.record(slot.record("", Some(answer), self.now()), replace).await?;
        stands.value.filter(|answer| fits(answer)).ok_or_else(wrong)
    }
}

fn text_of(answer: Value) -> Result<String> {
    match answer {
        Value::String(text) => Ok(text),
        _ => Err(Error::Question(QuestionError::WrongAnswer("text"))),
    }
}
