//! Schemas of their own on the server that tests share, gone afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use amends::store::PostgresStore;
use futures_util::FutureExt as _;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};

use crate::postgres::{Server, connect};

/// Names of schemas that nobody else has.
pub struct Schemas {
    /// Lives as long as somebody uses it.
    _server: Arc<Server>,
    client: Config,
    config: String,
    made: Arc<Mutex<Vec<String>>>,
}

impl Schemas {
    /// Runs a test, and drops all schemas that it made.
    pub async fn with(test: impl AsyncFnOnce(Schemas)) {
        let server = Server::shared().await;
        let client = server.config();
        let made = Arc::default();
        let schemas = Schemas {
            _server: Arc::clone(&server),
            config: text(&client),
            client: client.clone(),
            made: Arc::clone(&made),
        };
        let end = std::panic::AssertUnwindSafe(test(schemas))
            .catch_unwind()
            .await;
        let client = connect(&client).await.unwrap();
        let made = std::mem::take(&mut *made.lock().unwrap());
        for schema in made {
            // One at a time: a transaction that drops all would hold more locks than a server has.
            let sql = format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE");
            client.batch_execute(&sql).await.unwrap();
        }
        if let Err(panic) = end {
            std::panic::resume_unwind(panic);
        }
    }

    /// A new name.
    pub fn name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("amends_{}_{next}", std::process::id());
        self.made.lock().unwrap().push(name.clone());
        name
    }

    /// The connection string.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// A connection of the test's own.
    pub async fn client(&self) -> Client {
        connect(&self.client).await.unwrap()
    }

    /// A store with a schema to itself.
    pub async fn store(&self) -> PostgresStore {
        PostgresStore::options()
            .schema(self.name())
            .connect(&self.config)
            .await
            .unwrap()
    }
}

/// A configuration as the text that it is read from.
pub fn text(config: &Config) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_str().unwrap().to_owned(),
    });
    let ports = config.get_ports().iter().map(ToString::to_string);
    let password = config
        .get_password()
        .map(|it| std::str::from_utf8(it).unwrap());
    let words = [
        ("host", Some(hosts.collect::<Vec<_>>().join(","))),
        ("port", Some(ports.collect::<Vec<_>>().join(","))),
        ("user", config.get_user().map(str::to_owned)),
        ("password", password.map(str::to_owned)),
        ("dbname", config.get_dbname().map(str::to_owned)),
    ];
    let said = words.iter().filter_map(|(name, value)| {
        let value = value.as_deref().filter(|value| !value.is_empty())?;
        Some(format!("{name}={}", quoted(value)))
    });
    said.collect::<Vec<_>>().join(" ")
}
