//! `agentwire`, the command line: arguments, drivers and printing; no rule of its own.

#![allow(rustdoc::bare_urls, reason = "doc comments are the help texts, which are plain")]

mod account;
mod agent;
mod chat;
mod completions;
mod connect;
mod decode;
mod encode;
mod failure;
mod image;
mod input;
mod interrupt;
mod mcp;
mod models;
mod output;
mod record;
mod replay;
mod runtime;
mod serve;
mod token;
mod trace;
mod workflow;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::{Failure, Report};

/// Speak the agent.v1 protocol: stream a model's answer, play the service, read captured streams.
#[derive(Debug, Parser)]
#[command(
    name = "agentwire",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  agentwire chat --local \"hello\"\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not signed in, 4 a workflow run waits,
130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Chat(Box<chat::Args>),
    Models(Box<models::Args>),
    Login(account::LoginArgs),
    Logout(account::LogoutArgs),
    Status(account::StatusArgs),
    Agent(Box<agent::Args>),
    Sessions(agent::SessionsArgs),
    Serve(serve::Args),
    Decode(decode::Args),
    Replay(replay::Args),
    Encode(Box<encode::Args>),
    Workflow(Box<workflow::Args>),
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let (report, result) = run(Cli::parse().command);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(report),
    }
}

fn run(command: Command) -> (Report, Result<(), Failure>) {
    match command {
        Command::Chat(args) => (args.report(), chat::run(&args)),
        Command::Models(args) => (args.report(), models::run(&args)),
        Command::Login(args) => (Report::Text, account::login(&args)),
        Command::Logout(args) => (Report::Text, account::logout(&args)),
        Command::Status(args) => (args.report(), account::status(&args)),
        Command::Agent(args) => (args.report(), agent::run(&args)),
        Command::Sessions(args) => (Report::Text, agent::sessions(&args)),
        Command::Serve(args) => (Report::Text, serve::run(&args)),
        Command::Decode(args) => (Report::Text, decode::run(args)),
        Command::Replay(args) => (args.report(), replay::run(args)),
        Command::Encode(args) => (Report::Text, encode::run(&args)),
        Command::Workflow(args) => (args.report(), workflow::run(&args)),
        Command::Completions(args) => (Report::Text, completions::run(&args)),
    }
}
