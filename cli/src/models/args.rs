//! The arguments of `models`, and those that name a model.

use std::path::PathBuf;

use agentwire::models::{FormOptions, Level};

use crate::connect::Target;
use crate::failure::Report;

/// List the models of the account.
///
/// The list is kept for a day in the user's cache directory and asked for again after that, or with
/// --refresh. Where nobody is signed in, a list that is built in is shown.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  agentwire models --local
  agentwire models --refresh --json | jq -r '.models[].id'
  agentwire models resolve gpt-5.4 --thinking high
  agentwire models map --catalog catalog.json --json

Environment:
  AGENTWIRE_TOKEN       access token of the service; without it the account of `agentwire login`
  AGENTWIRE_ENDPOINT    base URL, where --endpoint is not given
  AGENTWIRE_CONFIG_DIR  where sign-ins are kept
  AGENTWIRE_CACHE_DIR   where lists are kept, instead of the user's cache directory; empty: nowhere"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) target: Target,

    /// Ask the service, however fresh the kept list is; fail when it does not answer
    #[arg(long)]
    pub(super) refresh: bool,

    /// Show every id that the service lists, and the levels that it stands for
    #[arg(long)]
    pub(super) all: bool,

    /// Print JSON (docs/CLI.md)
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Resolve(ResolveArgs),
    Map(MapArgs),
}

/// Show what would go on the wire for a model, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire models resolve gpt-5.4 --thinking high")]
pub(super) struct ResolveArgs {
    /// Model, as `chat --model` takes it
    #[arg(value_name = "MODEL")]
    pub(super) model: String,

    #[command(flatten)]
    pub(super) named: Named,

    #[command(flatten)]
    pub(super) target: Target,

    /// Print JSON (docs/CLI.md)
    #[arg(long)]
    pub(super) json: bool,
}

/// Map a list of ids to models, without any network.
///
/// The file holds an object with `models`, or a list of objects with `id`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire models map --catalog catalog.json --json")]
pub(super) struct MapArgs {
    /// The list, JSON; `-` is stdin
    #[arg(long, value_name = "FILE|-")]
    pub(super) catalog: PathBuf,

    /// By the rules of the reference of 2026-06 instead of the present ones
    #[arg(long)]
    pub(super) reference: bool,

    /// Print a JSON array of provider models instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// What is said about a model beside its name.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Named {
    /// How much the model should think: off, minimal, low, medium, high, xhigh or max
    #[arg(long, value_name = "LEVEL")]
    pub(crate) thinking: Option<Level>,

    /// Parameter of the model, such as `context=1m` (repeatable); sent as `requested_model`
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    param: Vec<(String, String)>,

    /// Ask for the model's long context, which is billed differently
    #[arg(long)]
    max_mode: bool,
}

impl Named {
    pub(crate) fn form(&self) -> FormOptions {
        FormOptions {
            max_mode: self.max_mode,
            parameters: self.param.clone(),
            ..FormOptions::default()
        }
    }
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        let json = match &self.command {
            None => self.json,
            Some(Command::Resolve(args)) => args.json,
            Some(Command::Map(args)) => args.json,
        };
        if json { Report::Json } else { Report::Text }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("give NAME=VALUE".to_owned()),
    }
}
