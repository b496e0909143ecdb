//! What is sent to an HTTP participant: keys, fence, trace and body, the same for each attempt.
#![cfg(feature = "http")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/service.rs"]
mod service;
#[path = "common/undo.rs"]
mod undo;

use std::sync::Arc;

use amends::participant::{HttpParticipant, SetUpError};
use amends::store::MemoryStore;
use amends::{Coordinator, Saga, StartOptions, irreversible, read_only};
use serde_json::json;
use service::{Answer, Order, Service, at_once, charge, order, saga, start};
use undo::TestStore;

#[tokio::test]
async fn each_call_says_its_keys_its_fence_and_its_trace() {
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    // Made at the third go; what comes after is refused, and it is undone at the second.
    service.on("/charges", [Answer::new(500, ""), Answer::new(503, "")]);
    service.on("/refunds", [Answer::new(500, "")]);
    let charge = charge(&payments)
        .retry(at_once(3))
        .compensation_retry(at_once(2));
    let saga = saga(charge, true);
    let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga);
    let coordinator = coordinator.build().await.unwrap();
    let trace = StartOptions::new()
        .traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .tracestate("vendor=1");
    let run = coordinator
        .start_with(&saga, "r", order(), trace)
        .await
        .unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");

    let asked = service.asked();
    let uid = asked[0]
        .header("idempotency-key")
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(uid.len(), 32);
    let (key, undo) = (format!("{uid}/charge/1"), format!("{uid}/charge/1/undo"));
    let said: Vec<_> = asked
        .iter()
        .map(|asked| {
            let header = |name| asked.header(name).to_owned();
            (
                asked.path.as_str(),
                header("amends-call"),
                header("idempotency-key"),
                header("amends-effect-key"),
                header("amends-attempt"),
            )
        })
        .collect();
    let line = |path, call: &str, own: &str, attempt: &str| {
        (
            path,
            call.to_owned(),
            own.to_owned(),
            key.clone(),
            attempt.to_owned(),
        )
    };
    assert_eq!(
        said,
        [
            line("/charges", "execute", &key, "1"),
            line("/charges", "execute", &key, "2"),
            line("/charges", "execute", &key, "3"),
            line("/refunds", "compensate", &undo, "(none)"),
            line("/refunds", "compensate", &undo, "(none)"),
        ]
    );
    let mut spans = Vec::new();
    for asked in &asked {
        assert_eq!(asked.header("amends-fence"), "1");
        assert_eq!(asked.header("content-type"), "application/json");
        assert_eq!(asked.header("accept"), "application/json");
        assert_eq!(asked.header("tracestate"), "vendor=1");
        let trace: Vec<&str> = asked.header("traceparent").split('-').collect();
        assert_eq!(trace[..2], ["00", "4bf92f3577b34da6a3ce929d0e0e4736"]);
        assert_eq!(trace[3], "01");
        spans.push(trace[2].to_owned());
    }
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), 5, "each call has a span of its own");
}

#[tokio::test]
async fn an_execute_sends_the_input_and_an_undo_what_is_known_of_the_effect() {
    // Done and undone.
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    let (_coordinator, run) = start(&saga(charge(&payments), true)).await;
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    let input = serde_json::to_value(order()).unwrap();
    assert_eq!(service.paths(), ["/charges", "/refunds"]);
    assert_eq!(service.asked()[0].json(), input);
    assert_eq!(
        service.asked()[1].json(),
        json!({ "input": input, "effect": "done", "output": { "id": "p-1" } })
    );

    // In doubt and undone.
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    service.on("/charges", [Answer::new(418, "")]);
    let (_coordinator, run) = start(&saga(charge(&payments).retry(at_once(1)), true)).await;
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    assert_eq!(service.paths(), ["/charges", "/refunds"]);
    assert_eq!(
        service.asked()[1].json(),
        json!({ "input": input, "effect": "in_doubt" })
    );
}

