//! Lets OpenTelemetry use the ids that the journal knows.
//!
//! Left to itself, the SDK gives each run's span a random trace id, and another one after a crash. The
//! spans of `amends` have the run's trace, its parent, and the span id that an attempt hands on, as fields.
//! This layer makes them those of the exported spans: a run is one trace over all crashes, that trace is
//! the one that the journal names, and participants' spans are children of the attempt that called them.

use std::cell::Cell;
use std::fmt::Debug;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

thread_local! {
    /// What the span that is being started on this thread is to be called.
    static NEXT: Cell<(Option<TraceId>, Option<SpanId>)> = const { Cell::new((None, None)) };
}

/// Takes the ids that were laid ready, and makes random ones otherwise.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let trace = NEXT.get().0;
        trace.unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        let span = NEXT.get().1;
        span.unwrap_or_else(|| self.0.new_span_id())
    }
}

/// Lays the ids ready. It has to be told of spans before OpenTelemetry's own layer is: add it first.
pub(crate) struct Journalled;

/// What a span says of itself.
#[derive(Default)]
struct Said {
    trace: Option<TraceId>,
    parent: Option<SpanId>,
    span: Option<SpanId>,
    flags: u8,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "trace_id" => self.trace = TraceId::from_hex(value).ok(),
            "parent_span_id" => self.parent = SpanId::from_hex(value).ok(),
            "span_id" => self.span = SpanId::from_hex(value).ok(),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "trace_flags" {
            self.flags = u8::try_from(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journalled {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        if attributes.metadata().target() == "amends"
            && let Some(span) = cx.span(id)
        {
            let mut said = Said::default();
            attributes.record(&mut said);
            span.extensions_mut().insert(said);
        }
    }

    /// A span is entered for the first time before it has children, and that is when it is started.
    fn on_enter(&self, id: &Id, cx: Context<'_, S>) {
        let said = cx
            .span(id)
            .and_then(|span| span.extensions_mut().remove::<Said>());
        let Some(said) = said else { return };
        let span = Span::current();
        if let (Some(trace), Some(parent)) = (said.trace, said.parent) {
            let flags = TraceFlags::new(said.flags);
            let parent = SpanContext::new(trace, parent, flags, true, TraceState::default());
            // It fails where the span goes nowhere, and then there is nothing to name.
            let parent = opentelemetry::Context::new().with_remote_span_context(parent);
            let _ = span.set_parent(parent);
        }
        NEXT.set((said.trace, said.span));
        // Asking for its context starts it.
        drop(span.context());
        NEXT.set((None, None));
    }
}
