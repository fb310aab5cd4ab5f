//! The two ways to name a model in a run request, and the one change from one to the other.
//!
//! `model_details` names an id of the catalog, which holds the effort in itself; `requested_model` names
//! a base id and says effort, thinking, speed and context beside it (PROTOCOL 4). Some models take only
//! one of them, and nothing says which: so a `not_found` before anything was emitted tries the other.

use super::Level;
use super::is_sendable;
use super::roster::{Choice, Reason, Roster};
use super::variant::{Effort, Variant};
use crate::codec::{Model, ModelForm};
use crate::{Error, Result};

/// What a caller says about a model beside its id and level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormOptions {
    /// The form to use first. By default `requested_model` when there are parameters, since only it
    /// carries them, else `model_details`.
    pub form: ModelForm,
    /// Whether max mode (the long context, billed differently) is asked for. Default false.
    pub max_mode: bool,
    /// Parameters for `requested_model`: at most 16, names and values of at most 200 visible ASCII
    /// characters. One that the id says, too (`effort`, `thinking`, `fast`), counts instead of it.
    pub parameters: Vec<(String, String)>,
}

/// Names of parameters in the order they are sent; an id can say all but the last.
const ORDER: [&str; 4] = ["effort", "thinking", "fast", "context"];
/// How many parameters a caller may give: four are known. No option: the caller gives them, no peer.
const PARAMETERS: usize = 16;

impl Roster {
    /// What `choice` chose, for a request, with both ways to name it ([`Model::other_form`]).
    ///
    /// The base id goes into `requested_model` only where it may be sent: the catalog served it, or
    /// there is no authoritative one. Else the served id goes there as it is, without the parameters
    /// that it says itself. So an id that was not served is never sent in either form. A level for a
    /// model that no catalog knows goes along as `effort`, which is all that can be done for it.
    ///
    /// # Errors
    /// `InvalidRequest` for parameters beyond the limits, or given with [`ModelForm::Details`].
    pub fn model_for(&self, choice: &Choice, options: &FormOptions) -> Result<Model> {
        check(options)?;
        let variant = Variant::parse(&choice.id);
        let base_may_go = is_sendable(variant.base)
            && (self.serves(variant.base) || !self.catalog().is_authoritative());
        let id = if base_may_go { variant.base } else { variant.id };
        let mut said = if base_may_go { in_words(&variant) } else { Vec::new() };
        let blind = blind_effort(choice).filter(|_| options.form != ModelForm::Details);
        if let Some(effort) = blind {
            said = merge(said, &[("effort".to_owned(), effort.as_str().to_owned())]);
        }
        let requested = Model {
            form: ModelForm::Requested,
            id: id.to_owned(),
            max_mode: options.max_mode,
            parameters: merge(said, &options.parameters),
            other: None,
        };
        let details = Model {
            form: ModelForm::Details,
            id: choice.id.clone(),
            max_mode: options.max_mode,
            ..Model::default()
        };
        let newer = match options.form {
            ModelForm::Requested => true,
            ModelForm::Details => false,
            // Only the newer form carries what was asked for beside the id.
            ModelForm::Auto => blind.is_some() || !options.parameters.is_empty(),
        };
        let (first, other) = if newer { (requested, details) } else { (details, requested) };
        Ok(Model { other: Some(Box::new(other)), ..first })
    }
}

/// The effort for a level that no catalog could turn into an id.
fn blind_effort(choice: &Choice) -> Option<Effort> {
    if choice.reason != Reason::AsTyped {
        return None;
    }
    match choice.level? {
        Level::Off => None,
        Level::Minimal | Level::Low => Some(Effort::Low),
        Level::Medium => Some(Effort::Medium),
        Level::High => Some(Effort::High),
        Level::Xhigh => Some(Effort::Xhigh),
        Level::Max => Some(Effort::Max),
    }
}

