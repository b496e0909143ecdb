//! A private PostgreSQL server, or the one that `AMENDS_TEST_POSTGRES` names.
//!
//! The tests of one binary share one, unless they ask for their own: to restart it, to break it, or to give
//! it a standby. It lives in a temporary folder, is reached by a socket there and by a port of the loopback
//! device, and is stopped when the last test lets go of it, or the process ends in whichever way.

// No user of this file uses all of it, and its faults are those of the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::duplicated_attributes,
    dead_code,
    unreachable_pub
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_postgres::{Client, Config, NoTls};

#[path = "guard.rs"]
#[allow(clippy::duplicate_mod)] // Each kind of server can be used alone.
mod guard;
use guard::{Folder, Guarded, free_port};

const PASSWORD: &str = "a password";
const USER: &str = "amends";
const DATABASE: &str = "postgres";

/// The name under which a standby reports to its primary, for `synchronous_standby_names`.
pub const STANDBY: &str = "standby";

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, and all is written: `pg_ctl stop -m fast`.
    Fast,
    /// Nothing is written; the next start recovers: `pg_ctl stop -m immediate`.
    Immediate,
    /// SIGKILL to all its processes at once, as if the machine had gone.
    Kill,
}

impl Stop {
    fn signal(self) -> &'static str {
        match self {
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
            Self::Kill => "KILL",
        }
    }
}

/// A server, and the role that may do everything on it.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// Nothing where the server is not ours.
    private: Option<Private>,
}

