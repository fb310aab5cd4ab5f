//! From served ids to models: variants of one model become one entry with levels (BEHAVIOUR 8.2, 8.3,
//! 8.5).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::Policy;
use super::catalog::{Catalog, Entry, Source};
use super::known::{self, DEFAULT_CONTEXT, DEFAULT_OUTPUT, LimitSource, ONE_MILLION};
use super::level::{Level, LevelMap, Target};
use super::table::Limit;
use super::variant::{Effort, Variant};

/// One model as a person sees it: a name, what it can do, and the ids behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The primary id: base, `-thinking` and `-fast`. When all variants carry an effort it may be an
    /// id that the service does not know, so it names the model and is not for the wire;
    /// [`super::Roster::resolve`] gives that one.
    pub id: String,
    /// The name for people, without a mark for an estimated catalog.
    pub name: String,
    /// Whether the catalog is the estimated one.
    pub estimated: bool,
    /// Whether the model reasons.
    pub reasoning: bool,
    /// Whether the model takes images beside text. False also where nobody knows it
    /// ([`Model::refuses_images`]).
    pub images: bool,
    /// What each level stands for; none when no variant carries an effort.
    pub levels: Option<LevelMap>,
    /// The served ids of this model, in the order they were served. Never empty.
    pub variants: Vec<String>,
    /// Where the context window is from.
    pub window_source: LimitSource,
    pub(super) known_family: bool,
    pub(super) context_window: f64,
    pub(super) max_tokens: f64,
}

impl Model {
    /// Context window in tokens.
    pub fn context_window(&self) -> u64 {
        self.context_window as u64
    }

    /// Output limit in tokens.
    pub fn max_tokens(&self) -> u64 {
        self.max_tokens as u64
    }

    /// Whether it is known that the model takes text only: its family is in the table.
    pub fn refuses_images(&self) -> bool {
        self.known_family && !self.images
    }

    /// The name, with ` (estimated)` behind it where the catalog is (BEHAVIOUR 8.2).
    pub fn label(&self) -> String {
        let mark = if self.estimated { " (estimated)" } else { "" };
        format!("{}{mark}", self.name)
    }
}

/// The models of a catalog, sorted by primary id.
///
/// [`Policy::Current`] sorts by bytes; [`Policy::Reference`] as the reference's locale does.
pub fn map(catalog: &Catalog, policy: Policy) -> Vec<Model> {
    let groups = group(&catalog.entries, policy);
    let wide = wide_bases(&catalog.entries);
    let mut models: Vec<_> =
        groups.iter().map(|group| group.model(catalog.source, policy, &wide)).collect();
    match policy {
        Policy::Current => models.sort_by(|a, b| a.id.cmp(&b.id)),
        Policy::Reference => models.sort_by(|a, b| locale_order(&a.id, &b.id)),
    }
    models
}

/// The variants that are one model: same base, same `-thinking`, same `-fast`.
struct Group<'a> {
    primary: String,
    /// The shortest base of the members, which nearly always is the base of all of them.
    base: &'a str,
    thinking: bool,
    members: Vec<(Variant<'a>, &'a Entry)>,
}

/// Groups in order of first appearance.
///
/// Ids with their suffixes in another order (`x-fast-high`, beside `x-fast`) come to the same primary
/// id from another base. The reference lists two models of one id then; here they are one.
fn group(entries: &[Entry], policy: Policy) -> Vec<Group<'_>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for entry in entries {
        let variant = Variant::parse(&entry.id);
        let primary = variant.sibling(None);
        let own_base = if policy == Policy::Reference { variant.base } else { "" };
        let place = *places.entry((primary, own_base)).or_insert_with_key(|(primary, _)| {
            groups.push(Group {
                primary: primary.clone(),
                base: variant.base,
                thinking: variant.thinking,
                members: Vec::new(),
            });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            if variant.base.len() < group.base.len() {
                group.base = variant.base;
            }
            group.thinking |= variant.thinking;
            group.members.push((variant, entry));
        }
    }
    groups
}

/// Bases of which some variant says `1m` in its id or name: the rule counts for all of them
/// (BEHAVIOUR 8.5).
fn wide_bases(entries: &[Entry]) -> HashSet<&str> {
    let says = |entry: &&Entry| {
        let names = [entry.name.as_deref(), entry.display_name.as_deref()];
        let mut texts = names.into_iter().flatten().chain([entry.id.as_str()]);
        texts.any(known::says_one_million)
    };
    entries.iter().filter(says).map(|entry| Variant::parse(&entry.id).base).collect()
}

