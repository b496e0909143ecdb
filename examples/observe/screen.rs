//! What was exported, for people.

use std::fmt::Display;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::SpanData;

/// Prints the spans, each below its parent, in the order in which they began.
pub(crate) fn tree(spans: &[SpanData]) {
    let mut spans: Vec<&SpanData> = spans.iter().collect();
    spans.sort_by_key(|span| span.start_time);
    let known = |id: SpanId| spans.iter().any(|span| span.span_context.span_id() == id);
    for root in spans.iter().filter(|span| !known(span.parent_span_id)) {
        println!("\ntrace {}", root.span_context.trace_id());
        println!("parent {}, from the request", root.parent_span_id);
        branch(&spans, root, 1);
    }
}

fn branch(spans: &[&SpanData], span: &SpanData, depth: usize) {
    let took = span.end_time.duration_since(span.start_time);
    let said = |name: &str| {
        let mut said = span
            .attributes
            .iter()
            .filter(|said| said.key.as_str() == name);
        said.next().map(|said| format!(" {name}={}", said.value))
    };
    let shown = ["attempt", "end", "error.type", "to"].map(|name| said(name).unwrap_or_default());
    let error = match span.status {
        Status::Error { .. } => "  ERROR",
        Status::Ok | Status::Unset => "",
    };
    println!(
        "{}{}  [{}] {:?}{}{error}",
        "   ".repeat(depth),
        span.name,
        span.span_context.span_id(),
        Duration::from_millis(took.unwrap_or_default().as_millis().try_into().unwrap_or(0)),
        shown.concat(),
    );
    for event in span.events.iter() {
        println!("{}· {}", "   ".repeat(depth + 1), event.name);
    }
    let id = span.span_context.span_id();
    for child in spans.iter().filter(|child| child.parent_span_id == id) {
        branch(spans, child, depth + 1);
    }
}

/// Prints what is counted, when the provider is shut down.
pub(crate) struct Counts;

impl PushMetricExporter for Counts {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut lines = Vec::new();
        let scopes = metrics.scope_metrics();
        for metric in scopes.flat_map(opentelemetry_sdk::metrics::data::ScopeMetrics::metrics) {
            let name = metric.name();
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    let points = sum.data_points();
                    lines.extend(points.map(|point| line(name, point.attributes(), point.value())));
                }
                AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
                    let points = gauge.data_points();
                    lines.extend(points.map(|point| line(name, point.attributes(), point.value())));
                }
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    lines.extend(histogram.data_points().map(|point| {
                        let told = format!("{} values, sum {:.4}", point.count(), point.sum());
                        line(name, point.attributes(), told)
                    }));
                }
                _ => {}
            }
        }
        lines.sort();
        println!("\n{}", lines.join("\n"));
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn line<'a>(name: &str, labels: impl Iterator<Item = &'a KeyValue>, value: impl Display) -> String {
    let mut labels: Vec<_> = labels
        .map(|label| format!("{}={}", label.key, label.value))
        .collect();
    labels.sort();
    format!("{name}{{{}}} {value}", labels.join(","))
}