impl Server {
    /// The server of all tests that run now and need only a server.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        // One at a time, so that one is made.
        blocking(|| {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let server = Arc::new(Server::named().unwrap_or_else(|| Server::private(&[])));
                *shared = Arc::downgrade(&server);
                server
            })
        })
        .await
    }

    /// A server of the caller's own, with these settings, whatever the environment names.
    pub async fn own(settings: &[(&str, &str)]) -> Self {
        let settings = arguments(settings);
        blocking(move || Server::private(&settings)).await
    }

    fn named() -> Option<Self> {
        let named = std::env::var("AMENDS_TEST_POSTGRES").ok()?;
        Some(Server {
            config: named.parse().expect("AMENDS_TEST_POSTGRES"),
            private: None,
        })
    }

    fn private(settings: &[String]) -> Self {
        let folder = Folder::new();
        let secret = folder.write("password", PASSWORD);
        let mut make = folder.command(&programs().join("initdb"));
        make.arg("-D").arg(folder.path().join("data"));
        make.arg("--pwfile").arg(&secret);
        // What is slow on purpose takes an unoptimised client a tenth of a second for each connection.
        make.args(["-U", USER, "-A", "md5", "-E", "UTF8"]);
        make.args(["--no-locale", "--no-sync"]);
        Folder::run(&mut make);
        Private::start(folder, settings.to_vec()).server()
    }

    /// How to connect to it: by its socket, where it is private.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// How to connect to it by this port of the loopback device: its own, or that of something in between.
    pub fn config_by(&self, port: u16) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port);
        config.user(self.config.get_user().unwrap_or(USER));
        config.password(self.config.get_password().unwrap_or_default());
        config.dbname(self.config.get_dbname().unwrap_or(DATABASE));
        config
    }

    /// The same in words, for what reads `host=.. user=..`.
    pub fn address_by(&self, port: u16) -> String {
        let config = self.config_by(port);
        format!(
            "host=127.0.0.1 port={port} user={} password='{}' dbname={}",
            config.get_user().unwrap(),
            String::from_utf8_lossy(config.get_password().unwrap()),
            config.get_dbname().unwrap()
        )
    }

    /// Its port of the loopback device; the server has to be a private one.
    pub fn port(&self) -> u16 {
        self.ours().port
    }

    /// Its port of the loopback device, for what stands in between.
    pub fn tcp(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.ours().guarded().log()
    }

    /// A new connection.
    pub async fn connect(&self) -> Client {
        connect(&self.config).await.unwrap()
    }

    /// Stops a private server.
    pub async fn stop(&self, how: Stop) {
        let private = self.ours().clone();
        blocking(move || private.stop(how)).await;
    }

    /// Starts a private server that was stopped, at the same socket and port, and waits until it is ready.
    pub async fn start(&self) {
        let private = self.ours().clone();
        blocking(move || private.restart()).await;
    }

    /// Stops it and starts it again.
    pub async fn restart(&self, how: Stop) {
        self.stop(how).await;
        self.start().await;
    }

    /// Changes a setting of the running server, and waits until it is in effect everywhere.
    pub async fn set(&self, name: &str, value: &str) {
        let client = self.connect().await;
        let sql = format!("alter system set {name} = '{value}'");
        client.batch_execute(&sql).await.unwrap();
        client
            .batch_execute("select pg_reload_conf()")
            .await
            .unwrap();
        loop {
            let sql = "select current_setting($1)";
            let now: String = client.query_one(sql, &[&name]).await.unwrap().get(0);
            if now == value {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Whether anyone waits for a standby is told to the others by the checkpointer, when it has read its
        // settings anew, as it does before each checkpoint.
        for _ in 0..2 {
            client.batch_execute("checkpoint").await.unwrap();
        }
    }

    /// A streaming standby of this private server, with a replication slot of this name. It reports to the
    /// primary as [`STANDBY`], and streams when this returns.
    pub async fn standby(&self, slot: &str) -> Self {
        self.standby_by(slot, self.port()).await
    }

    /// The same, streaming by this port of the loopback device, of something in between.
    pub async fn standby_by(&self, slot: &str, port: u16) -> Self {
        let (primary, slot) = (self.ours().clone(), slot.to_owned());
        let standby = blocking(move || primary.standby(&slot, port)).await;
        let client = self.connect().await;
        let streams = "select count(*) from pg_stat_replication where application_name = $1 \
                       and state = 'streaming'";
        loop {
            let count: i64 = client.query_one(streams, &[&STANDBY]).await.unwrap().get(0);
            if count > 0 {
                return standby;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes this standby a primary.
    pub async fn promote(&self) {
        let client = self.connect().await;
        let promoted = client.query_one("select pg_promote(true, 60)", &[]).await;
        assert!(promoted.unwrap().get::<_, bool>(0));
    }

    /// Runs a test with a table of its own, `(id int primary key, amount int)`, that is gone
    /// afterwards.
    pub async fn with_table(&self, test: impl AsyncFnOnce(&Server, &str)) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let table = format!("amends_{}_{next}", std::process::id());
        let client = self.connect().await;
        client
            .batch_execute(&format!(
                "create table {table} (id int primary key, amount int check (amount > 0))"
            ))
            .await
            .unwrap();
        let end = std::panic::AssertUnwindSafe(test(self, &table))
            .catch_unwind()
            .await;
        client
            .batch_execute(&format!("drop table {table} cascade"))
            .await
            .unwrap();
        if let Err(panic) = end {
            std::panic::resume_unwind(panic);
        }
    }

    /// Runs a test with an empty database of its own, that is gone afterwards, and the way to it.
    pub async fn with_database(&self, test: impl AsyncFnOnce(&Config)) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let database = format!("amends_{}_{next}", std::process::id());
        let client = self.connect().await;
        let sql = format!("create database {database} template template0");
        client.batch_execute(&sql).await.unwrap();
        let mut config = self.config();
        config.dbname(&database);
        let end = std::panic::AssertUnwindSafe(test(&config))
            .catch_unwind()
            .await;
        let sql = format!("drop database {database} with (force)");
        client.batch_execute(&sql).await.unwrap();
        if let Err(panic) = end {
            std::panic::resume_unwind(panic);
        }
    }

    fn ours(&self) -> &Private {
        let private = self.private.as_ref();
        private.expect("this needs a server of its own, not that of AMENDS_TEST_POSTGRES")
    }
}

/// Connects, and drives the connection for as long as it lasts.
pub async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// How many rows a table has.
pub async fn count(client: &Client, table: &str) -> i64 {
    let sql = format!("select count(*) from {table}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

/// Work that takes a while, off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

#[derive(Clone, Debug)]
struct Private {
    guarded: Arc<Mutex<Guarded>>,
    folder: PathBuf,
    port: u16,
    /// As they were given at the start, as arguments.
    settings: Vec<String>,
}

impl Private {
    /// Starts a server on the folder's `data`.
    fn start(mut folder: Folder, settings: Vec<String>) -> Self {
        let bin = programs();
        for _ in 0..20 {
            let port = free_port();
            let path = folder.path().to_owned();
            let mut arguments = vec!["-D".to_owned(), text(&path.join("data"))];
            arguments.extend(["-k".to_owned(), text(&path), "-p".to_owned()]);
            arguments.extend([port.to_string(), "-h".to_owned(), "127.0.0.1".to_owned()]);
            // Nothing has to outlive a crash of the machine, and what is killed must leave nothing behind.
            arguments.push("-F".to_owned());
            arguments.extend(self::arguments(&[
                ("shared_buffers", "32MB"),
                ("dynamic_shared_memory_type", "mmap"),
            ]));
            arguments.extend(settings.iter().cloned());
            let mut guarded = Guarded::new(folder, "QUIT", &bin.join("postgres"), &arguments);
            if guarded.start(|| is_ready(&path)) {
                return Private {
                    guarded: Arc::new(Mutex::new(guarded)),
                    folder: path,
                    port,
                    settings,
                };
            }
            // Somebody else may have been faster at the port; the folder stays as it is for the next try.
            let log = guarded.log();
            assert!(
                log.contains("Address already in use"),
                "the server does not start: {log}"
            );
            folder = guarded.release();
        }
        panic!("no port is free");
    }

    fn server(self) -> Server {
        let mut config = Config::new();
        config.host_path(&self.folder).port(self.port);
        config.user(USER).password(PASSWORD).dbname(DATABASE);
        Server {
            config,
            private: Some(self),
        }
    }

    fn stop(&self, how: Stop) {
        let lines = std::fs::read_to_string(self.pid_file()).unwrap_or_default();
        self.guarded().stop(how.signal());
        if how == Stop::Kill {
            // It leaves a few bytes of shared memory behind: the last word of this line names them.
            let memory = lines
                .lines()
                .nth(6)
                .and_then(|line| line.split_whitespace().last());
            if let Some(memory) = memory {
                let mut remove = std::process::Command::new("ipcrm");
                let _ = remove.args(["-m", memory]).output();
            }
            // It would look as if the next one were ready before it is.
            std::fs::remove_file(self.pid_file()).unwrap();
        }
    }

    fn restart(&self) {
        let mut guarded = self.guarded();
        assert!(
            guarded.start(|| is_ready(&self.folder)),
            "the server does not start again: {}",
            guarded.log()
        );
    }

    fn standby(&self, slot: &str, port: u16) -> Server {
        let folder = Folder::new();
        let to = |port: u16, name: &str| {
            format!(
                "host=127.0.0.1 port={port} user={USER} password='{PASSWORD}' application_name={name}"
            )
        };
        // The copy's own connection must not count as a standby: it has another name.
        let mut copy = folder.command(&programs().join("pg_basebackup"));
        copy.arg("-D").arg(folder.path().join("data"));
        copy.args([
            "-d",
            &to(self.port, "copy"),
            "-C",
            "-S",
            slot,
            "-X",
            "stream",
        ]);
        copy.args(["-c", "fast", "--no-sync"]);
        Folder::run(&mut copy);
        folder.write("data/standby.signal", "");
        let mut settings = self.settings.clone();
        let primary = to(port, STANDBY);
        settings.extend(arguments(&[
            ("primary_conninfo", &primary),
            ("primary_slot_name", slot),
            // A lost primary is tried again soon.
            ("wal_retrieve_retry_interval", "100ms"),
        ]));
        Private::start(folder, settings).server()
    }

    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("data/postmaster.pid")
    }
}

/// Whether the server in this folder takes connections: the last line of this file says so.
fn is_ready(folder: &Path) -> bool {
    let lines = std::fs::read_to_string(folder.join("data/postmaster.pid"));
    lines.is_ok_and(|lines| {
        let last = lines.lines().last().map(str::trim);
        lines.lines().count() == 8 && last == Some("ready")
    })
}

fn arguments(settings: &[(&str, &str)]) -> Vec<String> {
    let settings = settings.iter();
    settings
        .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
        .collect()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The folder of the server's programs: on the path, or where Debian puts the newest.
pub fn programs() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|version| version.unwrap().path().join("bin"))
        .collect();
    debian.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name);
        version.and_then(|it| it.to_str()?.parse::<u32>().ok())
    });
    let complete = |bin: &PathBuf| {
        ["initdb", "postgres", "pg_basebackup"]
            .iter()
            .all(|program| bin.join(program).exists())
    };
    std::env::split_paths(&on_path)
        .chain(debian.into_iter().rev())
        .find(complete)
        .expect(
            "this needs PostgreSQL: ./test installs it; or install the package `postgresql`, \
             or name a server in AMENDS_TEST_POSTGRES (host=.. user=.. password=..)",
        )
}
