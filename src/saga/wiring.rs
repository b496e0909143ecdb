//! Typed wiring: what a step's input is made of.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::saga::{Erased, NodeIx};
use crate::step::{Payload, PayloadError, Value, panic_message};

/// The output of one step (or the saga's input), to be wired into others. A `Copy` handle.
///
/// A node belongs to the builder that made it; using it with another is a fault of the definition.
pub struct Node<T> {
    pub(super) raw: SomeNode,
    _output: PhantomData<fn() -> T>,
}

/// A node without its type, as [`after`](crate::StepSpec::after) takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SomeNode {
    pub(super) builder: u32,
    pub(super) source: SourceNode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceNode {
    Input,
    Step(NodeIx),
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Node<T> {}

impl<T> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({:?})", self.raw.source)
    }
}

impl<T> From<Node<T>> for SomeNode {
    fn from(node: Node<T>) -> Self {
        node.raw
    }
}

impl<T: Payload> Node<T> {
    pub(super) fn new(builder: u32, source: SourceNode) -> Self {
        Node {
            raw: SomeNode { builder, source },
            _output: PhantomData,
        }
    }

    /// Converts the output on its way to another step: `order.map(|order| order.id)`.
    ///
    /// The result is journalled when the step starts, so that its undo sees what its execute saw, even
    /// after a deploy that changes the closure. Keep the closure pure.
    pub fn map<U: Payload>(self, convert: impl Fn(&T) -> U + Send + Sync + 'static) -> Mapped<U> {
        let convert = move |value: &Value| -> Result<Value, PayloadError> {
            let value = value.get::<T>()?;
            // User code: a panic here is a failed step like any other.
            catch_unwind(AssertUnwindSafe(|| convert(&value)))
                .map(|made| Value::typed(Arc::new(made)))
                .map_err(|panic| PayloadError::Panicked {
                    message: panic_message(&*panic),
                })
        };
        Mapped {
            from: self.raw,
            convert: Arc::new(convert),
            _output: PhantomData,
        }
    }
}

type Convert = Arc<dyn Fn(&Value) -> Result<Value, PayloadError> + Send + Sync>;

/// A node with a conversion: see [`Node::map`].
#[derive(Clone)]
pub struct Mapped<U> {
    from: SomeNode,
    convert: Convert,
    _output: PhantomData<fn() -> U>,
}

impl<U> fmt::Debug for Mapped<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({:?})", self.from.source)
    }
}

/// What wiring reads from: the values that a run has so far.
pub(crate) trait Feed {
    fn input(&self) -> &Value;
    fn output(&self, step: NodeIx) -> Option<&Value>;
}

/// The wiring of one step, collected while the step is added.
#[derive(Default)]
pub(crate) struct Wiring {
    pub(super) nodes: Vec<SomeNode>,
    maps: Vec<(SourceNode, Convert)>,
    pub(super) described: Vec<(SourceNode, bool)>,
}

impl Wiring {
    /// What the `map`s make now: journalled with the start.
    pub(crate) fn map(&self, feed: &dyn Feed) -> Result<Vec<Value>, PayloadError> {
        self.maps
            .iter()
            .map(|(source, convert)| convert(read(feed, *source)?))
            .collect()
    }
}

fn read(feed: &dyn Feed, source: SourceNode) -> Result<&Value, PayloadError> {
    match source {
        SourceNode::Input => Ok(feed.input()),
        // The machine starts a step only when all before it are done, so this is never seen.
        SourceNode::Step(step) => feed.output(step).ok_or_else(|| PayloadError::Decode {
            type_name: "output",
            message: "a step before it has no output".to_owned(),
        }),
    }
}

