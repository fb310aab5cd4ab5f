//! Tokens in the system's keyring: a driver, it talks to the system.

use std::fmt;
use std::sync::Arc;

use keyring_core::{CredentialStore, Entry, Error as Fault};

use super::file::name_of;
use super::format;
use super::store::{Key, TokenStore};
use super::tokens::Tokens;
use crate::error::{Blame, Error, Kind, Result};

/// Under which name the system lists what is kept.
const SERVICE: &str = "agentwire";

/// How errors name where a sign-in is.
const PLACE: &str = "the sign-in in the system's keyring";

/// Keeps the tokens of each account in the keyring of the system, as one entry of the service
/// `agentwire` whose user is a digest, so that nothing of the account is listed.
///
/// | system | what | until when |
/// |---|---|---|
/// | Linux | the kernel's keyring of this user | the next start of the machine, or three days without use (`persistent_keyring_expiry`); in a system without persistent keyrings the end of the login session |
/// | macOS | the login keychain | it is removed |
/// | Windows | the credential manager, which takes 2,560 bytes of one entry | it is removed |
///
/// A keyring protects from a copied disk, not from other programs of the same user.
#[derive(Clone)]
pub struct KeyringStore {
    store: Arc<CredentialStore>,
}

impl KeyringStore {
    /// The keyring of this system.
    ///
    /// # Errors
    /// There is none that is supported, or it cannot be reached.
    pub fn new() -> Result<Self> {
        system().map(Self::over).map_err(|fault| failed("opened", &fault))
    }

    fn over(store: Arc<CredentialStore>) -> Self {
        Self { store }
    }

    fn entry(&self, user: &str) -> Result<Entry, Fault> {
        self.store.build(SERVICE, user, None)
    }

    fn entry_of(&self, key: &Key) -> Result<Entry, Fault> {
        self.entry(&name_of(key))
    }
}

#[cfg(target_os = "linux")]
fn system() -> Result<Arc<CredentialStore>, Fault> {
    Ok(linux_keyutils_keyring_store::Store::new()?)
}

#[cfg(target_os = "macos")]
fn system() -> Result<Arc<CredentialStore>, Fault> {
    Ok(apple_native_keyring_store::keychain::Store::new()?)
}

#[cfg(windows)]
fn system() -> Result<Arc<CredentialStore>, Fault> {
    Ok(windows_native_keyring_store::Store::new()?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
fn system() -> Result<Arc<CredentialStore>, Fault> {
    Err(Fault::NotSupportedByStore("no keyring of this system is supported".to_owned()))
}

/// What is said of a fault. Some faults carry the entry's bytes, so none is printed whole.
fn failed(what: &str, fault: &Fault) -> Error {
    let why = match fault {
        Fault::PlatformFailure(inner) | Fault::NoStorageAccess(inner) => inner.to_string(),
        Fault::TooLong(_, limit) => format!("it takes at most {limit} bytes of one"),
        Fault::NotSupportedByStore(why) => why.clone(),
        Fault::Ambiguous(_) => "there is more than one".to_owned(),
        _ => "it gave no reason".to_owned(),
    };
    let why: String = why.chars().take(200).collect();
    let text = format!("{PLACE} cannot be {what}: {}", why.escape_debug());
    Error::new(Kind::Rejected, text)
        .with_blame(Blame::Local)
        .with_hint("unlock the keyring, or keep sign-ins in a file")
}

impl TokenStore for KeyringStore {
    fn load(&self, key: &Key) -> Result<Option<Tokens>> {
        match self.entry_of(key).and_then(|entry| entry.get_secret()) {
            Ok(text) => {
                let read = format::read(&format::bytes(text), key);
                read.map(Some).map_err(|why| format::unusable(PLACE, why))
            }
            Err(Fault::NoEntry) => Ok(None),
            Err(fault) => Err(failed("read", &fault)),
        }
    }

    fn check(&self, _key: &Key) -> Result<()> {
        let probe = || {
            let entry = self.entry("probe")?;
            entry.set_secret(b"probe")?;
            entry.delete_credential()
        };
        probe().map_err(|fault| failed("kept", &fault))
    }

    fn save(&self, key: &Key, tokens: &Tokens) -> Result<()> {
        let text = format::encode(key, tokens);
        let entry = self.entry_of(key);
        entry
            .and_then(|entry| entry.set_secret(text.expose().as_bytes()))
            .map_err(|fault| failed("kept", &fault))
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        match self.entry_of(key).and_then(|entry| entry.delete_credential()) {
            Ok(()) => Ok(true),
            Err(Fault::NoEntry) => Ok(false),
            Err(fault) => Err(failed("removed", &fault)),
        }
    }
}

impl fmt::Debug for KeyringStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyringStore").field("vendor", &self.store.vendor()).finish()
    }
}

#[cfg(test)]
mod tests {
    use keyring_core::mock;

    use super::*;

    fn tokens(n: u64) -> Tokens {
        Tokens::new(format!("zz9-access-{n}"), format!("zz9-refresh-{n}"), n)
    }

    fn round_trip(store: &KeyringStore) {
        let home = Key::new("https://api.example").account(format!("test-{}", std::process::id()));
        let work = home.clone().account(format!("test-{}-work", std::process::id()));
        store.check(&home).unwrap();
        assert_eq!(store.load(&home).unwrap(), None);
        assert!(!store.remove(&home).unwrap());
        store.save(&home, &tokens(1)).unwrap();
        store.save(&work, &tokens(2)).unwrap();
        store.save(&home, &tokens(3)).unwrap();
        assert_eq!(store.load(&home).unwrap(), Some(tokens(3)));
        assert_eq!(store.load(&work).unwrap(), Some(tokens(2)));
        assert!(store.remove(&home).unwrap() && store.remove(&work).unwrap());
    }

    #[test]
    fn accounts_are_kept_apart_and_forgotten() {
        round_trip(&KeyringStore::over(mock::Store::new().unwrap()));
    }

    /// Containers may forbid the kernel's keyring; then that is what is said.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_systems_keyring_works_or_says_why_not() {
        let store = KeyringStore::new().unwrap();
        match store.check(&Key::new("https://api.example")) {
            Ok(()) => round_trip(&store),
            Err(error) => {
                eprintln!("no keyring on this machine: {error}");
                assert_eq!(error.blame(), Blame::Local);
                assert!(error.hint().is_some_and(|hint| hint.contains("file")));
            }
        }
    }

    #[test]
    fn a_fault_is_told_without_the_entry() {
        let store = KeyringStore::over(mock::Store::new().unwrap());
        let key = Key::new("https://api.example");
        let secret = || b"zz9-secret".to_vec();
        let faults = [
            (Fault::BadEncoding(secret()), "no reason"),
            (Fault::BadDataFormat(secret(), "x".into()), "no reason"),
            (Fault::NoStorageAccess("it is\nlocked".into()), "it is\\nlocked"),
            (Fault::TooLong("secret".into(), 2560), "at most 2560 bytes"),
        ];
        for (fault, why) in faults {
            let entry = store.entry_of(&key).unwrap();
            entry.as_any().downcast_ref::<mock::Cred>().unwrap().set_error(fault);
            let error = store.load(&key).unwrap_err();
            assert!(error.message().contains(why), "{error}");
            assert!(!format!("{error:?} {store:?}").contains("zz9"));
        }
        store.entry_of(&key).unwrap().set_secret(b"{zz9").unwrap();
        let error = store.load(&key).unwrap_err();
        assert_eq!(error.kind(), &Kind::Unauthenticated);
        assert!(!format!("{error:?}").contains("zz9"));
    }
}
