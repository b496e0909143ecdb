//! What real answers of a real HTTP server mean, and real errors of reqwest.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(all(feature = "http-status", feature = "reqwest"))]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use amends::FailureMode;
use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::failure::{Classification, Classifier, FailedEffect, HttpFailure};
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Longer than any test, where the clock is not paused.
const HOUR: Duration = Duration::from_secs(3600);

fn meaning(error: &(dyn Error + 'static)) -> Classification {
    Classifier::new().classify(error)
}

fn answer(error: &(dyn Error + 'static)) -> (FailureMode, FailedEffect, bool) {
    let known = meaning(error);
    (known.mode, known.effect, known.retryable)
}

/// A client that makes one call of each request, as an atomic step needs it.
fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

/// Answers `/status/{number}` with that status, and `/wait/{status}/{value}` with a `Retry-After` too.
async fn statuses() -> String {
    async fn plain(Path(number): Path<u16>) -> StatusCode {
        StatusCode::from_u16(number).unwrap()
    }
    async fn waiting(Path((number, wait)): Path<(u16, String)>) -> Response {
        (StatusCode::from_u16(number).unwrap(), [(RETRY_AFTER, wait)]).into_response()
    }
    serve(
        Router::new()
            .route("/status/{number}", any(plain))
            .route("/wait/{number}/{value}", any(waiting)),
    )
    .await
}

/// A server that reads a request and then does with the connection what `then` says.
async fn raw<F: Future<Output = ()> + Send>(
    then: impl Fn(TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(peer.read_u8().await.unwrap());
            }
            then(peer).await;
        }
    });
    format!("http://{address}")
}

/// An address where nobody listens, and nobody else can meanwhile.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn failure(url: &str) -> HttpFailure {
    let response = client().post(url).send().await.unwrap();
    HttpFailure::check(response.status(), response.headers()).unwrap_err()
}

#[tokio::test]
async fn each_status_of_a_real_answer_has_its_meaning() {
    use FailureMode as Mode;
    let at = statuses().await;
    let expected = [
        (302, Mode::StepLogic, InDoubt, false),
        (303, Mode::StepLogic, InDoubt, false),
        (400, Mode::StepValidation, NotDone, false),
        (401, Mode::PermissionDenied, NotDone, false),
        (402, Mode::QuotaExceeded, NotDone, false),
        (403, Mode::PermissionDenied, NotDone, false),
        (404, Mode::StepValidation, NotDone, false),
        (405, Mode::StepLogic, NotDone, false),
        (406, Mode::StepLogic, InDoubt, false),
        (408, Mode::SystemTimeout, InDoubt, true),
        (409, Mode::StepState, NotDone, false),
        (410, Mode::StepValidation, NotDone, false),
        (412, Mode::StepState, NotDone, false),
        (413, Mode::StepValidation, NotDone, false),
        (418, Mode::StepValidation, InDoubt, false),
        (421, Mode::SystemNetwork, NotDone, true),
        (422, Mode::StepValidation, NotDone, false),
        (425, Mode::SystemNetwork, NotDone, true),
        (429, Mode::RateLimited, NotDone, true),
        (499, Mode::StepValidation, InDoubt, false),
        (500, Mode::ApiUnavailable, InDoubt, true),
        (501, Mode::StepLogic, NotDone, false),
        (502, Mode::ApiUnavailable, InDoubt, true),
        (503, Mode::ApiUnavailable, InDoubt, true),
        (504, Mode::SystemTimeout, InDoubt, true),
        (507, Mode::SystemDisk, InDoubt, false),
        (520, Mode::ApiUnavailable, InDoubt, true),
        (999, Mode::StepLogic, InDoubt, false),
    ];
    let client = client();
    for (number, mode, effect, retryable) in expected {
        let url = format!("{at}/status/{number}");
        let response = client.post(&url).send().await.unwrap();
        let failure = HttpFailure::check(response.status(), response.headers()).unwrap_err();
        assert_eq!(failure.status().as_u16(), number);
        let expected = (mode, effect, retryable);
        assert_eq!(answer(&failure), expected, "{number}");
        // reqwest's own error for it, where it makes one, means the same.
        match response.error_for_status() {
            Err(error) => assert_eq!(answer(&error), expected, "{number} as reqwest has it"),
            Ok(_) => assert!(!(400..=599).contains(&number)),
        }
    }
}

#[tokio::test]
async fn a_success_is_no_failure() {
    let at = statuses().await;
    for number in [200, 201, 202, 204] {
        let url = format!("{at}/status/{number}");
        let response = client().post(&url).send().await.unwrap();
        assert_eq!(
            HttpFailure::check(response.status(), response.headers()),
            Ok(())
        );
    }
}

