//! Sign-ins: `login`, `logout`, `status`, and the account that the other commands use.

mod login;
mod logout;
mod status;
mod when;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentwire::auth::{Account, Auth, FileStore, Key, TokenStore, Tokens};

use crate::failure::Failure;

pub(crate) use login::Args as LoginArgs;
pub(crate) use logout::Args as LogoutArgs;
pub(crate) use status::Args as StatusArgs;
pub(crate) use {login::run as login, logout::run as logout, status::run as status};

/// The variable that names the base URL.
const ENDPOINT: &str = "AGENTWIRE_ENDPOINT";
/// The variable that names the path of the refresh call.
const REFRESH_PATH: &str = "AGENTWIRE_REFRESH_PATH";
/// The variable that names the directory of sign-ins.
const CONFIG_DIR: &str = "AGENTWIRE_CONFIG_DIR";

/// The variable that says where sign-ins are kept: `file` or `keyring`.
const TOKEN_STORE: &str = "AGENTWIRE_TOKEN_STORE";

/// Where an account is, as arguments of a command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Base URL of the service [env: AGENTWIRE_ENDPOINT] [default: https://api2.cursor.sh]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,

    /// Which of several accounts there: a name of your choice
    #[arg(long, value_name = "NAME", default_value = Key::DEFAULT_ACCOUNT, value_parser = name)]
    pub(crate) account: String,
}

/// How the endpoint is reached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way<'a> {
    pub(crate) web_base: Option<&'a str>,
    pub(crate) tls_ca: Option<&'a Path>,
    pub(crate) allow_cleartext: bool,
}

impl Place {
    /// The sign-in of the endpoint that was named, in an argument or in the environment.
    fn auth(&self, way: Way<'_>) -> Result<Auth, Failure> {
        let mut builder = Auth::builder().allow_cleartext(way.allow_cleartext);
        if let Some(url) = endpoint(self.endpoint.as_deref())? {
            builder = builder.endpoint(url);
        }
        if let Some(url) = way.web_base {
            builder = builder.web_base(url);
        }
        if let Some(file) = way.tls_ca {
            builder = builder.ca_file(file);
        }
        if let Some(path) = variable(REFRESH_PATH)? {
            builder = builder.refresh_path(path);
        }
        Ok(builder.build()?)
    }

    fn key(&self, auth: &Auth) -> Key {
        Account::key_of(auth).account(&self.account)
    }

    /// The account that is kept for this place, if somebody signed in.
    pub(crate) async fn stored(&self, way: Way<'_>) -> Result<Option<Account>, Failure> {
        let auth = self.auth(way)?;
        let key = self.key(&auth);
        Ok(Account::load(auth, store()?.tokens, key).await?)
    }
}

/// A name that is one.
fn name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("an account needs a name".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Whose list of models is kept under which name: the account's subject, which outlives its tokens, or
/// the name that it was given here.
pub(crate) fn catalog_owner(tokens: &Tokens, account: &str) -> String {
    tokens.claims().subject.unwrap_or_else(|| account.to_owned())
}

/// The base URL that was named; an argument wins over the environment.
pub(crate) fn endpoint(argument: Option<&str>) -> Result<Option<String>, Failure> {
    match argument {
        Some(url) => Ok(Some(url.to_owned())),
        None => variable(ENDPOINT),
    }
}

/// Where sign-ins are kept.
struct Kept {
    tokens: Arc<dyn TokenStore>,
    /// The directory, of those that are files.
    files: Option<FileStore>,
}

/// What the environment chose: files, or the system's keyring.
fn store() -> Result<Kept, Failure> {
    match variable(TOKEN_STORE)?.as_deref() {
        None | Some("file") => {
            let files = match std::env::var_os(CONFIG_DIR).filter(|dir| !dir.is_empty()) {
                Some(dir) => FileStore::new(PathBuf::from(dir)),
                None => FileStore::in_config_dir()?,
            };
            Ok(Kept { tokens: Arc::new(files.clone()), files: Some(files) })
        }
        Some("keyring") => keyring(),
        Some(_) => Err(Failure::usage(format!("{TOKEN_STORE} is neither `file` nor `keyring`"))),
    }
}

#[cfg(feature = "keyring")]
fn keyring() -> Result<Kept, Failure> {
    Ok(Kept { tokens: Arc::new(agentwire::auth::KeyringStore::new()?), files: None })
}

#[cfg(not(feature = "keyring"))]
fn keyring() -> Result<Kept, Failure> {
    Err(Failure::usage(format!(
        "{TOKEN_STORE} asks for the keyring, which this build leaves out; build it with \
         `--features keyring`"
    )))
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("the variable {name} is not text")))
        }
    }
}
