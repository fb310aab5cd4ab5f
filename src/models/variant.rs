//! Model ids taken apart: `<base>[-effort][-thinking][-fast]` (BEHAVIOUR 8.1).

use std::fmt;

/// How much a model thinks, as its id says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effort {
    /// `none`: no reasoning at all.
    None,
    /// `low`.
    Low,
    /// `medium`.
    Medium,
    /// `high`.
    High,
    /// `xhigh`.
    Xhigh,
    /// `max`.
    Max,
}

impl Effort {
    /// All efforts, in the order in which an id is searched for them.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The word in an id and in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort of this word; case counts.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.as_str() == word)
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An id and what its suffixes say. Borrowed: parsing allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant<'a> {
    /// The id as it is served.
    pub id: &'a str,
    /// The id without the suffixes; empty for ids that are nothing else (`-high`).
    pub base: &'a str,
    /// The effort suffix.
    pub effort: Option<Effort>,
    /// Whether the id ends with `-thinking` (before a `-fast`).
    pub thinking: bool,
    /// Whether the id ends with `-fast`.
    pub fast: bool,
}

impl<'a> Variant<'a> {
    /// Takes `id` apart. Never fails: an id without suffixes is its own base.
    ///
    /// ```
    /// use agentwire::models::{Effort, Variant};
    /// let variant = Variant::parse("claude-4-sonnet-high-thinking-fast");
    /// assert_eq!(variant.base, "claude-4-sonnet");
    /// assert_eq!(variant.effort, Some(Effort::High));
    /// assert!(variant.thinking && variant.fast);
    /// ```
    pub fn parse(id: &'a str) -> Self {
        let (rest, fast) = strip(id, "-fast");
        let (rest, thinking) = strip(rest, "-thinking");
        let found = Effort::ALL.into_iter().find_map(|effort| {
            let base = rest.strip_suffix(effort.as_str())?.strip_suffix('-')?;
            Some((base, effort))
        });
        let (base, effort) = found.map_or((rest, None), |(base, effort)| (base, Some(effort)));
        Self { id, base, effort, thinking, fast }
    }

    /// The id of the sibling with this effort: same base, same `-thinking` and `-fast`.
    pub fn sibling(&self, effort: Option<Effort>) -> String {
        join(self.base, effort, self.thinking, self.fast)
    }

    /// The base in words: the name of a model that has no other (BEHAVIOUR 8.1).
    pub fn title(&self) -> String {
        title_case(self.base)
    }
}

/// `id` with `-effort` put before its `-thinking` and `-fast`; an effort that is there already stays,
/// `None` changes nothing (BEHAVIOUR 8.1, "insert effort").
pub fn with_effort(id: &str, effort: Option<Effort>) -> String {
    if effort.is_none() {
        return id.to_owned();
    }
    let (rest, fast) = strip(id, "-fast");
    let (rest, thinking) = strip(rest, "-thinking");
    join(rest, effort, thinking, fast)
}

/// Splits on runs of `-`, `_` and `/`, raises each part's first letter, joins by spaces; dots stay.
pub fn title_case(base: &str) -> String {
    let mut title = String::with_capacity(base.len());
    for part in base.split(['-', '_', '/']).filter(|part| !part.is_empty()) {
        if !title.is_empty() {
            title.push(' ');
        }
        let mut letters = part.chars();
        title.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        title.push_str(letters.as_str());
    }
    title
}

fn strip<'a>(id: &'a str, suffix: &str) -> (&'a str, bool) {
    id.strip_suffix(suffix).map_or((id, false), |rest| (rest, true))
}

fn join(base: &str, effort: Option<Effort>, thinking: bool, fast: bool) -> String {
    let mut id = base.to_owned();
    if let Some(effort) = effort {
        id.push('-');
        id.push_str(effort.as_str());
    }
    if thinking {
        id.push_str("-thinking");
    }
    if fast {
        id.push_str("-fast");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_count_in_one_order_only() {
        let odd = Variant::parse("x-fast-thinking");
        assert_eq!((odd.base, odd.thinking, odd.fast), ("x-fast", true, false));
        let odd = Variant::parse("x-fast-high");
        assert_eq!((odd.base, odd.effort, odd.fast), ("x-fast", Some(Effort::High), false));
        assert_eq!(Variant::parse("beta-default").base, "beta-default");
        assert_eq!(Variant::parse("max").effort, None);
        assert_eq!(Variant::parse("-high").base, "");
        assert_eq!(Variant::parse("gpt-5-xhigh").effort, Some(Effort::Xhigh));
    }

    #[test]
    fn an_effort_is_inserted_before_the_other_suffixes() {
        let max = Some(Effort::Max);
        assert_eq!(
            with_effort("claude-4-sonnet-thinking-fast", max),
            "claude-4-sonnet-max-thinking-fast"
        );
        assert_eq!(with_effort("a-high", Some(Effort::Low)), "a-high-low");
        assert_eq!(with_effort("a-high", None), "a-high");
        assert_eq!(Variant::parse("a-high-fast").sibling(Some(Effort::Low)), "a-low-fast");
    }

    #[test]
    fn titles_keep_dots_and_inner_capitals() {
        assert_eq!(title_case("llama--max_x/y4.5"), "Llama Max X Y4.5");
        assert_eq!(title_case("x-High"), "X High");
        assert_eq!(title_case("-"), "");
    }
}
