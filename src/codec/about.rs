//! What a caller says about itself, as `agent.v1.RequestContext` has it.

use prost::Message as _;

use crate::context::{
    Environment, Folder, McpFiles, McpServer, McpServerTool, Repository, RequestContext, Rule,
    RuleScope, RuleSource, Skill, Subagent, SubagentPermission,
};
use crate::proto::{self, cursor_rule_type};

/// The fields of a `RequestContext` on both sides of `tools`, which is field 7: those below and
/// those above, each in ascending order. Nothing is written for what is empty.
pub(super) fn fields(about: &RequestContext) -> (Vec<u8>, Vec<u8>) {
    if *about == RequestContext::default() {
        return Default::default();
    }
    let below = proto::RequestContext {
        rules: about.rules.iter().map(rule).collect(),
        env: environment(&about.environment),
        repository_info: about.repositories.iter().map(repository).collect(),
        ..proto::RequestContext::default()
    };
    let skills =
        proto::SkillOptions { skill_descriptors: about.skills.iter().map(skill).collect() };
    let above = proto::RequestContext {
        conversation_notes_listing: about.conversation_notes.clone(),
        shared_notes_listing: about.shared_notes.clone(),
        git_repos: about.git_repos.iter().map(git_repo).collect(),
        project_layouts: about.project_layouts.iter().map(folder).collect(),
        mcp_instructions: about.mcp_instructions.iter().map(mcp_instructions).collect(),
        debug_mode_config: about.debug_mode.as_ref().map(|debug| proto::DebugModeConfig {
            log_path: debug.log_path.clone(),
            server_endpoint: debug.server_endpoint.clone(),
        }),
        cloud_rule: about.cloud_rule.clone(),
        web_search_enabled: about.web_search,
        skill_options: (!about.skills.is_empty()).then_some(skills),
        repository_info_should_query_prod: about.query_production_index,
        file_contents: about.file_contents.clone(),
        user_intent_summary: about.user_intent.clone(),
        custom_subagents: about.subagents.iter().map(subagent).collect(),
        mcp_file_system_options: about.mcp_files.as_ref().map(mcp_files),
        ..proto::RequestContext::default()
    };
    (below.encode_to_vec(), above.encode_to_vec())
}

fn rule(rule: &Rule) -> proto::CursorRule {
    use cursor_rule_type::Type;
    let applies = match &rule.applies {
        RuleScope::Always => Type::Global(proto::CursorRuleTypeGlobal {}),
        RuleScope::Globs(globs) => {
            Type::FileGlobbed(proto::CursorRuleTypeFileGlobs { globs: globs.clone() })
        }
        RuleScope::OnRequest(description) => {
            let description = description.clone();
            Type::AgentFetched(proto::CursorRuleTypeAgentFetched { description })
        }
        RuleScope::Manual => Type::ManuallyAttached(proto::CursorRuleTypeManuallyAttached {}),
    };
    let source = match rule.source {
        RuleSource::Unspecified => proto::CursorRuleSource::Unspecified,
        RuleSource::Team => proto::CursorRuleSource::Team,
        RuleSource::User => proto::CursorRuleSource::User,
    };
    proto::CursorRule {
        full_path: rule.path.clone(),
        content: rule.content.clone(),
        r#type: Some(proto::CursorRuleType { r#type: Some(applies) }),
        source: source as i32,
        git_remote_origin: rule.git_remote.clone(),
        parse_error: rule.parse_error.clone(),
    }
}

fn environment(environment: &Environment) -> Option<proto::RequestContextEnv> {
    if *environment == Environment::default() {
        return None;
    }
    Some(proto::RequestContextEnv {
        os_version: environment.os_version.clone(),
        workspace_paths: environment.workspace_paths.clone(),
        shell: environment.shell.clone(),
        sandbox_enabled: environment.sandbox,
        terminals_folder: environment.terminals_folder.clone(),
        agent_shared_notes_folder: environment.shared_notes_folder.clone(),
        agent_conversation_notes_folder: environment.conversation_notes_folder.clone(),
        time_zone: environment.time_zone.clone(),
        project_folder: environment.project_folder.clone(),
        agent_transcripts_folder: environment.transcripts_folder.clone(),
    })
}