impl Group<'_> {
    fn model(&self, source: Source, policy: Policy, wide: &HashSet<&str>) -> Model {
        let id = self.primary.clone();
        let (context_window, max_tokens) = match policy {
            Policy::Current => self.limits(wide.contains(self.base)),
            Policy::Reference => self.reference_limits(),
        };
        let (reasoning, images) = match policy {
            Policy::Current => (self.reasons(), known::family(self.base).is_some_and(|f| f.images)),
            Policy::Reference => {
                (known::reference_reasons(&id), known::reference_images(Variant::parse(&id).base))
            }
        };
        Model {
            name: self.name(),
            estimated: source == Source::Estimated,
            reasoning,
            images,
            levels: self.levels(policy),
            variants: self.members.iter().map(|(variant, _)| variant.id.to_owned()).collect(),
            window_source: self.window_source(),
            known_family: known::family(self.base).is_some(),
            context_window,
            max_tokens,
            id,
        }
    }

    fn has_effort(&self) -> bool {
        self.members.iter().any(|(variant, _)| variant.effort.is_some())
    }

    fn name(&self) -> String {
        let find = |test: &dyn Fn(&Variant<'_>) -> bool| {
            self.members.iter().find(|(variant, _)| test(variant))
        };
        let chosen = find(&|variant| variant.id == self.primary)
            .or_else(|| find(&|variant| variant.effort == Some(Effort::Medium)))
            .or_else(|| find(&|variant| variant.effort.is_none()))
            .or_else(|| self.members.first());
        let label = chosen.and_then(|(_, entry)| entry.label());
        label.map_or_else(|| super::variant::title_case(self.base), str::to_owned)
    }

    /// By family, by the ids (an effort or `-thinking`), or by what the service says; the reference
    /// forgets the last two for families it does not know (BEHAVIOUR 13, H41b).
    fn reasons(&self) -> bool {
        self.thinking
            || known::family(self.base).is_some_and(|family| family.reasons)
            || self.members.iter().any(|(v, entry)| v.effort.is_some() || entry.says_reasoning())
    }

    /// The largest positive live value, else the table's, else the default; whole numbers. A `1m` mark
    /// raises a window that nobody measured.
    fn limits(&self, wide: bool) -> (f64, f64) {
        let row = known::limit(self.base);
        let context = self.live(|entry| entry.context_window).unwrap_or_else(|| {
            let known = row.map_or(DEFAULT_CONTEXT, |row| row.context);
            known.max(if wide { ONE_MILLION } else { 0 }) as f64
        });
        let output = self.live(|entry| entry.max_tokens);
        let known = row.map_or(DEFAULT_OUTPUT, |row| row.output) as f64;
        (context, output.unwrap_or(known))
    }

    /// The largest live value that can be a limit.
    fn live(&self, value: impl Fn(&Entry) -> Option<f64>) -> Option<f64> {
        let values = self.members.iter().filter_map(|(_, entry)| value(entry));
        values.map(f64::floor).filter(|v| v.is_finite() && *v >= 1.0).reduce(f64::max)
    }

    fn window_source(&self) -> LimitSource {
        if self.live(|entry| entry.context_window).is_some() {
            return LimitSource::Live;
        }
        let table = |row: &Limit| LimitSource::Table { source: row.source, date: row.date };
        known::limit(self.base).map_or(LimitSource::Default, table)
    }

    /// The largest finite value whatever it is, else the default (BEHAVIOUR 8.3).
    fn reference_limits(&self) -> (f64, f64) {
        let largest = |value: &dyn Fn(&Entry) -> Option<f64>| {
            let values = self.members.iter().filter_map(|(_, entry)| value(entry));
            values.filter(|v| v.is_finite()).reduce(f64::max)
        };
        (
            largest(&|entry| entry.context_window).unwrap_or(DEFAULT_CONTEXT as f64),
            largest(&|entry| entry.max_tokens).unwrap_or(DEFAULT_OUTPUT as f64),
        )
    }

    fn levels(&self, policy: Policy) -> Option<LevelMap> {
        self.has_effort().then(|| {
            let table = EffortTable::new(self);
            match policy {
                Policy::Reference => table.reference_map(),
                Policy::Current => {
                    table.map(self.members.iter().any(|(v, _)| v.id == self.primary))
                }
            }
        })
    }
}

/// Which id a group has for each effort; the last place is for the one without (`default`).
struct EffortTable<'a>([Option<&'a str>; 7]);

const DEFAULT: usize = 6;
const NONE: usize = Effort::None as usize;
const LOW: usize = Effort::Low as usize;
const MEDIUM: usize = Effort::Medium as usize;
const HIGH: usize = Effort::High as usize;
const XHIGH: usize = Effort::Xhigh as usize;
const MAX: usize = Effort::Max as usize;

/// Which places each level prefers, in this order (BEHAVIOUR 8.3).
const PREFERENCES: [(Level, [usize; 3]); 4] = [
    (Level::Minimal, [NONE, LOW, DEFAULT]),
    (Level::Low, [LOW, NONE, DEFAULT]),
    (Level::Medium, [MEDIUM, DEFAULT, LOW]),
    (Level::High, [HIGH, MEDIUM, DEFAULT]),
];
/// Where a level goes of which none of the preferred places is filled.
const REST: [usize; 7] = [NONE, LOW, DEFAULT, MEDIUM, HIGH, XHIGH, MAX];

