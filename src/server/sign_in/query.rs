//! The query of a request, as a form encodes it.

/// Names and values.
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn new(query: &'a str) -> Self {
        Self(query)
    }

    /// The first value of this name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).next()?;
        Some(decoded(value)).filter(|value| !value.is_empty())
    }
}

/// `+` is a blank, `%` and two hexadecimal digits a byte; what is neither stays as it is.
fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = || {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
        };
        match byte {
            b'+' => out.push(b' '),
            b'%' => match escaped() {
                Some(value) => {
                    out.push(value);
                    rest = tail.get(2..).unwrap_or_default();
                }
                None => out.push(b'%'),
            },
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::new("a=&uuid=x%20y+z&verifier=%C3%A9%&x&a=1&b=%+1");
        assert_eq!(query.get("uuid").as_deref(), Some("x y z"));
        assert_eq!(query.get("verifier").as_deref(), Some("\u{e9}%"));
        assert_eq!(query.get("b").as_deref(), Some("% 1"));
        assert_eq!((query.get("a"), query.get("x"), query.get("c")), (None, None, None));
    }
}
