//! The two ways to name a model in a run request, and the one change from one to the other.
//!
//! `model_details` names an id of the catalog, which holds the effort in itself; `requested_model` names
//! a base id and says effort, thinking, speed and context beside it (PROTOCOL 4). Some models take only
//! one of them, and nothing says which: so a `not_found` before anything was emitted tries the other.

use super::is_sendable;
use super::roster::{Choice, Roster};
use super::variant::{Effort, Variant};
use crate::connect::Code;
use crate::error::Kind;
use crate::{Error, Result};

/// Which field of the request names the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `model_details`: the older way.
    Details,
    /// `requested_model`: the newer way, with parameters.
    Requested,
}

/// A model as a run request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireModel {
    /// Which field it goes into.
    pub form: Form,
    /// The id in that field.
    pub id: String,
    /// Whether the long context is asked for, which is billed differently.
    pub max_mode: bool,
    /// Parameters by name, in the order `effort`, `thinking`, `fast`, `context`, then the caller's
    /// others. Empty for [`Form::Details`].
    pub parameters: Vec<(String, String)>,
}

/// What a caller says about a model beside its id and level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormOptions {
    /// The form to use. Default none: [`Form::Requested`] when there are parameters, since only it
    /// carries them, else [`Form::Details`].
    pub form: Option<Form>,
    /// Whether the long context is asked for. Default false.
    pub max_mode: bool,
    /// Parameters for `requested_model`: at most 16, names and values of at most 200 visible ASCII
    /// characters. One that the id says, too (`effort`, `thinking`, `fast`), counts instead of it.
    pub parameters: Vec<(String, String)>,
}

/// The way to name a model, and the other way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireForms {
    /// What to send first.
    pub first: WireModel,
    /// What to send if the first is not found; none when it would mean something else.
    pub other: Option<WireModel>,
}

/// Names of parameters in the order they are sent; an id can say all but the last.
const ORDER: [&str; 4] = ["effort", "thinking", "fast", "context"];
/// How many parameters a caller may give.
const PARAMETERS: usize = 16;

impl Roster {
    /// Both ways to name what `choice` chose.
    ///
    /// The base id goes into `requested_model` only where it may be sent: the catalog served it, or
    /// there is no authoritative one. Else the served id goes there as it is, without the parameters
    /// that it says itself. So an id that was not served is never sent in either form.
    ///
    /// # Errors
    /// `InvalidRequest` for parameters beyond the limits, or given with [`Form::Details`].
    pub fn forms(&self, choice: &Choice, options: &FormOptions) -> Result<WireForms> {
        check(options)?;
        let variant = Variant::parse(&choice.id);
        let base_may_go = is_sendable(variant.base)
            && (self.serves(variant.base) || !self.catalog().is_authoritative());
        let id = if base_may_go { variant.base } else { variant.id };
        let said = if base_may_go { in_words(&variant) } else { Vec::new() };
        let requested = WireModel {
            form: Form::Requested,
            id: id.to_owned(),
            max_mode: options.max_mode,
            parameters: merge(said, &options.parameters),
        };
        let details = WireModel {
            form: Form::Details,
            id: choice.id.clone(),
            max_mode: options.max_mode,
            parameters: Vec::new(),
        };
        let plain = options.parameters.is_empty();
        Ok(match options.form {
            Some(Form::Details) => WireForms { first: details, other: Some(requested) },
            None if plain => WireForms { first: details, other: Some(requested) },
            // Without its parameters the model would be another one than was asked for.
            _ => WireForms { first: requested, other: plain.then_some(details) },
        })
    }
}

