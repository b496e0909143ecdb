//! A store on a PostgreSQL server.

use std::env;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use amends::store::{PostgresOptions, PostgresReport, PostgresStore, Store, StoreError};
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;

use super::{HOW, Upgraded};
use crate::error::{CliError, Exit, with_causes};
use crate::near;

/// A schema on a server, and the way there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// May hold a password: it is never shown.
    address: String,
    /// The way there, as it may be shown.
    shown: String,
    schema: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

const FORMS: &str = "an address is written as `postgres://USER@HOST:PORT/DB`, or as \
                     `postgres:host=HOST port=PORT user=USER dbname=DB`";

impl Server {
    pub(crate) fn parse(url: &str, schema: &str) -> Result<Self, CliError> {
        let mut address = url.to_owned();
        if let Some((_, rest)) = url.split_once("://") {
            // Whoever reads it stops at the first, and takes the rest of a password for a host.
            if rest.matches('@').count() > 1 {
                let text = "the address has more than one `@`: one that belongs to a name or a password is written `%40`";
                return Err(CliError::usage(text));
            }
        } else if let Some((_, pairs)) = url.split_once(':') {
            pairs.clone_into(&mut address);
        }
        let config: Config = address.parse().map_err(|error| unreadable(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(CliError::usage("the address names no server")
                .hint(HOW)
                .hint(FORMS));
        }
        // As `psql` has it, so that no password need stand in a list of processes.
        if config.get_password().is_none()
            && let Ok(password) = env::var("PGPASSWORD")
        {
            add_password(&mut address, &password);
        }
        Ok(Server {
            address,
            shown: shown(&config),
            schema: schema.to_owned(),
        })
    }

    /// The way to it, without a password.
    pub(crate) fn name(&self) -> String {
        self.shown.clone()
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    fn options(&self) -> Result<PostgresOptions, CliError> {
        let options = PostgresStore::options()
            .schema(&self.schema)
            .migrate(false)
            .pool_size(2)
            .lanes(1)
            // Whoever asks for millions of runs waits, or interrupts.
            .statement_timeout(Duration::from_secs(600));
        with_certificates(options)
    }

    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>, CliError> {
        let store = self.options()?.connect(&self.address).await;
        Ok(Arc::new(store.map_err(|error| self.cannot_open(&error))?))
    }

    /// Looks at the server and the tables without opening them as a store.
    pub(crate) async fn examine(&self) -> Result<PostgresReport, CliError> {
        let report = self.options()?.examine(&self.address).await;
        report.map_err(|error| self.cannot_open(&error))
    }

    pub(crate) async fn upgrade(&self) -> Result<Upgraded, CliError> {
        let run = self.options()?.upgrade(&self.address).await;
        let run = run.map_err(|error| self.cannot_open(&error))?;
        let newest = self.options()?.migrations();
        let to = newest.last().map_or(0, |migration| migration.number);
        let from = run.first().map_or(to, |migration| migration.number - 1);
        Ok(Upgraded {
            from: (from > 0).then_some(from),
            to,
            steps: run.iter().map(|it| (it.number, it.name)).collect(),
        })
    }

    fn cannot_open(&self, error: &StoreError) -> CliError {
        let error: &dyn Error = match error {
            StoreError::Foreign { what } => {
                return CliError::new(Exit::Store, format!("`{}`: {what}", self.shown));
            }
            StoreError::Failed { cause, .. } => &**cause,
            error => error,
        };
        let why = |why: &str| {
            CliError::new(
                Exit::Store,
                format!("`{}` can't be opened: {why}", self.shown),
            )
        };
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
                if let Some(answer) = error.as_db_error() {
                    return hint(why(answer.message()), answer.code());
                }
                if error.source().is_some_and(<dyn Error>::is::<io::Error>) {
                    return why(&with_causes(error))
                        .hint("is the server running, and are host and port right?");
                }
                if !cfg!(feature = "postgres-tls")
                    && with_causes(error).contains("no TLS implementation")
                {
                    return why("it asks for TLS, which is not in this build of `amends`").hint(
                        "`cargo install amends --features cli,postgres-tls` makes one that has it",
                    );
                }
                if with_causes(error).contains("password missing") {
                    return why("the server asks for a password").hint(PASSWORD);
                }
            }
            cause = error.source();
        }
        why(&with_causes(error))
    }
}

/// As `psql` has it: a file of authorities to trust in place of the system's.
#[cfg(feature = "postgres-tls")]
fn with_certificates(options: PostgresOptions) -> Result<PostgresOptions, CliError> {
    let Some(file) = env::var_os("PGSSLROOTCERT").filter(|file| !file.is_empty()) else {
        return Ok(options);
    };
    let pem = std::fs::read(&file).map_err(|error| {
        let what = format!("reading `{}`, which PGSSLROOTCERT names", file.display());
        CliError::failed(&what, &error)
    })?;
    Ok(options.root_certificates(pem))
}

#[cfg(not(feature = "postgres-tls"))]
#[allow(clippy::unnecessary_wraps)] // It is the other one that can fail.
fn with_certificates(options: PostgresOptions) -> Result<PostgresOptions, CliError> {
    Ok(options)
}

const PASSWORD: &str =
    "a password stands in the address (`postgres://USER:PASSWORD@HOST/DB`), or in PGPASSWORD";

