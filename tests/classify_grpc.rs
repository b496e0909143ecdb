//! What real statuses mean, of real gRPC calls to a real server.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "tonic")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use amends::FailureMode;
use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::failure::{Classifier, FailedEffect};
use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::uri::PathAndQuery;
use axum::routing::any;
use bytes::{Buf, BufMut};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Longer than any test, where the clock is not paused.
const HOUR: Duration = Duration::from_secs(3600);

fn answer(error: &(dyn Error + 'static)) -> (FailureMode, FailedEffect, bool) {
    let known = Classifier::new().classify(error);
    (known.mode, known.effect, known.retryable)
}

/// Messages that are their bytes.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Answers a number as a status with that code, and anything else with what it asks for.
#[derive(Clone, Copy)]
struct Teller;

impl Service<Request<Vec<u8>>> for Teller {
    type Response = Response<Vec<u8>>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Status>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(async move {
            match request.into_inner().as_slice() {
                [number] => Err(Status::new(Code::from(i32::from(*number)), "as asked for")),
                b"never" => {
                    // Time runs out at once from here on.
                    tokio::time::pause();
                    std::future::pending().await
                }
                b"large" => Ok(Response::new(vec![0; 64])),
                other => panic!("{other:?}"),
            }
        })
    }
}

/// A real server: tonic's own over axum's HTTP/2.
async fn server() -> SocketAddr {
    let call = async |request: HttpRequest| {
        let answer = tonic::server::Grpc::new(Plain).unary(Teller, request).await;
        answer.map(axum::body::Body::new)
    };
    let app = Router::new().route("/amends.Test/Tell", any(call));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

async fn call(client: &mut tonic::client::Grpc<Channel>, message: &[u8]) -> Status {
    let path = PathAndQuery::from_static("/amends.Test/Tell");
    client.ready().await.unwrap();
    let answer = client.unary(Request::new(message.to_vec()), path, Plain);
    answer.await.unwrap_err()
}

async fn client(address: SocketAddr) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(endpoint(address).connect().await.unwrap())
}

#[tokio::test]
async fn each_code_of_a_real_server_has_its_meaning() {
    use FailureMode as Mode;
    let expected = [
        (Code::Cancelled, Mode::SystemTimeout, InDoubt, true),
        (Code::Unknown, Mode::StepLogic, InDoubt, false),
        (Code::InvalidArgument, Mode::StepValidation, NotDone, false),
        (Code::DeadlineExceeded, Mode::SystemTimeout, InDoubt, true),
        (Code::NotFound, Mode::StepValidation, NotDone, false),
        (Code::AlreadyExists, Mode::StepState, NotDone, false),
        (
            Code::PermissionDenied,
            Mode::PermissionDenied,
            NotDone,
            false,
        ),
        (Code::ResourceExhausted, Mode::RateLimited, InDoubt, true),
        (Code::FailedPrecondition, Mode::StepState, NotDone, false),
        (Code::Aborted, Mode::StepState, NotDone, true),
        (Code::OutOfRange, Mode::StepValidation, InDoubt, false),
        (Code::Unimplemented, Mode::StepLogic, InDoubt, false),
        (Code::Internal, Mode::ApiUnavailable, InDoubt, true),
        (Code::Unavailable, Mode::ApiUnavailable, InDoubt, true),
        (Code::DataLoss, Mode::SystemDisk, InDoubt, false),
        (
            Code::Unauthenticated,
            Mode::PermissionDenied,
            NotDone,
            false,
        ),
    ];
    let mut client = client(server().await).await;
    for (number, (code, mode, effect, retryable)) in (1_u8..).zip(expected) {
        let status = call(&mut client, &[number]).await;
        assert_eq!(status.code(), code);
        assert_eq!(answer(&status), (mode, effect, retryable), "{code:?}");
        // Wrapped, too.
        let wrapped = std::io::Error::other(std::io::Error::other(status));
        assert_eq!(answer(&wrapped).1, effect, "{code:?}");
    }
}

/// No call fails with it; but someone may make an error of it.
#[test]
fn an_ok_that_is_an_error_is_in_doubt() {
    assert_eq!(
        answer(&Status::ok("")),
        (FailureMode::StepLogic, InDoubt, false)
    );
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_not_done() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();

    let error = endpoint(address).connect().await.unwrap_err();
    assert_eq!(
        answer(&error),
        (FailureMode::ApiUnavailable, NotDone, true),
        "{error:?}"
    );

    // A channel that connects with its first call tells it as a status.
    let mut client = tonic::client::Grpc::new(endpoint(address).connect_lazy());
    let status = call(&mut client, b"large").await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        answer(&status),
        (FailureMode::ApiUnavailable, NotDone, true),
        "{status:?}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connect_that_takes_too_long_is_not_done() {
    // The backlog of one is taken, so the kernel leaves further connects without an answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let _listener = socket.listen(0).unwrap();
    let _taken = TcpStream::connect(address).await.unwrap();

    let channel = endpoint(address).connect_timeout(HOUR).connect_lazy();
    let mut client = tonic::client::Grpc::new(channel);
    tokio::time::pause();
    let status = call(&mut client, b"large").await;
    assert_eq!(
        answer(&status),
        (FailureMode::SystemTimeout, NotDone, true),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_server_that_answers_late_is_in_doubt() {
    let channel = endpoint(server().await).timeout(HOUR).connect().await;
    let mut client = tonic::client::Grpc::new(channel.unwrap());
    let status = call(&mut client, b"never").await;
    assert_eq!(
        answer(&status),
        (FailureMode::SystemTimeout, InDoubt, true),
        "{status:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_in_doubt() {
    let mut client = client(server().await).await.max_decoding_message_size(16);
    let status = call(&mut client, b"large").await;
    // The service has done it; the code is one that sounds like a refusal.
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(answer(&status).1, InDoubt);
}

#[tokio::test]
async fn a_connection_that_is_reset_under_a_call_is_in_doubt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        // The preface and the first frames, the call among them or not: nobody can know.
        peer.read_exact(&mut [0; 24]).await.unwrap();
        peer.set_zero_linger().unwrap();
    });
    let mut client = tonic::client::Grpc::new(endpoint(address).connect_lazy());
    let status = call(&mut client, b"large").await;
    let (_, effect, _) = answer(&status);
    assert_eq!(effect, InDoubt, "{status:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_in_doubt() {
    let app = Router::new().route("/amends.Test/Tell", any(async || "<html>"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let status = call(&mut client(address).await, b"large").await;
    let (_, effect, _) = answer(&status);
    assert_eq!(effect, InDoubt, "{status:?}");
}
