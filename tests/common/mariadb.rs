//! A private server of `MariaDB`.
//!
//! The tests of one binary share it. It lives in a temporary folder, is reached by a socket there and by a port
//! of the loopback device, and is stopped when the last test lets go of it, or the process ends in whichever
//! way.

// No user of this file uses all of it, and its faults are those of the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

#[path = "guard.rs"]
#[allow(clippy::duplicate_mod)] // Each kind of server can be used alone.
mod guard;
use guard::{Folder, Guarded, free_port, program};

/// Who may do everything.
pub const USER: &str = "amends";
/// The password of [`USER`].
pub const PASSWORD: &str = "a-password";
/// A database that is there, and empty.
pub const DATABASE: &str = "amends";

/// A server.
#[derive(Debug)]
pub struct MariaDb {
    guarded: Mutex<Guarded>,
    folder: PathBuf,
    port: u16,
}

impl MariaDb {
    /// The server of all tests that run now.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());
        // Off the runtime's threads, since it takes seconds; one at a time, so that one is made.
        tokio::task::spawn_blocking(|| {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let server = Arc::new(MariaDb::start());
                *shared = Arc::downgrade(&server);
                server
            })
        })
        .await
        .unwrap()
    }

    /// A server of the caller's own. It takes seconds: call it where blocking is fine.
    pub fn start() -> Self {
        let mut folder = Folder::new();
        let mut make = folder.command(&program("mariadb-install-db", &[], "mariadb-server"));
        make.arg("--no-defaults");
        make.arg(format!("--datadir={}/data", text(folder.path())));
        make.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        Folder::run(&mut make);
        let first = folder.write(
            "first.sql",
            &format!(
                "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
                 CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n\
                 GRANT ALL ON *.* TO {USER}@'%';\n\
                 DROP USER IF EXISTS root@localhost;\n"
            ),
        );
        let program = program("mariadbd", &["/usr/sbin"], "mariadb-server");
        for _ in 0..20 {
            let port = free_port();
            let path = folder.path().to_owned();
            let at = text(&path);
            let arguments = [
                "--no-defaults".to_owned(),
                format!("--datadir={at}/data"),
                format!("--socket={at}/socket"),
                format!("--pid-file={at}/pid"),
                format!("--init-file={}", text(&first)),
                format!("--port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--skip-name-resolve".to_owned(),
                "--innodb-buffer-pool-size=32M".to_owned(),
                // Nothing has to outlive a crash of the machine.
                "--innodb-flush-log-at-trx-commit=2".to_owned(),
                "--skip-innodb-doublewrite".to_owned(),
            ];
            let mut guarded = Guarded::new(folder, "KILL", &program, &arguments);
            if guarded.start(|| greets(&path.join("socket"))) {
                return MariaDb {
                    guarded: Mutex::new(guarded),
                    folder: path,
                    port,
                };
            }
            // Somebody else may have been faster at the port.
            let log = guarded.log();
            assert!(
                log.contains("Address already in use"),
                "MariaDB does not start: {log}"
            );
            folder = guarded.release();
        }
        panic!("no port is free");
    }

    /// Its port of the loopback device.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The way to a database, as clients read it.
    pub fn url(&self, database: &str) -> String {
        url_by(self.port, database)
    }

    /// SIGKILL, and a new start at the same socket and port.
    pub fn restart(&self) {
        let socket = self.socket();
        let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        guarded.stop("KILL");
        assert!(
            guarded.start(|| greets(&socket)),
            "MariaDB does not start again: {}",
            guarded.log()
        );
    }
}

/// The way to a database by this port of the loopback device: the server's, or that of something in between.
pub fn url_by(port: u16, database: &str) -> String {
    format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}")
}

/// Whether the server says its first word, which it does once it has made the user.
fn greets(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok_and(|mut line| line.read_exact(&mut [0]).is_ok())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