fn repository(repository: &Repository) -> proto::RepositoryIndexingInfo {
    let (names, urls) = repository.remotes.iter().cloned().unzip();
    proto::RepositoryIndexingInfo {
        relative_workspace_path: repository.relative_path.clone(),
        remote_urls: urls,
        remote_names: names,
        repo_name: repository.name.clone(),
        repo_owner: repository.owner.clone(),
        is_tracked: repository.tracked,
        is_local: repository.local,
        orthogonal_transform_seed: repository.transform_seed,
        workspace_uri: repository.workspace_uri.clone(),
        path_encryption_key: repository
            .path_key
            .as_ref()
            .map(|key| key.expose().clone())
            .unwrap_or_default(),
    }
}

fn git_repo(repo: &crate::context::GitRepo) -> proto::GitRepoInfo {
    proto::GitRepoInfo {
        path: repo.path.clone(),
        status: repo.status.clone(),
        branch_name: repo.branch.clone(),
        remote_url: repo.remote_url.clone(),
    }
}

fn folder(folder: &Folder) -> proto::LsDirectoryTreeNode {
    let file = |name: &String| proto::LsDirectoryTreeNodeFile {
        name: name.clone(),
        ..proto::LsDirectoryTreeNodeFile::default()
    };
    proto::LsDirectoryTreeNode {
        abs_path: folder.path.clone(),
        children_dirs: folder.folders.iter().map(self::folder).collect(),
        children_files: folder.files.iter().map(file).collect(),
        children_were_processed: folder.complete,
        full_subtree_extension_counts: folder.extensions.clone(),
        num_files: folder.file_count,
    }
}

fn mcp_instructions(said: &crate::context::McpInstructions) -> proto::McpInstructions {
    proto::McpInstructions {
        server_name: said.server_name.clone(),
        instructions: said.instructions.clone(),
        server_identifier: said.server_id.clone(),
    }
}

fn mcp_files(files: &McpFiles) -> proto::McpFileSystemOptions {
    proto::McpFileSystemOptions {
        enabled: files.enabled,
        workspace_project_dir: files.project_folder.clone(),
        mcp_descriptors: files.servers.iter().map(mcp_server).collect(),
    }
}

fn mcp_server(server: &McpServer) -> proto::McpDescriptor {
    let tool = |tool: &McpServerTool| proto::McpToolDescriptor {
        tool_name: tool.name.clone(),
        definition_path: tool.definition_path.clone(),
        description: tool.description.clone(),
        input_schema_json: tool.schema_json.clone(),
    };
    proto::McpDescriptor {
        server_name: server.name.clone(),
        server_identifier: server.id.clone(),
        folder_path: server.folder.clone(),
        server_use_instructions: server.instructions.clone(),
        tools: server.tools.iter().map(tool).collect(),
        plugin: server.plugin.clone(),
        marketplace: server.marketplace.clone(),
        plugin_db_id: server.plugin_id.clone(),
        marketplace_id: server.marketplace_id.clone(),
    }
}

fn skill(skill: &Skill) -> proto::SkillDescriptor {
    proto::SkillDescriptor {
        name: skill.name.clone(),
        description: skill.description.clone(),
        folder_path: skill.folder.clone(),
        enabled: skill.enabled,
        parse_error: skill.parse_error.clone(),
        readme_file_path: skill.readme.clone(),
        package_type: skill.package_type,
    }
}

