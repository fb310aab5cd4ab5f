//! How a request names the model: two fields of the wire, and the one change from one to the other.

use super::back::Back;
use crate::connect::Code;
use crate::error::{Error, Kind};

/// Which of its two fields names the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum ModelForm {
    /// `requested_model` when there are parameters, else `model_details`.
    #[default]
    Auto,
    /// `model_details`, the older form; parameters are not sent.
    Details,
    /// `requested_model`, the newer form.
    Requested,
}

impl ModelForm {
    /// The word for it on command lines and in JSON: the field's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Details => "model_details",
            Self::Requested => "requested_model",
        }
    }
}

/// The model that is asked, as one request names it, and the other way to name it.
///
/// [`crate::models::Roster::model_for`] fills in both; for a model made by hand see
/// [`Model::other_form`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    /// Id as the account's catalogue has it.
    pub id: String,
    /// Which field names it.
    pub form: ModelForm,
    /// Max mode; left out when false.
    pub max_mode: bool,
    /// Parameters of `requested_model` in order, for instance `effort` with a level.
    pub parameters: Vec<(String, String)>,
    /// The same model in the other form, where that has another id or other parameters.
    pub other: Option<Box<Self>>,
}

impl Model {
    /// A model by its id alone.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// The same model with a parameter.
    #[must_use]
    pub fn parameter(mut self, id: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((id.into(), value.into()));
        self
    }

    /// The form that is sent: never [`ModelForm::Auto`].
    pub fn form(&self) -> ModelForm {
        match self.form {
            ModelForm::Auto if self.parameters.is_empty() => ModelForm::Details,
            ModelForm::Auto => ModelForm::Requested,
            form => form,
        }
    }

    /// The same model in the other form: the one that was given, else the same id in the other field.
    /// `model_details` carries no parameters, so what only they say is lost on the way there; a model
    /// of [`crate::models::Roster::model_for`] has its effort in that id.
    #[must_use]
    pub fn other_form(&self) -> Self {
        if let Some(other) = &self.other {
            return Self { other: None, ..(**other).clone() };
        }
        let form = match self.form() {
            ModelForm::Requested => ModelForm::Details,
            ModelForm::Details | ModelForm::Auto => ModelForm::Requested,
        };
        Self { form, ..self.clone() }
    }

    /// The model to ask for after `error`, where that can help: the other form, when the service does
    /// not know the model and nothing was handed out yet (PROTOCOL 4). Once only: whoever sends it
    /// does not ask again.
    #[must_use]
    pub fn after(&self, error: &Error, handed_out: bool) -> Option<Self> {
        let unknown = match error.kind() {
            Kind::ModelNotAvailable => true,
            // A `not_found` that does not say of what; a missing blob has a kind of its own.
            Kind::Rejected => error.code() == Code::NotFound,
            _ => false,
        };
        (unknown && !handed_out).then(|| self.other_form())
    }
}

impl From<&str> for Model {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

/// Writes `requested_model` as this field, when that is the form.
pub(crate) fn requested_model(out: &mut Back<'_>, field: u32, model: &Model) {
    if model.form() != ModelForm::Requested {
        return;
    }
    let mark = out.len();
    for (id, value) in model.parameters.iter().rev() {
        out.message(3, |out| {
            out.text_unless_empty(2, value);
            out.text_unless_empty(1, id);
        });
    }
    out.uint_unless_zero(2, u64::from(model.max_mode));
    out.text(1, &model.id);
    out.wrap(field, mark);
}

/// Writes `model_details` as this field, when that is the form (BEHAVIOUR 3.1).
pub(crate) fn model_details(out: &mut Back<'_>, field: u32, model: &Model) {
    if model.form() != ModelForm::Details {
        return;
    }
    let mark = out.len();
    out.uint_unless_zero(7, u64::from(model.max_mode));
    for name in [4, 3, 1] {
        out.text(name, &model.id);
    }
    out.wrap(field, mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_from_the_parameters() {
        let plain = Model::new("m");
        assert_eq!(plain.form(), ModelForm::Details);
        let effort = Model::new("m").parameter("effort", "high");
        assert_eq!(effort.form(), ModelForm::Requested);
    }

    #[test]
    fn the_other_form_is_the_given_one_or_the_same_id() {
        let plain = Model { max_mode: true, ..Model::new("m") };
        let other = plain.other_form();
        assert_eq!(
            (other.form(), other.id.as_str(), other.max_mode),
            (ModelForm::Requested, "m", true)
        );
        assert_eq!(other.other_form().form(), ModelForm::Details);
        let named = Model::new("m").parameter("effort", "high");
        assert_eq!((named.other_form().form(), &*named.other_form().id), (ModelForm::Details, "m"));

        let both = Model { other: Some(Box::new(named.clone())), ..Model::new("m-high") };
        assert_eq!(both.other_form(), named);
        let back = Model { other: Some(Box::new(both)), ..named };
        assert_eq!(back.other_form(), Model::new("m-high"), "one change, not a chain");
    }

    #[test]
    fn only_a_model_not_found_before_anything_else_tries_the_other_form() {
        let model = Model::new("m");
        let unknown = Error::new(Kind::ModelNotAvailable, "no such model");
        assert_eq!(model.after(&unknown, false), Some(model.other_form()));
        let bare = Error::new(Kind::Rejected, "nothing here").with_code(Code::NotFound);
        assert!(model.after(&bare, false).is_some());
        assert_eq!(model.after(&bare.with_code(Code::Internal), false), None);
        assert_eq!(model.after(&unknown, true), None);
        assert_eq!(model.after(&Error::protocol("x"), false), None);
        assert_eq!(model.after(&Error::new(Kind::BlobMissing, "x"), false), None);
    }
}
