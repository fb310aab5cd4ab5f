//! An agent as a runner of stages.

use std::sync::Arc;

use agentwire::context::Message;
use agentwire::ids::{IdSource as _, RandomIds};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::generate::{Asked, Shape, run};
use crate::model::Boxed;
use crate::session::{Session, SessionError};
use crate::stage::{SessionRef, StageError, StageOutcome, StageRunner, StageSession, StageSpec};

struct Open {
    agent: Agent,
    prompt: String,
    shape: Option<Shape>,
    reference: SessionRef,
    /// `None` while a task has it, and after one that failed.
    session: Option<Session>,
}

impl Agent {
    fn stage(&self, spec: &StageSpec, prior: Option<&SessionRef>) -> Result<Open, StageError> {
        let mut agent = self.clone();
        if let Some(system) = &spec.system {
            agent.system = Some(system.clone());
        }
        // What else a name may be is the model's affair: not all of them are the service's.
        let none = |model: &&String| model.trim().is_empty() || model.contains(char::is_control);
        if let Some(model) = spec.models.iter().find(none) {
            let message = format!("`{}` is no name of a model", model.escape_debug());
            return Err(StageError::Spec { message });
        }
        if !spec.models.is_empty() {
            agent.options.models.clone_from(&spec.models);
        }
        if let Some(limits) = &spec.limits {
            agent.options.limits = limits.clone();
        }
        if let Some(names) = &spec.tools {
            let few = agent.toolbox.only(names);
            let few = few.map_err(|error| StageError::Spec { message: error.to_string() })?;
            agent.toolbox = Arc::new(few);
        }
        if agent.options.models.is_empty() {
            return Err(StageError::Spec { message: "no model is named".into() });
        }
        let shape = spec.schema.as_ref().map(Shape::new).transpose()?;
        let session = self.session_of(prior).map_err(StageError::from)?;
        let reference = session.reference().clone();
        let prompt = spec.prompt.clone();
        Ok(Open { agent, prompt, shape, reference, session: Some(session) })
    }

    fn session_of(&self, prior: Option<&SessionRef>) -> Result<Session, SessionError> {
        match (prior.and_then(|prior| prior.path.as_ref()), &self.store) {
            (Some(path), _) => {
                // Made anew it would be another conversation under the recorded name.
                let session = Session::open_existing(path)?;
                match prior {
                    Some(prior) if prior.id != session.reference().id => {
                        Err(SessionError::Missing(prior.id.clone()))
                    }
                    _ => Ok(session),
                }
            }
            (None, Some(store)) => store.open(&RandomIds.next_id().to_string()),
            (None, None) => Ok(Session::in_memory()),
        }
    }
}

impl From<SessionError> for StageError {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::Missing(_) => Self::SessionMissing { message },
            SessionError::InUse(_) => Self::SessionInUse { message },
            _ => Self::Session { message },
        }
    }
}

impl StageRunner for Agent {
    fn open<'a>(
        &'a self,
        spec: &'a StageSpec,
        prior: Option<&'a SessionRef>,
    ) -> Boxed<'a, Result<Box<dyn StageSession>, StageError>> {
        let open = self.stage(spec, prior).map(|open| Box::new(open) as Box<dyn StageSession>);
        Box::pin(std::future::ready(open))
    }

    fn models(&self) -> &[String] {
        &self.options.models
    }
}

impl Open {
    async fn run(&mut self, cancel: &CancellationToken) -> Result<StageOutcome, StageError> {
        let session = match self.session.take() {
            Some(session) => session,
            // Another prompt after one that failed: the log has everything.
            None => self.agent.session_of(Some(&self.reference))?,
        };
        let mut prompt = Message::user(&self.prompt);
        if let (Some(shape), Message::User { content }) = (&self.shape, &mut prompt) {
            shape.instruct(content);
        }
        // Asked already: it is gone on with. Else the session is one of another task before.
        let asked = session.messages().iter().any(|message| **message == prompt);
        let prompt = (!asked).then_some(prompt);
        let (value, ended) = match &self.shape {
            None => {
                let task = self.agent.task(prompt).session(session);
                let ended = run(task, cancel, &mut |_| {}).await?;
                match StageError::of(&ended.outcome.stop) {
                    None => (None, ended),
                    Some(error) => return Err(error),
                }
            }
            Some(shape) => {
                let asked = Asked { agent: &self.agent, shape, cancel };
                let done = asked.answer(prompt, session, Ok, &mut |_| {}).await?;
                (Some(done.value), done.ended)
            }
        };
        self.session = Some(ended.session);
        Ok(StageOutcome::new(self.reference.clone(), value, ended.outcome))
    }
}

impl StageSession for Open {
    fn session_ref(&self) -> &SessionRef {
        &self.reference
    }

    fn prompt<'a>(
        &'a mut self,
        cancel: &'a CancellationToken,
    ) -> Boxed<'a, Result<StageOutcome, StageError>> {
        Box::pin(self.run(cancel))
    }
}
