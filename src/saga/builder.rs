//! Putting a definition together, and checking it as a whole.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::policy::{RecoveryPolicy, Retry};
use crate::saga::body::{Body, ProbeBody};
use crate::saga::compose::Gather;
use crate::saga::fingerprint::fingerprint;
use crate::saga::graph::GraphParts;
use crate::saga::part::Settings;
use crate::saga::wiring::{SourceNode, Supply, Wiring, supply};
use crate::saga::{
    Fault, Form, Gathering, Graph, GraphStep, Inputs, Node, NodeIx, OnStop, Outline, Part,
    SagaError, Siblings, SomeNode, StepKind, StepSpec, Tolerance, UndoOrder, WaitBody,
};
use crate::step::{Payload, PayloadError, Value};

/// Names stand in every record and key of a run.
const MOST_NAME_BYTES: usize = 255;

/// Ten times what is tested to run well; a definition beyond it is a loop that got out of hand.
const MOST_STEPS: usize = 100_000;

/// A built definition: immutable, cheap to clone, safe to share.
///
/// `I` is the type of its input, `O` of its output.
pub struct Saga<I, O> {
    pub(crate) definition: Arc<Definition>,
    _types: PhantomData<fn(I) -> O>,
}

impl<I, O> Clone for Saga<I, O> {
    fn clone(&self) -> Self {
        Saga {
            definition: Arc::clone(&self.definition),
            _types: PhantomData,
        }
    }
}

impl<I, O> fmt::Debug for Saga<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = &self.definition.graph;
        write!(
            f,
            "Saga({} version {}, {} steps)",
            graph.saga,
            graph.version,
            graph.steps.len()
        )
    }
}

/// What the coordinator needs of a saga, its types erased.
pub(crate) struct Definition {
    pub(crate) graph: Arc<Graph>,
    pub(crate) bodies: Vec<StepBodies>,
    pub(crate) output: Output,
    pub(crate) deadline: Option<Duration>,
    /// What is wrong with it, where it is the inside of a step and can't say so itself.
    faults: Vec<Fault>,
}

/// What the output of a definition is made of.
pub(crate) enum Output {
    /// What is wired into it.
    Wired(Wired),
    /// The outputs of all items.
    Each(Arc<dyn Gather>),
    /// That of the one step that succeeded.
    Chosen,
}

pub(crate) struct StepBodies {
    pub(crate) body: Arc<dyn Body>,
    pub(crate) probe: Option<Arc<dyn ProbeBody>>,
    pub(crate) input: Wired,
    /// What is inside it, where it has steps of its own.
    pub(crate) inside: Option<Arc<Definition>>,
    /// What it waits for, where it calls nothing.
    pub(crate) wait: Option<Arc<dyn WaitBody>>,
    pub(crate) condition: Option<Wired>,
    pub(crate) undone_by: Option<UndoneBy>,
    /// Makes the output of what is inside one that may not be there.
    pub(crate) maybe: Option<Maybe>,
}

impl Definition {
    /// What a step does. All items of a fan-out do the same.
    pub(crate) fn bodies(&self, step: NodeIx) -> &StepBodies {
        match self.graph.gathers {
            Gathering::Each { .. } => &self.bodies[0],
            Gathering::Saga | Gathering::Fallback | Gathering::Race => &self.bodies[step.at()],
        }
    }
}

/// The saga that undoes a step as a whole.
#[derive(Clone)]
pub(crate) struct UndoneBy {
    pub(crate) definition: Arc<Definition>,
    /// Makes its input of the step's input and output.
    pub(crate) input: fn(&Value, &Value) -> Result<Value, PayloadError>,
}

/// Makes of an output that is there one that may not be.
pub(crate) type Maybe = fn(&Value) -> Result<Value, PayloadError>;

/// A wiring and what reads it.
pub(crate) struct Wired {
    pub(crate) wiring: Wiring,
    pub(crate) supply: Box<dyn Supply>,
}

impl Saga<(), ()> {
    /// Begins the definition of a saga with an input of type `I`.
    pub fn builder<I: Payload>(name: impl Into<String>) -> SagaBuilder<I> {
        SagaBuilder::new(name.into())
    }
}

