//! The schema is the protocol tables, and the generated Rust is the schema.
//!
//! `AGENTWIRE_REGENERATE=1 cargo test -p agentwire --test schema` writes the generated files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "schema/generate.rs"]
mod generate;
#[path = "schema/reflection.rs"]
mod reflection;
#[path = "schema/tables.rs"]
mod tables;

use std::collections::BTreeSet;
use std::mem::size_of;

use agentwire::proto;

use crate::tables::Tables;

#[test]
fn generated_rust_is_what_the_schema_says() {
    let schema = generate::compile();
    generate::check("src/proto/table.rs", &reflection::table(&schema));
    generate::check("src/proto/generated.rs", &generate::messages(schema));
}

/// Lines that are on one side only.
fn differences(table: &BTreeSet<String>, schema: &BTreeSet<String>) -> Vec<String> {
    let missing = table.difference(schema).map(|line| format!("table only: {line}"));
    let extra = schema.difference(table).map(|line| format!("schema only: {line}"));
    missing.chain(extra).collect()
}

fn all_differences(table: &Tables, schema: &Tables) -> Vec<String> {
    let mut all = differences(&table.fields, &schema.fields);
    all.extend(differences(&table.enums, &schema.enums));
    all.extend(differences(&table.int_enums, &schema.int_enums));
    all
}

#[test]
fn schema_and_tables_say_the_same() {
    let differences = all_differences(&tables::read(), &tables::from_schema(&generate::compile()));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The comparison itself: any line of any table, changed in any column, must show.
#[test]
fn every_changed_table_line_shows() {
    let schema = tables::from_schema(&generate::compile());
    let table = tables::read();
    let pairs = [
        (table.fields, schema.fields),
        (table.enums, schema.enums),
        (table.int_enums, schema.int_enums),
    ];
    for (table, schema) in pairs {
        let mut changed = table.clone();
        for line in &table {
            for column in 0..line.split('\t').count() {
                let mut cells: Vec<String> = line.split('\t').map(ToOwned::to_owned).collect();
                cells[column].push('0');
                let other = cells.join("\t");
                changed.remove(line);
                changed.insert(other.clone());
                assert_ne!(changed, schema, "{line:?}, column {column}");
                changed.remove(&other);
                changed.insert(line.clone());
            }
        }
        assert_eq!(changed, schema);
    }
}

#[test]
fn every_message_and_enum_says_what_it_is_for() {
    let schema = generate::compile();
    for file in &schema.file {
        let info = file.source_code_info.as_ref().expect("comments are kept");
        let said: BTreeSet<&[i32]> = info
            .location
            .iter()
            .filter(|at| !at.leading_comments().trim().is_empty())
            .map(|at| at.path.as_slice())
            .collect();
        for (index, message) in file.message_type.iter().enumerate() {
            assert!(said.contains([4, index as i32].as_slice()), "{}", message.name());
        }
        for (index, decl) in file.enum_type.iter().enumerate() {
            assert!(said.contains([5, index as i32].as_slice()), "{}", decl.name());
        }
    }
}

#[test]
fn the_service_has_its_four_methods() {
    let schema = generate::compile();
    let mut services = schema.file.iter().flat_map(|file| &file.service);
    let service = services.next().expect("there is a service");
    assert!(services.next().is_none());
    assert_eq!(service.name(), "AgentService");
    let methods: Vec<_> = service
        .method
        .iter()
        .map(|m| {
            (m.name(), m.input_type(), m.output_type(), m.client_streaming(), m.server_streaming())
        })
        .collect();
    assert_eq!(
        methods,
        [
            ("Run", ".agent.v1.AgentClientMessage", ".agent.v1.AgentServerMessage", true, true),
            (
                "GetUsableModels",
                ".agent.v1.GetUsableModelsRequest",
                ".agent.v1.GetUsableModelsResponse",
                false,
                false
            ),
            (
                "GetDefaultModelForCli",
                ".agent.v1.GetDefaultModelForCliRequest",
                ".agent.v1.GetDefaultModelForCliResponse",
                false,
                false
            ),
            (
                "NameAgent",
                ".agent.v1.NameAgentRequest",
                ".agent.v1.NameAgentResponse",
                false,
                false
            ),
        ]
    );
}

/// A delta is moved several times on its way; what is large and rare is boxed.
#[test]
fn messages_of_the_hot_path_are_small() {
    assert!(size_of::<proto::agent_server_message::Message>() <= 80);
    assert!(size_of::<proto::agent_client_message::Message>() <= 80);
    assert!(size_of::<proto::interaction_update::Message>() <= 80);
    assert!(size_of::<proto::ExecServerMessage>() <= 160);
    assert!(size_of::<proto::ExecClientMessage>() <= 160);
    assert!(size_of::<proto::ToolCall>() <= 80);
}

#[test]
fn secrets_are_not_printed() {
    let secret = "s3cr3t-value";
    let text = [
        format!(
            "{:?}",
            proto::ModelDetails {
                credentials: Some(proto::model_details::Credentials::ApiKeyCredentials(
                    proto::ApiKeyCredentials { api_key: secret.into(), base_url: None }
                )),
                ..Default::default()
            }
        ),
        format!("{:?}", proto::AzureCredentials { api_key: secret.into(), ..Default::default() }),
        format!(
            "{:?}",
            proto::BedrockCredentials {
                access_key: secret.into(),
                secret_key: secret.into(),
                session_token: Some(secret.into()),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            proto::RepositoryIndexingInfo {
                path_encryption_key: secret.into(),
                ..Default::default()
            }
        ),
    ]
    .concat();
    assert!(!text.contains(secret), "{text}");
    assert!(text.contains("RepositoryIndexingInfo"), "{text}");
}