fn check(options: &FormOptions) -> Result<()> {
    let sound = |text: &str| {
        (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if options.parameters.len() > PARAMETERS {
        return Err(Error::invalid(format!("more than {PARAMETERS} parameters of a model")));
    }
    if !options.parameters.iter().all(|(name, value)| sound(name) && sound(value)) {
        let what = "a parameter of a model is 1 to 200 visible ASCII characters, name and value";
        return Err(Error::invalid(what));
    }
    if options.form == ModelForm::Details && !options.parameters.is_empty() {
        let what = "parameters of a model need the `requested_model` form";
        return Err(Error::invalid(what));
    }
    Ok(())
}

/// What the suffixes of an id say, as parameters.
fn in_words(variant: &Variant<'_>) -> Vec<(String, String)> {
    let flag = |on: bool| on.then_some("true");
    let values = [variant.effort.map(Effort::as_str), flag(variant.thinking), flag(variant.fast)];
    let pairs = ORDER.into_iter().zip(values);
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
}

/// `said`, overruled and followed by `wanted`; one value for each name.
fn merge(mut said: Vec<(String, String)>, wanted: &[(String, String)]) -> Vec<(String, String)> {
    for (name, value) in wanted {
        match said.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => old.clone_from(value),
            None => said.push((name.clone(), value.clone())),
        }
    }
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    said.sort_by_key(|(name, _)| place(name).unwrap_or(ORDER.len()));
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Catalog, Entry, Policy};

    fn roster(ids: &[&str]) -> Roster {
        let entries = ids.iter().map(|id| Entry::new(*id)).collect();
        Roster::new(Catalog::live(entries, 0), Policy::Current)
    }

    fn estimated() -> Roster {
        Roster::new(Catalog::estimated(Policy::Current, 0), Policy::Current)
    }

    fn model(roster: &Roster, name: &str, level: Level, options: &FormOptions) -> Model {
        roster.model_for(&roster.resolve(name, Some(level)).unwrap(), options).unwrap()
    }

    fn pairs(model: &Model) -> Vec<(&str, &str)> {
        model.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn a_served_id_goes_first_and_the_base_with_parameters_is_the_other() {
        let roster = roster(&["a", "a-high-thinking-fast", "a-thinking-fast"]);
        let first = model(&roster, "a-thinking-fast", Level::High, &FormOptions::default());
        assert_eq!((first.form, first.id.as_str()), (ModelForm::Details, "a-high-thinking-fast"));
        let other = first.other_form();
        assert_eq!((other.form, other.id.as_str()), (ModelForm::Requested, "a"));
        assert_eq!(pairs(&other), [("effort", "high"), ("thinking", "true"), ("fast", "true")]);

        let options = FormOptions { form: ModelForm::Requested, ..FormOptions::default() };
        let newer = model(&roster, "a-thinking-fast", Level::High, &options);
        assert_eq!((newer.id.as_str(), newer.form), ("a", ModelForm::Requested));
        assert_eq!(newer.other_form().id, "a-high-thinking-fast");
    }

    #[test]
    fn a_base_that_was_not_served_is_not_sent() {
        let live = roster(&["a-low", "a-high"]);
        let first = model(&live, "a", Level::High, &FormOptions::default());
        let other = first.other_form();
        assert_eq!((other.id.as_str(), other.parameters.len()), ("a-high", 0));
        let first = model(&estimated(), "gpt-5.4", Level::High, &FormOptions::default());
        assert_eq!(first.other_form().id, "gpt-5.4");
    }

    #[test]
    fn parameters_need_the_newer_form() {
        let roster = roster(&["a", "a-high"]);
        let parameters = [("context", "1m"), ("x", "y"), ("effort", "max")];
        let parameters = parameters.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        let options = FormOptions { max_mode: true, parameters, ..FormOptions::default() };
        let first = model(&roster, "a", Level::High, &options);
        assert_eq!(
            (first.form, first.id.as_str(), first.max_mode),
            (ModelForm::Requested, "a", true)
        );
        // The effort of the level is in the id of the other form; what only parameters say is not.
        let other = first.other_form();
        assert_eq!((other.id.as_str(), other.max_mode, pairs(&other)), ("a-high", true, vec![]));
        assert_eq!(pairs(&first), [("effort", "max"), ("context", "1m"), ("x", "y")]);

        let choice = roster.resolve("a", None).unwrap();
        let older = FormOptions { form: ModelForm::Details, ..options.clone() };
        assert!(roster.model_for(&choice, &older).is_err());
        for bad in ["", "a b", "a\r\n", &"x".repeat(201)] {
            let parameters = vec![("effort".to_owned(), bad.to_owned())];
            let options = FormOptions { parameters, ..options.clone() };
            assert!(roster.model_for(&choice, &options).is_err());
        }
        let many = FormOptions { parameters: vec![("a".into(), "b".into()); 17], ..options };
        assert!(roster.model_for(&choice, &many).is_err());
    }

    #[test]
    fn a_level_for_a_model_that_nobody_knows_goes_along_as_effort() {
        let sent = |name, level| model(&estimated(), name, level, &FormOptions::default());
        let blind = sent("new-9", Level::High);
        assert_eq!((blind.id.as_str(), blind.form), ("new-9", ModelForm::Requested));
        assert_eq!(pairs(&blind), [("effort", "high")]);
        assert_eq!(blind.other_form().id, "new-9");
        assert_eq!(
            pairs(&sent("new-9-max-fast", Level::Minimal)),
            [("effort", "low"), ("fast", "true")]
        );
        let off = sent("new-9", Level::Off);
        assert_eq!((off.id.as_str(), off.form), ("new-9", ModelForm::Details));
    }
}