impl<I, O> Saga<I, O> {
    /// The definition as data: steps, edges, settings.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.definition.graph
    }

    /// The saga's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.graph().saga()
    }

    /// The saga's version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.graph().version()
    }

    /// The structural fingerprint: the same in every process and build (rule I2).
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.graph().fingerprint()
    }

    /// The structure in the form that stores keep.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outline::of(self.graph())
    }
}

/// A definition in the making.
///
/// Nothing fails before [`returns`](Self::returns), which reports all faults at once.
pub struct SagaBuilder<I> {
    name: String,
    number: u32,
    version: u32,
    drafts: Vec<Draft>,
    siblings: Siblings,
    undo_order: UndoOrder,
    on_stop: OnStop,
    policy: RecoveryPolicy,
    deadline: Option<Duration>,
    _input: PhantomData<fn(I)>,
}

/// A step that was added, or put inside another.
pub(super) struct Draft {
    name: String,
    kind: StepKind,
    settings: Settings,
    after: Vec<SomeNode>,
    /// Whether it was given two conditions.
    twice: bool,
    /// Whether it waits for a signal, and how long at most.
    wait: Option<(bool, Option<Duration>)>,
    bodies: StepBodies,
}

impl Draft {
    pub(super) fn new<I, O>(spec: StepSpec<I, O>, input: Wired) -> Draft {
        Draft {
            name: spec.name,
            kind: spec.kind,
            settings: spec.settings,
            after: spec.after,
            twice: spec.twice,
            wait: spec.wait.as_ref().map(|wait| (wait.signal, wait.limit)),
            bodies: StepBodies {
                wait: spec.wait.map(|wait| wait.body),
                body: spec.body,
                probe: spec.probe,
                input,
                inside: spec.inside,
                condition: spec.condition,
                undone_by: spec.undone_by,
                maybe: spec.maybe,
            },
        }
    }

    /// All nodes that have to be there before it starts.
    fn nodes(&self) -> impl Iterator<Item = &SomeNode> {
        let condition = self.bodies.condition.iter();
        let condition = condition.flat_map(|wired| &wired.wiring.nodes);
        let inputs = self.bodies.input.wiring.nodes.iter();
        inputs.chain(condition).chain(&self.after)
    }

    fn graph_step(
        &self,
        wired: Vec<String>,
        dependencies: Vec<NodeIx>,
        order: UndoOrder,
    ) -> GraphStep {
        let settings = &self.settings;
        let form = match (&self.bodies.inside, self.wait) {
            (Some(inside), _) => Form::Inside(under_order(&inside.graph, order)),
            (None, Some((signal, limit))) => Form::Wait { signal, limit },
            (None, None) => Form::Call,
        };
        GraphStep {
            name: self.name.as_str().into(),
            form,
            conditional: self.bodies.condition.is_some(),
            undone_by: self
                .bodies
                .undone_by
                .as_ref()
                .map(|undo| Arc::clone(&undo.definition.graph)),
            escaped: escape(&self.name),
            kind: self.kind,
            dependencies,
            dependents: Vec::new(),
            wired,
            pivot: settings.pivot,
            checkpoint: settings.checkpoint,
            atomic: settings.atomic,
            at_most_once: settings.at_most_once,
            undo_rule: settings.undo_rule.unwrap_or_default(),
            probed: self.bodies.probe.is_some(),
            retry: settings.retry.clone().unwrap_or_default(),
            undo_retry: settings
                .undo_retry
                .clone()
                .unwrap_or_else(Retry::compensation),
            timeout: settings
                .timeout
                .unwrap_or(StepSpec::<(), ()>::DEFAULT_TIMEOUT),
            undo_timeout: settings
                .undo_timeout
                .unwrap_or(StepSpec::<(), ()>::DEFAULT_TIMEOUT),
            heartbeat: settings.heartbeat,
            undo_heartbeat: settings.undo_heartbeat,
            max_in_flight: settings.max_in_flight,
            max_in_flight_in_fleet: settings.max_in_flight_in_fleet,
        }
    }
}

