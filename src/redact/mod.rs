//! Keeping secrets and control characters out of what people and logs see.
//!
//! A peer can repeat the token in an error text: as it is, percent-encoded, escaped as JSON,
//! inside base64, cut at the end of a text or split over two (FAULTS M88). A [`Redactor`] knows
//! the secrets of a call and takes all of these out; what looks like a bearer token goes out even
//! when nobody told it. Then it escapes what could move a cursor or break a log line (FAULTS M22),
//! and cuts the text to a length for people.
//!
//! What counts as a secret, by its length in bytes, so that a short one does not destroy the text
//! (BEHAVIOUR H59):
//!
//! | length | treatment |
//! |---|---|
//! | 0 to 2 | ignored: it hides nothing, and every text contains it |
//! | 3 to 7 | taken out where no letter or digit touches it, in all forms but base64 |
//! | 8 and more | taken out everywhere, in every form, and as a part cut at either end of the text |

mod bearer;
#[cfg(any(feature = "client", test))]
mod mask;
mod matcher;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::secret::REDACTED;
#[cfg(any(feature = "client", test))]
pub(crate) use mask::Mask;
use matcher::Needle;

/// The longest cleaned text, in UTF-16 units (BEHAVIOUR 7.4).
pub const MAX_UNITS: usize = 1200;
/// How much of a text is looked at: beyond [`MAX_UNITS`] only what redaction may shorten matters. No
/// option: of a longer text nothing more would be shown.
const MAX_INPUT: usize = 64 * 1024;
/// What stands at the end of a text that was cut.
const ELLIPSIS: char = '…';

/// Takes secrets out of texts. Cheap to clone; `Debug` says how many secrets it knows.
#[derive(Clone, Default)]
pub struct Redactor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    mode: Mode,
    needles: Vec<Needle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    House,
    Reference,
    Verbatim,
}

impl Redactor {
    /// A redactor that knows `secrets` and takes them out in every form.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut needles: Vec<Needle> = Vec::new();
        for secret in secrets {
            matcher::add_forms(&mut needles, secret.as_ref());
        }
        // Of two secrets that start alike, the longer one must be tried first.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self(Arc::new(Inner { mode: Mode::House, needles }))
    }

    /// The reference's rules (BEHAVIOUR 7.4), for the vectors: exact matches of any length, two
    /// bearer rules, no escaping, a cut without a mark.
    pub fn reference<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let needles = secrets.into_iter().filter_map(|secret| Needle::exact(secret.as_ref()));
        Self(Arc::new(Inner { mode: Mode::Reference, needles: needles.collect() }))
    }

    /// Leaves every text as it came. For tests of the transport against other implementations,
    /// which compare texts to the byte; never where a person or a log reads the text.
    pub fn verbatim() -> Self {
        Self(Arc::new(Inner { mode: Mode::Verbatim, needles: Vec::new() }))
    }

    /// `text` without secrets, on one line, without control characters, cut to [`MAX_UNITS`].
    pub fn clean(&self, text: &str) -> String {
        match self.0.mode {
            Mode::Verbatim => text.to_owned(),
            Mode::Reference => {
                let mut clean = bearer::reference_rules(text);
                for needle in &self.0.needles {
                    clean = needle.replace_exact(&clean);
                }
                first_units(&clean, MAX_UNITS).into_owned()
            }
            Mode::House => escape_and_cut(&self.hide(prefix(text, MAX_INPUT))),
        }
    }

    /// `text` without secrets, otherwise as it came: for values that programs read.
    pub fn hide(&self, text: &str) -> String {
        match self.0.mode {
            Mode::Verbatim => text.to_owned(),
            Mode::Reference => self.clean(text),
            // Known secrets first: a rule that rewrites part of one would hide it from its match.
            Mode::House => bearer::house_rules(&matcher::replace(&self.0.needles, text)),
        }
    }

    /// The same on every string inside `value`.
    pub(crate) fn hide_json(&self, value: &mut serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_json(item)),
            Value::Object(members) => {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(name, mut value)| {
                        self.hide_json(&mut value);
                        (self.hide(&name), value)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("mode", &self.0.mode).finish_non_exhaustive()
    }
}

/// [`Redactor::clean`] for a text where no secret is known: bearer tokens still go out.
pub fn clean(text: &str) -> String {
    Redactor::default().clean(text)
}

/// The value of a header for a log: `authorization` is a secret whole, in any case.
pub fn header_value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if ["authorization", "proxy-authorization", "cookie", "set-cookie"]
        .iter()
        .any(|secret| name.trim().eq_ignore_ascii_case(secret))
    {
        Cow::Borrowed(REDACTED)
    } else {
        Cow::Owned(bearer::reference_rules(value))
    }
}

/// Whether a character could change how the text around it is shown: control characters, line
/// separators, direction marks and other invisible ones.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// One line of at most [`MAX_UNITS`] units; an escape and a `[redacted]` stay whole at the cut.
fn escape_and_cut(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_UNITS) + 16);
    // `whole` is where the text may end so that the mark still fits.
    let (mut units, mut whole) = (0, 0);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let start = out.len();
        if let Some(tail) = rest.strip_prefix(REDACTED) {
            out.push_str(REDACTED);
            rest = tail;
        } else {
            if is_unprintable(c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
        units += out.get(start..).map_or(0, |piece| piece.encode_utf16().count());
        if units > MAX_UNITS {
            out.truncate(whole);
            out.push(ELLIPSIS);
            return out;
        }
        if units < MAX_UNITS {
            whole = out.len();
        }
    }
    out
}

/// The longest start of `text` that has at most `units` UTF-16 units; half of a pair that the cut
/// leaves is shown as U+FFFD, as a JavaScript string would print.
fn first_units(text: &str, units: usize) -> Cow<'_, str> {
    let mut left = units;
    for (at, c) in text.char_indices() {
        if c.len_utf16() > left {
            let head = text.get(..at).unwrap_or_default();
            return if left == 0 {
                Cow::Borrowed(head)
            } else {
                Cow::Owned(format!("{head}\u{fffd}"))
            };
        }
        left -= c.len_utf16();
    }
    Cow::Borrowed(text)
}

/// At most `max` bytes of `text`, ending between characters.
fn prefix(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
