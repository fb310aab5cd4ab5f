//! The messages of `agent.v1`, generated from `proto/agent/v1/*.proto`.
//!
//! The schema is complete: what the protocol tables name is here, under the names of the tables in
//! Rust's casing (`SelectedImage_Dimension` is [`SelectedImageDimension`], a oneof lives in a module
//! named after its message). `bytes` fields are [`bytes::Bytes`], maps are `BTreeMap`, large members
//! of oneofs are boxed. The generated file is checked in; `tests/schema.rs` makes it anew and compares.
//!
//! Three things prost cannot do, so the codec writes them by hand: ascending field order where a
//! oneof straddles other fields, map entries in the order of the source, and unknown fields. Where
//! bytes are hashed or handed back, keep the bytes.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::nursery
)]
#[rustfmt::skip]
mod generated;
pub mod reflect;
#[allow(non_upper_case_globals)]
#[rustfmt::skip]
mod table;
mod weight;

use std::fmt;

pub use generated::*;
pub use weight::weigh;

/// Stands where a secret would be printed.
const REDACTED: &str = "[redacted]";

impl fmt::Debug for ApiKeyCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyCredentials")
            .field("api_key", &REDACTED)
            .field("base_url", &self.base_url)
            .finish()
    }
}

impl fmt::Debug for AzureCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureCredentials")
            .field("api_key", &REDACTED)
            .field("base_url", &self.base_url)
            .field("deployment", &self.deployment)
            .finish()
    }
}

impl fmt::Debug for BedrockCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BedrockCredentials")
            .field("access_key", &REDACTED)
            .field("secret_key", &REDACTED)
            .field("region", &self.region)
            .field("session_token", &REDACTED)
            .finish()
    }
}

impl fmt::Debug for RepositoryIndexingInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryIndexingInfo")
            .field("repo_owner", &self.repo_owner)
            .field("repo_name", &self.repo_name)
            .field("path_encryption_key", &REDACTED)
            .finish_non_exhaustive()
    }
}
