//! What the answers of an HTTP participant mean to the run, and answers that never came.
#![cfg(feature = "http")]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/service.rs"]
mod service;

use std::sync::Arc;
use std::time::Duration;

use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::journal::{Event, ParkReason};
use amends::participant::HttpParticipant;
use amends::store::{MemoryStore, Store};
use amends::{FailureMode, Outcome, Retry};
use service::{Answer, Failed, Service, at_once, charge, failed, saga, start, start_on};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

const HOUR: Duration = Duration::from_secs(3_600);

/// How a charge fails at a service that answers so.
async fn answered(answer: Answer) -> Failed {
    let (service, url) = Service::start().await;
    service.on("/charges", [answer]);
    charged(&url).await
}

/// How a charge fails at this address. It would be tried again in an hour.
async fn charged(url: &str) -> Failed {
    let payments = HttpParticipant::new(url).unwrap().answer_limit(64);
    charged_by(&payments, HOUR).await
}

async fn charged_by(payments: &HttpParticipant, timeout: Duration) -> Failed {
    let later = Retry::constant().initial(HOUR).cap(HOUR).max_attempts(2);
    let charge = charge(payments).retry(later).timeout(timeout);
    let (coordinator, _run) = start(&saga(charge, false)).await;
    failed(&coordinator).await
}

