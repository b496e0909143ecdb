//! Where spans and counts go: to the screen at the end, and to a collector where there is one.

use std::sync::{Arc, Mutex, PoisonError};

use metrics_exporter_opentelemetry::Recorder;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Failed;
use crate::ids::{Ids, Journalled};
use crate::screen::{self, Counts};

/// The two halves of the SDK, to be flushed at the end.
pub(crate) struct Exports {
    spans: SdkTracerProvider,
    seen: Seen,
    counts: SdkMeterProvider,
}

/// Installs everything. The recorder has to be there before a coordinator is built, which makes its
/// handles once.
pub(crate) fn install() -> Result<Exports, Failed> {
    let collector = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some();
    let resource = Resource::builder()
        .with_service_name("amends-example")
        .build();

    let seen = Seen::default();
    let mut spans = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_id_generator(Ids::default())
        .with_simple_exporter(seen.clone());
    if collector {
        spans = spans.with_batch_exporter(SpanExporter::builder().with_http().build()?);
    }
    let spans = spans.build();
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(Journalled)
        .with(tracing_opentelemetry::layer().with_tracer(spans.tracer("amends")))
        .init();

    let to_collector = if collector {
        Some(MetricExporter::builder().with_http().build()?)
    } else {
        None
    };
    let (counts, _) = Recorder::builder("amends")
        .with_meter_provider(|counts| {
            let counts = counts
                .with_resource(resource)
                .with_reader(PeriodicReader::builder(Counts).build());
            match to_collector {
                Some(exporter) => counts.with_reader(PeriodicReader::builder(exporter).build()),
                None => counts,
            }
        })
        .install()?;
    Ok(Exports {
        spans,
        seen,
        counts,
    })
}

impl Exports {
    /// Hands on what is left. The readers of counts print and send at their end.
    pub(crate) fn finish(self) -> Result<(), Failed> {
        self.spans.shutdown()?;
        screen::tree(&self.seen.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.counts.shutdown()?;
        Ok(())
    }
}

/// Keeps the spans for the screen.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<SpanData>>>);

impl opentelemetry_sdk::trace::SpanExporter for Seen {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(spans);
        Ok(())
    }
}
