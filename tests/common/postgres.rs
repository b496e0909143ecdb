//! A private PostgreSQL server for tests, or the one that `AMENDS_TEST_POSTGRES` names.
//!
//! The tests of one binary share it. It lives in a temporary folder, is reached by a socket there, and
//! is stopped when the last test lets go of it, or the process ends in whichever way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

const PASSWORD: &str = "a password";

/// A server, and the role that may do everything on it.
pub struct Server {
    config: Config,
    /// Nothing where the server is not ours.
    _private: Option<Private>,
}

impl Server {
    /// The server of all tests that run now.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        // Off the runtime's threads, since it takes a second; one at a time, so that one is made.
        tokio::task::spawn_blocking(|| {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let server = Arc::new(Server::new());
                *shared = Arc::downgrade(&server);
                server
            })
        })
        .await
        .unwrap()
    }

    fn new() -> Self {
        if let Ok(named) = std::env::var("AMENDS_TEST_POSTGRES") {
            return Server {
                config: named.parse().expect("AMENDS_TEST_POSTGRES"),
                _private: None,
            };
        }
        let private = Private::start();
        let mut config = Config::new();
        config
            .host_path(private.folder.path())
            .user("amends")
            .password(PASSWORD)
            .dbname("postgres");
        Server {
            config,
            _private: Some(private),
        }
    }

    /// How to connect to it.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A new connection.
    pub async fn connect(&self) -> Client {
        connect(&self.config).await.unwrap()
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

struct Private {
    /// A shell that stops the server when its standard input ends.
    shell: Child,
    folder: TempDir,
}

impl Private {
    fn start() -> Self {
        let bin = programs();
        let folder = tempfile::tempdir().unwrap();
        let user = unprivileged();
        let data = folder.path().join("data");
        let secret = folder.path().join("password");
        std::fs::write(&secret, PASSWORD).unwrap();
        for path in [folder.path(), &secret] {
            std::os::unix::fs::chown(path, user.map(|it| it.0), user.map(|it| it.1)).unwrap();
        }

        let made = run_as(user, &bin.join("initdb"), folder.path())
            .arg("-D")
            .arg(&data)
            .arg("--pwfile")
            .arg(&secret)
            .args(["-U", "amends", "-A", "scram-sha-256", "-E", "UTF8"])
            .args(["--no-locale", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {made:?}");

        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut shell = run_as(user, Path::new("sh"), folder.path())
            .arg("-c")
            .arg(r#""$@" & server=$!; cat >/dev/null; kill -QUIT $server; wait $server"#)
            .arg("sh")
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            // A socket only; nothing has to outlive a crash of the machine.
            .args(["-h", "", "-F"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();

        // The last line of this file says when connections are taken.
        let pid = data.join("postmaster.pid");
        for _ in 0..6000 {
            let ready = std::fs::read_to_string(&pid)
                .is_ok_and(|lines| lines.lines().last().map(str::trim) == Some("ready"));
            if ready {
                return Private { shell, folder };
            }
            assert!(shell.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(shell.stdin.take());
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        panic!("the server does not start: {log}");
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // The folder goes after the server.
        let _ = self.shell.wait();
    }
}

/// A command as that user, in a folder that it may enter.
fn run_as(user: Option<(u32, u32)>, program: &Path, folder: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;

    let mut command = Command::new(program);
    command.current_dir(folder);
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

/// PostgreSQL refuses to run as root: then it runs as one of these. Nothing where we are not root.
fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;

    // Whose files this process makes.
    let own = tempfile::tempfile().unwrap().metadata().unwrap().uid();
    if own != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = ["postgres", "nobody"].iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut words = line.split(':').skip(2);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    Some(ids.expect("no user `postgres` or `nobody` to run PostgreSQL as"))
}

/// The folder of `initdb` and `postgres`: on the path, or where Debian puts the newest.
fn programs() -> PathBuf {
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
    std::env::split_paths(&on_path)
        .chain(debian.into_iter().rev())
        .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .expect(
            "these tests need PostgreSQL: ./test installs it; or install the package `postgresql`, \
             or name a server in AMENDS_TEST_POSTGRES (host=.. user=.. password=..)",
        )
}
