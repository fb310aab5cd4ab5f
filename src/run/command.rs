//! What a caller says into the running turn.

use crate::codec::reply;
use crate::error::{Error, Result};
use crate::proto::conversation_action::Action;
use crate::proto::{UserMessage, UserMessageAction};

use super::core::Core;

/// The agent mode of everything that is said here (`AgentMode`, BEHAVIOUR 3.3).
const MODE_AGENT: i32 = 1;

impl Core {
    /// Sends a user message into the running turn and gives the id that its acknowledgement
    /// ([`Progress::UserMessageAppended`](super::Progress::UserMessageAppended)) carries.
    pub(super) fn say(&mut self, text: &str) -> Result<String> {
        let message_id = self.ids.next_id().to_string();
        self.say_as(message_id.clone(), text)?;
        Ok(message_id)
    }

    /// Says it under an id that was given before.
    pub(super) fn say_as(&mut self, message_id: String, text: &str) -> Result<()> {
        let user_message = UserMessage {
            text: text.to_owned(),
            correlation_id: message_id.clone(),
            message_id,
            mode: MODE_AGENT,
            ..UserMessage::default()
        };
        let action =
            UserMessageAction { user_message: Some(user_message), ..UserMessageAction::default() };
        self.act(&Action::UserMessageAction(Box::new(action)))
    }

    /// Sends an action into the running turn.
    pub(super) fn act(&mut self, action: &Action) -> Result<()> {
        if self.is_over() || self.turn_has_ended() {
            return Err(Error::invalid("the turn is over; start a new run instead"));
        }
        if matches!(action, Action::CancelAction(_)) {
            self.cancel();
        } else {
            self.outbox.send(reply::action(action));
        }
        Ok(())
    }
}
