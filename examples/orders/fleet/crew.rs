//! The workers, as their parent sees them: each a process behind a proxy of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::process::Stdio;
use std::task::Poll;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::feed::Told;
use crate::child::Process;
use crate::postgres::Server;
use crate::proxy::{Proxy, Wire};
use crate::services::Services;
use crate::{Day, Error};

pub(crate) struct Crew {
    workers: Vec<Worker>,
}

struct Worker {
    process: Process,
    proxy: Proxy,
    arguments: Vec<String>,
    frozen: Option<Frozen>,
}

/// A process that is stopped. The shell that stopped it wakes it when it is let go of, in whichever way: else
/// nobody would, if the parent were killed now.
struct Frozen {
    shell: Child,
}

const FREEZE: &str = r#"kill -s STOP "$1"; echo; read -r _; kill -s CONT "$1""#;

impl Crew {
    /// Starts the workers, and waits until each is one of the fleet.
    pub(crate) async fn start(
        server: &Server,
        day: &Day,
        services: &Services,
    ) -> Result<Self, Error> {
        let mut workers = Vec::new();
        for slot in 0..usize::from(day.workers) {
            let proxy = Proxy::start(server.tcp(), Wire::Postgres);
            let mut arguments = vec!["worker".to_owned()];
            let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
            option("--name", format!("worker-{slot}"));
            option("--store", server.address_by(proxy.port()));
            option("--lease", day.lease.to_string());
            option("--stock", services.stock.port.to_string());
            option("--payments", services.payments.port.to_string());
            option("--parcels", services.parcels.port.to_string());
            let mut process = Process::start(&arguments)?;
            // One makes the tables, and the others find them.
            if process.line().await?.is_none() {
                return Err(format!("worker {slot} did not start").into());
            }
            workers.push(Worker {
                process,
                proxy,
                arguments,
                frozen: None,
            });
        }
        Ok(Self { workers })
    }

    pub(crate) fn slots(&self) -> Vec<usize> {
        (0..self.workers.len()).collect()
    }

    pub(crate) fn proxy(&self, slot: usize) -> &Proxy {
        &self.workers[slot].proxy
    }

    /// Says something to a worker. Whether it hears it, its answer will show.
    pub(crate) async fn tell(&mut self, slot: usize, told: &Told) {
        let _ = self.workers[slot].process.tell(told).await;
    }

    /// The next line of any worker, or `None` when one has ended.
    ///
    /// # Cancel safety
    ///
    /// No line is lost when the future is dropped.
    pub(crate) async fn line(&mut self) -> (usize, Result<Option<String>, Error>) {
        poll_fn(|cx| {
            for (slot, worker) in self.workers.iter_mut().enumerate() {
                if let Poll::Ready(line) = pin!(worker.process.line()).poll(cx) {
                    return Poll::Ready((slot, line));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// SIGKILL; gives what the worker had said before.
    pub(crate) async fn kill(&mut self, slot: usize) -> Result<Vec<String>, Error> {
        let worker = &mut self.workers[slot];
        worker.process.kill().await?;
        worker.frozen = None;
        let mut said = Vec::new();
        while let Some(line) = worker.process.line().await? {
            said.push(line);
        }
        Ok(said)
    }

    /// Starts another worker in the place of one that was killed.
    pub(crate) fn replace(&mut self, slot: usize) -> Result<(), Error> {
        let worker = &mut self.workers[slot];
        worker.process = Process::start(&worker.arguments)?;
        Ok(())
    }

    /// SIGSTOP.
    pub(crate) async fn freeze(&mut self, slot: usize) -> Result<(), Error> {
        let worker = &mut self.workers[slot];
        let id = worker.process.id().ok_or("a worker is gone")?;
        let mut shell = Command::new("sh")
            .args(["-c", FREEZE, "sh", &id.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = shell.stdout.take().ok_or("a shell has no output")?;
        BufReader::new(stdout).lines().next_line().await?;
        worker.frozen = Some(Frozen { shell });
        Ok(())
    }

    /// SIGCONT.
    pub(crate) async fn thaw(&mut self, slot: usize) -> Result<(), Error> {
        if let Some(mut frozen) = self.workers[slot].frozen.take() {
            drop(frozen.shell.stdin.take());
            frozen.shell.wait().await?;
        }
        Ok(())
    }

    /// Sends everyone home.
    pub(crate) async fn dismiss(&mut self) -> Result<(), Error> {
        for worker in std::mem::take(&mut self.workers) {
            worker.process.dismiss().await?;
        }
        Ok(())
    }
}
