//! What a caller says about itself and its workspace besides messages and tools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// What the model is told about the host and its workspace: `agent.v1.RequestContext`, but for the
/// tools, which are those of the [`Context`](super::Context).
///
/// The service is told what stands here and nothing else: empty, as by default, no path, name or
/// time zone of this machine leaves it. The host's system prompt needs no rule of its own here: it
/// is sent as one anyway ([`PromptRoutes::rule`](crate::codec::PromptRoutes)).
///
/// ```
/// use agentwire::context::{Context, Environment, RequestContext, Rule};
///
/// let about = RequestContext {
///     rules: vec![Rule::always("Answer in French.")],
///     environment: Environment { shell: "bash".into(), ..Environment::default() },
///     ..RequestContext::default()
/// };
/// let context = Context::prompt("hello").about(about);
/// # assert!(!context.about.is_empty());
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RequestContext {
    /// Rules for the model, after the system prompt's own.
    pub rules: Vec<Rule>,
    /// The machine and the folders.
    pub environment: Environment,
    /// How repositories are known to the service's index.
    pub repositories: Vec<Repository>,
    /// Git repositories of the workspace.
    pub git_repos: Vec<GitRepo>,
    /// Folder trees of the workspace.
    pub project_layouts: Vec<Folder>,
    /// Instructions of MCP servers.
    pub mcp_instructions: Vec<McpInstructions>,
    /// The tools of MCP servers as files of the workspace.
    pub mcp_files: Option<McpFiles>,
    /// Where debug mode writes to.
    pub debug_mode: Option<DebugMode>,
    /// A rule that the service's own cloud keeps.
    pub cloud_rule: Option<String>,
    /// Whether the service may search the web; `None` leaves it to the service.
    pub web_search: Option<bool>,
    /// Skills that the model may read.
    pub skills: Vec<Skill>,
    /// Whether repositories are looked up in the service's production index.
    pub query_production_index: Option<bool>,
    /// Files that the model is to know, content by path.
    pub file_contents: BTreeMap<String, String>,
    /// What the person wants, in a few words.
    pub user_intent: Option<String>,
    /// Subagents that the person defined.
    pub subagents: Vec<Subagent>,
    /// A listing of the conversation's notes.
    pub conversation_notes: Option<String>,
    /// A listing of the notes that conversations share.
    pub shared_notes: Option<String>,
}

/// A rule for the model.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    /// What it says.
    pub content: String,
    /// When it applies.
    pub applies: RuleScope,
    /// Who wrote it.
    pub source: RuleSource,
    /// The file it is from; empty for none.
    pub path: String,
    /// The git remote it is from.
    pub git_remote: Option<String>,
    /// Why its file could not be read, where that is all there is to say.
    pub parse_error: Option<String>,
}

impl Rule {
    /// A rule of the user that always applies.
    pub fn always(content: impl Into<String>) -> Self {
        Self { content: content.into(), ..Self::default() }
    }
}

/// When a rule applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleScope {
    /// Always.
    #[default]
    Always,
    /// To files that match one of these globs.
    Globs(Vec<String>),
    /// When the model fetches it, going by this description.
    OnRequest(String),
    /// Where the person attaches it.
    Manual,
}

/// Who wrote a rule (`CursorRuleSource`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleSource {
    /// Nobody says.
    Unspecified,
    /// The team.
    Team,
    /// The person who runs the client. The default, and what a host's system prompt goes as.
    #[default]
    User,
}

/// The machine and the folders of the client. Only what the host fills in is sent.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Environment {
    /// Name and version of the operating system.
    pub os_version: String,
    /// Folders of the workspace.
    pub workspace_paths: Vec<String>,
    /// The shell that commands run in.
    pub shell: String,
    /// Whether commands run in a sandbox.
    pub sandbox: bool,
    /// Folder of the terminals' output.
    pub terminals_folder: String,
    /// Folder of the notes that conversations share.
    pub shared_notes_folder: String,
    /// Folder of the conversation's notes.
    pub conversation_notes_folder: String,
    /// IANA name of the time zone, such as `Europe/Paris`.
    pub time_zone: String,
    /// Folder of the project.
    pub project_folder: String,
    /// Folder of the transcripts.
    pub transcripts_folder: String,
}