#[tokio::test]
async fn retry_after_is_kept_of_a_real_answer() {
    let at = statuses().await;
    let busy = failure(&format!("{at}/wait/429/120")).await;
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(120)));
    let known = meaning(&busy);
    assert_eq!(known.mode, FailureMode::RateLimited);
    assert_eq!(known.retry_after, Some(Duration::from_secs(120)));

    // Wrapped, too.
    let wrapped = std::io::Error::other(failure(&format!("{at}/wait/503/5")).await);
    assert_eq!(meaning(&wrapped).retry_after, Some(Duration::from_secs(5)));

    for value in ["0", "-5", "soon", "Sun,%2006%20Nov%201994%2008:49:37%20GMT"] {
        let url = format!("{at}/wait/429/{value}");
        assert_eq!(failure(&url).await.retry_after(), None, "{value}");
    }
}

#[tokio::test]
async fn retry_after_as_a_date_is_measured_by_the_date_of_the_answer() {
    let at = raw(async |mut peer: TcpStream| {
        peer.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\n\
              Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
              Retry-After: Sun, 06 Nov 1994 08:51:37 GMT\r\n\
              Content-Length: 0\r\n\r\n",
        )
        .await
        .unwrap();
    })
    .await;
    let busy = failure(&at).await;
    assert_eq!(meaning(&busy).retry_after, Some(Duration::from_secs(120)));
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_not_done() {
    let (_held, address) = refusing();
    let url = format!("http://{address}/");
    let error = client().post(url).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    assert_eq!(
        answer(&error),
        (FailureMode::ApiUnavailable, NotDone, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_name_that_is_not_found_is_not_done() {
    struct NotFound;
    impl reqwest::dns::Resolve for NotFound {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            Box::pin(async { Err("no such name".into()) })
        }
    }
    let error = reqwest::Client::builder()
        .dns_resolver(std::sync::Arc::new(NotFound))
        .build()
        .unwrap()
        .post("http://amends.invalid/")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::SystemNetwork, NotDone, true),
        "{error:?}"
    );
}

