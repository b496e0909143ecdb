//! What is inside steps: whose code it is, and which values it is fed with.
//!
//! The state knows no values but those of the journal. What is derived from them (the input of a sub-saga,
//! the items of a list) is made when it is first needed, and kept as long as the run is driven.

use std::sync::Arc;

use super::Driver;
use crate::coordinator::shared::Registered;
use crate::machine::{ScopeIx, State, Status};
use crate::saga::{Definition, NodeIx, Output, StepBodies, WaitBody};
use crate::step::{PayloadError, StepIx, Value};

/// The inputs of scopes, by their numbers.
#[derive(Default)]
pub(super) struct Inputs(Vec<Option<Known>>);

struct Known {
    /// The round of the step that the scope is the inside of.
    round: u32,
    input: Value,
    /// The items of its list.
    items: Option<Vec<Value>>,
}

impl Inputs {
    /// What the steps of a scope are fed with: for an item, the item.
    fn of(
        &mut self,
        definition: &Arc<Definition>,
        state: &State,
        ix: ScopeIx,
        step: NodeIx,
    ) -> Result<Value, PayloadError> {
        let Some((around, outer)) = state.scope(ix).inside else {
            return Ok(state.header.input.clone());
        };
        let round = state.scope(around).seen(outer).round;
        let known = self.0.get(ix.at()).and_then(Option::as_ref);
        if known.is_none_or(|known| known.round != round) {
            let mut input = self.of_step(definition, state, around, outer)?;
            if state.scope(ix).undoes {
                let null = Value::null();
                let output = state.scope(around).seen(outer).output.as_ref();
                let bodies = definition_of(definition, state, around).bodies(outer);
                if let Some(undo) = &bodies.undone_by {
                    input = (undo.input)(&input, output.unwrap_or(&null))?;
                }
            }
            let inside = definition_of(definition, state, ix);
            let items = match &inside.output {
                Output::Each(gather) => Some(gather.split(&input)?),
                Output::Wired(_) | Output::Chosen => None,
            };
            let known = Known {
                round,
                input,
                items,
            };
            if self.0.len() <= ix.at() {
                self.0.resize_with(ix.at() + 1, || None);
            }
            self.0[ix.at()] = Some(known);
        }
        let known = self.0.get(ix.at()).and_then(Option::as_ref);
        Ok(match known {
            Some(Known {
                items: None, input, ..
            }) => input.clone(),
            Some(Known {
                items: Some(items), ..
            }) => items.get(step.at()).cloned().unwrap_or_else(Value::null),
            None => Value::null(),
        })
    }

    /// The input of a step that has begun, as it was then.
    fn of_step(
        &mut self,
        definition: &Arc<Definition>,
        state: &State,
        ix: ScopeIx,
        step: NodeIx,
    ) -> Result<Value, PayloadError> {
        let node = state.scope(ix).seen(step);
        if let Some(edited) = &node.edited {
            return Ok(edited.clone());
        }
        let input = self.of(definition, state, ix, step)?;
        let wired = &definition_of(definition, state, ix).bodies(step).input;
        wired
            .supply
            .supply_value(&state.feed(ix, &input), &node.mapped)
    }
}

/// The definition of what a scope is made of.
pub(super) fn definition_of<'a>(
    root: &'a Arc<Definition>,
    state: &State,
    ix: ScopeIx,
) -> &'a Arc<Definition> {
    match state.scope(ix).inside {
        None => root,
        Some((around, step)) => definition_inside(root, state, ix, around, step),
    }
}

/// Apart from the above, so that a flat saga pays for no call.
fn definition_inside<'a>(
    root: &'a Arc<Definition>,
    state: &State,
    ix: ScopeIx,
    around: ScopeIx,
    step: NodeIx,
) -> &'a Arc<Definition> {
    let around = definition_of(root, state, around);
    let bodies = around.bodies(step);
    let own = if state.scope(ix).undoes {
        bodies.undone_by.as_ref().map(|undo| &undo.definition)
    } else {
        bodies.inside.as_ref()
    };
    own.unwrap_or(around)
}

/// The code of a step.
pub(super) fn bodies_of<'a>(
    registered: &'a Registered,
    state: &State,
    step: StepIx,
) -> &'a StepBodies {
    let (ix, step) = state.whereabouts(step);
    definition_of(&registered.definition, state, ix).bodies(step)
}

/// What takes the signal with this name: the step with this path, whether it has begun or not.
pub(super) fn wait_named<'a>(root: &'a Arc<Definition>, path: &str) -> Option<&'a dyn WaitBody> {
    let (mut definition, mut found) = (root, None);
    for part in path.split('/') {
        if let Some(bodies) = found {
            let bodies: &StepBodies = bodies;
            definition = bodies.inside.as_ref()?;
        }
        let (name, item) = match part.split_once('[') {
            Some((name, _)) => (name, true),
            None => (part, false),
        };
        let mut bodies = definition.bodies(definition.graph.step_named(name)?);
        if item {
            definition = bodies.inside.as_ref()?;
            bodies = definition.bodies.first()?;
        }
        found = Some(bodies);
    }
    found?.wait.as_deref()
}

impl Driver {
    /// What the wiring of a step reads, besides the outputs of the steps around it.
    pub(super) fn fed(&mut self, step: StepIx) -> Result<(ScopeIx, Value), PayloadError> {
        let (ix, step) = self.state.whereabouts(step);
        let definition = &self.registered.definition;
        let input = self.inputs.of(definition, &self.state, ix, step)?;
        Ok((ix, input))
    }

    /// How many items a fan-out is about to have; nothing for any other step.
    pub(super) fn count_items(
        &self,
        step: StepIx,
        input: impl FnOnce() -> Result<Value, PayloadError>,
    ) -> Result<Option<u32>, PayloadError> {
        let bodies = bodies_of(&self.registered, &self.state, step);
        let Some(Output::Each(gather)) = bodies.inside.as_ref().map(|inside| &inside.output) else {
            return Ok(None);
        };
        let items = gather.split(&input()?)?;
        Ok(Some(u32::try_from(items.len()).unwrap_or(u32::MAX)))
    }

    /// The output of a step, made of what is inside it.
    pub(super) fn gathered(&mut self, step: StepIx) -> Result<Value, PayloadError> {
        let registered = Arc::clone(&self.registered);
        let bodies = bodies_of(&registered, &self.state, step);
        let (Some(inside), Some(ix)) = (&bodies.inside, self.state.node(step).child) else {
            return Ok(Value::null());
        };
        let output = match &inside.output {
            Output::Wired(wired) => {
                let first = NodeIx(0);
                let input = self
                    .inputs
                    .of(&registered.definition, &self.state, ix, first)?;
                let feed = self.state.feed(ix, &input);
                let mapped = wired.wiring.map(&feed)?;
                wired.supply.supply_value(&feed, &mapped)?
            }
            Output::Each(gather) => {
                let nodes = self.state.scope(ix).nodes.iter();
                let null = Value::null();
                let items = nodes.filter_map(|node| match node.status {
                    Status::Absorbed => node.failure.as_deref().map(Err),
                    _ => Some(Ok(node.output.as_ref().unwrap_or(&null))),
                });
                gather.join(items.collect())?
            }
            Output::Chosen => {
                let scope = self.state.scope(ix);
                let chosen = scope
                    .chosen()
                    .and_then(|step| scope.seen(step).output.clone());
                chosen.unwrap_or_else(Value::null)
            }
        };
        match bodies.maybe {
            Some(maybe) => maybe(&output),
            None => Ok(output),
        }
    }
}