/// What the reader can do about what the server says.
fn hint(error: CliError, code: &SqlState) -> CliError {
    match *code {
        SqlState::INVALID_PASSWORD => error.hint(PASSWORD),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => error.hint(
            "is the user right, and may it come from here? The server's `pg_hba.conf` says who may",
        ),
        SqlState::INVALID_CATALOG_NAME => {
            error.hint("`amends` makes no databases: correct the name, or make it with `createdb`")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => error.hint(
            "this role lacks a right, which whoever made the tables can GRANT it; what makes tables is printed by \
             `amends migrate --print`",
        ),
        SqlState::CANNOT_CONNECT_NOW | SqlState::TOO_MANY_CONNECTIONS => {
            error.hint("this passes: try again")
        }
        _ => error,
    }
}

/// An address that nobody can read. What is wrong is told only as far as it can't be a part of a password.
fn unreadable(error: &tokio_postgres::Error) -> CliError {
    let what = error.source().map(ToString::to_string).unwrap_or_default();
    let option = |text: &str| {
        let name = what.strip_prefix(text)?.strip_suffix('`')?;
        Some(name.to_owned())
    };
    if let Some(name) = option("invalid value for option `") {
        return CliError::usage(format!("the address has no good value for `{name}`")).hint(FORMS);
    }
    let error = CliError::usage("the address of the server can't be read").hint(FORMS);
    let names = option("unknown option `")
        .map(|name| near::near(&name, OPTIONS.into_iter()))
        .unwrap_or_default();
    if names.is_empty() {
        error
    } else {
        error.hint(format!(
            "an option there is not known: did you mean {}?",
            near::either(&names)
        ))
    }
}

/// What an address may say.
const OPTIONS: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslmode",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
];

fn add_password(address: &mut String, password: &str) {
    if address.contains("://") {
        address.push(if address.contains('?') { '&' } else { '?' });
        address.push_str("password=");
        for byte in password.bytes() {
            // Writing to a text does not fail.
            let _ = write!(address, "%{byte:02X}");
        }
    } else {
        let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
        // Nor here.
        let _ = write!(address, " password='{quoted}'");
    }
}

/// The way to a server, without a password.
fn shown(config: &Config) -> String {
    let mut hosts = Vec::new();
    let mut is_url = true;
    for host in config.get_hosts() {
        hosts.push(match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => {
                is_url = false;
                path.display().to_string()
            }
        });
    }
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
    let (user, name) = (config.get_user(), config.get_dbname());
    if !is_url {
        let mut text = format!("postgres:host={}", hosts.join(","));
        let more = [
            ("port", (!ports.is_empty()).then(|| ports.join(","))),
            ("user", user.map(str::to_owned)),
            ("dbname", name.map(str::to_owned)),
        ];
        for (key, value) in more {
            text += &value.map_or(String::new(), |value| format!(" {key}={value}"));
        }
        return text;
    }
    let hosts: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            // One port is that of all hosts, and the usual one needs no word.
            match ports.get(at).or(ports.first()) {
                Some(port) if port != "5432" => format!("{host}:{port}"),
                _ => host,
            }
        })
        .collect();
    let user = user.map_or(String::new(), |user| format!("{user}@"));
    let name = name.map_or(String::new(), |name| format!("/{name}"));
    format!("postgres://{user}{}{name}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        Server::parse(url, "amends").unwrap()
    }

    #[test]
    fn what_is_shown_of_an_address_leads_there_and_has_no_password() {
        for (url, shown) in [
            ("postgres://ada:s3cret@db/shop", "postgres://ada@db/shop"),
            (
                "postgresql://ada:s3cret@db:5433/shop?password=s3cret",
                "postgres://ada@db:5433/shop",
            ),
            ("postgres://a:1,b:2/shop", "postgres://a:1,b:2/shop"),
            ("postgres://[::1]:7/shop", "postgres://[::1]:7/shop"),
            (
                "postgres:host=db user=ada password='s3 cret' dbname=shop",
                "postgres://ada@db/shop",
            ),
            (
                "postgresql:host=/run/pg port=5433 user=ada password=s3cret",
                "postgres:host=/run/pg port=5433 user=ada",
            ),
        ] {
            let server = server(url);
            assert_eq!(server.name(), shown);
            assert_eq!(format!("{server:?}"), shown);
        }
    }

    #[test]
    fn a_password_that_is_not_in_the_address_is_added_as_its_form_needs_it() {
        for url in [
            "postgres://ada@db/shop",
            "postgres://ada@db/shop?sslmode=disable",
            "host=db user=ada",
        ] {
            let mut address = url.to_owned();
            add_password(&mut address, "it's 100% & \\ @");
            let config: Config = address.parse().unwrap();
            assert_eq!(
                config.get_password(),
                Some(&b"it's 100% & \\ @"[..]),
                "{url}"
            );
        }
    }

    #[test]
    fn an_address_that_can_t_be_read_is_told_without_what_may_be_a_password() {
        for (url, words) in [
            ("postgres://ada:s3@cret@db/shop", "`%40`"),
            ("postgres:host=db password=two s3cret=", "can't be read"),
            ("postgres:host=db password=two s3cret=x", "can't be read"),
            ("postgres://ada:s3cret/shop", "no good value for `port`"),
            ("postgres:host=db sslmod=disable", "can't be read"),
            ("postgres:user=ada", "names no server"),
        ] {
            let error = Server::parse(url, "amends").unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            assert!(error.message().contains(words), "{}", error.message());
            let all = format!("{error:?}");
            assert!(!all.contains("cret") && !all.contains("s3"), "{all}");
        }
        let mistyped = Server::parse("postgres:host=db sslmod=disable", "amends");
        let hints = mistyped.unwrap_err().hints().join("\n");
        assert!(hints.contains("did you mean `sslmode`"), "{hints}");
    }
}
