//! A catalog ready for use: its models, and which id goes on the wire.

use std::collections::HashMap;
use std::fmt;

use super::catalog::Catalog;
use super::level::{Level, resolve_level};
use super::mapper::{self, Model};
use super::nearest::nearest;
use super::variant::{Effort, Variant};
use super::{MAX_ID_BYTES, Policy, is_sendable};
use crate::error::Kind;
use crate::{Error, Result};

/// The models of one catalog, and the way from a name and a level to an id.
#[derive(Debug, Clone)]
pub struct Roster {
    catalog: Catalog,
    policy: Policy,
    models: Vec<Model>,
    by_primary: HashMap<String, usize>,
    by_id: HashMap<String, usize>,
    aliases: HashMap<String, String>,
}

/// Which id goes on the wire, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The id for the wire. With an authoritative catalog always one that it served.
    pub id: String,
    /// The primary id of the model, where the catalog knows it.
    pub model: Option<String>,
    /// The level that was asked for.
    pub level: Option<Level>,
    /// Why this id. `Display` gives a sentence.
    pub reason: Reason,
}

/// Why an id goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was named in full.
    Named,
    /// It is the model's own id.
    Own,
    /// No level was asked for, and the service does not serve the model's own id.
    OwnNotServed,
    /// The model has the level.
    Level,
    /// The model lacks the level that was asked for; this one is the nearest.
    Nearest(Level),
    /// The model has no levels, so the one that was asked for changes nothing.
    NoLevels,
    /// No catalog of this account is at hand that could know better.
    AsTyped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("the id was named in full"),
            Self::Own => f.write_str("it is the model's own id"),
            Self::OwnNotServed => {
                f.write_str("the model's own id is not served, so the least effort goes out")
            }
            Self::Level => f.write_str("the model has this level"),
            Self::Nearest(level) => {
                write!(f, "the model lacks this level; the nearest that it has is {level}")
            }
            Self::NoLevels => f.write_str("the model has no levels, so the level changes nothing"),
            Self::AsTyped => {
                f.write_str("no fresh catalog of this account knows it, so it goes out as typed")
            }
        }
    }
}

impl Roster {
    /// Maps `catalog`.
    pub fn new(catalog: Catalog, policy: Policy) -> Self {
        let models = mapper::map(&catalog, policy);
        let places = |ids: &dyn Fn(&Model) -> Vec<String>| {
            let pairs = models.iter().enumerate();
            pairs.flat_map(|(place, m)| ids(m).into_iter().map(move |id| (id, place))).collect()
        };
        let by_primary = places(&|model| vec![model.id.clone()]);
        let by_id = places(&|model| model.variants.clone());
        let mut aliases = HashMap::new();
        for entry in &catalog.entries {
            for alias in &entry.aliases {
                aliases.entry(alias.clone()).or_insert_with(|| entry.id.clone());
            }
        }
        Self { catalog, policy, models, by_primary, by_id, aliases }
    }

    /// The models, sorted by primary id.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The catalog behind them.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The catalog back, to change and map it anew.
    pub fn into_catalog(self) -> Catalog {
        self.catalog
    }