/// What is no saga of its own is undone in the order of the saga that it is a part of.
fn under_order(graph: &Arc<Graph>, order: UndoOrder) -> Arc<Graph> {
    if graph.is_saga() {
        return Arc::clone(graph);
    }
    let mut graph = Graph::clone(graph);
    graph.undo_order = order;
    for step in &mut graph.steps {
        if let Form::Inside(inside) = &mut step.form {
            *inside = under_order(inside, order);
        }
    }
    Arc::new(graph)
}

/// The definition of what is inside a fan-out or a choice.
pub(super) fn draft_graph(
    mut parts: GraphParts,
    drafts: Vec<Draft>,
    output: Output,
) -> Arc<Definition> {
    let in_turn = parts.gathers == Gathering::Fallback;
    let of_items = matches!(parts.gathers, Gathering::Each { .. });
    let mut faults = Vec::new();
    check_step_names(&drafts, &mut faults);
    match parts.gathers {
        Gathering::Each {
            parallel: Some(0), ..
        } => faults.push(Fault::BadSetting {
            step: parts.saga.to_string(),
            setting: "parallel",
            why: "with 0 no item could ever start".to_owned(),
        }),
        Gathering::Each {
            tolerate: Some(Tolerance::PerMille(1_001..)),
            ..
        } => {
            faults.push(Fault::BadSetting {
                step: parts.saga.to_string(),
                setting: "tolerate_ratio",
                why: "a share is a number from 0 to 1".to_owned(),
            });
        }
        Gathering::Race if drafts.is_empty() => faults.push(Fault::BadSetting {
            step: parts.saga.to_string(),
            setting: "first_of",
            why: "there is no way to choose".to_owned(),
        }),
        _ => {}
    }
    for draft in &drafts {
        draft.check_settings(&mut faults);
        draft.check_inside(parts.gathers, &mut faults);
        let inner = draft.bodies.inside.iter();
        faults.extend(inner.flat_map(|inside| inside.faults.iter().cloned()));
    }
    if !of_items {
        // So that a reader finds the step: it stands in a path.
        for fault in &mut faults {
            fault.put_inside(&parts.saga);
        }
    }
    let steps: Vec<GraphStep> = drafts
        .iter()
        .enumerate()
        .map(|(index, draft)| {
            let before = index.checked_sub(1).filter(|_| in_turn).map(NodeIx::new);
            let wired = vec!["input".to_owned()];
            draft.graph_step(wired, before.into_iter().collect(), parts.undo_order)
        })
        .collect();
    parts.fingerprint = fingerprint(&parts.saga, &steps, &[]).into();
    Arc::new(Definition {
        graph: Arc::new(Graph::of(parts, steps)),
        bodies: drafts.into_iter().map(|draft| draft.bodies).collect(),
        output,
        deadline: None,
        faults,
    })
}

impl<I> fmt::Debug for SagaBuilder<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SagaBuilder({} version {}, {} steps so far)",
            self.name,
            self.version,
            self.drafts.len()
        )
    }
}

impl<I: Payload> SagaBuilder<I> {
    fn new(name: String) -> Self {
        static BUILDERS: AtomicU32 = AtomicU32::new(1);
        SagaBuilder {
            name,
            number: BUILDERS.fetch_add(1, Ordering::Relaxed),
            version: 1,
            drafts: Vec::new(),
            siblings: Siblings::default(),
            undo_order: UndoOrder::default(),
            on_stop: OnStop::default(),
            policy: RecoveryPolicy::default(),
            deadline: None,
            _input: PhantomData,
        }
    }

    /// The version; 1 by default. Raise it when the meaning of a step changes in a way that the
    /// fingerprint can't see: a body, a `map`, a predicate.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// What becomes of attempts in flight when a sibling has failed; they are awaited by default.
    #[must_use]
    pub fn siblings(mut self, siblings: Siblings) -> Self {
        self.siblings = siblings;
        self
    }

    /// The order of undos that don't depend on each other; side by side by default.
    #[must_use]
    pub fn undo_order(mut self, order: UndoOrder) -> Self {
        self.undo_order = order;
        self
    }

    /// What a step's `stop` does with what is done; it is kept by default.
    #[must_use]
    pub fn on_stop(mut self, on_stop: OnStop) -> Self {
        self.on_stop = on_stop;
        self
    }

