//! A `tracing` layer that keeps all it is told, and shows it as a tree.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// A span or an event, with its fields in the order in which they were told.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: &'static str,
    pub target: String,
    pub parent: Option<usize>,
    pub fields: Vec<(String, String)>,
    pub closed: bool,
    pub is_event: bool,
}

impl Seen {
    /// What a field was told last; empty where it was told nothing.
    pub fn field(&self, name: &str) -> &str {
        let told = self.fields.iter().rev().find(|(field, _)| field == name);
        told.map_or("", |(_, value)| value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }
}

/// All that was seen, in the order of its beginning.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    seen: Arc<Mutex<Vec<Seen>>>,
    spans: Arc<Mutex<HashMap<u64, usize>>>,
}

impl Capture {
    /// Listens on this thread, to everything, until the guard is dropped.
    pub fn listen() -> (Capture, DefaultGuard) {
        let capture = Capture::default();
        let subscriber = tracing_subscriber::registry().with(capture.clone());
        (capture, tracing::subscriber::set_default(subscriber))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn spans(&self, name: &str) -> Vec<Seen> {
        let seen = self.seen();
        seen.into_iter().filter(|seen| seen.name == name).collect()
    }

    /// One line for each span and event, indented as they are nested, with these fields where they have them.
    pub fn tree(&self, fields: &[&str]) -> String {
        let seen = self.seen();
        let mut lines = String::new();
        branch(&seen, None, 0, fields, &mut lines);
        lines
    }
}

fn branch(seen: &[Seen], parent: Option<usize>, depth: usize, fields: &[&str], lines: &mut String) {
    for (index, one) in seen
        .iter()
        .enumerate()
        .filter(|(_, one)| one.parent == parent)
    {
        let name = if one.is_event { "·" } else { one.name };
        write!(lines, "{}{name}", "  ".repeat(depth)).unwrap();
        for field in fields.iter().filter(|field| one.has(field)) {
            write!(lines, " {field}={}", one.field(field)).unwrap();
        }
        if one.is_event {
            write!(lines, " {}", one.field("message")).unwrap();
        }
        lines.push('\n');
        branch(seen, Some(index), depth + 1, fields, lines);
    }
}

struct Fields<'a>(&'a mut Vec<(String, String)>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().to_owned(), value.to_owned()));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = Vec::new();
        attributes.record(&mut Fields(&mut fields));
        let parent = cx.span(id).unwrap().parent().map(|parent| parent.id());
        let mut spans = self.spans.lock().unwrap();
        let mut seen = self.seen.lock().unwrap();
        spans.insert(id.into_u64(), seen.len());
        seen.push(Seen {
            name: attributes.metadata().name(),
            target: attributes.metadata().target().to_owned(),
            parent: parent.map(|parent| spans[&parent.into_u64()]),
            fields,
            closed: false,
            is_event: false,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _cx: Context<'_, S>) {
        let index = self.spans.lock().unwrap()[&id.into_u64()];
        values.record(&mut Fields(&mut self.seen.lock().unwrap()[index].fields));
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut fields = Vec::new();
        event.record(&mut Fields(&mut fields));
        let parent = cx.event_span(event).map(|parent| parent.id());
        let parent = parent.map(|parent| self.spans.lock().unwrap()[&parent.into_u64()]);
        self.seen.lock().unwrap().push(Seen {
            name: event.metadata().name(),
            target: event.metadata().target().to_owned(),
            parent,
            fields,
            closed: false,
            is_event: true,
        });
    }

    fn on_close(&self, id: Id, _cx: Context<'_, S>) {
        let index = self.spans.lock().unwrap()[&id.into_u64()];
        self.seen.lock().unwrap()[index].closed = true;
    }
}
