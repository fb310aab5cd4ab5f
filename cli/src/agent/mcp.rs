//! `--mcp`: tools of servers, and who is asked before they run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use agentwire::Error;
use agentwire::context::ToolCall;
use agentwire::error::{Blame, Kind};
use agentwire_agent::AgentBuilder;
use agentwire_agent::mcp::Server;
use agentwire_agent::tool::Approval;
use agentwire_workspace::Decision;

use super::Args;
use crate::chat::Person;
use crate::failure::Failure;
use crate::output::{self, Look};

/// Offers the tools of all servers that the arguments name.
pub(super) async fn attach(
    mut builder: AgentBuilder,
    args: &Args,
    look: Look,
) -> Result<AgentBuilder, Failure> {
    let mut names = HashSet::new();
    for one in &args.mcp {
        let tools = server(one, &mut names)?.connect().await.map_err(|error| {
            let error = Error::new(Kind::Rejected, error.to_string()).with_blame(Blame::Local);
            Failure::Failed(error.with_hint("see that its command runs by itself"))
        })?;
        let alone = tools.left_out().to_vec();
        let (more, beside) = builder.tools_that_fit(tools);
        builder = more;
        for error in alone.iter().chain(&beside) {
            look.remark(&format!(
                "note: a tool of {} is left out: {error}",
                output::printable(one)
            ));
        }
    }
    if args.mcp.is_empty() {
        return Ok(builder);
    }
    let allowed = Arc::new(Mutex::new(args.allow_tool.iter().cloned().collect::<HashSet<_>>()));
    Ok(builder.approve(move |call, _effect| {
        let allowed = Arc::clone(&allowed);
        async move { approve(&call, &allowed, look).await }
    }))
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

/// `[NAME=]COMMAND|URL` as a server. Without a name it is called as its program or its host.
fn server(text: &str, names: &mut HashSet<String>) -> Result<Server, Failure> {
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
    Ok(if is_url { Server::http(name, rest) } else { Server::process(name, command) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_after_their_program_unless_they_have_a_name() {
        let named = |text: &str| format!("{:?}", server(text, &mut HashSet::new()).ok());
        for (text, name) in [
            ("npx -y server", "npx"),
            ("/usr/bin/my.server --a=b", "my_server"),
            ("files=npx -y server", "files"),
            ("https://example.com/mcp?a=b", "example_com"),
            ("web=https://example.com/mcp", "web"),
        ] {
            let shown = named(text);
            assert!(shown.contains(&format!("name: \"{name}\"")), "{shown}");
        }
        for bad in ["", "  ", "'open", "x="] {
            assert!(server(bad, &mut HashSet::new()).is_err(), "{bad:?}");
        }
        let mut names = HashSet::new();
        assert!(server("a", &mut names).is_ok() && server("/b/a", &mut names).is_err());
    }
}
