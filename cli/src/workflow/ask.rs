//! Questions at the terminal.

use agentwire_workflow::clock::Boxed;
use agentwire_workflow::ports::{Ask, Question, Reply};
use serde_json::Value;

use crate::chat::Person;
use crate::output::{Look, printable};

/// Asks whoever sits at the terminal; without one, nobody.
pub(super) struct Terminal {
    look: Look,
    there: bool,
}

impl Terminal {
    pub(super) fn new(look: Look, json: bool) -> Self {
        Self { look, there: !json && Person::is_there(look) }
    }
}

impl Ask for Terminal {
    fn ask(&self, question: Question) -> Boxed<'_, Result<Reply, String>> {
        Box::pin(async move {
            if !self.there {
                return Ok(Reply::Nobody);
            }
            let mut text = printable(&question.message).into_owned();
            for option in question.details.as_array().into_iter().flatten() {
                text.push_str(&format!("\n  {}", printable(option.as_str().unwrap_or_default())));
            }
            // Stages at work may have questions of their own about tools and files.
            let mut person = Person::of_process().attend().await;
            let hint = if question.kind == "confirm" { " [yes/no]" } else { "" };
            loop {
                self.look.remark(&format!("{}{hint}", text.lines().next().unwrap_or_default()));
                for option in text.lines().skip(1) {
                    self.look.remark(option);
                }
                let Some(line) = person.line().await else { return Ok(Reply::Nobody) };
                match answer(&question.kind, &question.details, line.trim_end()) {
                    Ok(answer) => return Ok(Reply::Answer(answer)),
                    Err(wrong) => self.look.remark(&wrong),
                }
            }
        })
    }
}

/// What was typed, as the answer that the question wants.
pub(super) fn answer(kind: &str, details: &Value, text: &str) -> Result<Value, String> {
    match kind {
        "input" => Ok(text.into()),
        "confirm" => match text.to_lowercase().as_str() {
            "y" | "yes" | "true" => Ok(true.into()),
            "n" | "no" | "false" => Ok(false.into()),
            _ => Err("answer yes or no".into()),
        },
        "select" => {
            let options: Vec<&str> =
                details.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if options.contains(&text) {
                return Ok(text.into());
            }
            Err(format!("answer one of {}", options.join(", ")))
        }
        _ => Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
    }
}