    /// Decides about failures; [`RecoveryPolicy::saga`] by default.
    #[must_use]
    pub fn policy(mut self, policy: RecoveryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How long the forward part of a run may take; no limit by default. It stands still while the run
    /// is parked, never touches compensation, and past the pivot it is only reported (rule I4).
    ///
    /// As a step of another saga it has so long from its start, if the run's own deadline does not come
    /// first: then its policy is asked, as about any failure. Past its pivot its time does not count.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// The saga's input, to be wired into steps.
    #[must_use]
    pub fn input(&self) -> Node<I> {
        Node::new(self.number, SourceNode::Input)
    }

    /// Adds a step and says what its input is made of. The node stands for its output.
    pub fn add<P: Part>(&mut self, part: P, inputs: impl Inputs<P::Input>) -> Node<P::Output> {
        let (wiring, supply) = supply(inputs);
        let node = Node::new(
            self.number,
            SourceNode::Step(NodeIx::new(self.drafts.len())),
        );
        let input = Wired { wiring, supply };
        self.drafts.push(Draft::new(part.into_spec(), input));
        node
    }

    /// Says what the saga gives, checks the whole definition and builds it.
    ///
    /// # Errors
    ///
    /// A [`SagaError`] that lists every [`Fault`].
    pub fn returns<O: Payload>(self, output: impl Inputs<O>) -> Result<Saga<I, O>, SagaError> {
        let (wiring, supply) = supply(output);
        let mut faults = Vec::new();
        self.check_names(&mut faults);
        self.check_nodes(&wiring, &mut faults);
        for draft in &self.drafts {
            draft.check_settings(&mut faults);
            let inside = draft.bodies.inside.iter();
            faults.extend(inside.flat_map(|inside| inside.faults.iter().cloned()));
        }
        if self.deadline.is_some_and(|limit| limit.is_zero()) {
            faults.push(Fault::BadSetting {
                step: self.name.clone(),
                setting: "deadline",
                why: "no run can end within 0 s".to_owned(),
            });
        }
        for why in self.policy.faults() {
            faults.push(Fault::BadSetting {
                step: self.name.clone(),
                setting: "policy",
                why,
            });
        }
        let saga = self.name.clone();
        let number = self.number;
        let described = describe(&wiring, &self.drafts);
        let (graph, bodies, deadline) = self.into_graph(number, &described);
        check_pivot(&graph, &mut faults);
        if !faults.is_empty() {
            return Err(SagaError { saga, faults });
        }
        let definition = Definition {
            graph: Arc::new(graph),
            bodies,
            output: Output::Wired(Wired { wiring, supply }),
            deadline,
            faults: Vec::new(),
        };
        Ok(Saga {
            definition: Arc::new(definition),
            _types: PhantomData,
        })
    }

    fn check_names(&self, faults: &mut Vec<Fault>) {
        if self.name.trim().is_empty() {
            faults.push(Fault::SagaWithoutName);
        }
        if self.name.len() > MOST_NAME_BYTES {
            faults.push(Fault::LongName {
                step: self.name.clone(),
                bytes: self.name.len(),
            });
        }
        if let Some(character) = self.name.chars().find(|c| c.is_control()) {
            faults.push(Fault::BadName {
                step: self.name.clone(),
                character,
            });
        }
        if self.version == 0 {
            faults.push(Fault::VersionZero);
        }
        if self.drafts.len() > MOST_STEPS {
            faults.push(Fault::TooManySteps {
                steps: self.drafts.len(),
                most: MOST_STEPS,
            });
        }
        check_step_names(&self.drafts, faults);
    }

    fn check_nodes(&self, output: &Wiring, faults: &mut Vec<Fault>) {
        let mut foreign = |step: &str, nodes: &[SomeNode], role| {
            if nodes.iter().any(|node| node.builder != self.number) {
                faults.push(Fault::ForeignNode {
                    step: step.to_owned(),
                    role,
                });
            }
        };
        for draft in &self.drafts {
            foreign(
                &draft.name,
                &draft.bodies.input.wiring.nodes,
                "one of its inputs",
            );
            if let Some(condition) = &draft.bodies.condition {
                foreign(&draft.name, &condition.wiring.nodes, "its condition");
            }
            foreign(&draft.name, &draft.after, "one of its `after`s");
        }
        foreign("returns", &output.nodes, "one of its nodes");
    }

    fn into_graph(
        self,
        number: u32,
        returned: &[String],
    ) -> (Graph, Vec<StepBodies>, Option<Duration>) {
        let mut steps = Vec::with_capacity(self.drafts.len());
        for (index, draft) in self.drafts.iter().enumerate() {
            let mut seen = HashSet::new();
            let dependencies: Vec<NodeIx> = draft
                .nodes()
                .filter(|node| node.builder == number)
                .filter_map(|node| match node.source {
                    // Handles are only handed out for steps already added, so an edge points back always.
                    SourceNode::Step(step) if step.at() < index => Some(step),
                    SourceNode::Step(_) | SourceNode::Input => None,
                })
                .filter(|&step| seen.insert(step))
                .collect();
            let wired = describe(&draft.bodies.input.wiring, &self.drafts);
            steps.push(draft.graph_step(wired, dependencies, self.undo_order));
        }
        let parts = GraphParts {
            fingerprint: fingerprint(&self.name, &steps, returned).into(),
            saga: self.name.as_str().into(),
            version: self.version,
            siblings: self.siblings,
            undo_order: self.undo_order,
            on_stop: self.on_stop,
            policy: self.policy,
            deadline: self.deadline,
            gathers: Gathering::Saga,
        };
        let bodies = self.drafts.into_iter().map(|draft| draft.bodies).collect();
        (Graph::of(parts, steps), bodies, self.deadline)
    }
}

fn check_step_names(drafts: &[Draft], faults: &mut Vec<Fault>) {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if draft.name.trim().is_empty() {
            faults.push(Fault::StepWithoutName {
                position: index + 1,
            });
            continue;
        }
        // `/`, `[` and `]` spell the paths of steps inside other steps; control characters can't be read.
        let bad = draft
            .name
            .chars()
            .find(|&c| matches!(c, '/' | '[' | ']') || c.is_control());
        if draft.name.len() > MOST_NAME_BYTES {
            faults.push(Fault::LongName {
                step: draft.name.clone(),
                bytes: draft.name.len(),
            });
        }
        if let Some(character) = bad {
            faults.push(Fault::BadName {
                step: draft.name.clone(),
                character,
            });
        }
        *times.entry(&draft.name).or_default() += 1;
    }
    for (step, times) in times {
        if times > 1 {
            faults.push(Fault::DuplicateName {
                step: step.to_owned(),
                times,
            });
        }
    }
}

