//! The definition of a saga: what its steps are, how they are wired, and what is wrong with it.
//!
//! A definition is built once, checked as a whole, and shared. Its [`Graph`] is pure data and is all that
//! the machine sees; the bodies and the wiring are what the coordinator calls.

mod body;
mod builder;
mod closures;
mod compose;
mod faults;
mod fingerprint;
mod graph;
mod heartbeat;
mod outline;
mod part;
mod waits;
mod wiring;

pub(crate) use body::{BoxFuture, Erased};
pub(crate) use builder::{Definition, Output, StepBodies, escape, unwired_name, wired_name};
pub use builder::{Saga, SagaBuilder};
pub use closures::{CompensateFn, ExecuteFn, irreversible_fn, read_only_fn, step_fn, step_with};
pub use compose::{Choice, ForEach, first_of};
pub use faults::{Fault, SagaError};
pub(crate) use fingerprint::hex;
pub(crate) use graph::{Form, Gathering, Tolerance, UNDO, undo_path};
pub use graph::{Graph, GraphStep, NodeIx, OnStop, Siblings, StepKind, UndoOrder, UndoRule};
pub use outline::{Outline, OutlineForm, OutlineStep, OutlineWait};
pub use part::{AsStep, Part, StepSpec, irreversible, read_only, step};
pub(crate) use waits::WaitBody;
pub use waits::{Approval, ApprovalStep, ApprovalVerdict, Delay, Wait, approval, delay, wait_for};
pub(crate) use wiring::Feed;
pub use wiring::{Inputs, Mapped, Node, SomeNode};
