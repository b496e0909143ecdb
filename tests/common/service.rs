//! A real HTTP service on loopback that answers as it is told and writes down what it was asked, and a
//! saga of calls of it.
//!
//! Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amends::failure::Failure;
use amends::journal::Event;
use amends::participant::HttpParticipant;
use amends::policy::Jitter;
use amends::store::MemoryStore;
use amends::{
    Coordinator, Retry, RunHandle, RunId, Saga, StepError, StepSpec, Timestamp, step_with,
};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What the saga is about. A `HashMap` has another order each time it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub id: u64,
    pub cents: u64,
    pub tags: HashMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    pub id: String,
}

pub fn order() -> Order {
    let tags = (0..20).map(|tag| (format!("tag-{tag}"), tag)).collect();
    Order {
        id: 4711,
        cents: 120,
        tags,
    }
}

/// An answer of the service.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Whether it comes never.
    pub hangs: bool,
}

impl Answer {
    pub fn new(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
            hangs: false,
        }
    }

    pub fn hangs() -> Answer {
        Answer {
            hangs: true,
            ..Answer::new(200, "")
        }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Answer {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("(none)", String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

#[derive(Default)]
pub struct Service {
    answers: Mutex<HashMap<String, VecDeque<Answer>>>,
    asked: Mutex<Vec<Asked>>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// The service, and the URL where it listens.
    pub async fn start() -> (Arc<Service>, String) {
        let service = Arc::new(Service::default());
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&service));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (service, format!("http://{address}"))
    }

    /// What the next calls of a path are answered; later ones get a success.
    pub fn on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut planned = lock(&self.answers);
        planned.entry(path.to_owned()).or_default().extend(answers);
    }

    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    pub fn asked_at(&self, path: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.path == path);
        asked
    }

    /// Which paths were called, in order.
    pub fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }

    /// Waits until this path was called so often.
    pub async fn called(&self, path: &str, times: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.asked_at(path).len() >= times {
                return;
            }
            changed.await;
        }
    }
}

async fn answer(
    State(service): State<Arc<Service>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.to_string();
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    lock(&service.asked).push(Asked {
        path: path.clone(),
        headers: headers.iter().map(text).collect(),
        text: String::from_utf8(body.to_vec()).unwrap(),
    });
    service.changed.notify_waiters();
    let planned = lock(&service.answers)
        .get_mut(&path)
        .and_then(VecDeque::pop_front);
    let answer = planned.unwrap_or_else(|| match path.as_str() {
        "/charges" => Answer::new(200, r#"{"id":"p-1"}"#),
        _ => Answer::new(200, "null"),
    });
    if answer.hangs {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(StatusCode::from_u16(answer.status).unwrap());
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

/// What comes after the charge: done, or refused, so that the charge is undone.
pub fn then(refuses: bool) -> StepSpec<Payment, u64> {
    step_with(
        "then",
        refuses,
        async |refuses: &bool, _cx, _payment: &Payment| {
            if *refuses {
                return Err(StepError::rejected("no"));
            }
            Ok(1)
        },
        async |_refuses, _cx, _payment, _effect| Ok(()),
    )
}

/// Retries without a wait that a test would feel.
pub fn at_once(calls: u32) -> Retry {
    Retry::constant()
        .initial(Duration::from_millis(1))
        .jitter(Jitter::None)
        .max_attempts(calls)
}

/// A charge by HTTP, and what comes after it.
pub fn saga(charge: StepSpec<Order, Payment>, refuses: bool) -> Saga<Order, u64> {
    let mut saga = Saga::builder::<Order>("place-order");
    let order = saga.input();
    let payment = saga.add(charge, order);
    let then = saga.add(then(refuses), payment);
    saga.returns(then).unwrap()
}

/// The charge at this service, with its undo and without a probe.
pub fn charge(service: &HttpParticipant) -> StepSpec<Order, Payment> {
    let call = service.call::<Order, Payment>("/charges");
    amends::step("charge", call.compensate("/refunds"))
}

/// Starts a run of the saga on a store of its own.
pub async fn start(saga: &Saga<Order, u64>) -> (Coordinator, RunHandle<u64>) {
    start_on(&Arc::new(MemoryStore::new()), saga).await
}

pub async fn start_on(
    store: &Arc<MemoryStore>,
    saga: &Saga<Order, u64>,
) -> (Coordinator, RunHandle<u64>) {
    let coordinator = Coordinator::builder_shared(Arc::clone(store) as Arc<_>);
    let coordinator = coordinator.register(saga).build().await.unwrap();
    let run = coordinator.start(saga, "r", order()).await.unwrap();
    (coordinator, run)
}

/// How the charge failed: the failure, when it was written, and when it is tried again.
pub struct Failed {
    pub failure: Failure,
    pub at: Timestamp,
    pub retry_at: Option<Timestamp>,
}

/// The first failure of a step, as soon as it is journalled.
pub async fn failed(coordinator: &Coordinator) -> Failed {
    let mut watch = coordinator.watch(&RunId::new("r"));
    while let Some(watched) = watch.next().await.unwrap() {
        if let Event::StepFailed {
            failure, retry_at, ..
        } = watched.event
        {
            return Failed {
                failure: *failure,
                at: watched.at,
                retry_at,
            };
        }
    }
    panic!("no step failed")
}
