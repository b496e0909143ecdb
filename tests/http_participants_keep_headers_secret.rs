//! Static headers of an HTTP participant, authorisation for example, are sent and never shown.
//!
//! Alone in its binary: what is logged on one thread depends on who listens on the others.
#![cfg(feature = "http")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/service.rs"]
mod service;

use std::io::Write;
use std::sync::{Arc, Mutex};

use amends::participant::HttpParticipant;
use service::{Answer, Order, Payment, Service, at_once, saga, start};

#[tokio::test]
async fn static_headers_are_sent_with_each_call_and_never_shown() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish(),
    );
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url)
        .unwrap()
        .header("Authorization", "Bearer s3cret")
        .unwrap()
        .header("x-team", "till")
        .unwrap();
    service.on("/charges?token=s3cret", [Answer::new(418, "s3cret")]);
    let call = payments.call::<Order, Payment>("/charges?token=s3cret");
    let undo = call.compensate("/refunds?token=s3cret");
    let shown = format!(
        "{payments:?} {undo:?} {:?}",
        payments.probe::<(), ()>("/status")
    );
    assert!(shown.contains(r#"["authorization", "x-team"]"#), "{shown}");

    let charge = amends::step("charge", undo).retry(at_once(1));
    let (coordinator, run) = start(&saga(charge, false)).await;
    let outcome = run.outcome().await.unwrap();
    assert_eq!(outcome.word(), "compensated");
    for asked in service.asked() {
        assert_eq!(asked.header("authorization"), "Bearer s3cret");
        assert_eq!(asked.header("x-team"), "till");
    }
    assert_eq!(service.asked().len(), 2);
    let journal = format!("{:?}", coordinator.get(&"r".into()).await.unwrap());
    for text in [shown, journal, format!("{outcome:?}"), log.text()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert!(log.text().contains("418"), "{}", log.text());
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}