#[tokio::test]
async fn each_status_of_a_call_has_the_meaning_of_the_table_and_not_done_counts_without_being_declared()
 {
    use FailureMode as Mode;
    let expected = [
        (302, Mode::StepLogic, InDoubt, false),
        (400, Mode::StepValidation, NotDone, false),
        (401, Mode::PermissionDenied, NotDone, false),
        (404, Mode::StepValidation, NotDone, false),
        (406, Mode::StepLogic, InDoubt, false),
        (408, Mode::SystemTimeout, InDoubt, true),
        (409, Mode::StepState, NotDone, false),
        (422, Mode::StepValidation, NotDone, false),
        (429, Mode::RateLimited, NotDone, true),
        (499, Mode::StepValidation, InDoubt, false),
        (500, Mode::ApiUnavailable, InDoubt, true),
        (503, Mode::ApiUnavailable, InDoubt, true),
        (504, Mode::SystemTimeout, InDoubt, true),
    ];
    for (status, mode, effect, retryable) in expected {
        let failure = answered(Answer::new(status, "{}")).await.failure;
        assert_eq!(
            (failure.mode, failure.effect, failure.retryable),
            (mode, effect, retryable),
            "{status}"
        );
        assert!(
            failure
                .message
                .contains(&format!("/charges answered {status} ")),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn the_wait_that_an_answer_asks_for_is_journalled_as_the_time_of_the_next_attempt() {
    let wait = |status: u16, name, value| Answer::new(status, "").header(name, value);
    for (answer, seconds) in [
        (wait(429, "retry-after", "7200"), 7_200),
        (wait(503, "retry-after", "2"), 2),
        (wait(202, "retry-after", "30"), 30),
        // Measured by the clock of the service.
        (
            wait(503, "retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")
                .header("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            60,
        ),
        // Nothing that can be read, so that the step's own wait decides.
        (wait(503, "retry-after", "soon"), 3_600),
    ] {
        let told = format!("{answer:?}");
        let failed = answered(answer).await;
        assert_eq!(
            failed.retry_at,
            Some(failed.at.after(Duration::from_secs(seconds))),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_call_that_is_accepted_and_not_ended_is_asked_for_again_with_its_key() {
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    service.on("/charges", [Answer::new(202, ""), Answer::new(202, "")]);
    let store = Arc::new(MemoryStore::new());
    let (_coordinator, run) =
        start_on(&store, &saga(charge(&payments).retry(at_once(3)), false)).await;
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
    let keys: Vec<_> = service
        .asked()
        .iter()
        .map(|asked| asked.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
    let failures = failures(&store).await;
    assert_eq!(
        failures,
        [
            (FailureMode::ApiUnavailable, InDoubt),
            (FailureMode::ApiUnavailable, InDoubt)
        ]
    );
}

/// All failures of steps in the journal.
async fn failures(store: &MemoryStore) -> Vec<(FailureMode, amends::failure::FailedEffect)> {
    let journal = store.load(&"r".into()).await.unwrap().unwrap();
    let events = journal.records.into_iter().flat_map(|record| record.events);
    events
        .filter_map(|event| match event {
            Event::StepFailed { failure, .. } => Some((failure.mode, failure.effect)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn answers_that_are_lost_late_or_cut_in_half_are_in_doubt() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"id\":\"p-1\"}";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"id\"\r\n";
    // What the service writes before it hangs up.
    for (answer, mode) in [
        ("", FailureMode::SystemNetwork),
        (&whole[..10], FailureMode::SystemNetwork),
        (&whole[..whole.len() - 5], FailureMode::SystemNetwork),
        (chunked, FailureMode::SystemNetwork),
        // Said to be whole, and it is not.
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"id\":\"p",
            FailureMode::StepContract,
        ),
        // Empty without a word that it is meant so.
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            FailureMode::StepContract,
        ),
        ("not HTTP at all\r\n\r\n", FailureMode::SystemNetwork),
    ] {
        let failure = charged(&writes(answer, Then::HangsUp).await).await.failure;
        assert_eq!(
            (failure.mode, failure.effect),
            (mode, InDoubt),
            "{answer:?}: {}",
            failure.message
        );
    }
    // Late: the head comes, and nothing after it; or nothing at all.
    for answer in ["", &whole[..whole.len() - 5]] {
        let url = writes(answer, Then::Waits).await;
        let payments = HttpParticipant::new(&url)
            .unwrap()
            .timeout(Duration::from_millis(50));
        let failure = charged_by(&payments, HOUR).await.failure;
        assert_eq!(
            (failure.mode, failure.effect),
            (FailureMode::SystemTimeout, InDoubt),
            "{answer:?}"
        );
        assert!(
            failure
                .message
                .starts_with("no whole answer from http://127.0.0.1:"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn a_call_ends_by_itself_before_the_time_out_of_its_step() {
    let (service, url) = Service::start().await;
    service.on("/charges", [Answer::hangs()]);
    let payments = HttpParticipant::new(&url).unwrap();
    let failure = charged_by(&payments, Duration::from_secs(1)).await.failure;
    // Were it the step's, it would be `agent_timeout`, and say nothing of the call.
    assert_eq!(
        (failure.mode, failure.effect),
        (FailureMode::SystemTimeout, InDoubt)
    );
}

#[tokio::test]
async fn what_was_never_sent_is_not_done() {
    // Nobody listens, and nobody else can meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let failure = charged(&url).await.failure;
    assert_eq!(
        (failure.mode, failure.effect),
        (FailureMode::ApiUnavailable, NotDone)
    );
    assert!(failure.retryable);

    // With TLS in this build or without.
    let failure = charged(&url.replace("http:", "https:")).await.failure;
    assert_eq!(failure.effect, NotDone, "{failure:?}");
}

enum Then {
    HangsUp,
    Waits,
}

/// A service that reads one request, writes this, and then so.
async fn writes(answer: &str, then: Then) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.to_owned();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // The body of an order ends so, and its head does not.
        while !request.ends_with(b"}}") {
            request.push(peer.read_u8().await.unwrap());
        }
        peer.write_all(answer.as_bytes()).await.unwrap();
        if matches!(then, Then::Waits) {
            std::future::pending::<()>().await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn an_answer_over_the_limit_or_of_another_form_is_in_doubt_and_not_asked_for_again() {
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(64));
    let chunks = Answer::new(200, &long);
    let id = |length: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(length - 9));
    for (answer, message) in [
        (chunks, "is longer than 64 bytes"),
        (Answer::new(200, &id(65)), "is longer than 64 bytes"),
        (Answer::new(200, "<html>"), "is not what the step gives"),
        (
            Answer::new(200, r#"{"id":7}"#),
            "is not what the step gives",
        ),
        (Answer::new(200, ""), "is not what the step gives"),
        (Answer::new(204, ""), "is not what the step gives"),
    ] {
        let failure = answered(answer).await.failure;
        assert_eq!(
            (failure.mode, failure.effect),
            (FailureMode::StepContract, InDoubt),
            "{message}"
        );
        assert!(!failure.retryable);
        assert!(failure.message.contains(message), "{}", failure.message);
    }
    // Of as many bytes as may be.
    let (service, url) = Service::start().await;
    service.on("/charges", [Answer::new(200, &id(64))]);
    let payments = HttpParticipant::new(&url).unwrap().answer_limit(64);
    let (_coordinator, run) = start(&saga(charge(&payments), false)).await;
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
}

#[tokio::test]
async fn an_answer_without_a_length_is_cut_off_at_the_limit() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("20\r\n{}\r\n", "x".repeat(32));
    // The third chunk is over the limit, and nothing comes after it.
    let url = writes(&format!("{head}{chunk}{chunk}{chunk}"), Then::Waits).await;
    let failure = charged(&url).await.failure;
    assert_eq!(
        (failure.mode, failure.effect),
        (FailureMode::StepContract, InDoubt)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_by_any_call() {
    let (elsewhere, there) = Service::start().await;
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    for status in [301, 302, 303, 307, 308] {
        let moved = Answer::new(status, "").header("location", &format!("{there}/charges"));
        service.on("/charges", [moved]);
        let later = Retry::constant().initial(HOUR).cap(HOUR).max_attempts(2);
        let (coordinator, _run) = start(&saga(charge(&payments).retry(later), false)).await;
        let failure = failed(&coordinator).await.failure;
        assert_eq!(
            (failure.mode, failure.effect),
            (FailureMode::StepLogic, InDoubt),
            "{status}"
        );
    }
    assert!(elsewhere.asked().is_empty());

    // A client that follows them anyway: the answer is not that of the service.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let follows = HttpParticipant::with_client(&url, client).unwrap();
    let moved = Answer::new(308, "").header("location", &format!("{there}/charges"));
    service.on("/charges", [moved]);
    let failure = charged_by(&follows, HOUR).await.failure;
    assert_eq!(
        (failure.mode, failure.effect),
        (FailureMode::StepLogic, InDoubt)
    );
    assert!(
        failure.message.ends_with("/charges was redirected"),
        "{}",
        failure.message
    );
    assert_eq!(elsewhere.asked().len(), 1);
}

#[tokio::test]
async fn what_the_barrier_refuses_for_good_is_never_tried_again() {
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    service.on(
        "/charges",
        [Answer::new(409, "").header("amends-barrier", "closed")],
    );
    let store = Arc::new(MemoryStore::new());
    let (_coordinator, run) =
        start_on(&store, &saga(charge(&payments).retry(at_once(9)), false)).await;
    let Outcome::Parked(partial) = run.outcome().await.unwrap() else {
        panic!("a terminal failure parks the run")
    };
    assert_eq!(partial.parked.unwrap().reason, ParkReason::Manual);
    assert!(partial.outstanding.is_empty(), "nothing was done");
    assert_eq!(
        failures(&store).await,
        [(FailureMode::StepContract, NotDone)]
    );
    assert_eq!(service.paths(), ["/charges"]);

    // As final, and one of them in doubt.
    for (status, word, effect) in [
        (409, "unrecorded", InDoubt),
        (422, "other-request", NotDone),
        (500, "bad-result", NotDone),
    ] {
        let answer = Answer::new(status, "").header("amends-barrier", word);
        let failure = answered(answer).await.failure;
        assert_eq!(
            (failure.mode, failure.effect),
            (FailureMode::StepContract, effect),
            "{word}"
        );
        assert!(!failure.retryable);
        assert!(
            failure
                .message
                .ends_with(&format!("/charges refuses the call: {word}"))
        );
    }

    // The word counts only with its status.
    let other = Answer::new(500, "").header("amends-barrier", "closed");
    assert_eq!(answered(other).await.failure.effect, InDoubt);
    let other = Answer::new(200, r#"{"id":"p"}"#).header("amends-barrier", "stale");
    service.on("/charges", [other]);
    let (_coordinator, run) = start(&saga(charge(&payments), false)).await;
    assert_eq!(run.outcome().await.unwrap().word(), "completed");
}

#[tokio::test]
async fn a_probe_is_believed_only_where_it_can_not_mean_something_else() {
    // What the probe answers, and what becomes of a charge that is in doubt and not tried again.
    let never = || Answer::new(410, "").header("amends-barrier", "never");
    let done: &[&str] = &["/charges", "/status"];
    let undone: &[&str] = &["/charges", "/status", "/refunds"];
    for (answer, word, paths) in [
        (Answer::new(200, r#"{"id":"p-9"}"#), "completed", done),
        // Nothing to undo.
        (never(), "compensated", done),
        // Unknown, so that it is undone.
        (Answer::new(410, ""), "compensated", undone),
        (
            Answer::new(404, "").header("amends-barrier", "never"),
            "compensated",
            undone,
        ),
        (Answer::new(404, ""), "compensated", undone),
        (Answer::new(202, r#"{"id":"p-9"}"#), "compensated", undone),
        (Answer::new(201, r#"{"id":"p-9"}"#), "compensated", undone),
        (Answer::new(200, ""), "compensated", undone),
        (Answer::new(200, "{}"), "compensated", undone),
        (Answer::new(500, ""), "compensated", undone),
        (
            Answer::new(307, "").header("location", "/elsewhere"),
            "compensated",
            undone,
        ),
    ] {
        let told = format!("{answer:?}");
        let (service, url) = Service::start().await;
        let payments = HttpParticipant::new(&url).unwrap();
        // In doubt, and of no use to try again.
        service.on("/charges", [Answer::new(418, "")]);
        service.on("/status", [answer]);
        let charge = charge(&payments).probe(payments.probe("/status"));
        let (_coordinator, run) = start(&saga(charge, false)).await;
        assert_eq!(run.outcome().await.unwrap().word(), word, "{told}");
        assert_eq!(service.paths(), paths, "{told}");
        let probe = &service.asked()[1];
        assert_eq!(probe.header("amends-call"), "probe");
        assert_eq!(probe.header("amends-attempt"), "1");
        let key = service.asked()[0].header("idempotency-key").to_owned();
        assert_eq!(probe.header("amends-effect-key"), key);
        assert_eq!(probe.text, service.asked()[0].text);
    }
}

#[tokio::test]
async fn an_undo_is_done_with_a_success_and_tried_again_with_anything_else() {
    let (service, url) = Service::start().await;
    let payments = HttpParticipant::new(&url).unwrap();
    let answers = [404, 410, 409, 307, 202, 500].map(|status| Answer::new(status, ""));
    service.on(
        "/refunds",
        answers.into_iter().chain([Answer::new(204, "")]),
    );
    let charge = charge(&payments).compensation_retry(at_once(7));
    let (_coordinator, run) = start(&saga(charge, true)).await;
    assert_eq!(run.outcome().await.unwrap().word(), "compensated");
    assert_eq!(service.asked_at("/refunds").len(), 7);
}

#[tokio::test]
async fn a_stale_answer_to_any_call_is_no_failure_of_the_step() {
    let stale = || {
        let answer = Answer::new(409, r#"{"id":"p"}"#);
        answer
            .header("amends-barrier", "stale")
            .header("amends-fence", "6")
    };
    for path in ["/charges", "/status", "/refunds"] {
        let (service, url) = Service::start().await;
        let payments = HttpParticipant::new(&url).unwrap();
        if path == "/status" {
            service.on("/charges", [Answer::new(418, "")]);
            service.on("/status", [stale(), Answer::new(404, "")]);
        } else {
            service.on(path, [stale()]);
        }
        // A status that is in doubt and not tried again is followed by a probe; an unknown one by an undo.
        let charge = charge(&payments).probe(payments.probe("/status"));
        if path == "/charges" {
            service.on("/status", [Answer::new(404, "")]);
        }
        let store = Arc::new(MemoryStore::new());
        let (_coordinator, run) = start_on(&store, &saga(charge, true)).await;
        assert_eq!(run.outcome().await.unwrap().word(), "compensated", "{path}");
        let fences: Vec<_> = service
            .asked_at(path)
            .iter()
            .map(|asked| asked.header("amends-fence").to_owned())
            .collect();
        // The service told what it had seen.
        assert_eq!(fences, ["1", "7"], "{path}");
        let journal = store.load(&"r".into()).await.unwrap().unwrap();
        let stale = journal.records.iter().flat_map(|record| &record.events);
        let stale = stale.filter(|event| format!("{event:?}").contains("stale"));
        assert_eq!(stale.count(), 0, "nothing is journalled of the refusals");
    }
}