/// An address that leaves connects without an answer: its backlog of one is taken.
#[cfg(target_os = "linux")]
async fn silent() -> (tokio::net::TcpListener, TcpStream, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = socket.listen(0).unwrap();
    let taken = TcpStream::connect(address).await.unwrap();
    (listener, taken, address)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connect_that_takes_too_long_is_not_done() {
    let (_listener, _taken, address) = silent().await;
    let client = reqwest::Client::builder()
        .connect_timeout(HOUR)
        .build()
        .unwrap();
    tokio::time::pause();
    let url = format!("http://{address}/");
    let error = client.post(url).send().await.unwrap_err();
    assert!(error.is_connect() && error.is_timeout(), "{error:?}");
    assert_eq!(
        answer(&error),
        (FailureMode::SystemTimeout, NotDone, true),
        "{error:?}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_that_refuses_and_one_that_is_silent_are_not_done() {
    let (_held, refused) = refusing();
    let (_listener, _taken, silent) = silent().await;
    for (addresses, mode) in [
        // The client tries all, and tells the error of the first.
        ([refused, silent], FailureMode::ApiUnavailable),
        ([silent, refused], FailureMode::SystemTimeout),
    ] {
        let client = reqwest::Client::builder()
            .resolve_to_addrs("several.invalid", &addresses)
            .connect_timeout(HOUR)
            .build()
            .unwrap();
        tokio::time::pause();
        let error = client
            .post("http://several.invalid/")
            .send()
            .await
            .unwrap_err();
        tokio::time::resume();
        assert_eq!(answer(&error), (mode, NotDone, true), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_answers_late_is_in_doubt() {
    // Time stands still until the request is there, and then runs out at once.
    let late = async || {
        tokio::time::pause();
        std::future::pending::<StatusCode>().await
    };
    let at = serve(Router::new().route("/", any(late))).await;
    let request = client().post(&at).timeout(HOUR);
    let error = request.send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(
        answer(&error),
        (FailureMode::SystemTimeout, InDoubt, true),
        "{error:?}"
    );
}

/// A client takes a connection from its pool, and the server hangs up on the request. Nobody listens any
/// more by then: had the client sent it again by itself, it would have been refused, and *not done* wrong.
#[tokio::test]
async fn a_pooled_connection_that_dies_with_the_request_is_in_doubt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        drop(listener);
        for answer in [&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], b""] {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(peer.read_u8().await.unwrap());
            }
            peer.write_all(answer).await.unwrap();
        }
    });
    let client = client();
    let url = format!("http://{address}/");
    let first = client.post(&url).send().await.unwrap();
    assert_eq!(first.bytes().await.unwrap().len(), 0);
    let error = client.post(&url).send().await.unwrap_err();
    server.await.unwrap();
    assert_eq!(
        answer(&error),
        (FailureMode::SystemNetwork, InDoubt, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_connection_that_is_reset_after_the_request_is_in_doubt() {
    let at = raw(async |peer: TcpStream| peer.set_zero_linger().unwrap()).await;
    let error = client().post(&at).send().await.unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::SystemNetwork, InDoubt, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_hangs_up_without_an_answer_is_in_doubt() {
    let at = raw(async |peer: TcpStream| drop(peer)).await;
    let error = client().post(&at).send().await.unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::SystemNetwork, InDoubt, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn half_an_answer_is_in_doubt() {
    let at = raw(async |mut peer: TcpStream| {
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"half\":")
            .await
            .unwrap();
    })
    .await;
    let response = client().post(&at).send().await.unwrap();
    HttpFailure::check(response.status(), response.headers()).unwrap();
    let error = response.json::<u32>().await.unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::SystemNetwork, InDoubt, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_whose_second_half_comes_too_late_is_in_doubt() {
    let at = raw(async |mut peer: TcpStream| {
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"half\":")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let request = client().post(&at).timeout(HOUR);
    let response = request.send().await.unwrap();
    // From here on, time runs out at once.
    tokio::time::pause();
    let error = response.json::<u32>().await.unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::SystemTimeout, InDoubt, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_success_that_does_not_parse_is_in_doubt() {
    let at = serve(Router::new().route("/", any(async || "<html>"))).await;
    let response = client().post(&at).send().await.unwrap();
    let error = response.json::<u32>().await.unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::StepContract, InDoubt, false),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_in_doubt() {
    let at = raw(async |mut peer: TcpStream| {
        peer.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    })
    .await;
    let error = client().post(&at).send().await.unwrap_err();
    let (_, effect, _) = answer(&error);
    assert_eq!(effect, InDoubt, "{error:?}");
}

#[tokio::test]
async fn a_request_that_cannot_be_built_is_not_done() {
    for url in ["not a url", "ftp://127.0.0.1/"] {
        let error = client().post(url).send().await.unwrap_err();
        assert!(error.is_builder(), "{error:?}");
        assert_eq!(
            answer(&error),
            (FailureMode::StepValidation, NotDone, false),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn redirects_without_end_are_in_doubt() {
    let at = serve(Router::new().route(
        "/",
        get(async || (StatusCode::SEE_OTHER, [(LOCATION, "/")])).post(async || {
            // What a service answers that has taken the order.
            (StatusCode::SEE_OTHER, [(LOCATION, "/")])
        }),
    ))
    .await;
    let error = reqwest::Client::new().post(&at).send().await.unwrap_err();
    assert!(error.is_redirect(), "{error:?}");
    assert_eq!(
        answer(&error),
        (FailureMode::StepLogic, InDoubt, false),
        "{error:?}"
    );
}

/// A body that comes from elsewhere can fail for any reason, with half of the request sent.
#[tokio::test]
async fn whatever_fails_within_the_body_of_a_request_leaves_it_in_doubt() {
    let (_held, refused) = refusing();
    let at = serve(Router::new().route("/", any(async |body: String| body))).await;

    let of_tcp = TcpStream::connect(refused).await.unwrap_err();
    assert_eq!(answer(&of_tcp).1, NotDone);
    let of_reqwest = client()
        .get(format!("http://{refused}/"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(answer(&of_reqwest).1, NotDone);

    let causes: [Box<dyn Error + Send + Sync>; 2] = [Box::new(of_tcp), Box::new(of_reqwest)];
    for cause in causes {
        let half = vec![Ok("first half".to_owned()), Err(cause)];
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(half));
        let error = client().post(&at).body(body).send().await.unwrap_err();
        let (mode, effect, retryable) = answer(&error);
        assert_eq!(effect, InDoubt, "{error:?}");
        // Why it failed is the cause's to tell.
        assert_eq!((mode, retryable), (FailureMode::ApiUnavailable, true));
    }
}

#[tokio::test]
async fn wrapping_does_not_change_what_an_error_of_reqwest_means() {
    #[derive(Debug, thiserror::Error)]
    #[error("the charge failed")]
    struct Charge(#[source] Box<dyn Error + Send + Sync>);

    let (_held, address) = refusing();
    let url = format!("http://{address}/");
    let refused = client().post(url).send().await.unwrap_err();
    let at = raw(async |peer: TcpStream| drop(peer)).await;
    let hung_up = client().post(&at).send().await.unwrap_err();
    for error in [refused, hung_up] {
        let plain = answer(&error);
        let once = Charge(Box::new(error));
        assert_eq!(answer(&once), plain);
        let twice = Charge(Box::new(std::io::Error::other(once)));
        assert_eq!(answer(&twice), plain);
    }
}
