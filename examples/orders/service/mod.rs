//! A participant of the saga: an HTTP service with a database of its own.
//!
//! It knows nothing of sagas. It lets calls through a barrier (`desk`), does its trade (`stock`, `payments`,
//! `parcels`), and is as unreliable as `weather` says.

mod desk;
mod parcels;
mod payments;
mod stock;
pub(crate) mod weather;
mod wire;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends::barrier::{Call, header as call_header};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::RwLock;
use tokio::task::block_in_place;

use crate::Error;
use crate::api::Refusal;
use crate::child;
use crate::model;
use desk::{Desk, Trade, refused};
use weather::{SLOW, Weather};
use wire::{CuttableListener, Line};

/// The three participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Stock,
    Payments,
    Parcels,
}

impl Kind {
    /// The name on the command line, of the database, and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Payments => "payments",
            Self::Parcels => "parcels",
        }
    }
}

/// What a service is started with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    kind: Kind,
    #[arg(long)]
    db: PathBuf,
    /// 0 for any that is free.
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long)]
    seed: u64,
    /// How long a request is under way that arrives after its sender gave up.
    #[arg(long)]
    late_ms: u64,
    /// Fills the shelves of the warehouse.
    #[arg(long)]
    stock: PathBuf,
}

/// Serves until the parent closes its end of standard input.
pub(crate) async fn serve(options: Options) -> Result<(), Error> {
    let Options {
        kind,
        db,
        port,
        seed,
        late_ms,
        stock,
    } = options;
    let late = Duration::from_millis(late_ms);
    match kind {
        Kind::Stock => {
            let desk = Desk::open(&db, seed, stock::SCHEMA, stock::Warehouse)?;
            stock::fill(&mut desk.db(), &model::read_stock(&stock)?)?;
            run(desk, late, port).await
        }
        Kind::Payments => {
            let trade = payments::Bank { seed };
            run(Desk::open(&db, seed, payments::SCHEMA, trade)?, late, port).await
        }
        Kind::Parcels => {
            let trade = parcels::Carrier { seed };
            run(Desk::open(&db, seed, parcels::SCHEMA, trade)?, late, port).await
        }
    }
}

/// What all requests share. Each request that is being carried out holds `open` for reading, so
/// that the service does not leave before the late ones have arrived.
struct Shop<T> {
    desk: Desk<T>,
    late: Duration,
    open: Arc<RwLock<()>>,
}

async fn run<T: Trade>(desk: Desk<T>, late: Duration, port: u16) -> Result<(), Error> {
    let listener = listen(port).await?;
    let port = listener.local_addr()?.port();
    let open = Arc::new(RwLock::new(()));
    let shop = Arc::new(Shop {
        desk,
        late,
        open: Arc::clone(&open),
    });
    let router = Router::new()
        .route("/{verb}", post(visit::<T>))
        .with_state(shop);
    let service = router.into_make_service_with_connect_info::<Line>();

    println!("{port}");
    std::io::stdout().flush()?;
    axum::serve(CuttableListener(listener), service)
        .with_graceful_shutdown(child::parent_is_done())
        .await?;
    drop(open.write().await);
    Ok(())
}

/// Binds the port. A service that comes back wants the port it had, which the kernel may not have
/// let go of yet.
async fn listen(port: u16) -> Result<TcpListener, Error> {
    let since = Instant::now();
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let bound = socket
            .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .and_then(|()| socket.listen(1_024));
        match bound {
            Ok(listener) => return Ok(listener),
            Err(_) if since.elapsed() < Duration::from_secs(5) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(format!("cannot bind 127.0.0.1:{port}: {error}").into()),
        }
    }
}

async fn visit<T: Trade>(
    State(shop): State<Arc<Shop<T>>>,
    ConnectInfo(line): ConnectInfo<Line>,
    Path(verb): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = Call::from_values(|name| headers.get(name)?.to_str().ok());
    let order_id = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| body.get("order_id")?.as_str().map(str::to_owned));
    let (Ok(call), Some(order_id)) = (call, order_id) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // In a task of its own: the server drops the handler when the client hangs up, and a request
    // that has arrived is carried out all the same.
    let task = tokio::spawn(async move {
        let _open = Arc::clone(&shop.open).read_owned().await;
        carry_out(&shop, &line, &verb, &order_id, &call, &body).await
    });
    let (status, body) = match task.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            eprintln!("a service failed: {error}");
            refused(&Refusal::Broken)
        }
        Err(_) => refused(&Refusal::Broken),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let refusal: Option<Refusal> = serde_json::from_value(body.clone()).ok();
    let mut response = (status, json, body.to_string()).into_response();
    if let Some(word) = refusal.and_then(|refusal| refusal.barrier()) {
        let headers = response.headers_mut();
        headers.insert(call_header::BARRIER, HeaderValue::from_static(word));
    }
    response
}

async fn carry_out<T: Trade>(
    shop: &Shop<T>,
    line: &Line,
    verb: &str,
    order_id: &str,
    call: &Call,
    body: &[u8],
) -> Result<desk::Answer, Error> {
    let (visit, weather) = block_in_place(|| shop.desk.arrive(verb, order_id, call.effect_key()))?;
    match weather {
        Weather::ResetBefore => {
            line.reset();
            return Ok(refused(&Refusal::Broken));
        }
        Weather::Busy => return Ok(refused(&Refusal::Busy { retry_after_ms: 30 })),
        Weather::Late => tokio::time::sleep(shop.late).await,
        _ => {}
    }
    let answer = block_in_place(|| shop.desk.answer(visit, verb, call, body))?;
    match weather {
        Weather::Slow => tokio::time::sleep(SLOW).await,
        Weather::LostReply => line.close(),
        Weather::ResetAfter => line.reset(),
        Weather::Broken => return Ok(refused(&Refusal::Broken)),
        _ => {}
    }
    Ok(answer)
}
