//! A private `PgBouncer` in transaction mode before a PostgreSQL server.

// No user of this file uses all of it, and its faults are those of the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

#[path = "guard.rs"]
#[allow(clippy::duplicate_mod)] // Each kind of server can be used alone.
mod guard;
use guard::{Folder, Guarded, free_port, program};

/// A pooler that gives a server's session to a client for no longer than a transaction.
#[derive(Debug)]
pub struct PgBouncer {
    guarded: Guarded,
    config: Config,
    port: u16,
}

impl PgBouncer {
    /// Starts one before the server that this leads to, with so many sessions to share. It takes a moment:
    /// call it where blocking is fine.
    pub fn start(server: &Config, sessions: usize) -> Self {
        let user = server.get_user().unwrap();
        let password = String::from_utf8(server.get_password().unwrap_or_default().to_vec());
        let password = password.unwrap();
        let host = match &server.get_hosts()[0] {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.to_str().unwrap().to_owned(),
        };
        let server_port = server.get_ports().first().copied().unwrap_or(5432);
        let program = program("pgbouncer", &["/usr/sbin"], "pgbouncer");

        let mut folder = Folder::new();
        for _ in 0..20 {
            let port = free_port();
            let users = folder.write("users", &format!("\"{user}\" \"{password}\"\n"));
            let settings = format!(
                "[databases]\n\
                 * = host={host} port={server_port}\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir = {folder}\n\
                 auth_type = md5\n\
                 auth_file = {users}\n\
                 admin_users = {user}\n\
                 pool_mode = transaction\n\
                 default_pool_size = {sessions}\n\
                 max_client_conn = 500\n\
                 server_login_retry = 1\n",
                folder = folder.path().display(),
                users = users.display(),
            );
            let settings = folder.write("pgbouncer.ini", &settings);
            let arguments = [settings.to_str().unwrap().to_owned()];
            let mut guarded = Guarded::new(folder, "KILL", &program, &arguments);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if guarded.start(|| TcpStream::connect(address).is_ok()) {
                let mut config = Config::new();
                config.host("127.0.0.1").port(port);
                config.user(user).password(&password);
                config.dbname(server.get_dbname().unwrap_or("postgres"));
                return PgBouncer {
                    guarded,
                    config,
                    port,
                };
            }
            // Somebody else may have been faster at the port.
            let log = guarded.log();
            assert!(
                log.contains("Address already in use"),
                "PgBouncer does not start: {log}"
            );
            folder = guarded.release();
        }
        panic!("no port is free");
    }

    /// How to connect through it.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Its port of the loopback device.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.guarded.log()
    }
}