/// Reads one part of an input.
pub(crate) trait Source<T>: Send + Sync {
    fn get(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Arc<T>, PayloadError>;
}

/// Reads a whole input, its type erased.
pub(crate) trait Supply: Send + Sync {
    fn supply(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Erased, PayloadError>;
    fn supply_value(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Value, PayloadError>;
    /// An input that somebody wrote down, instead of what is wired.
    fn read(&self, written: &Value) -> Result<Erased, PayloadError>;
}

struct Supplied<T>(Box<dyn Source<T>>);

impl<T: Payload> Supply for Supplied<T> {
    fn supply(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Erased, PayloadError> {
        self.made(feed, mapped).map(|input| input as Erased)
    }

    fn supply_value(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Value, PayloadError> {
        self.made(feed, mapped).map(Value::typed)
    }

    fn read(&self, written: &Value) -> Result<Erased, PayloadError> {
        written.get::<T>().map(|input| input as Erased)
    }
}

impl<T: Payload> Supplied<T> {
    /// A tuple clones its parts, which is user code: a panic there is a failed step like any other.
    fn made(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Arc<T>, PayloadError> {
        catch_unwind(AssertUnwindSafe(|| self.0.get(feed, mapped))).unwrap_or_else(|panic| {
            Err(PayloadError::ClonePanicked {
                message: panic_message(&*panic),
            })
        })
    }
}

pub(super) fn supply<T: Payload>(inputs: impl Inputs<T>) -> (Wiring, Box<dyn Supply>) {
    let mut wiring = Wiring::default();
    let source = inputs.wire(&mut Wires(&mut wiring)).0;
    (wiring, Box::new(Supplied(source)))
}

/// The whole input of what a step is inside of.
pub(super) fn supply_input<T: Payload>() -> (Wiring, Box<dyn Supply>) {
    let mut wiring = Wiring::default();
    wiring.described.push((SourceNode::Input, false));
    let source: Box<dyn Source<T>> = Box::new(FromNode(SourceNode::Input));
    (wiring, Box::new(Supplied(source)))
}

/// What can be wired into a step that wants a `T`: a node, a [mapped](Node::map) node, a tuple of up to
/// eight of these (tuples too, so that `((a, b), c)` carries more), or `()`.
///
/// Not to be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "the wiring carries `{Self}`, but `{T}` is wanted here",
    label = "does not give `{T}`",
    note = "wire a node, a tuple of up to 8 nodes in the order of the step's `Input` (tuples nest: `((a, b), c)`), `()` for none, or convert with `node.map(|value| ..)`"
)]
pub trait Inputs<T>: sealed::Sealed {
    #[doc(hidden)]
    fn wire(self, wires: &mut Wires<'_>) -> WiredSource<T>;
}

/// Where wiring is collected; opaque.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Wires<'a>(&'a mut Wiring);

/// A wired part; opaque.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct WiredSource<T>(Box<dyn Source<T>>);

mod sealed {
    pub trait Sealed {}
}

impl<T> sealed::Sealed for Node<T> {}
impl<T> sealed::Sealed for Mapped<T> {}
impl sealed::Sealed for () {}

struct FromNode(SourceNode);

impl<T: Payload> Source<T> for FromNode {
    fn get(&self, feed: &dyn Feed, _: &[Value]) -> Result<Arc<T>, PayloadError> {
        read(feed, self.0)?.get()
    }
}

impl<T: Payload> Inputs<T> for Node<T> {
    fn wire(self, wires: &mut Wires<'_>) -> WiredSource<T> {
        wires.0.nodes.push(self.raw);
        wires.0.described.push((self.raw.source, false));
        WiredSource(Box::new(FromNode(self.raw.source)))
    }
}

/// Reads the `map`ped value with this place.
struct FromMap(usize);

impl<T: Payload> Source<T> for FromMap {
    fn get(&self, _: &dyn Feed, mapped: &[Value]) -> Result<Arc<T>, PayloadError> {
        match mapped.get(self.0) {
            Some(value) => value.get(),
            None => Err(PayloadError::Decode {
                type_name: std::any::type_name::<T>(),
                message: "the journal has no such mapped value".to_owned(),
            }),
        }
    }
}

impl<U: Payload> Inputs<U> for Mapped<U> {
    fn wire(self, wires: &mut Wires<'_>) -> WiredSource<U> {
        let place = wires.0.maps.len();
        wires.0.nodes.push(self.from);
        wires.0.described.push((self.from.source, true));
        wires.0.maps.push((self.from.source, self.convert));
        WiredSource(Box::new(FromMap(place)))
    }
}

struct Nothing;

impl Source<()> for Nothing {
    fn get(&self, _: &dyn Feed, _: &[Value]) -> Result<Arc<()>, PayloadError> {
        Ok(Arc::new(()))
    }
}

impl Inputs<()> for () {
    fn wire(self, _: &mut Wires<'_>) -> WiredSource<()> {
        WiredSource(Box::new(Nothing))
    }
}

macro_rules! tuple_inputs {
    ($(($($part:ident $output:ident $at:tt),+);)+) => { $(
        impl<$($part: sealed::Sealed),+> sealed::Sealed for ($($part,)+) {}

        impl<$($output: Payload),+> Source<($($output,)+)> for ($(Box<dyn Source<$output>>,)+) {
            fn get(&self, feed: &dyn Feed, mapped: &[Value]) -> Result<Arc<($($output,)+)>, PayloadError> {
                Ok(Arc::new(($(Arc::unwrap_or_clone(self.$at.get(feed, mapped)?),)+)))
            }
        }

        impl<$($output: Payload, $part: Inputs<$output>),+> Inputs<($($output,)+)> for ($($part,)+) {
            fn wire(self, wires: &mut Wires<'_>) -> WiredSource<($($output,)+)> {
                WiredSource(Box::new(($(self.$at.wire(wires).0,)+)))
            }
        }
    )+ };
}

tuple_inputs! {
    (A0 T0 0);
    (A0 T0 0, A1 T1 1);
    (A0 T0 0, A1 T1 1, A2 T2 2);
    (A0 T0 0, A1 T1 1, A2 T2 2, A3 T3 3);
    (A0 T0 0, A1 T1 1, A2 T2 2, A3 T3 3, A4 T4 4);
    (A0 T0 0, A1 T1 1, A2 T2 2, A3 T3 3, A4 T4 4, A5 T5 5);
    (A0 T0 0, A1 T1 1, A2 T2 2, A3 T3 3, A4 T4 4, A5 T5 5, A6 T6 6);
    (A0 T0 0, A1 T1 1, A2 T2 2, A3 T3 3, A4 T4 4, A5 T5 5, A6 T6 6, A7 T7 7);
}
