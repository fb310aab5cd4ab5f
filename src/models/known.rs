//! What the table knows about a model that the service does not say.

use super::table::{FAMILIES, Family, LIMITS, Limit};
use super::variant::Variant;

/// Context window of a model about which nothing is known, in tokens (BEHAVIOUR 8.3).
pub const DEFAULT_CONTEXT: u64 = 200_000;
/// Output limit of a model about which nothing is known, in tokens (BEHAVIOUR 8.3).
pub const DEFAULT_OUTPUT: u64 = 64_000;
/// The window that a `1m` mark promises, in tokens (BEHAVIOUR 8.5).
pub(super) const ONE_MILLION: u64 = 1_000_000;

/// Where a limit is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    /// The service, or a run, said it.
    Live,
    /// Our table.
    Table {
        /// What the row was taken from.
        source: &'static str,
        /// Year and month of that source.
        date: &'static str,
    },
    /// Nobody knows: the default.
    Default,
}

/// The row for the family of this base id.
pub(super) fn family(base: &str) -> Option<&'static Family> {
    let key = key(base);
    FAMILIES.iter().find(|row| row.patterns.iter().any(|pattern| matches(pattern, &key)))
}

/// The row with the limits of this base id.
pub(super) fn limit(base: &str) -> Option<&'static Limit> {
    let key = key(base);
    LIMITS.iter().find(|row| row.patterns.iter().any(|pattern| matches(pattern, &key)))
}

/// How a base id is looked up: lower case, a short number after a number and a dash as its fraction
/// (`claude-4-5-sonnet` as `claude-4.5-sonnet`), no `-1m` at the end.
fn key(base: &str) -> String {
    let lower = base.to_ascii_lowercase();
    let mut key = String::with_capacity(lower.len());
    let (mut parts, mut after_number) = (lower.split('-'), false);
    key.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let number = is_number(part);
        key.push(if number && after_number { '.' } else { '-' });
        key.push_str(part);
        // One fraction only, and a date is none.
        after_number = number && !after_number;
    }
    let end = key.strip_suffix("-1m").map_or(key.len(), str::len);
    key.truncate(end);
    key
}

/// One or two digits.
fn is_number(part: &str) -> bool {
    matches!(part.len(), 1 | 2) && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `text` is what `pattern` says; `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    while let Some((part, rest)) = pattern.split_once('*') {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
        pattern = rest;
    }
    text.ends_with(pattern)
}

/// Whether `text` holds `1m` (or `1 M`) that is no part of a longer word or number (BEHAVIOUR 8.5).
pub(super) fn says_one_million(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'1').any(|(at, _)| {
        let spaces = bytes.iter().skip(at + 1).take_while(|byte| **byte == b' ').count();
        let m = at + 1 + spaces;
        let is_m = bytes.get(m).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'm'));
        is_m && !word(at.checked_sub(1)) && !word(Some(m + 1))
    })
}

/// The families of the reference (BEHAVIOUR 8.3). Written out and not from the table: the table may
/// change, the reference does not.
fn reference_family(base: &str) -> bool {
    let head = base.split('-').next().unwrap_or_default();
    ["claude", "composer", "gemini", "gpt", "kimi"]
        .iter()
        .any(|family| head.eq_ignore_ascii_case(family))
}

/// Whether a model with this primary id reasons, as the reference judges it: by the id alone.
pub(super) fn reference_reasons(id: &str) -> bool {
    let variant = Variant::parse(id);
    variant.effort.is_some()
        || variant.thinking
        || variant.base == "default"
        || reference_family(variant.base)
}

/// Whether a model with this base takes images, as the reference judges it.
pub(super) fn reference_images(base: &str) -> bool {
    base == "grok-4.3" || reference_family(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("gpt", "gpt", true),
            ("gpt", "gpt-5", false),
            ("gpt-*", "gpt-5", true),
            ("gpt-*", "gpt", false),
            ("gpt-*-spark*", "gpt-5.3-codex-spark-preview", true),
            ("gpt-*-spark*", "gpt-5.3-codex", false),
            ("*a*a", "aa", true),
            ("*a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_version_reads_the_same_with_dashes() {
        assert_eq!(key("Claude-4-5-Sonnet"), "claude-4.5-sonnet");
        assert_eq!(key("claude-opus-4-6-1m"), "claude-opus-4.6");
        assert_eq!(key("claude-sonnet-4-20250514"), "claude-sonnet-4-20250514");
        assert_eq!(key("x-1-2-3"), "x-1.2-3");
        assert_eq!(limit("claude-4-5-sonnet").unwrap().context, 1_000_000);
    }

    #[test]
    fn one_million_is_a_word_of_its_own() {
        for yes in ["GPT-5.4 1M High", "claude-4-sonnet-1m", "1 m", "(1M)"] {
            assert!(says_one_million(yes), "{yes}");
        }
        for no in ["11m", "1mb", "a1m", "1-m", "1", "m1", "1 mini", ""] {
            assert!(!says_one_million(no), "{no}");
        }
    }

    #[test]
    fn every_row_says_where_it_is_from() {
        for row in LIMITS {
            assert!(!row.source.is_empty() && row.date.len() >= 7 && !row.patterns.is_empty());
            assert!(row.context > 0 && row.output > 0);
        }
    }
}