impl Draft {
    fn check_settings(&self, faults: &mut Vec<Fault>) {
        let meaningless = |setting, why| Fault::MeaninglessSetting {
            step: self.name.clone(),
            setting,
            why,
        };
        let bad = |setting, why: &str| Fault::BadSetting {
            step: self.name.clone(),
            setting,
            why: why.to_owned(),
        };
        let settings = &self.settings;
        if self.kind != StepKind::Compensatable {
            let why = "it has no undo";
            if settings.undo_retry.is_some() {
                faults.push(meaningless("compensation_retry", why));
            }
            if settings.undo_timeout.is_some() {
                faults.push(meaningless("compensation_timeout", why));
            }
            if settings.undo_heartbeat.is_some() {
                faults.push(meaningless("compensation_heartbeat", why));
            }
            if settings.undo_rule.is_some() {
                faults.push(meaningless("undo_failing", why));
            }
        }
        if self.kind == StepKind::ReadOnly {
            let why = "a read-only step is never in doubt";
            if settings.at_most_once {
                faults.push(meaningless("at_most_once", why));
            }
            if settings.atomic {
                faults.push(meaningless("atomic", why));
            }
            if self.bodies.probe.is_some() {
                faults.push(meaningless("probe", why));
            }
            if settings.pivot {
                faults.push(Fault::ReadOnlyPivot {
                    step: self.name.clone(),
                });
            }
        }
        self.check_form(faults);
        if settings.timeout.is_some_and(|timeout| timeout.is_zero()) {
            faults.push(bad("timeout", "no call can end within 0 s"));
        }
        if settings
            .undo_timeout
            .is_some_and(|timeout| timeout.is_zero())
        {
            faults.push(bad("compensation_timeout", "no call can end within 0 s"));
        }
        for (setting, limit) in [
            ("heartbeat", settings.heartbeat),
            ("compensation_heartbeat", settings.undo_heartbeat),
        ] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                faults.push(bad(setting, "every call is silent for longer than 0 s"));
            }
        }
        for (what, most) in [
            ("max_in_flight", settings.max_in_flight),
            ("max_in_flight_in_fleet", settings.max_in_flight_in_fleet),
        ] {
            if most == Some(0) {
                faults.push(bad(what, "with 0 the step could never start"));
            }
        }
        if let Some(retry) = &settings.retry {
            faults.extend(retry.faults().iter().map(|why| bad("retry", why)));
        }
        if let Some(retry) = &settings.undo_retry {
            faults.extend(
                retry
                    .faults()
                    .iter()
                    .map(|why| bad("compensation_retry", why)),
            );
        }
    }
}

