//! Asking for verbs, and reading what became of them.

// Helper functions of tests aren't test functions, and no test file uses all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::sync::Arc;

use amends::journal::{
    CancelTold, Command, Event, InputEdit, ResolvedEffect, SkippedEffect, Verb, VerbName,
};
use amends::step::Value;
use amends::{CommandError, Coordinator, Payload, RecoveryStrategy, Told};

use crate::common::{World, brief};

/// What run `r` was told, asked for by Ann.
pub async fn say(
    coordinator: &Coordinator,
    verb: Verb,
) -> Result<Option<CancelTold>, CommandError> {
    let command = Command::new("r", verb).by("ann").reason("because");
    let told = coordinator.command(&command).await?;
    Ok(match told {
        Told::Cancel(told) => Some(told),
        _ => None,
    })
}

/// Run `r` takes it.
pub async fn ok(coordinator: &Coordinator, verb: Verb) -> Option<CancelTold> {
    say(coordinator, verb).await.unwrap()
}

/// Run `r` refuses it: why, and what it would take.
pub async fn no(coordinator: &Coordinator, verb: Verb) -> (String, Vec<VerbName>) {
    match say(coordinator, verb).await {
        Err(CommandError::Refused { why, legal, .. }) => (why.to_string(), legal),
        other => panic!("not refused: {other:?}"),
    }
}

pub fn value<T: Payload>(value: T) -> Value {
    Value::typed(Arc::new(value))
}

/// A retry without a strategy.
pub fn plain_retry() -> Verb {
    Verb::Retry {
        strategy: None,
        edits: Vec::new(),
    }
}

/// `retry_failed` with these inputs.
pub fn edited<T: Payload>(edits: impl IntoIterator<Item = (&'static str, T)>) -> Verb {
    Verb::Retry {
        strategy: Some(RecoveryStrategy::RetryFailed),
        edits: edits
            .into_iter()
            .map(|(step, input)| InputEdit {
                step: step.to_owned(),
                input: value(input),
            })
            .collect(),
    }
}

pub fn skip<T: Payload>(step: &str, effect: SkippedEffect, output: T) -> Verb {
    Verb::Skip {
        step: step.to_owned(),
        effect,
        output: value(output),
    }
}

pub fn mark(step: &str) -> Verb {
    Verb::MarkCompensated {
        step: step.to_owned(),
    }
}

pub fn resolve(step: &str, effect: ResolvedEffect) -> Verb {
    Verb::Resolve {
        step: step.to_owned(),
        effect,
    }
}

pub fn resolve_done<T: Payload>(step: &str, output: T) -> Verb {
    resolve(step, ResolvedEffect::Done(Some(value(output))))
}

/// An event in two or three words, those of operators too. Tokens are left out.
pub fn word(event: &Event<String>) -> Option<String> {
    Some(match event {
        Event::Commanded { .. } => return None,
        Event::InputEdited { step, round, .. } => format!("edited {step} {round}"),
        Event::Skipped { step, effect, .. } => format!("skipped {step} {effect:?}"),
        Event::MarkedCompensated { step, round, .. } => format!("marked {step} {round}"),
        Event::UndosRetried { .. } => "undos retried".to_owned(),
        Event::Paused { .. } => "paused".to_owned(),
        Event::Resumed { .. } => "resumed".to_owned(),
        Event::AbandonRequested { .. } => "abandon requested".to_owned(),
        other => brief(other),
    })
}

/// The events of run `r` in short words.
pub fn story(world: &World) -> Vec<String> {
    world.journal().concat().iter().filter_map(word).collect()
}

/// The events of run `r` from the last one that reads so, with it.
pub fn story_from(world: &World, from: &str) -> Vec<String> {
    let mut story = story(world);
    let at = story.iter().rposition(|word| word == from);
    let at = at.unwrap_or_else(|| panic!("no `{from}` in {story:?}"));
    story.split_off(at)
}

/// Everything that the journal of run `r` has, in full.
pub fn in_full(world: &World) -> String {
    format!("{:?}", world.journal())
}
