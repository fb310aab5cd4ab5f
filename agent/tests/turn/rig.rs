//! A turn and everything it said.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use agentwire::context::{AssistantPart, Message, ToolCall, ToolResult};
use agentwire_agent::record::{Record, Transcript};
use agentwire_agent::turn::{Step, Turn, TurnOptions};
use agentwire_agent::{Event, Outcome};

pub(crate) struct Rig {
    pub(crate) turn: Turn,
    pub(crate) now: Duration,
    pub(crate) events: Vec<Event>,
    pub(crate) records: Vec<Record>,
    pub(crate) done: Option<Outcome>,
}

impl Rig {
    pub(crate) fn new(options: TurnOptions) -> Self {
        Self::of(Turn::new(options, Vec::new(), Message::user("do it")))
    }

    pub(crate) fn of(turn: Turn) -> Self {
        let (events, records) = (Vec::new(), Vec::new());
        Self { turn, now: Duration::ZERO, events, records, done: None }
    }

    /// Takes the next step, then what goes before it.
    pub(crate) fn step(&mut self) -> Option<Step> {
        let step = self.turn.poll_step(self.now);
        self.records.extend(std::iter::from_fn(|| self.turn.poll_record()));
        self.events.extend(std::iter::from_fn(|| self.turn.poll_event()));
        if let Some(Step::Done(outcome)) = &step {
            assert!(self.done.is_none(), "done twice");
            self.done = Some((**outcome).clone());
        }
        step
    }

    pub(crate) fn say(&mut self, event: agentwire::run::Event) {
        self.turn.handle_event(event, self.now);
    }

    pub(crate) fn result(&mut self, id: &str, text: &str) {
        self.turn.handle_tool(ToolResult::text(id, "", text), self.now);
    }

    /// What must hold of every turn that is over.
    pub(crate) fn check(&self) {
        let finished = self.events.iter().filter(|e| matches!(e, Event::Finished { .. })).count();
        assert_eq!(finished, 1);
        assert!(matches!(self.events.last(), Some(Event::Finished { .. })), "event after finished");
        assert!(matches!(self.events.first(), Some(Event::Started { .. })));
        check_pairs(self.turn.messages());
        // The log says the same as the machine.
        let mut transcript = Transcript::default();
        for record in &self.records {
            assert!(transcript.apply(record), "{record:?} does not fit");
        }
        assert!(transcript.orphans().is_empty());
        assert!(!transcript.is_unfinished());
        assert_eq!(transcript.messages(), self.turn.messages());
    }
}

/// Every call is followed by its result, and every result has its call.
pub(crate) fn check_pairs(messages: &[Arc<Message>]) {
    let mut open: HashSet<&str> = HashSet::new();
    for message in messages {
        match &**message {
            Message::ToolResult(result) => {
                assert!(open.remove(result.tool_call_id.as_str()), "a result without a call");
            }
            Message::Assistant { content } => {
                assert!(open.is_empty(), "an orphan call");
                open = content
                    .iter()
                    .filter_map(|part| match part {
                        AssistantPart::ToolCall(call) => Some(call.id.as_str()),
                        _ => None,
                    })
                    .collect();
            }
            Message::User { .. } => assert!(open.is_empty(), "an orphan call"),
        }
    }
    assert!(open.is_empty(), "an orphan call");
}

pub(crate) fn call(id: &str) -> ToolCall {
    ToolCall { id: id.into(), name: "t".into(), arguments: serde_json::json!({}) }
}

pub(crate) fn options(models: &[&str]) -> TurnOptions {
    let models = models.iter().map(|&model| model.to_owned()).collect();
    TurnOptions { models, ..TurnOptions::default() }
}
