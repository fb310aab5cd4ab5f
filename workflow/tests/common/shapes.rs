//! Workflows of twenty steps, and a ledger of what their bodies did.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use agentwire_workflow::key::Kind;
use agentwire_workflow::record::Record;
use agentwire_workflow::{Ctx, Error, Parallel, TaskStep, Workflow};
use serde_json::{Value, json};

use crate::common::{Fake, named, none};

pub(crate) const STEPS: usize = 20;

/// Called with the step's name when its body begins, and again when its effect is made.
pub(crate) type Touch = Arc<dyn Fn(&str) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Root,
    Child,
    Parallel,
}

impl Shape {
    pub(crate) const ALL: [Self; 3] = [Self::Root, Self::Child, Self::Parallel];

    pub(crate) fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|shape| format!("{shape:?}") == word).unwrap()
    }

    /// Steps with names `s0` to `s19`; each calls `touch` with its name.
    pub(crate) fn workflow(self, touch: Touch) -> Workflow {
        match self {
            Self::Root => sequence("flow", touch),
            Self::Child => {
                let kid = sequence("kid", touch);
                named("flow", move |ctx| {
                    let kid = kid.clone();
                    async move { Ok(ctx.workflow(&kid).run(none()).await?.outputs["out"].clone()) }
                })
            }
            Self::Parallel => named("flow", groups),
        }
    }

    /// What the run gives, whatever happened on the way.
    pub(crate) fn expected(self) -> Value {
        (0..STEPS).map(|n| json!(format!("s{n}"))).collect()
    }

    /// The stages' side of `touch`: prompts are step names.
    pub(crate) fn runner(touch: Touch) -> Fake {
        Fake::new(move |call| {
            touch(&call.spec.prompt);
            async move { Ok(call.spec.prompt.into()) }
        })
    }
}

/// Tools and stages in turn.
fn sequence(name: &str, touch: Touch) -> Workflow {
    named(name, move |ctx| {
        let touch = touch.clone();
        async move {
            let mut out = Vec::new();
            for n in 0..STEPS {
                let name = format!("s{n}");
                out.push(if n % 2 == 0 {
                    tool(&ctx, &name, &touch).await?
                } else {
                    stage(&ctx, &name).await?
                });
            }
            Ok(Value::from(out))
        }
    })
}

async fn tool(ctx: &Ctx, name: &str, touch: &Touch) -> Result<Value, Error> {
    ctx.tool(name, ())
        .run(|_| {
            touch(name);
            let value = json!(name);
            async move { Ok::<_, String>(value) }
        })
        .await
}

async fn stage(ctx: &Ctx, name: &str) -> Result<Value, Error> {
    Ok(ctx.stage(name).prompt(name).await?.value)
}

/// Five groups of four.
async fn groups(ctx: Ctx) -> Result<Value, Error> {
    let mut out = Vec::new();
    for group in 0..STEPS / 4 {
        let names: Vec<String> = (0..4).map(|n| format!("s{}", group * 4 + n)).collect();
        let steps = names.iter().map(|name| TaskStep::new(name).prompt(name)).collect();
        let results = ctx.parallel(steps, Parallel::default()).await?;
        out.extend(results.into_iter().map(|one| json!(one.text)));
    }
    Ok(Value::from(out))
}

/// How often each step's body did its effect.
pub(crate) type Ledger = BTreeMap<String, usize>;

/// The names of the steps that have a result.
pub(crate) fn recorded(records: &[Record]) -> Vec<String> {
    let steps = records.iter().filter(|one| one.kind.is_result() && one.kind != Kind::Child);
    steps.map(|one| one.name.clone()).collect()
}

/// A crash repeats what was under way and nothing else: exact counts.
pub(crate) fn assert_counts(before: &Ledger, recorded: &[String], after: &Ledger, what: &str) {
    for n in 0..STEPS {
        let name = format!("s{n}");
        let then = before.get(&name).copied().unwrap_or_default();
        let was_recorded = recorded.contains(&name);
        assert!(then <= 1, "{what}: {name} ran {then} times before the crash");
        assert!(!was_recorded || then == 1, "{what}: {name} has a record and did not run");
        let expected = then + usize::from(!was_recorded);
        assert_eq!(after.get(&name).copied(), Some(expected), "{what}: {name}");
    }
}
