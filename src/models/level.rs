//! Thinking levels, and what a level is on the wire (BEHAVIOUR 8.3 to 8.5).

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Policy;
use super::variant::{Effort, Variant};

/// How much a caller wants a model to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// As little as the model can.
    Off,
    /// Barely.
    Minimal,
    /// A little.
    Low,
    /// The middle.
    Medium,
    /// Much.
    High,
    /// More than that.
    Xhigh,
    /// All the model has.
    Max,
}

impl Level {
    /// All levels, from least to most.
    pub const ALL: [Self; 7] =
        [Self::Off, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The levels that a search for the nearest one goes through: all but `off`.
    const THINKING: [Self; 6] =
        [Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The word for it on command lines and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not one of the seven levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a thinking level; the levels are off, minimal, low, medium, high, xhigh and max")]
pub struct UnknownLevel;

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == word).ok_or(UnknownLevel)
    }
}

/// What one level of a model stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// Nothing was said: the model's own id.
    #[default]
    Unsaid,
    /// The model does not have this level (`null` in JSON): the nearest one that it has.
    Unsupported,
    /// The id of a variant. A bare effort word stands for the sibling with this effort, `default` and
    /// the empty word for the model's own id: such maps come from people and files, not from us.
    Id(String),
}

impl Target {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Id(id) => Some(id),
            Self::Unsaid | Self::Unsupported => None,
        }
    }
}

/// Which id each level of a model stands for. In JSON an object of strings and nulls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LevelMap([Target; 7]);

impl LevelMap {
    /// What `level` stands for.
    pub fn get(&self, level: Level) -> &Target {
        // The discriminants are the positions in `Level::ALL`, which is as long as the array.
        self.0.get(level as usize).unwrap_or(&Target::Unsaid)
    }

    /// Says what `level` stands for.
    pub fn set(&mut self, level: Level, target: Target) {
        if let Some(slot) = self.0.get_mut(level as usize) {
            *slot = target;
        }
    }

    /// The levels that name an id, from least to most.
    pub fn supported(&self) -> impl Iterator<Item = (Level, &str)> {
        Level::ALL.into_iter().filter_map(|level| Some((level, self.get(level).id()?)))
    }

    /// The level nearest to `wanted` that names an id: first downwards, then upwards (BEHAVIOUR 8.5).
    fn nearest(&self, wanted: Level) -> Option<Level> {
        let has = |level: &Level| self.get(*level).id().is_some();
        let below = Level::THINKING.into_iter().rev().filter(|level| *level <= wanted);
        let above = Level::THINKING.into_iter().filter(|level| *level > wanted);
        below.chain(above).find(has)
    }
}

/// An id for the wire, and the level that it was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leveled {
    /// What goes on the wire.
    pub id: String,
    /// The entry of the map that gave it; none when the model's own id goes out.
    pub from: Option<Level>,
}

/// The id for `model` at `level` by the map alone (BEHAVIOUR 8.4; by [`Policy::Current`] 8.5).
///
/// This knows no catalog: `model` may be an id that nobody serves. [`super::Roster::resolve`] is
/// what callers want.
pub fn resolve_level(
    model: &str,
    map: Option<&LevelMap>,
    level: Option<Level>,
    policy: Policy,
) -> Leveled {
    let own = || Leveled { id: model.to_owned(), from: None };
    let level = match policy {
        Policy::Current => level.unwrap_or(Level::Off),
        Policy::Reference => match level {
            Some(level) => level,
            None => return own(),
        },
    };
    let Some(map) = map else { return own() };
    let level = match (map.get(level), policy) {
        (Target::Unsupported, Policy::Current) => match map.nearest(level) {
            Some(nearest) => nearest,
            None => return own(),
        },
        _ => level,
    };
    match map.get(level).id() {
        None | Some("" | "default") => own(),
        Some(word) => Leveled { id: expand(model, word), from: Some(level) },
    }
}

/// An effort word stands for the sibling of `model`; anything else is an id.
fn expand(model: &str, word: &str) -> String {
    Effort::from_word(word)
        .map_or_else(|| word.to_owned(), |effort| Variant::parse(model).sibling(Some(effort)))
}

impl Serialize for LevelMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for level in Level::ALL {
            match self.get(level) {
                Target::Unsaid => {}
                Target::Unsupported => map.serialize_entry(level.as_str(), &None::<&str>)?,
                Target::Id(id) => map.serialize_entry(level.as_str(), id)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LevelMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = LevelMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of levels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<LevelMap, A::Error> {
                let mut map = LevelMap::default();
                while let Some((word, id)) = access.next_entry::<String, Option<String>>()? {
                    if let Ok(level) = word.parse() {
                        map.set(level, id.map_or(Target::Unsupported, Target::Id));
                    }
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: &str) -> LevelMap {
        serde_json::from_str(json).unwrap()
    }

    fn current(model: &str, map: &LevelMap, level: Option<Level>) -> String {
        resolve_level(model, Some(map), level, Policy::Current).id
    }

    #[test]
    fn an_unsupported_level_goes_down_first_then_up() {
        let gappy =
            map(r#"{"minimal":null,"low":"x-low","medium":"x-medium","high":null,"max":"x-max"}"#);
        assert_eq!(current("x", &gappy, Some(Level::High)), "x-medium");
        assert_eq!(current("x", &gappy, Some(Level::Minimal)), "x-low");
        let top = map(r#"{"off":null,"minimal":null,"max":"x-max"}"#);
        assert_eq!(current("x", &top, Some(Level::Minimal)), "x-max");
        assert_eq!(current("x", &top, None), "x-max");
        assert_eq!(current("x", &map(r#"{"low":null}"#), Some(Level::Low)), "x");
    }

    #[test]
    fn words_stand_for_siblings_and_default_for_the_model() {
        let words = map(r#"{"off":"none","low":"default","high":"max","xhigh":""}"#);
        assert_eq!(current("x-fast", &words, None), "x-none-fast");
        assert_eq!(current("x-fast", &words, Some(Level::Low)), "x-fast");
        assert_eq!(current("x-low-fast", &words, Some(Level::High)), "x-max-fast");
        assert_eq!(current("x", &words, Some(Level::Xhigh)), "x");
        assert_eq!(current("x", &words, Some(Level::Max)), "x");
    }

    #[test]
    fn a_map_survives_its_json() {
        let json = r#"{"off":"a","low":null,"max":"b"}"#;
        assert_eq!(serde_json::to_string(&map(json)).unwrap(), json);
        assert_eq!("xhigh".parse(), Ok(Level::Xhigh));
        assert_eq!("none".parse::<Level>(), Err(UnknownLevel));
    }
}
