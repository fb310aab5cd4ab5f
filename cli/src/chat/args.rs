//! The arguments of `chat`.

use std::path::PathBuf;
use std::time::Duration;

use agentwire::codec::Model;
use agentwire::context::Context;
use agentwire::run;
#[cfg(unix)]
use agentwire_workspace::Access;
#[cfg(unix)]
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::drive;
use crate::connect::{Connected, Target};
use crate::failure::{Failure, Report};
use crate::models::{Known, Named};
use crate::output::Look;
use crate::record::RecordArgs;

/// Stream a model's answer to stdout.
///
/// The answer goes to stdout; thinking, tool calls, notices and errors go to stderr. With --json
/// everything is a JSON object a line on stdout. With --workspace the model can read files under a
/// folder, and with --allow or after a question at the terminal also write them and run commands;
/// any other tool call is printed and answered with an error that says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentwire chat --local \"hello\"
  git diff | agentwire chat --system \"Review this change.\" -
  agentwire chat --local --workspace . \"What is in here?\"
  agentwire chat --workspace . --allow write --allow shell \"Fix the failing test.\"
  agentwire chat --image plan.png --json \"What is on this picture?\"

Environment:
  AGENTWIRE_TOKEN       access token of the service; without it the account of `agentwire login`
  AGENTWIRE_ENDPOINT    base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR  where sign-ins are kept
  AGENTWIRE_CACHE_DIR   where lists of models are kept; empty: nowhere
  https_proxy           HTTP proxy, http://[user:password@]host:port; all_proxy else
  no_proxy              hosts that are reached without it
  NO_COLOR              no colours on the terminal")]
pub(crate) struct Args {
    /// What to ask; `-` reads it from stdin. May be left out when --context ends with a question
    #[arg(required_unless_present = "context")]
    pub(super) prompt: Option<String>,

    #[command(flatten)]
    pub(super) target: Target,

    /// Model, as `agentwire models` lists it
    #[arg(long, value_name = "MODEL", default_value = "composer-2")]
    pub(super) model: String,

    #[command(flatten)]
    pub(super) named: Named,

    /// System prompt; `@FILE` reads it from a file
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(super) system: Option<String>,

    /// Picture to send with the prompt (repeatable)
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub(super) image: Vec<PathBuf>,

    /// History, system prompt and tools as JSON; the prompt is added at the end
    #[arg(long, value_name = "FILE")]
    pub(super) context: Option<PathBuf>,

    /// Show the model's reasoning on stderr; --json has it in any case, as `thinking` lines
    #[arg(long)]
    pub(super) show_thinking: bool,

    /// Serve the files under this folder to the model: reading is free, the rest is asked for at
    /// the terminal, and refused where there is none
    #[cfg(unix)]
    #[arg(long, value_name = "DIR")]
    pub(super) workspace: Option<PathBuf>,

    /// What may be done in the workspace without asking (repeatable). Commands are not held inside
    /// the folder: `shell` lets the model do what you can do
    #[cfg(unix)]
    #[arg(long, value_name = "WHAT", requires = "workspace", value_parser = access())]
    pub(super) allow: Vec<Access>,

    /// Give up after this many seconds
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,

    /// Attempts after the first when the way to the service fails; 0 is one attempt [default: 10]
    #[arg(long, value_name = "N")]
    pub(super) retries: Option<u32>,

    /// Write what connections and calls do to this file, as JSON lines: no content, no token
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,

    #[command(flatten)]
    pub(super) record: RecordArgs,

    /// Print one JSON object a line (docs/CLI.md)
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        if self.json { Report::Json } else { Report::Text }
    }

    // For `agent`, which takes the same arguments.

    pub(crate) fn has_context(&self) -> bool {
        self.context.is_some()
    }

    pub(crate) fn model_id(&self) -> &str {
        &self.model
    }

    /// A client, or a server of its own; its runs are recorded where that is wanted.
    pub(crate) async fn connect(&self, look: Look) -> Result<Connected, Failure> {
        let recording = self.record.begin()?;
        let mut connected = self.target.connect(look, drive::script(self)).await?;
        if let Some(recording) = recording {
            connected.client = recording.of(&connected.client);
            connected.recording = Some(recording);
        }
        Ok(connected)
    }

    /// The model that is named, as it goes out.
    pub(crate) async fn named_model(
        &self,
        known: &Known,
        context: &Context,
        look: Look,
    ) -> Result<Model, Failure> {
        let patience = self.timeout.unwrap_or(Duration::MAX);
        Ok(known.model(&self.model, &self.named, context, look, patience).await?)
    }

    /// Times and attempts of one run.
    pub(crate) fn run_options(&self) -> run::Options {
        let mut options = run::Options::default();
        if let Some(retries) = self.retries {
            options.retry.retries = retries;
        }
        options
    }

    /// How long it may take.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn shows_thinking(&self) -> bool {
        self.show_thinking
    }
}

#[cfg(unix)]
pub(crate) fn access() -> impl TypedValueParser<Value = Access> {
    PossibleValuesParser::new(["read", "write", "shell"]).try_map(|name| name.parse::<Access>())
}

/// A positive number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a positive number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1_500)));
        for bad in ["", "0", "-1", "nan", "inf", "1e30", "5s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