impl WireForms {
    /// What to send after `error`, if it can help: the other form, once, when the service does not know
    /// the model and nothing was handed out yet (PROTOCOL 4).
    ///
    /// The caller sends it in place of the first and keeps nothing of these forms, so a second
    /// `not_found` ends the run.
    #[must_use]
    pub fn after(self, error: &Error, emitted: bool) -> Option<WireModel> {
        let unknown = match error.kind() {
            Kind::ModelNotAvailable => true,
            // A `not_found` that does not say of what; a missing blob has a kind of its own.
            Kind::Rejected => error.code() == Code::NotFound,
            _ => false,
        };
        if unknown && !emitted { self.other } else { None }
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
    if options.form == Some(Form::Details) && !options.parameters.is_empty() {
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
    use crate::models::{Catalog, Entry, Level, Policy};

    fn roster(ids: &[&str]) -> Roster {
        let entries = ids.iter().map(|id| Entry::new(*id)).collect();
        Roster::new(Catalog::live(entries, 0), Policy::Current)
    }

    fn forms(roster: &Roster, name: &str, level: Level, options: &FormOptions) -> WireForms {
        roster.forms(&roster.resolve(name, Some(level)).unwrap(), options).unwrap()
    }

    fn pairs(model: &WireModel) -> Vec<(&str, &str)> {
        model.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn a_served_id_goes_first_and_the_base_with_parameters_is_the_other() {
        let roster = roster(&["a", "a-high-thinking-fast", "a-thinking-fast"]);
        let both = forms(&roster, "a-thinking-fast", Level::High, &FormOptions::default());
        assert_eq!(
            (both.first.form, both.first.id.as_str()),
            (Form::Details, "a-high-thinking-fast")
        );
        let other = both.other.unwrap();
        assert_eq!((other.form, other.id.as_str()), (Form::Requested, "a"));
        assert_eq!(pairs(&other), [("effort", "high"), ("thinking", "true"), ("fast", "true")]);
    }

    #[test]
    fn a_base_that_was_not_served_is_not_sent() {
        let live = roster(&["a-low", "a-high"]);
        let both = forms(&live, "a", Level::High, &FormOptions::default());
        let other = both.other.unwrap();
        assert_eq!((other.id.as_str(), other.parameters.len()), ("a-high", 0));
        let estimated = Roster::new(Catalog::estimated(Policy::Current, 0), Policy::Current);
        let both = forms(&estimated, "gpt-5.4", Level::High, &FormOptions::default());
        assert_eq!(both.other.unwrap().id, "gpt-5.4");
    }

    #[test]
    fn parameters_need_the_newer_form_and_have_no_other() {
        let roster = roster(&["a", "a-high"]);
        let parameters = [("context", "1m"), ("x", "y"), ("effort", "max")];
        let parameters = parameters.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        let options = FormOptions { max_mode: true, parameters, ..FormOptions::default() };
        let both = forms(&roster, "a", Level::High, &options);
        assert_eq!((both.first.id.as_str(), both.first.max_mode, &both.other), ("a", true, &None));
        assert_eq!(pairs(&both.first), [("effort", "max"), ("context", "1m"), ("x", "y")]);

        let choice = roster.resolve("a", None).unwrap();
        let older = FormOptions { form: Some(Form::Details), ..options.clone() };
        assert!(roster.forms(&choice, &older).is_err());
        for bad in ["", "a b", "a\r\n", &"x".repeat(201)] {
            let parameters = vec![("effort".to_owned(), bad.to_owned())];
            assert!(roster.forms(&choice, &FormOptions { parameters, ..options.clone() }).is_err());
        }
        let many = FormOptions { parameters: vec![("a".into(), "b".into()); 17], ..options };
        assert!(roster.forms(&choice, &many).is_err());
    }

    #[test]
    fn only_a_model_not_found_before_anything_else_tries_the_other_form() {
        let roster = roster(&["a"]);
        let both = forms(&roster, "a", Level::Off, &FormOptions::default());
        let unknown = Error::new(Kind::ModelNotAvailable, "no such model");
        let after = both.clone().after(&unknown, false);
        assert_eq!(after, both.other);
        assert!(after.is_some());
        let bare = Error::new(Kind::Rejected, "nothing here").with_code(Code::NotFound);
        assert!(both.clone().after(&bare, false).is_some());
        assert_eq!(both.clone().after(&bare.with_code(Code::Internal), false), None);
        assert_eq!(both.clone().after(&unknown, true), None);
        assert_eq!(both.clone().after(&Error::protocol("x"), false), None);
        assert_eq!(both.after(&Error::new(Kind::BlobMissing, "x"), false), None);
    }
}
