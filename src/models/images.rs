//! Images for a model that takes none: found before anything is sent.

use super::roster::{Choice, Roster};
use crate::context::{Context, Message, Part, UserContent};
use crate::{Error, Result};

impl Roster {
    /// Whether what `context` asks now can go to the model that was chosen.
    ///
    /// Only a model that is known to take text only refuses images, and only those of what is asked
    /// now: the messages after the model's last one. An old image in the history does not lock a
    /// conversation to models that see it (BEHAVIOUR 13, H47); of what nobody knows, the service
    /// decides.
    ///
    /// # Errors
    /// `InvalidRequest` that names the model.
    pub fn check_images(&self, choice: &Choice, context: &Context) -> Result<()> {
        let Some(model) = choice.model.as_deref().and_then(|id| self.model(id)) else {
            return Ok(());
        };
        let asked = context.messages.iter().rev();
        let mut asked = asked.take_while(|m| !matches!(***m, Message::Assistant { .. }));
        if !model.refuses_images() || !asked.any(|message| holds_image(message)) {
            return Ok(());
        }
        let names = self.models().iter().filter(|model| model.images).map(|m| m.id.as_str());
        let names: Vec<_> = names.take(3).collect();
        let hint = match names.as_slice() {
            [] => "ask without the image".to_owned(),
            names => format!("models that take images are {} and others", names.join(", ")),
        };
        Err(Error::invalid(format!("the model {} takes text only, no images", model.id))
            .with_hint(hint))
    }
}

fn holds_image(message: &Message) -> bool {
    let parts = match message {
        Message::User { content: UserContent::Parts(parts) } => parts,
        // The images of a failed call are not sent.
        Message::ToolResult(result) if !result.is_error => &result.content,
        _ => return false,
    };
    parts.iter().any(|part| matches!(part, Part::Image(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{AssistantPart, Image, ToolCall, ToolResult};
    use crate::models::{Catalog, Policy};

    fn image() -> Part {
        Part::Image(Image { data: "aGk=".into(), mime_type: "image/png".into() })
    }

    fn contexts() -> [Context; 2] {
        let call = AssistantPart::ToolCall(ToolCall {
            id: "c".into(),
            name: "t".into(),
            arguments: serde_json::json!({}),
        });
        let result = ToolResult { content: vec![image()], ..ToolResult::text("c", "t", "") };
        let user = Message::User { content: UserContent::Parts(vec![image()]) };
        [
            Context::default().message(user),
            Context::prompt("look")
                .message(Message::Assistant { content: vec![call] })
                .message(Message::ToolResult(result)),
        ]
    }

    #[test]
    fn c066_images_for_a_model_that_takes_none() {
        let roster = Roster::new(Catalog::estimated(Policy::Current, 0), Policy::Current);
        let check = |model: &str, context: &Context| {
            roster.check_images(&roster.resolve(model, None).unwrap(), context)
        };
        for context in contexts() {
            let error = check("default", &context).unwrap_err();
            assert!(error.message().contains("default takes text only"), "{error}");
            assert!(error.hint().unwrap().contains("claude"), "{error:?}");
            for sees in ["composer-2", "grok-4.3", "nobody-knows-1"] {
                assert!(check(sees, &context).is_ok(), "{sees}");
            }
            // It was answered by another model; what is asked now has no image.
            let later = context.message(Message::assistant("a cat")).message(Message::user("and?"));
            assert!(check("default", &later).is_ok());
        }
        assert!(check("default", &Context::prompt("hi")).is_ok());
    }
}