    /// Whether the catalog has exactly this id.
    pub fn serves(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// The model of this name: a primary id, a served id or an alias.
    pub fn model(&self, name: &str) -> Option<&Model> {
        let place = self.by_primary.get(name).or_else(|| self.by_id.get(name));
        let place = place.or_else(|| self.by_id.get(self.aliases.get(name)?))?;
        self.models.get(*place)
    }

    /// The id for `name` (a primary id, a served id or an alias) at `level`.
    ///
    /// A served id named in full goes out as it is unless a level is asked for, too; then the level
    /// counts. A level that the model lacks becomes the nearest one (BEHAVIOUR 8.5). With an
    /// [authoritative](Catalog::is_authoritative) catalog the result is always an id that it served;
    /// without one a name that is not known goes out as typed.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that no id can have (see [`is_sendable`]; the name is not
    /// repeated), `ModelNotAvailable` for one that an authoritative catalog does not have, with the
    /// nearest names as the hint.
    pub fn resolve(&self, name: &str, level: Option<Level>) -> Result<Choice> {
        let choice = self.choose(name, level)?;
        if is_sendable(&choice.id) {
            return Ok(choice);
        }
        Err(Error::invalid(format!(
            "a model id is 1 to {MAX_ID_BYTES} visible ASCII characters without spaces"
        )))
    }

    fn choose(&self, name: &str, level: Option<Level>) -> Result<Choice> {
        let choice = |id: &str, model: Option<&Model>, reason| Choice {
            id: id.to_owned(),
            model: model.map(|model| model.id.clone()),
            level,
            reason,
        };
        let Some(model) = self.model(name) else {
            let judged = self.catalog.is_authoritative() && self.policy == Policy::Current;
            if judged && is_sendable(name) {
                return Err(self.unknown(name));
            }
            return Ok(choice(name, None, Reason::AsTyped));
        };
        let full = self.by_id.get_key_value(name).map(|(id, _)| id.as_str());
        let full = full.or_else(|| self.aliases.get(name).map(String::as_str));
        if let (Some(id), None, false) = (full, level, self.by_primary.contains_key(name)) {
            return Ok(choice(id, Some(model), Reason::Named));
        }
        let (id, reason) = self.at_level(model, level);
        Ok(choice(&id, Some(model), reason))
    }

    fn at_level(&self, model: &Model, level: Option<Level>) -> (String, Reason) {
        let leveled = resolve_level(&model.id, model.levels.as_ref(), level, self.policy);
        let reason = match (level, leveled.from) {
            (None, Some(_)) => Reason::OwnNotServed,
            (Some(_), None) if model.levels.is_none() => Reason::NoLevels,
            (Some(Level::Off), None) => {
                if let Some(least) = without_effort(model) {
                    return (least.to_owned(), Reason::Level);
                }
                Reason::Own
            }
            (_, None) => Reason::Own,
            (Some(asked), Some(from)) if asked == from => Reason::Level,
            (Some(_), Some(from)) => Reason::Nearest(from),
        };
        if self.policy == Policy::Reference || self.serves(&leveled.id) {
            return (leveled.id, reason);
        }
        // The mapper gives served ids only; should it ever not, a served one goes out all the same.
        let served = model.variants.first().map_or(leveled.id, Clone::clone);
        (served, Reason::OwnNotServed)
    }

    fn unknown(&self, name: &str) -> Error {
        let primary = self.by_primary.keys();
        let near = nearest(name, primary.chain(self.by_id.keys()).map(String::as_str), 3);
        let hint = match near.as_slice() {
            [] => "list the models of the account to see which there are".to_owned(),
            near => format!("near it are {}", near.join(", ")),
        };
        let message = format!("the service does not list a model {name} for this account");
        Error::new(Kind::ModelNotAvailable, message).with_hint(hint)
    }
}

/// The variant with effort `none`: what `off` means for a model that has one and whose own id thinks as
/// the service likes.
fn without_effort(model: &Model) -> Option<&str> {
    let none = |id: &&String| Variant::parse(id).effort == Some(Effort::None);
    model.variants.iter().find(none).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Entry;

    fn roster(ids: &[&str]) -> Roster {
        let entries = ids.iter().map(|id| Entry::new(*id)).collect();
        Roster::new(Catalog::live(entries, 0), Policy::Current)
    }

    fn sent(roster: &Roster, name: &str, level: Option<Level>) -> (String, Reason) {
        let choice = roster.resolve(name, level).unwrap();
        (choice.id, choice.reason)
    }

    #[test]
    fn off_is_the_variant_without_effort_where_there_is_one() {
        let roster = roster(&["a", "a-none", "a-high", "b", "b-high"]);
        assert_eq!(sent(&roster, "a", Some(Level::Off)), ("a-none".into(), Reason::Level));
        assert_eq!(sent(&roster, "a", None), ("a".into(), Reason::Own));
        assert_eq!(sent(&roster, "b", Some(Level::Off)), ("b".into(), Reason::Own));
    }

    #[test]
    fn a_full_id_goes_out_as_named_unless_a_level_is_asked_for() {
        let roster = roster(&["a-low", "a-high"]);
        assert_eq!(sent(&roster, "a-high", None), ("a-high".into(), Reason::Named));
        assert_eq!(sent(&roster, "a-high", Some(Level::Low)), ("a-low".into(), Reason::Level));
        assert_eq!(sent(&roster, "a", None), ("a-low".into(), Reason::OwnNotServed));
        let max = sent(&roster, "a", Some(Level::Max));
        assert_eq!(max, ("a-high".into(), Reason::Nearest(Level::High)));
    }

    #[test]
    fn aliases_lead_to_their_entry() {
        let entry = Entry { aliases: vec!["sonnet".into()], ..Entry::new("claude-4.5-sonnet") };
        let roster = Roster::new(Catalog::live(vec![entry], 0), Policy::Current);
        assert_eq!(sent(&roster, "sonnet", None), ("claude-4.5-sonnet".into(), Reason::Named));
        let leveled = sent(&roster, "sonnet", Some(Level::High));
        assert_eq!(leveled, ("claude-4.5-sonnet".into(), Reason::NoLevels));
    }

    #[test]
    fn an_unknown_id_is_refused_by_a_fresh_live_catalog_only() {
        let mut catalog = Catalog::live(vec![Entry::new("composer-2")], 0);
        let live = Roster::new(catalog.clone(), Policy::Current);
        let error = live.resolve("composer-3", None).unwrap_err();
        assert_eq!(error.kind(), &Kind::ModelNotAvailable);
        assert_eq!(error.hint(), Some("near it are composer-2"));

        catalog.stale = true;
        let stale = Roster::new(catalog, Policy::Current);
        assert_eq!(sent(&stale, "composer-3", None), ("composer-3".into(), Reason::AsTyped));
        let estimated = Roster::new(Catalog::estimated(Policy::Current, 0), Policy::Current);
        assert_eq!(sent(&estimated, "x-9", Some(Level::Low)), ("x-9".into(), Reason::AsTyped));
        assert_eq!(sent(&estimated, "gpt-5.4", None), ("gpt-5.4-low".into(), Reason::OwnNotServed));
    }

    #[test]
    fn a_name_no_id_can_have_is_refused_and_not_repeated() {
        let roster = roster(&["a"]);
        for name in ["", "a\r\nx: y", "\u{1b}[2J", "../a", "é", &"x".repeat(1 << 20)] {
            let error = roster.resolve(name, None).unwrap_err();
            assert_eq!(error.kind(), &Kind::InvalidRequest);
            assert!(name.is_empty() || !error.to_string().contains(name));
        }
    }
}
