//! A script with what must be remembered over the life of a server: how often a rule was used.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Result;
use crate::server::script::{Facets, JsonReply, Rule, Script, UnaryReply};
use crate::server::sign_in::Desk;

/// A script that is being played; clones share the counts.
#[derive(Debug, Clone)]
pub struct Playbook(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    script: Script,
    rules: Vec<AtomicU32>,
    unary: [AtomicU32; 3],
    poll: AtomicU32,
    refresh: AtomicU32,
    desk: Mutex<Desk>,
}

/// The unary calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Call {
    UsableModels,
    DefaultModel,
    NameAgent,
}

impl Playbook {
    /// A playbook of `script`, nothing used yet.
    ///
    /// # Errors
    /// What [`Script::check`] finds.
    pub fn new(script: Script) -> Result<Self> {
        script.check()?;
        let rules = script.rules.iter().map(|_| AtomicU32::new(0)).collect();
        Ok(Self(Arc::new(Inner {
            script,
            rules,
            unary: Default::default(),
            poll: AtomicU32::new(0),
            refresh: AtomicU32::new(0),
            desk: Mutex::default(),
        })))
    }

    /// The script.
    pub fn script(&self) -> &Script {
        &self.0.script
    }

    /// The first rule that fits and may still be used; this use is counted.
    pub(super) fn choose(&self, facets: &Facets<'_>) -> Option<&Rule> {
        let rules = self.0.script.rules.iter().zip(&self.0.rules);
        let mut fitting = rules.filter(|(rule, _)| rule.when.fits(facets));
        fitting.find(|(rule, used)| use_one(used, rule.times)).map(|(rule, _)| rule)
    }

    /// How a unary call is answered now; `None` is the plain way.
    pub(in crate::server) fn unary(&self, call: Call) -> Option<&UnaryReply> {
        let unary = &self.0.script.unary;
        let (reply, used) = match (call, &self.0.unary) {
            (Call::UsableModels, [used, _, _]) => (&unary.usable_models, used),
            (Call::DefaultModel, [_, used, _]) => (&unary.default_model, used),
            (Call::NameAgent, [_, _, used]) => (&unary.name_agent, used),
        };
        use_one(used, reply.times).then_some(reply)
    }
}

impl Playbook {
    /// How a poll of the sign-in is answered now; `None` is the plain way.
    pub(in crate::server) fn poll_reply(&self) -> Option<&JsonReply> {
        let reply = &self.0.script.sign_in.poll;
        use_one(&self.0.poll, reply.times).then_some(reply)
    }

    /// How a refresh is answered now; `None` is the plain way.
    pub(in crate::server) fn refresh_reply(&self) -> Option<&JsonReply> {
        let reply = &self.0.script.sign_in.refresh;
        use_one(&self.0.refresh, reply.times).then_some(reply)
    }

    /// The logins and tokens of this server; valid between statements, whoever panicked.
    pub(in crate::server) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a use if there is one left.
fn use_one(used: &AtomicU32, times: Option<u32>) -> bool {
    let Some(times) = times else { return true };
    let one_more = |used| (used < times).then_some(used + 1);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}