/// A git repository of the workspace.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GitRepo {
    /// Its folder.
    pub path: String,
    /// What `git status` says.
    pub status: String,
    /// The branch that is checked out.
    pub branch: String,
    /// URL of its remote.
    pub remote_url: Option<String>,
}

/// How a repository is known to the service's index.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Repository {
    /// Its folder, relative to the workspace.
    pub relative_path: String,
    /// Names and URLs of its remotes.
    pub remotes: Vec<(String, String)>,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Whether the index follows it.
    pub tracked: bool,
    /// Whether it is on this machine alone.
    pub local: bool,
    /// Seed of the index's transform.
    pub transform_seed: Option<f64>,
    /// URI of the workspace.
    pub workspace_uri: String,
    /// Key that paths are encrypted with; never written out.
    #[serde(skip)]
    pub path_key: Option<Secret>,
}

/// A folder and what is in it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Folder {
    /// Its path.
    pub path: String,
    /// Folders in it.
    pub folders: Vec<Self>,
    /// Names of the files in it.
    pub files: Vec<String>,
    /// Whether `folders` and `files` are all there is.
    pub complete: bool,
    /// Files below it by extension.
    pub extensions: BTreeMap<String, i32>,
    /// Files below it.
    pub file_count: i32,
}

/// Instructions of one MCP server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct McpInstructions {
    /// Name of the server.
    pub server_name: String,
    /// What it says about its use.
    pub instructions: String,
    /// Id of the server.
    pub server_id: String,
}

/// The tools of MCP servers as files of the workspace.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct McpFiles {
    /// Whether they are there.
    pub enabled: bool,
    /// Folder of the project.
    pub project_folder: String,
    /// The servers.
    pub servers: Vec<McpServer>,
}

/// One MCP server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct McpServer {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Folder of its files.
    pub folder: Option<String>,
    /// What it says about its use.
    pub instructions: Option<String>,
    /// Its tools.
    pub tools: Vec<McpServerTool>,
    /// Plugin it came with.
    pub plugin: Option<String>,
    /// Marketplace it came from.
    pub marketplace: Option<String>,
    /// Id of the plugin.
    pub plugin_id: Option<String>,
    /// Id of the marketplace.
    pub marketplace_id: Option<String>,
}

/// One tool of an MCP server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct McpServerTool {
    /// Its name.
    pub name: String,
    /// File that defines it.
    pub definition_path: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments, as text.
    pub schema_json: Option<String>,
}

/// Where debug mode writes to.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DebugMode {
    /// The log file.
    pub log_path: String,
    /// The server that takes logs.
    pub server_endpoint: String,
}

/// A skill that the model may read.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Skill {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its folder.
    pub folder: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// Why it could not be read.
    pub parse_error: Option<String>,
    /// Its readme.
    pub readme: String,
    /// Number of the kind of package (`PackageType`); 0 says nothing.
    pub package_type: i32,
}

/// A subagent that the person defined.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Subagent {
    /// The file it is from.
    pub path: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tools that it may use.
    pub tools: Vec<String>,
    /// Its model.
    pub model: String,
    /// Its system prompt.
    pub prompt: String,
    /// What it may do.
    pub permission: SubagentPermission,
}

/// What a custom subagent may do (`CustomSubagentPermissionMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubagentPermission {
    /// Nobody says.
    #[default]
    Unspecified,
    /// What the agent may do.
    Default,
    /// Read only.
    ReadOnly,
}

impl RequestContext {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules, files and paths are a person's: `Debug` shows how many there are.
mod debug {
    use std::fmt::{Debug, Formatter, Result};

    impl Debug for super::RequestContext {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.debug_struct("RequestContext")
                .field("rules", &self.rules.len())
                .field("git_repos", &self.git_repos.len())
                .field("skills", &self.skills.len())
                .field("subagents", &self.subagents.len())
                .field("file_contents", &self.file_contents.len())
                .finish_non_exhaustive()
        }
    }

    macro_rules! name_only {
        ($($type:ident)*) => {$(
            impl Debug for super::$type {
                fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                    f.debug_struct(stringify!($type)).finish_non_exhaustive()
                }
            }
        )*};
    }

    name_only!(Rule Environment GitRepo Repository Folder McpInstructions McpFiles McpServer McpServerTool
        DebugMode Skill Subagent);
}