impl<'a> EffortTable<'a> {
    /// The first variant per effort counts.
    fn new(group: &Group<'a>) -> Self {
        let mut table = [None; 7];
        for (variant, entry) in &group.members {
            let counts = variant.effort.is_some()
                || variant.id == group.primary
                || variant.thinking
                || entry.says_reasoning();
            let place = variant.effort.map_or(DEFAULT, |effort| effort as usize);
            if let Some(slot) = table.get_mut(place).filter(|_| counts) {
                slot.get_or_insert(variant.id);
            }
        }
        Self(table)
    }

    fn first(&self, places: &[usize]) -> Option<&'a str> {
        places.iter().find_map(|place| *self.0.get(*place)?)
    }

    fn common(&self) -> LevelMap {
        let mut map = LevelMap::default();
        for (level, preferred) in PREFERENCES {
            map.set(level, target(self.first(&preferred).or_else(|| self.first(&REST))));
        }
        map
    }

    /// `xhigh` falls back to whatever there is.
    fn reference_map(&self) -> LevelMap {
        let mut map = self.common();
        let xhigh = self.first(&[MAX, XHIGH, HIGH]).or_else(|| self.first(&REST));
        map.set(Level::Xhigh, target(xhigh));
        map
    }

    /// `xhigh` and `max` are there or not; a model whose own id is not served has `off` for it.
    fn map(&self, own_id_served: bool) -> LevelMap {
        let mut map = self.common();
        map.set(Level::Xhigh, target(self.first(&[MAX, XHIGH])));
        map.set(Level::Max, target(self.first(&[MAX])));
        if !own_id_served {
            let least = map.supported().next().map(|(_, id)| id.to_owned());
            map.set(Level::Off, least.map_or(Target::Unsupported, Target::Id));
        }
        map
    }
}

fn target(id: Option<&str>) -> Target {
    id.map_or(Target::Unsupported, |id| Target::Id(id.to_owned()))
}

/// The order of the reference's locale for what ids are made of: punctuation first, in Unicode's own
/// order, then digits, then letters whatever their case; case decides at the end, lower first.
fn locale_order(a: &str, b: &str) -> Ordering {
    const PUNCTUATION: &str = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";
    let weight = |c: char| -> (u8, u32) {
        match c {
            '0'..='9' => (2, c.into()),
            _ if c.is_alphabetic() => (3, c.to_lowercase().next().unwrap_or(c).into()),
            _ => match PUNCTUATION.find(c) {
                Some(at) => (1, at as u32),
                None => (u8::from(!c.is_whitespace()), c.into()),
            },
        }
    };
    let by_weight = a.chars().map(weight).cmp(b.chars().map(weight));
    by_weight.then_with(|| {
        let case = |text: &str| text.chars().map(char::is_uppercase).collect::<Vec<_>>();
        case(a).cmp(&case(b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(ids: &[&str]) -> Vec<Model> {
        let entries = ids.iter().map(|id| Entry::new(*id)).collect();
        map(&Catalog::live(entries, 0), Policy::Current)
    }

    #[test]
    fn families_nobody_knows_are_judged_by_their_variants() {
        let models = models(&["m-medium", "m-high", "plain", "glm-4-thinking"]);
        let reasoning: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.reasoning)).collect();
        assert_eq!(reasoning, [("glm-4-thinking", true), ("m", true), ("plain", false)]);
        let flagged = Entry { supports_thinking: Some(true), ..Entry::new("plain") };
        assert!(map(&Catalog::live(vec![flagged], 0), Policy::Current)[0].reasoning);
    }

    #[test]
    fn suffixes_in_another_order_are_the_same_model() {
        let ids =
            ["claude-opus-4-8-thinking", "claude-opus-4-8-thinking-high", "x-fast-high", "x-fast"];
        let models = models(&ids);
        let names: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.variants.len())).collect();
        assert_eq!(names, [("claude-opus-4-8-thinking", 2), ("x-fast", 2)]);
        let entries = ids.iter().map(|id| Entry::new(*id)).collect();
        assert_eq!(map(&Catalog::live(entries, 0), Policy::Reference).len(), 4);
    }

    #[test]
    fn the_locale_puts_case_last_and_punctuation_first() {
        let mut ids = vec!["b", "B", "a_b", "a-b", "a.b", "a1", "aa", "A", "a"];
        ids.sort_by(|a, b| locale_order(a, b));
        assert_eq!(ids, ["a", "A", "a_b", "a-b", "a.b", "a1", "aa", "b", "B"]);
    }
}