fn subagent(subagent: &Subagent) -> proto::CustomSubagent {
    use proto::CustomSubagentPermissionMode as Mode;
    let permission = match subagent.permission {
        SubagentPermission::Unspecified => Mode::Unspecified,
        SubagentPermission::Default => Mode::Default,
        SubagentPermission::ReadOnly => Mode::Readonly,
    };
    proto::CustomSubagent {
        full_path: subagent.path.clone(),
        name: subagent.name.clone(),
        description: subagent.description.clone(),
        tools: subagent.tools.clone(),
        model: subagent.model.clone(),
        prompt: subagent.prompt.clone(),
        permission_mode: permission as i32,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::proto::reflect::{FieldKind, MessageInfo};

    /// Everything filled in, in the JSON form.
    fn full() -> Value {
        json!({
            "rules": [
                {"content": "a", "path": "p", "gitRemote": "g", "parseError": "e"},
                {"content": "b", "applies": {"globs": ["*.rs"]}, "source": "team"},
                {"content": "c", "applies": {"onRequest": "when"}, "source": "unspecified"},
                {"content": "d", "applies": "manual"}],
            "environment": {
                "osVersion": "o", "workspacePaths": ["/w"], "shell": "sh", "sandbox": true,
                "terminalsFolder": "t", "sharedNotesFolder": "s", "conversationNotesFolder": "c",
                "timeZone": "Europe/Paris", "projectFolder": "p", "transcriptsFolder": "r"},
            "repositories": [{
                "relativePath": ".", "remotes": [["origin", "url"]], "name": "n", "owner": "o",
                "tracked": true, "local": true, "transformSeed": 1.5, "workspaceUri": "u"}],
            "gitRepos": [{"path": "/w", "status": "clean", "branch": "main", "remoteUrl": "u"}],
            "projectLayouts": [{
                "path": "/w", "folders": [{"path": "/w/src"}], "files": ["a.rs"],
                "complete": true, "extensions": {"rs": 3}, "fileCount": 3}],
            "mcpInstructions": [{"serverName": "m", "instructions": "i", "serverId": "x"}],
            "mcpFiles": {"enabled": true, "projectFolder": "p", "servers": [{
                "name": "m", "id": "x", "folder": "f", "instructions": "i",
                "tools": [{"name": "t", "definitionPath": "d", "description": "e",
                           "schemaJson": "{}"}],
                "plugin": "p", "marketplace": "k", "pluginId": "1", "marketplaceId": "2"}]},
            "debugMode": {"logPath": "l", "serverEndpoint": "s"},
            "cloudRule": "c",
            "webSearch": false,
            "skills": [{"name": "n", "description": "d", "folder": "f", "enabled": true,
                        "parseError": "e", "readme": "r", "packageType": 3}],
            "queryProductionIndex": true,
            "fileContents": {"a.rs": "fn main() {}"},
            "userIntent": "i",
            "subagents": [{"path": "p", "name": "n", "description": "d", "tools": ["t"],
                           "model": "m", "prompt": "q", "permission": "readOnly"}],
            "conversationNotes": "cn",
            "sharedNotes": "sn"
        })
    }

    #[test]
    fn every_field_of_the_schema_can_be_set() {
        let mut about: RequestContext = serde_json::from_value(full()).unwrap();
        assert_eq!(serde_json::to_value(&about).unwrap()["fileContents"], full()["fileContents"]);
        about.repositories[0].path_key = Some("key".into());
        let (mut bytes, above) = fields(&about);
        bytes.extend(above);
        // What the schema knows of these messages and was not written stays to be told here.
        let mut left = Vec::new();
        unset("RequestContext", &bytes, &mut left);
        assert_eq!(left, ["RequestContext.tools", "LsDirectoryTreeNode_File.terminal_metadata"]);
    }

    /// Fields of the message, and of those in it, that no occurrence sets. A oneof counts as set
    /// when the test's rules take turns: four rules, four cases.
    fn unset(message: &str, bytes: &[u8], left: &mut Vec<String>) {
        let info = MessageInfo::named(message).unwrap();
        let mut reader = crate::wire::Reader::new(bytes);
        let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
        while let Ok(Some(field)) = reader.field() {
            found.push((field.number, field.value.bytes().unwrap_or_default().to_vec()));
        }
        for number in 1..64 {
            let Some(field) = info.field(number) else { continue };
            let contents: Vec<_> = found.iter().filter(|(n, _)| *n == number).collect();
            if contents.is_empty() {
                if message != "CursorRuleType" {
                    left.push(format!("{message}.{}", field.name));
                }
                continue;
            }
            let FieldKind::Message(inner) = field.kind else { continue };
            let whole: Vec<u8> = contents.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            if inner.name != message {
                unset(inner.name, &whole, left);
            }
        }
    }

    #[test]
    fn nothing_is_said_by_default() {
        assert_eq!(fields(&RequestContext::default()), (Vec::new(), Vec::new()));
        assert_eq!(format!("{:?}", RequestContext::default().environment), "Environment { .. }");
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        assert!(serde_json::from_value::<RequestContext>(json!({"rule": []})).is_err());
    }
}
