//! The built-in script and the built-in list of models.

use super::step::{Checkpoint, Condition, Say, Step, TurnEnd, UseTools};
use super::unary::{Model, Unary};
use super::{Rule, Script, SignIn};

/// Ids as an account sees them in 2026, with a few of each family: plain and thinking, efforts,
/// fast ones, several makers.
const MODELS: [(&str, &str, bool); 18] = [
    ("composer-2", "Composer 2", true),
    ("composer-2-fast", "Composer 2 Fast", true),
    ("default", "Auto", false),
    ("claude-4.6-opus-high", "Opus 4.6", false),
    ("claude-4.6-opus-high-thinking", "Opus 4.6 Thinking", true),
    ("claude-4.5-sonnet", "Sonnet 4.5", false),
    ("claude-4.5-sonnet-thinking", "Sonnet 4.5 Thinking", true),
    ("claude-4.5-haiku", "Haiku 4.5", false),
    ("gpt-5.4-low", "GPT-5.4 Low", true),
    ("gpt-5.4-medium", "GPT-5.4", true),
    ("gpt-5.4-high", "GPT-5.4 High", true),
    ("gpt-5.4-xhigh", "GPT-5.4 Extra High", true),
    ("gpt-5.4-medium-fast", "GPT-5.4 Fast", true),
    ("gpt-5.4-mini-medium", "GPT-5.4 Mini", true),
    ("gpt-5.3-codex-high", "GPT-5.3 Codex High", true),
    ("gemini-3.1-pro", "Gemini 3.1 Pro", true),
    ("grok-4.3", "Grok 4.3", false),
    ("kimi-k2.5", "Kimi K2.5", false),
];

impl Script {
    /// The built-in assistant: it answers from what it was asked, says how much history, which
    /// tools and how many images it received, and uses the tools that are offered.
    ///
    /// `examples/scripts/assistant.toml` is the same script as a file.
    pub fn assistant() -> Self {
        let rule =
            Rule { name: Some("assistant".into()), steps: assistant_steps(), ..Rule::default() };
        Self { pace_ms: 15, rules: vec![rule], ..Self::blank() }
    }

    /// The same assistant for a client that serves files: it lists them, reads one, and says so.
    pub fn assistant_in_workspace() -> Self {
        let mut script = Self::assistant();
        for rule in &mut script.rules {
            // Behind the tools that are offered: they come first.
            let tools = |step: &Step| matches!(step, Step::UseTools(_));
            let behind = rule.steps.iter().position(tools).map_or(0, |at| at + 1);
            rule.steps.insert(behind, Step::UseWorkspace);
        }
        script
    }

    /// What a file that says nothing says: no rule of its own, so the built-in steps are played.
    pub fn blank() -> Self {
        Self {
            delta: 12,
            pace_ms: 0,
            heartbeat_ms: 5_000,
            answer_ms: 600_000,
            gzip: false,
            pack: 0,
            rules: Vec::new(),
            models: models(),
            default_model: "composer-2".into(),
            unary: Unary::default(),
            sign_in: SignIn::default(),
        }
    }
}

fn models() -> Vec<Model> {
    MODELS
        .iter()
        .map(|&(id, name, thinking)| Model {
            id: id.into(),
            name: name.into(),
            thinking,
            ..Model::default()
        })
        .collect()
}

/// What the assistant does with every request.
pub(in crate::server) fn assistant_steps() -> Vec<Step> {
    let answer = Step::If(Condition {
        results: Some(true),
        then: vec![Step::text("{{results}}\n\n")],
        ..Condition::default()
    });
    vec![
        Step::Context,
        Step::History,
        Step::Thinking(Say {
            text: "This is turn {{turn}}. I have {{history}}, {{tools}} and {{images}}.".into(),
            ..Say::default()
        }),
        Step::UseTools(UseTools::default()),
        answer,
        Step::text(
            "You asked: {{prompt}}\n\nI am {{model}}, played by the local server. \
             This is turn {{turn}} of our conversation; I received {{history}}, {{tools}} and {{images}}.",
        ),
        Step::Checkpoint(Checkpoint::default()),
        Step::TurnEnd(TurnEnd { estimate: true, ..TurnEnd::default() }),
    ]
}
