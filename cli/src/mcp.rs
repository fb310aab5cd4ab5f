//! `--mcp`: tools of servers, and who is asked before they run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentwire::Error;
use agentwire::context::ToolCall;
use agentwire::error::{Blame, Kind};
use agentwire_agent::AgentBuilder;
use agentwire_agent::mcp::{Server, Tools};
use agentwire_agent::tool::{Approval, ToolboxError};
use agentwire_workflow::scope::ToolScope;
use agentwire_workspace::Decision;

use crate::chat::Person;
use crate::failure::Failure;
use crate::output::{self, Look};

/// How long the servers have to go at the end: some write down what they hold. One that has not gone
/// by then is killed.
const LEAVE: Duration = Duration::from_secs(2);

/// The arguments that name servers.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Offer the tools of an MCP server: a command, or a URL (repeatable). A name of its own may
    /// stand before it: `--mcp 'files=npx -y @modelcontextprotocol/server-filesystem /srv'`
    #[arg(long, value_name = "[NAME=]COMMAND|URL")]
    mcp: Vec<String>,

    /// Run this tool of an MCP server without asking, `all` for every one (repeatable); what is not
    /// allowed is asked for at the terminal, and refused where there is none
    #[arg(long, value_name = "TOOL", requires = "mcp")]
    allow_tool: Vec<String>,
}

/// Servers that were started. They end with [`Servers::end`], or else with the process.
pub(crate) struct Servers {
    started: Vec<(String, Tools)>,
    allowed: Arc<Mutex<HashSet<String>>>,
}

impl Args {
    /// Starts all servers that the arguments name, one after the other. When one cannot be started,
    /// those before it end.
    pub(crate) async fn start(&self) -> Result<Servers, Failure> {
        let named = self.servers()?;
        let allowed = Arc::new(Mutex::new(self.allow_tool.iter().cloned().collect()));
        let mut servers = Servers { started: Vec::new(), allowed };
        for (name, server) in named {
            match server.connect().await {
                Ok(tools) => servers.started.push((name, tools)),
                Err(error) => {
                    servers.end().await;
                    let error = Error::new(Kind::Rejected, error.to_string());
                    let error = error.with_blame(Blame::Local);
                    return Err(Failure::Failed(
                        error.with_hint("see that its command runs by itself"),
                    ));
                }
            }
        }
        Ok(servers)
    }

    /// The servers with their names; nothing is started where one of them is wrong.
    fn servers(&self) -> Result<Vec<(String, Server)>, Failure> {
        let mut names = HashSet::new();
        self.mcp.iter().map(|text| server(text, &mut names)).collect()
    }
}

impl Servers {
    /// Offers the tools of all servers, with a note for each that cannot be offered; says which tool
    /// came from which server.
    pub(crate) fn attach(
        &self,
        mut builder: AgentBuilder,
        look: Look,
    ) -> (AgentBuilder, ToolScope) {
        let mut scope = ToolScope::new();
        for (name, tools) in &self.started {
            for error in tools.left_out() {
                left_out(name, error, look);
            }
            let mut offered = Vec::new();
            for tool in tools {
                let (more, beside) = builder.tools_that_fit([Arc::clone(tool)]);
                builder = more;
                match beside.first() {
                    None => offered.push(tool.name()),
                    Some(error) => left_out(name, error, look),
                }
            }
            scope = scope.server(name, offered);
        }
        if self.started.is_empty() {
            return (builder, scope);
        }
        let allowed = Arc::clone(&self.allowed);
        let builder = builder.approve(move |call, _effect| {
            let allowed = Arc::clone(&allowed);
            async move { approve(&call, &allowed, look).await }
        });
        (builder, scope)
    }

    /// Ends all servers.
    pub(crate) async fn end(self) {
        let mut leaving = tokio::task::JoinSet::new();
        for (_, tools) in self.started {
            let handle = tools.handle();
            leaving.spawn(async move { handle.end(LEAVE).await });
        }
        leaving.join_all().await;
    }
}

fn left_out(server: &str, error: &ToolboxError, look: Look) {
    look.remark(&format!("note: a tool of {server} is left out: {error}"));
}

/// A hint of the server that a tool changes nothing is not believed: whoever wrote the server wrote
/// that too.
async fn approve(call: &ToolCall, allowed: &Mutex<HashSet<String>>, look: Look) -> Approval {
    let names = || allowed.lock().unwrap_or_else(PoisonError::into_inner);
    if names().contains("all") || names().contains(&call.name) {
        return Approval::Allow;
    }
    if !Person::is_there(look) {
        return Approval::Deny(format!(
            "nobody can be asked here; the person can allow it with `--allow-tool {}`",
            call.name
        ));
    }
    let name = &call.name;
    let arguments = serde_json::to_string_pretty(&call.arguments).unwrap_or_default();
    let question = format!("\nThe model wants to call {name} with\n{arguments}\n");
    match Person::of_process().ask(&question, &format!("every call of {name}")).await {
        Decision::Allow => Approval::Allow,
        Decision::AllowForRun => {
            names().insert(name.clone());
            Approval::Allow
        }
        _ => Approval::Deny("the person was asked and said no".into()),
    }
}

/// `[NAME=]COMMAND|URL` as a server and its name. Without one it is called as its program or its
/// host.
fn server(text: &str, names: &mut HashSet<String>) -> Result<(String, Server), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (given, rest) = match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() && name.chars().all(good) => (Some(name), rest),
        _ => (None, text),
    };
    let wrong = |why: &str| Failure::usage(format!("--mcp: {why}"));
    let is_url = rest.starts_with("http://") || rest.starts_with("https://");
    let command =
        if is_url { vec![rest.to_owned()] } else { shlex::split(rest).unwrap_or_default() };
    let first = command.first().ok_or_else(|| wrong("a command is missing, or a quote in it"))?;
    let own = match is_url {
        true => rest.split('/').nth(2).unwrap_or_default(),
        false => first.rsplit(['/', '\\']).next().unwrap_or_default(),
    };
    let name: String =
        given.unwrap_or(own).chars().map(|c| if good(c) { c } else { '_' }).take(32).collect();
    if name.is_empty() || !names.insert(name.clone()) {
        let name = output::printable(&name).into_owned();
        return Err(wrong(&format!(
            "two servers are called `{name}`; give them names: NAME=COMMAND"
        )));
    }
    let server = match is_url {
        true => Server::http(&name, rest),
        false => Server::process(&name, command),
    };
    Ok((name, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_after_their_program_unless_they_have_a_name() {
        let named = |text: &str| server(text, &mut HashSet::new()).ok();
        for (text, name) in [
            ("npx -y server", "npx"),
            ("/usr/bin/my.server --a=b", "my_server"),
            ("files=npx -y server", "files"),
            ("https://example.com/mcp?a=b", "example_com"),
            ("web=https://example.com/mcp", "web"),
        ] {
            assert_eq!(named(text).map(|(name, _)| name).as_deref(), Some(name), "{text}");
        }
        for bad in ["", "  ", "'open", "x="] {
            assert!(server(bad, &mut HashSet::new()).is_err(), "{bad:?}");
        }
        let mut names = HashSet::new();
        assert!(server("a", &mut names).is_ok() && server("/b/a", &mut names).is_err());
    }
}
