//! [`Secret`]: a value that prints as `[redacted]`, in every build, and is wiped when dropped.

use std::fmt;

use zeroize::Zeroize;

/// What a secret prints as, in `Debug` and `Display` alike.
pub const REDACTED: &str = "[redacted]";

/// A token or another value that must not reach a log, an error or a terminal.
///
/// `Debug` and `Display` print [`REDACTED`]; there is no `Serialize`. The memory is overwritten on
/// drop. [`Secret::expose`] is the only way to the value, so its uses can be listed with a search.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize = String>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself: for the header that carries it, and nothing else.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_redacted_and_nothing_else() {
        let secret = Secret::from("tok-123");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "[redacted] [redacted] Some([redacted])"
        );
        assert_eq!(secret.expose(), "tok-123");
    }
}
