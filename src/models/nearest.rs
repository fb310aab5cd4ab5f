//! The names nearest to one that nobody knows.

/// Characters that are compared; ids are shorter, and the work stays bounded. No
/// option: it only chooses the words of an error.
const COMPARED: usize = 64;

/// At most `count` of `candidates` that look like `name`: those that start with it or hold it first,
/// then by edit distance, never more than half of the name away. Case does not count. For hints
/// about models, tools and whatever else has a name.
///
/// ```
/// use agentwire::models::nearest;
///
/// assert_eq!(nearest("fles_read", ["files_read", "web_get"].into_iter(), 3), ["files_read"]);
/// ```
pub fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let wanted = fold(name);
    let mut ranked: Vec<_> = candidates
        .filter_map(|candidate| {
            let other = fold(candidate);
            let distance = distance(&wanted, &other);
            let holds = other.windows(wanted.len().max(1)).any(|part| part == wanted);
            (holds || distance * 2 <= wanted.len()).then_some((!holds, distance, candidate))
        })
        .collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().take(count).map(|(_, _, candidate)| candidate).collect()
}

fn fold(name: &str) -> Vec<u8> {
    name.bytes().take(COMPARED).map(|byte| byte.to_ascii_lowercase()).collect()
}

/// Insertions, deletions and replacements between the two.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (slot, y) in row.iter_mut().skip(1).zip(b) {
            let above = *slot;
            let replaced = diagonal + usize::from(x != y);
            left = replaced.min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_and_beginnings_are_found() {
        let ids = ["gpt-5.4", "gpt-5.4-high", "composer-2", "claude-4.6-opus"];
        let near = |name| nearest(name, ids.into_iter(), 3);
        assert_eq!(near("gpt-5.5"), ["gpt-5.4"]);
        assert_eq!(near("GPT-5"), ["gpt-5.4", "gpt-5.4-high"]);
        assert_eq!(near("opus"), ["claude-4.6-opus"]);
        assert_eq!(near("composer2"), ["composer-2"]);
        assert!(near("zzz").is_empty());
    }

    #[test]
    fn distance_is_symmetric_and_zero_for_equals() {
        for (a, b, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0)] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected);
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), expected);
        }
    }
}
