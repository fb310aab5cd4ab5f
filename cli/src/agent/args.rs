//! The arguments of `agent`.

use crate::chat;
use crate::failure::Report;
use crate::mcp;

/// Work on a task until it is done: the model's text goes to stdout, what it does to stderr.
///
/// Like `chat`, with a session that is kept and can be continued, with limits, and with a summary
/// at the end. With --json everything is a JSON object a line on stdout (docs/CLI.md).
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(
    mut_arg("prompt", |arg| arg.value_name("TASK").required_unless_present("continue")),
    mut_arg("context", |arg| arg.hide(true)),
    mut_arg("retries", |arg| arg.help("How often the model is asked again when the provider fails")),
    after_help = "Examples:
  agentwire agent --local --workspace . \"Which of these files is the largest?\"
  agentwire agent --session review --workspace . \"Review the last commit.\"
  agentwire agent --session review --continue     # where it stopped
  agentwire agent --mcp 'files=npx -y @modelcontextprotocol/server-filesystem /srv' \"What is in /srv?\"

Environment:
  AGENTWIRE_TOKEN       access token of the service; without it the account of `agentwire login`
  AGENTWIRE_ENDPOINT    base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR  where sign-ins are kept
  AGENTWIRE_CACHE_DIR   where lists of models are kept; empty: nowhere
  AGENTWIRE_SESSIONS    folder of the sessions, where it is not the system's own for state
  https_proxy           HTTP proxy, http://[user:password@]host:port; all_proxy else
  no_proxy              hosts that are reached without it
  NO_COLOR              no colours on the terminal",
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) chat: chat::Args,

    /// Keep the conversation under this name, and go on with it when it is there
    #[arg(long, value_name = "NAME")]
    pub(super) session: Option<String>,

    /// Go on with the session's last task where it stopped, instead of giving a new one
    #[arg(long = "continue", id = "continue", requires = "session", conflicts_with_all = ["prompt", "image"])]
    pub(super) go_on: bool,

    #[command(flatten)]
    pub(super) tools: mcp::Args,

    /// Summarise the conversation when it is larger than this, 0 for never [default: three quarters
    /// of the model's context window, where the service names that]
    #[arg(long, value_name = "TOKENS")]
    pub(super) context_budget: Option<u64>,

    /// The most answers of the model, those that call tools included [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_turns: Option<u32>,
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        self.chat.report()
    }
}
