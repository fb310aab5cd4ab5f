//! Which tools a stage sees, where they come from MCP servers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentwire::models::nearest;

use crate::ports::McpScope;

/// Names that are told to somebody who got one wrong.
const NEAR: usize = 3;
/// Names that are told where none is near: a line of them, not all of a large server.
const SHOWN: usize = 10;

/// The tools of a runner, by the MCP server that they come from. Its clones share their contents.
///
/// `mcp_allow` and `mcp_deny` of a stage hold names of servers, each for all its tools, and names of
/// single tools. What is denied stays so whatever allows it. Tools that come from no server are in
/// no scope: `tools` alone chooses among them.
///
/// ```
/// use agentwire_workflow::ports::McpScope as _;
/// use agentwire_workflow::scope::ToolScope;
///
/// let scope = ToolScope::new().own("clock").server("files", ["files_read", "files_write"]);
/// scope.set("stage:a:1", None, Some(&["files_write".into()]));
/// assert_eq!(scope.tools("stage:a:1", None).unwrap(), ["clock", "files_read"]);
/// scope.clear("stage:a:1");
/// assert_eq!(scope.tools("stage:a:1", None), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ToolScope {
    servers: Vec<String>,
    tools: Vec<Offered>,
    stages: Arc<Mutex<HashMap<String, Lists>>>,
}

#[derive(Debug, Clone)]
struct Offered {
    name: String,
    /// `None`: the runner's own.
    server: Option<String>,
}

#[derive(Debug)]
struct Lists {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
}

/// What a stage of a pipeline says of tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageTools {
    /// The stage's name.
    pub stage: String,
    /// The tools that it may use; `None`: all.
    pub tools: Option<Vec<String>>,
    /// MCP servers and tools that it may use; `None`: all.
    pub mcp_allow: Option<Vec<String>>,
    /// MCP servers and tools that it may not use.
    pub mcp_deny: Option<Vec<String>>,
}

/// A stage names a tool or a server that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownName {
    /// The stage.
    pub stage: String,
    /// The list that has the name.
    pub member: &'static str,
    /// The name.
    pub name: String,
    /// Names that are there: the nearest ones, or else some; empty: there are none.
    pub known: Vec<String>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, member, name, known } = self;
        let what = if *member == "tools" { "tool" } else { "MCP server or tool of one" };
        write!(f, "stage {stage}: `{member}` names `{name}`, and there is no such {what}")?;
        match known.as_slice() {
            [] => f.write_str(" (there are none)"),
            known => write!(f, " (there are: {})", known.join(", ")),
        }
    }
}

impl std::error::Error for UnknownName {}

impl StageTools {
    pub(crate) fn says_something(&self) -> bool {
        self.tools.is_some() || self.mcp_allow.is_some() || self.mcp_deny.is_some()
    }
}

impl ToolScope {
    /// Without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool of the runner's own.
    #[must_use]
    pub fn own(mut self, tool: impl Into<String>) -> Self {
        self.tools.push(Offered { name: tool.into(), server: None });
        self
    }

    /// Adds a server with its tools, by their names as the model sees them.
    #[must_use]
    pub fn server<T: Into<String>>(
        mut self,
        name: impl Into<String>,
        tools: impl IntoIterator<Item = T>,
    ) -> Self {
        let server = name.into();
        let offered = |tool: T| Offered { name: tool.into(), server: Some(server.clone()) };
        self.tools.extend(tools.into_iter().map(offered));
        self.servers.push(server);
        self
    }

    /// Whether all names in a stage's lists are known. A list with a name that nothing has would
    /// deny nothing, or allow less than it says.
    ///
    /// # Errors
    /// The first name that is unknown.
    pub fn check(&self, stage: &StageTools) -> Result<(), UnknownName> {
        let tools = || self.tools.iter().map(|tool| tool.name.as_str());
        let of_servers = self.tools.iter().filter(|tool| tool.server.is_some());
        let of_servers = of_servers.map(|tool| tool.name.as_str());
        let all = self.servers.iter().map(String::as_str).chain(of_servers);
        let (tools, all): (Vec<_>, Vec<_>) = (tools().collect(), all.collect());
        for (member, list, known) in [
            ("tools", &stage.tools, &tools),
            ("mcp_allow", &stage.mcp_allow, &all),
            ("mcp_deny", &stage.mcp_deny, &all),
        ] {
            let mut names = list.iter().flatten();
            if let Some(name) = names.find(|name| !known.contains(&name.as_str())) {
                let near = nearest(name, known.iter().copied(), NEAR);
                let some = || known.iter().take(SHOWN).copied().collect();
                let told: Vec<&str> = if near.is_empty() { some() } else { near };
                return Err(UnknownName {
                    stage: stage.stage.clone(),
                    member,
                    name: name.clone(),
                    known: told.into_iter().map(str::to_owned).collect(),
                });
            }
        }
        Ok(())
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<String, Lists>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn let_through(&self, tool: &Offered) -> bool {
        let Some(server) = &tool.server else { return true };
        let named = |list: &[String]| list.iter().any(|one| one == server || *one == tool.name);
        self.allow.as_deref().is_none_or(named) && !named(&self.deny)
    }
}

impl McpScope for ToolScope {
    fn set(&self, stage: &str, allow: Option<&[String]>, deny: Option<&[String]>) {
        let allow = allow.map(<[String]>::to_vec);
        let lists = Lists { allow, deny: deny.unwrap_or_default().to_vec() };
        self.stages().insert(stage.to_owned(), lists);
    }

    fn clear(&self, stage: &str) {
        self.stages().remove(stage);
    }

    fn tools(&self, stage: &str, asked: Option<Vec<String>>) -> Option<Vec<String>> {
        let stages = self.stages();
        let Some(lists) = stages.get(stage) else { return asked };
        let passes = |tool: &&Offered| lists.let_through(tool);
        Some(match asked {
            None => self.tools.iter().filter(passes).map(|tool| tool.name.clone()).collect(),
            // A name that nothing has is left for the runner to refuse.
            Some(names) => names
                .into_iter()
                .filter(|name| {
                    self.tools
                        .iter()
                        .find(|tool| tool.name == *name)
                        .is_none_or(|tool| passes(&tool))
                })
                .collect(),
        })
    }
}
