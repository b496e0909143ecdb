//! The three services, as their parent sees them: up, or down for a while.

use std::path::{Path, PathBuf};

use amends::Saga;
use tokio::time::Instant;

use crate::api::Confirmation;
use crate::child::Process;
use crate::model::Order;
use crate::plan::Outage;
use crate::service::Kind;
use crate::{Day, Error, saga};

/// A service, with the port that it keeps over its restarts.
pub(crate) struct Service {
    kind: Kind,
    arguments: Vec<String>,
    pub(crate) port: u16,
    pub(crate) db: PathBuf,
    process: Option<Process>,
    back_at: Option<Instant>,
}

impl Service {
    async fn start(kind: Kind, work: &Path, stock: &Path, day: &Day) -> Result<Self, Error> {
        let db = work.join(format!("{}.db", kind.name()));
        let arguments = [
            "service",
            kind.name(),
            "--db",
            &text(&db)?,
            "--stock",
            &text(stock)?,
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(["--seed".to_owned(), day.seed.to_string()])
        .chain(["--late-ms".to_owned(), day.late().as_millis().to_string()])
        .chain(["--port".to_owned()])
        .collect();
        let mut service = Self {
            kind,
            arguments,
            port: 0,
            db,
            process: None,
            back_at: None,
        };
        service.open().await?;
        Ok(service)
    }

    /// Starts the process, and waits until it listens.
    async fn open(&mut self) -> Result<(), Error> {
        let mut arguments = self.arguments.clone();
        arguments.push(self.port.to_string());
        let mut process = Process::start(&arguments)?;
        let name = self.kind.name();
        let port = process
            .line()
            .await?
            .ok_or_else(|| format!("{name} did not start"))?;
        self.port = port.parse()?;
        self.process = Some(process);
        self.back_at = None;
        Ok(())
    }
}

/// All three.
pub(crate) struct Services {
    pub(crate) stock: Service,
    pub(crate) payments: Service,
    pub(crate) parcels: Service,
}

impl Services {
    /// Starts each service with a database of its own in the work directory.
    pub(crate) async fn start(work: &Path, stock: &Path, day: &Day) -> Result<Self, Error> {
        Ok(Self {
            stock: Service::start(Kind::Stock, work, stock, day).await?,
            payments: Service::start(Kind::Payments, work, stock, day).await?,
            parcels: Service::start(Kind::Parcels, work, stock, day).await?,
        })
    }

    /// The saga over these services, to be looked at.
    pub(crate) fn saga(&self) -> Result<Saga<Order, Confirmation>, Error> {
        let [stock, payments, parcels] = [&self.stock, &self.payments, &self.parcels];
        saga::place_order(&saga::Services::on(
            stock.port,
            payments.port,
            parcels.port,
        )?)
    }

    fn each(&mut self) -> [&mut Service; 3] {
        [&mut self.stock, &mut self.payments, &mut self.parcels]
    }

    /// Kills a service, which is to come back after a while.
    pub(crate) async fn strike(&mut self, outage: Outage) -> Result<(), Error> {
        for service in self.each() {
            if service.kind == outage.kind {
                if let Some(mut process) = service.process.take() {
                    process.kill().await?;
                }
                service.back_at = Some(Instant::now() + outage.lasts);
            }
        }
        Ok(())
    }

    /// When the next service is to come back.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        [&self.stock, &self.payments, &self.parcels]
            .into_iter()
            .filter_map(|service| service.back_at)
            .min()
    }

    /// Starts the services whose time has come, on the same port and the same database.
    pub(crate) async fn bring_back(&mut self, by: Instant) -> Result<Vec<Kind>, Error> {
        let mut back = Vec::new();
        for service in self.each() {
            if service.back_at.is_some_and(|at| at <= by) {
                service.open().await?;
                back.push(service.kind);
            }
        }
        Ok(back)
    }

    /// Sends everyone home, after the requests that are still on their way have arrived.
    pub(crate) async fn close(&mut self) -> Result<(), Error> {
        for service in self.each() {
            if service.back_at.is_some() {
                service.open().await?;
            }
        }
        for service in self.each() {
            if let Some(process) = service.process.take() {
                process.dismiss().await?;
            }
        }
        Ok(())
    }
}

/// A path for the command line of a child.
pub(crate) fn text(path: &Path) -> Result<String, Error> {
    let text = path
        .to_str()
        .ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