impl Draft {
    /// What only a step that is called itself can have (rules N2, P1).
    fn check_form(&self, faults: &mut Vec<Fault>) {
        let mut meaningless = |setting, why, there: bool| {
            faults.extend(there.then(|| Fault::MeaninglessSetting {
                step: self.name.clone(),
                setting,
                why,
            }));
        };
        let settings = &self.settings;
        meaningless("only_if", "it has a condition already", self.twice);
        let conditional = self.bodies.condition.is_some();
        meaningless(
            "pivot",
            "a pivot can't depend on a condition",
            settings.pivot && conditional,
        );
        let zero = |limit: Duration| limit.is_zero() && self.wait.is_some_and(|wait| wait.0);
        if self.wait.and_then(|wait| wait.1).is_some_and(zero) {
            meaningless("within", "no signal can come within 0 s", true);
        }
        let Some(inside) = &self.bodies.inside else {
            let undone = self.bodies.undone_by.is_some();
            meaningless(
                "compensate_with",
                "only a sub-saga is undone by one",
                undone,
            );
            return;
        };
        let why = "it is not called itself: say it of the steps inside";
        meaningless("retry", why, settings.retry.is_some());
        meaningless("timeout", why, settings.timeout.is_some());
        meaningless("compensation_retry", why, settings.undo_retry.is_some());
        meaningless("compensation_timeout", why, settings.undo_timeout.is_some());
        meaningless("heartbeat", why, settings.heartbeat.is_some());
        let undo_heartbeat = settings.undo_heartbeat.is_some();
        meaningless("compensation_heartbeat", why, undo_heartbeat);
        meaningless("undo_failing", why, settings.undo_rule.is_some());
        meaningless("atomic", why, settings.atomic);
        meaningless("at_most_once", why, settings.at_most_once);
        meaningless("max_in_flight", why, settings.max_in_flight.is_some());
        let of_fleet = settings.max_in_flight_in_fleet.is_some();
        meaningless("max_in_flight_in_fleet", why, of_fleet);
        meaningless("probe", why, self.bodies.probe.is_some());
        let why = "only a sub-saga is undone by one";
        let undone = self.bodies.undone_by.is_some();
        meaningless("compensate_with", why, undone && !inside.graph.is_saga());
        let one = inside.graph.is_saga();
        let why = "the pivot is one step, or a sub-saga";
        meaningless("pivot", why, settings.pivot && !one);
    }

    /// What a step inside a fan-out or a choice can't have.
    fn check_inside(&self, gathers: Gathering, faults: &mut Vec<Fault>) {
        let mut meaningless = |setting, why, there: bool| {
            faults.extend(there.then(|| Fault::MeaninglessSetting {
                step: self.name.clone(),
                setting,
                why,
            }));
        };
        let why = "it is a part of a step: say it of the whole";
        meaningless("after", why, !self.after.is_empty());
        meaningless("only_if", why, self.bodies.condition.is_some());
        meaningless("checkpoint", why, self.settings.checkpoint);
        let why = "the pivot is one step, or a sub-saga";
        meaningless("pivot", why, self.settings.pivot);
        let race = gathers == Gathering::Race && self.kind == StepKind::Irreversible;
        meaningless(
            "irreversible",
            "whoever loses a race has to be undone",
            race,
        );
    }
}