#[tokio::test]
async fn the_same_bytes_are_sent_each_time_so_that_a_participant_can_compare_their_digest() {
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    // The process dies with the first call in flight.
    service.on("/charges", [Answer::hangs()]);
    let store = TestStore::new();
    let saga = saga(charge(&payments), true);
    let build = async || {
        let coordinator = Coordinator::builder_shared(Arc::clone(&store) as Arc<_>);
        coordinator.register(&saga).build().await.unwrap()
    };
    let first = build().await;
    let started = first.start(&saga, "r", order()).await.unwrap();
    service.called("/charges", 1).await;
    drop((first, started));

    let second = build().await;
    let run = second.attach(&saga, &"r".into()).await.unwrap().unwrap();
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    let asked = service.asked_at("/charges");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].text, asked[1].text);
    assert_eq!(
        asked[0].header("idempotency-key"),
        asked[1].header("idempotency-key")
    );
    let fences: Vec<_> = service
        .asked()
        .iter()
        .map(|asked| asked.header("amends-fence").to_owned())
        .collect();
    assert_eq!(fences, ["1", "2", "2"]);
    let undo = service.asked_at("/refunds")[0].json();
    assert_eq!(undo["input"].to_string(), asked[0].json().to_string());
}

#[tokio::test]
async fn an_action_is_called_as_a_step_is_and_has_no_undo() {
    let (service, url) = Service::start().await;
    let shop = HttpParticipant::new(&format!("{url}/v1/")).unwrap();
    let mut b = Saga::builder::<Order>("look-and-ship");
    let order_in = b.input();
    service.on("/v1/price", [Answer::new(200, "7")]);
    service.on(
        "/v1/parcels",
        [Answer::new(429, ""), Answer::new(201, r#""parcel-1""#)],
    );
    // Nothing to say is said by no content, too.
    service.on("/v1/mails", [Answer::new(204, "")]);
    let price = b.add(
        read_only("price", shop.call::<Order, u64>("price")),
        order_in,
    );
    let send = shop.call::<(Order, u64), String>("/parcels");
    let send = irreversible("ship", send).pivot().retry(at_once(2));
    let parcel = b.add(send, (order_in, price));
    let mail = b.add(
        irreversible("mail", shop.call::<String, ()>("/mails")),
        parcel,
    );
    let saga: Saga<Order, (String, ())> = b.returns((parcel, mail)).unwrap();
    let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga);
    let coordinator = coordinator.build().await.unwrap();
    let run = coordinator.start(&saga, "r", order()).await.unwrap();
    let outcome = run.outcome().await.unwrap();
    assert_eq!(outcome.completed(), Some(("parcel-1".to_owned(), ())));
    assert_eq!(
        service.paths(),
        ["/v1/price", "/v1/parcels", "/v1/parcels", "/v1/mails"]
    );
}

#[test]
fn what_can_not_be_a_participant_is_refused_without_repeating_a_secret() {
    let refused = |url: &str| match HttpParticipant::new(url).unwrap_err() {
        error @ SetUpError::Url { .. } => error.to_string(),
        other => panic!("{other:?}"),
    };
    let base = "the base URL of a participant";
    assert_eq!(
        refused("shop:8080"),
        format!("{base} has to begin with `http://` or `https://`")
    );
    assert_eq!(refused("http://"), format!("{base} is none: empty host"));
    assert_eq!(
        refused("http://me:s3cret@shop"),
        format!("{base} holds a user or a password: send them as a header `authorization`")
    );
    assert_eq!(
        refused("http://shop?token=s3cret"),
        format!("{base} has a query or a fragment, and paths are to follow")
    );

    let shop = HttpParticipant::new("http://shop").unwrap();
    let refused =
        |name: &str, value: &str| shop.clone().header(name, value).unwrap_err().to_string();
    for name in [
        "Idempotency-Key",
        "amends-fence",
        "Amends-Anything",
        "Host",
        "traceparent",
    ] {
        assert_eq!(
            refused(name, "x"),
            format!("the header `{name}` is made for each call")
        );
    }
    assert_eq!(
        refused("a b", "x"),
        "the header `a b` has a name that no header can have"
    );
    assert_eq!(
        refused("authorization", "s3cret\n"),
        "the header `authorization` has a value that no header can have"
    );
}
