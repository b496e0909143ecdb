//! The other side of the examples: small HTTP services on free ports of this machine, and the step that
//! orders at one.
//!
//! What a service owes to a saga is all here: it honours keys. An order with a known key gets the answer that it
//! got before; an order that was taken back, or is taken back before it comes, is never carried out.

mod tell;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amends::{Effect, Payload, ResultExt as _, Step, StepContext, StepError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use tokio::net::TcpListener;

pub(crate) use tell::tell;

const KEY: &str = "idempotency-key";

/// Whatever ends an example early. It goes to a person, as text.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a service says to an order.
pub(crate) enum Answer {
    /// It is done.
    Yes(String),
    /// It is done, but the answer is on its way for so long.
    #[allow(dead_code, reason = "not each example has a slow service")]
    Late(String, Duration),
    /// It is not done.
    No(String),
}

/// A service that takes orders, and the step of a saga that places one there.
#[derive(Clone)]
pub(crate) struct Desk<I> {
    url: String,
    http: reqwest::Client,
    book: Arc<Book<I>>,
}

/// What a service says to an order, with all the orders that stand there.
type Trade<I> = dyn Fn(&I, &[&I]) -> Answer + Send + Sync;

struct Book<I> {
    trade: Box<Trade<I>>,
    entries: Mutex<BTreeMap<String, Entry<I>>>,
}

/// What became of the order under a key.
enum Entry<I> {
    Stands(I, String, Duration),
    TakenBack,
}

impl<I: Payload> Desk<I> {
    /// Opens a service that trades like this.
    pub(crate) async fn open(
        trade: impl Fn(&I, &[&I]) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let book = Arc::new(Book {
            trade: Box::new(trade),
            entries: Mutex::default(),
        });
        let router = Router::new()
            .route("/", post(order::<I>).delete(take_back::<I>))
            .with_state(Arc::clone(&book));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(axum::serve(listener, router).into_future());
        // Proxies of the environment are for other hosts than ours.
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url, http, book })
    }

    /// What stands in the service's own book, whatever a saga believes.
    pub(crate) fn standing(&self) -> Vec<I> {
        let entries = self.book.entries();
        standing(&entries).into_iter().cloned().collect()
    }
}

impl<I: Payload> Step for Desk<I> {
    type Input = I;
    type Output = String;

    async fn execute(&self, cx: &StepContext, order: &I) -> Result<String, StepError> {
        let request = self.http.post(&self.url).header(KEY, cx.idempotency_key());
        let response = request.json(order).send().await.in_doubt()?;
        let status = response.status();
        let text = response.text().await.in_doubt()?;
        match status {
            StatusCode::OK => Ok(text),
            StatusCode::CONFLICT => Err(StepError::rejected(text)),
            _ => Err(StepError::in_doubt(text)),
        }
    }

    /// By the key of the order, whether its answer came or not: the service remembers keys.
    async fn compensate(
        &self,
        cx: &StepContext,
        _: &I,
        _: Effect<&String>,
    ) -> Result<(), StepError> {
        let request = self.http.delete(&self.url).header(KEY, cx.effect_key());
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

impl<I> Book<I> {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry<I>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standing<I>(entries: &BTreeMap<String, Entry<I>>) -> Vec<&I> {
    let stands = entries.values().filter_map(|entry| match entry {
        Entry::Stands(order, ..) => Some(order),
        Entry::TakenBack => None,
    });
    stands.collect()
}

async fn order<I: Payload>(
    State(book): State<Arc<Book<I>>>,
    headers: HeaderMap,
    Json(order): Json<I>,
) -> (StatusCode, String) {
    let (answer, late) = match carry_out(&book, key(&headers), order) {
        Ok(done) => done,
        Err(refusal) => return (StatusCode::CONFLICT, refusal),
    };
    tokio::time::sleep(late).await;
    (StatusCode::OK, answer)
}

/// The answer and how late it comes, or a refusal.
fn carry_out<I: Payload>(
    book: &Book<I>,
    key: String,
    order: I,
) -> Result<(String, Duration), String> {
    let mut entries = book.entries();
    match entries.get(&key) {
        Some(Entry::Stands(_, answer, late)) => return Ok((answer.clone(), *late)),
        Some(Entry::TakenBack) => return Err("taken back".to_owned()),
        None => {}
    }
    let (answer, late) = match (book.trade)(&order, &standing(&entries)) {
        Answer::Yes(answer) => (answer, Duration::ZERO),
        Answer::Late(answer, late) => (answer, late),
        Answer::No(refusal) => return Err(refusal),
    };
    entries.insert(key, Entry::Stands(order, answer.clone(), late));
    Ok((answer, late))
}

async fn take_back<I: Payload>(State(book): State<Arc<Book<I>>>, headers: HeaderMap) {
    book.entries().insert(key(&headers), Entry::TakenBack);
}

fn key(headers: &HeaderMap) -> String {
    let key = headers.get(KEY).and_then(|key| key.to_str().ok());
    key.unwrap_or_default().to_owned()
}