/// Rule P1, over the whole graph.
fn check_pivot(graph: &Graph, faults: &mut Vec<Fault>) {
    let name = |step: &GraphStep| step.name.to_string();
    let pivots: Vec<&GraphStep> = graph.steps.iter().filter(|step| step.pivot).collect();
    if pivots.len() > 1 {
        // Which of them the user means can't be known, so what depends on it isn't checked.
        faults.push(Fault::ManyPivots {
            steps: pivots.into_iter().map(name).collect(),
        });
        return;
    }
    let Some(pivot) = graph.pivot else {
        for step in graph
            .steps
            .iter()
            .filter(|step| step.kind == StepKind::Irreversible)
        {
            let why = "this saga has no pivot".to_owned();
            faults.push(Fault::IrreversibleBeforePivot {
                step: name(step),
                why,
            });
        }
        return;
    };
    let before = reach(graph, pivot, |step| &step.dependencies);
    let after = reach(graph, pivot, |step| &step.dependents);
    let pivot_name = name(graph.step(pivot));
    for (index, step) in graph.steps.iter().enumerate() {
        if NodeIx::new(index) == pivot || after[index] || step.kind == StepKind::ReadOnly {
            continue;
        }
        if step.kind == StepKind::Irreversible {
            let place = if before[index] {
                "comes before"
            } else {
                "is not ordered after"
            };
            let why = format!("{place} the pivot `{pivot_name}`");
            faults.push(Fault::IrreversibleBeforePivot {
                step: name(step),
                why,
            });
        } else if !before[index] {
            faults.push(Fault::BesidePivot {
                step: name(step),
                pivot: pivot_name.clone(),
            });
        }
    }
}

/// Which steps can be reached from `from`, itself excluded.
fn reach(graph: &Graph, from: NodeIx, edges: impl Fn(&GraphStep) -> &[NodeIx]) -> Vec<bool> {
    let mut reached = vec![false; graph.steps.len()];
    let mut open = vec![from];
    while let Some(step) = open.pop() {
        for &next in edges(graph.step(step)) {
            if !std::mem::replace(&mut reached[next.at()], true) {
                open.push(next);
            }
        }
    }
    reached
}

/// The wiring in words: `input`, `map(reserve)`, `charge`.
///
/// A step whose name could be read as one of these forms stands in quotes, so that no two wirings share
/// their words: the fingerprint is made of them.
fn describe(wiring: &Wiring, drafts: &[Draft]) -> Vec<String> {
    let name = |source: &SourceNode| match source {
        SourceNode::Input => "input".to_owned(),
        SourceNode::Step(step) => drafts
            .get(step.at())
            .map_or_else(|| "?".to_owned(), |draft| wired_name(&draft.name)),
    };
    let part = |(source, mapped): &(SourceNode, bool)| {
        let name = name(source);
        if *mapped {
            format!("map({name})")
        } else {
            name
        }
    };
    wiring.described.iter().map(part).collect()
}

/// A step's name as it stands in a wiring.
pub(crate) fn wired_name(name: &str) -> String {
    if name == "input" || name.contains(['(', ')', ',', '"']) {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        name.to_owned()
    }
}

/// The name that a wiring's word stands for.
pub(crate) fn unwired_name(word: &str) -> String {
    let quoted = word
        .strip_prefix('"')
        .and_then(|word| word.strip_suffix('"'));
    let Some(quoted) = quoted else {
        return word.to_owned();
    };
    let (mut name, mut escaped) = (String::with_capacity(quoted.len()), false);
    for c in quoted.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            name.push(c);
        }
    }
    name
}

/// The name as it stands in keys: what isn't printable ASCII, and what keys are spelled with, is percent-encoded.
pub(crate) fn escape(name: &str) -> String {
    name.bytes()
        .fold(String::with_capacity(name.len()), |mut out, byte| {
            if byte.is_ascii_graphic() && !matches!(byte, b'/' | b'%') {
                out.push(char::from(byte));
            } else {
                // Writing to a String can't fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Definition({} version {})",
            self.graph.saga, self.graph.version
        )
    }
}
