//! The program does on a store in PostgreSQL what it does on one in a file, and says the same.
#![cfg(all(feature = "cli", feature = "postgres", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

mod cli_store;
#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;
#[path = "common/schemas.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod schemas;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use amends::RunId;
use amends::store::{Claim, Fleet, PostgresStore, Store, Worker};
use cli_store::{
    PAGES, Runs, Said, amends, book_trip, coordinator_on, make_each_kind, place_order,
    same_as_kept, settle,
};
use postgres::{Server, connect};
use schemas::Schemas;
use tokio_postgres::Config;

/// The program over a schema.
struct Program {
    config: String,
    schema: String,
}

impl Program {
    fn over(schemas: &Schemas, schema: impl Into<String>) -> Self {
        Program {
            config: format!("postgres:{}", schemas.config()),
            schema: schema.into(),
        }
    }

    fn amends(&self, arguments: &str) -> Command {
        let mut command = amends(&self.config, arguments);
        command.env("AMENDS_SCHEMA", &self.schema);
        command
    }

    fn says(&self, arguments: &str) -> Said {
        self.amends(arguments).output().unwrap().into()
    }
}

/// Runs of each kind, made by a coordinator on PostgreSQL, with fixed instants and names.
async fn of_each_kind(schemas: &Schemas) -> Program {
    let made = Arc::new(schemas.store().await);
    let coordinator = coordinator_on(Arc::clone(&made) as Arc<dyn Store>).await;
    make_each_kind(&coordinator).await;
    // Its store is closed then.
    coordinator.shutdown().await;
    let made = leased(schemas, made.schema(), LEASE).await;
    let settled = schemas.store().await;
    let outlines = [place_order().outline(), book_trip().outline()];
    settle(&made, &settled, &outlines).await;
    made.close().await;
    settled.close().await;
    Program::over(schemas, settled.schema())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_that_of_a_file() {
    Schemas::with(async |schemas| {
        let program = of_each_kind(&schemas).await;
        for (name, arguments) in PAGES {
            let said = program.says(arguments);
            assert_eq!(said.code, 0, "{arguments}: {said:?}");
            let file = format!(
                "{}/tests/snapshots/cli/{name}.txt",
                env!("CARGO_MANIFEST_DIR")
            );
            let mut whole = said.out;
            if !said.err.is_empty() {
                whole = format!("{whole}--- standard error\n{}", said.err);
            }
            assert_eq!(whole, fs::read_to_string(file).unwrap(), "{arguments}");
        }
        // Looking at a store makes nobody a worker of it.
        let client = schemas.client().await;
        let workers = postgres::count(&client, &format!("{}.workers", program.schema)).await;
        assert_eq!(workers, 0);
    })
    .await;
}

const POLICY: &str = "name = \"progress\"\nbase = \"by_progress\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_works_on_many_runs_does_to_both_kinds_of_store_the_same() {
    Schemas::with(async |schemas| {
        let program = of_each_kind(&schemas).await;
        let file = Runs::of_each_kind().await;
        let policy = file.dir.path().join("policy.toml");
        fs::write(&policy, POLICY).unwrap();
        for arguments in [
            "stats",
            "stats --json",
            "stats --journals 10",
            "verify",
            "verify --json",
            "verify trip-8",
            "definitions --json",
            "export",
            "export trip-7 trip-8",
            &format!("policy try {} --same --why", policy.display()),
            "watch trip-7",
            "watch --open --for 0s",
            "show trip-99",
            "retry order-4710",
            "retry --parked --dry-run",
            "list --all --json",
        ] {
            let (one, other) = (program.says(arguments), file.says(arguments));
            assert_eq!(
                (one.code, &one.out, &one.err),
                (other.code, &other.out, &other.err),
                "{arguments}"
            );
            assert!(!one.out.is_empty() || one.code != 0, "{arguments}: {one:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_of_a_file_is_imported_into_a_database_and_back() {
    Schemas::with(async |schemas| {
        let file = Runs::of_each_kind().await;
        let export = file.says("export").out;
        let import = |command: &mut Command| -> Said {
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut to = child.stdin.take().unwrap();
            to.write_all(export.as_bytes()).unwrap();
            drop(to);
            child.wait_with_output().unwrap().into()
        };

        let program = Program::over(&schemas, schemas.name());
        let said = import(&mut program.amends("import -"));
        assert_eq!(said.code, 5, "an import makes no tables: {said:?}");
        program.says("migrate --apply");
        let said = import(&mut program.amends("import - --dry-run"));
        assert_eq!(
            said.well(),
            "6 runs would be imported, 0 there already, 0 refused\n"
        );
        let said = import(&mut program.amends("import -"));
        assert_eq!(said.well(), "6 runs imported, 0 there already, 0 refused\n");
        let said = import(&mut program.amends("import -"));
        assert_eq!(said.well(), "0 runs imported, 6 there already, 0 refused\n");
        assert_eq!(program.says("export").out, export);
        assert_eq!(
            program.says("verify").out,
            "6 runs (4 open), 24 records: nothing is wrong\n"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn verbs_reach_whoever_drives_the_run_and_wait_where_nobody_does() {
    Schemas::with(async |schemas| {
        let store = Arc::new(schemas.store().await);
        let program = Program::over(&schemas, store.schema());
        let coordinator = coordinator_on(store).await;
        make_each_kind(&coordinator).await;
        let says = async |arguments: &str| {
            let mut command = program.amends(arguments);
            let output = tokio::task::spawn_blocking(move || command.output());
            Said::from(output.await.unwrap().unwrap())
        };
        assert_eq!(
            says("cancel trip-9 --reason 'it rains'").await.well(),
            "trip-9: cancel accepted (what is done will be undone)\n"
        );
        let said = says("resume --status paused --yes --token ticket-11").await;
        assert_eq!((said.code, said.out.as_str()), (0, "trip-10  taken\n"));
        let said = says("retry trip-7").await;
        assert_eq!(said.code, 4, "{said:?}");
        let (saga, run) = (book_trip(), RunId::new("trip-9"));
        let trip = coordinator.attach(&saga, &run);
        trip.await.unwrap().unwrap().outcome().await.unwrap();
        assert!(says("show trip-9").await.out.contains("compensated"));
        let why = says("journal trip-9").await.out;
        assert!(why.contains("ada") && why.contains("it rains"), "{why}");

        coordinator.shutdown().await;
        let said = says("abandon order-4711 --wait 0s --token last").await;
        assert_eq!(said.code, 7, "{said:?}");
        let store = leased(&schemas, &program.schema, LEASE).await;
        let coordinator = coordinator_on(Arc::new(store)).await;
        assert_eq!(
            says("abandon order-4711 --token last").await.well(),
            "order-4711: abandon accepted\n"
        );
        coordinator.shutdown().await;

        let pruned = "4 runs would be forgotten (1 abandoned, 2 compensated, 1 completed)\n";
        assert_eq!(says("prune --older-than 0s --dry-run").await.well(), pruned);
        let said = says("prune --older-than 0s --yes").await.well();
        assert_eq!(said, "4 runs forgotten\n");
        let left = says("verify").await.well();
        assert!(left.starts_with("2 runs (2 open)"), "{left}");
    })
    .await;
}

const LEASE: Duration = Duration::from_secs(15);

/// A store whose workers have leases of this length.
async fn leased(schemas: &Schemas, schema: &str, lease: Duration) -> PostgresStore {
    let options = PostgresStore::options().schema(schema).lease(lease);
    options.connect(schemas.config()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_listed_with_what_they_own() {
    Schemas::with(async |schemas| {
        let program = of_each_kind(&schemas).await;
        assert_eq!(
            (
                program.says("workers").err.as_str(),
                program.says("workers").code
            ),
            ("No worker is there.\n", 0)
        );

        let hour = Duration::from_secs(3_600);
        let long = leased(&schemas, &program.schema, hour).await;
        let short = leased(&schemas, &program.schema, Duration::from_millis(100)).await;
        let till = Worker::new("till-1-00c0ffee0000", "till-1");
        let till = till.drives("place-order", 1).drives("book-trip", 2);
        let till = till.label("zone", "b");
        let desk = Worker::new("desk-00c0ffee0001", "desk");
        let gone = Worker::new("till-0-00c0ffee0002", "till-0").drives("place-order", 1);
        long.join(&till).await.unwrap();
        long.join(&desk).await.unwrap();
        for run in ["trip-9", "order-4711"] {
            let claimed = long.claim(&till.id, &RunId::new(run)).await;
            assert_eq!(claimed.unwrap(), Claim::Mine);
        }
        short.join(&gone).await.unwrap();
        let gone_at = loop {
            let workers = short.workers().await.unwrap();
            if let Some(gone) = workers.iter().find(|entry| !entry.live) {
                break gone.until;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let now = gone_at.as_micros() + 240_000_000;
        let says = |arguments: &str, width: &str| -> Said {
            let mut command = program.amends(arguments);
            let command = command.env("COLUMNS", width);
            let command = command.env("AMENDS_NOW", now.to_string());
            command.output().unwrap().into()
        };

        let said = says("workers", "80").well();
        same_as_kept("postgres-workers.txt", &without_instants(&said));
        let said = says("workers --live", "160").well();
        same_as_kept("postgres-workers-live.160.txt", &without_instants(&said));

        let lines = program.says("workers --json").well();
        let workers: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |key: &str| -> Vec<String> {
            workers
                .iter()
                .map(|worker| worker[key].to_string())
                .collect()
        };
        assert_eq!(of("name"), ["\"desk\"", "\"till-0\"", "\"till-1\""]);
        assert_eq!(of("live"), ["true", "false", "true"]);
        assert_eq!(of("runs"), ["0", "0", "2"]);
        assert_eq!(of("labels"), ["{}", "{}", "{\"zone\":\"b\"}"]);
        assert_eq!(
            of("definitions")[2],
            r#"[{"saga":"place-order","version":1},{"saga":"book-trip","version":2}]"#
        );
        for worker in &workers {
            let at = |key: &str| worker[key].as_str().unwrap().to_owned();
            assert!(at("joined_at") <= at("renewed_at") && at("renewed_at") < at("until"));
        }
        long.close().await;
        short.close().await;

        // Now that somebody is there, what nobody drives is told apart.
        let said = program.says("definitions").well();
        assert!(said.contains("can be finished"), "{said}");
    })
    .await;
}

/// The text with each time of day by one name that is as long.
fn without_instants(text: &str) -> String {
    let words = text.split_inclusive(' ').map(|word| {
        let time = word.trim_end();
        if time.len() == "09:30:00Z".len() && time.ends_with('Z') && time.contains(':') {
            word.replace(time, "<instant>")
        } else {
            word.to_owned()
        }
    });
    words.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_are_made_on_demand_only_and_by_the_script_that_is_printed() {
    Schemas::with(async |schemas| {
        let client = schemas.client().await;
        let program = Program::over(&schemas, schemas.name());
        let schema = program.schema.clone();
        let there = async || -> bool {
            let sql = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";
            client.query_one(sql, &[&schema]).await.unwrap().get(0)
        };

        // No command makes tables by the way.
        for arguments in [
            "list",
            "workers",
            "show x",
            "stats",
            "prune --older-than 1s --yes",
        ] {
            let said = program.says(arguments);
            assert_eq!((said.code, said.out.as_str()), (5, ""), "{arguments}");
            for word in [
                "has no tables yet",
                "`amends migrate --apply`",
                "`amends migrate --print`",
            ] {
                assert!(said.err.contains(word), "{arguments}: {}", said.err);
            }
        }
        let said = program.says("doctor");
        assert_eq!(said.code, 6, "{said:?}");
        assert!(said.out.contains("has no tables yet"), "{}", said.out);
        assert!(!there().await);

        // What is printed needs no server, and makes them.
        let migrations = PostgresStore::options().schema(&schema).migrations();
        let printed = Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(["migrate", "--print", "--schema", &schema])
            .env_clear()
            .output();
        let script = Said::from(printed.unwrap()).well();
        let scripts: Vec<String> = migrations.iter().map(ToString::to_string).collect();
        assert_eq!(script, scripts.join("\n"));
        client.batch_execute(&script).await.unwrap();
        assert_eq!(program.says("list").err, "The store holds no runs.\n");
        let newest = migrations.len();
        assert_eq!(
            program.says("migrate --apply").well(),
            format!("there was nothing to do: the tables are of version {newest}\n")
        );

        // Or the program makes them.
        let fresh = Program::over(&schemas, schemas.name());
        let said = fresh.says("migrate --apply").well();
        let mut lines: Vec<String> = migrations
            .iter()
            .map(|migration| format!("migration {}: {}", migration.number, migration.name))
            .collect();
        lines.push(format!("made the tables, of schema version {newest}"));
        assert_eq!(said, lines.join("\n") + "\n");
        let said = fresh.says("doctor --upgrade --json");
        let form: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(form["checks"][0]["check"], "upgrade");
        assert_eq!(
            form["checks"][0]["says"],
            format!("there was nothing to do: the tables are of version {newest}")
        );
        let said = fresh.says("migrate --apply --json").well();
        let form: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            form,
            serde_json::json!({ "from": newest, "to": newest, "applied": [] })
        );
        let said = program.says("migrate --print --json").well();
        let first: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        assert_eq!(first["number"], 1);
        assert_eq!(first["sql"], migrations[0].sql);
        assert_eq!(said.lines().count(), newest);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_an_older_build_are_brought_up_to_date_when_that_is_asked_for() {
    Schemas::with(async |schemas| {
        let client = schemas.client().await;
        for command in ["migrate --apply", "doctor --upgrade"] {
            let program = Program::over(&schemas, schemas.name());
            let migrations = PostgresStore::options()
                .schema(&program.schema)
                .migrations();
            let newest = migrations.len();
            let first = migrations[0].to_string();
            client.batch_execute(&first).await.unwrap();

            let said = program.says("list");
            assert_eq!((said.code, said.out.as_str()), (5, ""), "{said:?}");
            let words = format!("has tables of version 1, and this build needs version {newest}");
            assert!(said.err.contains(&words), "{}", said.err);
            let said = program.says("doctor");
            assert_eq!(said.code, 6);
            assert!(said.out.contains("brings it up to date"), "{}", said.out);
            let said = program.says(command).out;
            assert!(
                said.contains(&format!("brought from schema version 1 to {newest}\n")),
                "{said}"
            );
            if command == "migrate --apply" {
                let second = format!("migration 2: {}\n", migrations[1].name);
                assert!(said.starts_with(&second), "{said}");
            }
            assert_eq!(program.says("list").err, "The store holds no runs.\n");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_build_are_left_alone() {
    Schemas::with(async |schemas| {
        let program = Program::over(&schemas, schemas.name());
        program.says("migrate --apply").well();
        let client = schemas.client().await;
        let sql = format!(
            "INSERT INTO {}.schema_version (version, name) VALUES (1000, 'later')",
            program.schema
        );
        client.batch_execute(&sql).await.unwrap();
        for arguments in ["list", "migrate --apply", "doctor --upgrade"] {
            let said = program.says(arguments);
            assert_eq!(
                (said.code, said.out.as_str()),
                (5, ""),
                "{arguments}: {said:?}"
            );
            for word in ["has tables of version 1000", "a later one"] {
                assert!(said.err.contains(word), "{arguments}: {}", said.err);
            }
        }
        let said = program.says("doctor");
        assert_eq!(said.code, 6);
        assert!(said.out.contains("has version 1000"), "{}", said.out);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_runs_and_making_tables_are_not_mixed() {
    for arguments in [
        "migrate",
        "migrate order-4711 --print",
        "migrate order-4711 --apply",
        "migrate --print --apply",
        "migrate --apply --parked",
        "migrate --apply --to 2",
        "migrate --print --yes",
        "migrate --apply --dry-run",
    ] {
        let said: Said = amends("postgres://nobody@127.0.0.1:1/none", arguments)
            .output()
            .unwrap()
            .into();
        assert_eq!(
            (said.code, said.out.as_str()),
            (2, ""),
            "{arguments}: {said:?}"
        );
        assert!(said.err.contains("Usage: amends migrate"), "{}", said.err);
    }
}

/// A server's page with its numbers and versions taken out.
fn without_chance(said: &Said) -> String {
    let lines = said.out.lines().enumerate().map(|(number, line)| {
        let mut words = line.split_whitespace().skip(1);
        let newest = PostgresStore::migrations().len();
        match words.next() {
            _ if number == 0 => "<the server>".to_owned(),
            Some("server") => "✓ server       PostgreSQL <n>".to_owned(),
            Some("schema") => line.replace(&format!("version {newest}"), "version <newest>"),
            Some("size") => {
                assert!(line.contains("of which") && line.contains("KiB"), "{line}");
                "✓ size         <n> KiB, of which <tables>".to_owned()
            }
            Some("dead") => "✓ dead rows    <n>".to_owned(),
            _ => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_examines_the_server_the_tables_and_the_fleet() {
    let server = Server::own(&[("fsync", "on")]).await;
    let url = format!(
        "postgres://amends:a%20password@127.0.0.1:{}/postgres",
        server.port()
    );
    let says = |arguments: &str| -> Said {
        let mut command = amends(&url, arguments);
        command.env("COLUMNS", "120").output().unwrap().into()
    };
    says("migrate --apply").well();
    let store = Arc::new(
        PostgresStore::connect(&server.address_by(server.port()))
            .await
            .unwrap(),
    );
    let coordinator = coordinator_on(Arc::clone(&store) as Arc<dyn Store>).await;
    make_each_kind(&coordinator).await;

    let said = says("doctor");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let shown = format!("postgres://amends@127.0.0.1:{}/postgres", server.port());
    assert_eq!(said.out.lines().next(), Some(shown.as_str()));
    same_as_kept("postgres-doctor.txt", &without_chance(&said));

    // A session that holds rows is named.
    let mut held = server.config();
    held.application_name("a report");
    let client = connect(&held).await.unwrap();
    client
        .batch_execute("BEGIN; CREATE TABLE written (id int)")
        .await
        .unwrap();
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let form: serde_json::Value = serde_json::from_str(&says("doctor --json").well()).unwrap();
    let says_of = |form: &serde_json::Value, name: &str| -> String {
        let checks = form["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["check"] == name).unwrap();
        found["says"].as_str().unwrap().to_owned()
    };
    let kept = says_of(&form, "kept rows");
    assert!(
        kept.starts_with(&format!(
            "a transaction of process {pid} (a report, idle in transaction), open for "
        )),
        "{kept}"
    );
    assert_eq!(form["store"], shown);
    let tables = form["tables"].as_array().unwrap();
    let journal = tables.iter().find(|table| table["table"] == "journal");
    assert!(journal.unwrap()["bytes"].as_u64().unwrap() > 8_192);
    client.batch_execute("ROLLBACK").await.unwrap();
    let form: serde_json::Value = serde_json::from_str(&says("doctor --json").well()).unwrap();
    assert_eq!(
        says_of(&form, "kept rows"),
        "nothing keeps vacuum from removing dead rows"
    );

    // Nobody drives the runs when the last has left.
    coordinator.shutdown().await;
    let form: serde_json::Value = serde_json::from_str(&says("doctor --json").well()).unwrap();
    assert_eq!(
        says_of(&form, "workers"),
        "none: no run goes on, and commands wait"
    );

    // A server whose commits promise nothing is refused, and examined all the same.
    server.set("synchronous_commit", "off").await;
    let said = says("list");
    assert_eq!(said.code, 5, "{said:?}");
    assert!(
        said.err.contains("`synchronous_commit` is off"),
        "{}",
        said.err
    );
    let said = says("doctor");
    assert_eq!(said.code, 6, "{said:?}");
    assert!(
        said.out
            .contains("✗ commits      synchronous_commit is off, fsync on"),
        "{}",
        said.out
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_way_there_is_told_without_the_password() {
    const SECRET: &str = "t0p-s3cret";
    let server = Server::shared().await;
    let config = server.config();
    let (user, name) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    let words = schemas::text(&{
        let mut config: Config = config.clone();
        config.password(SECRET);
        config
    });
    let is_private = std::env::var_os("AMENDS_TEST_POSTGRES").is_none();
    let said = |store: &str, arguments: &str| -> Said {
        amends(store, arguments).output().unwrap().into()
    };
    let refused = format!("postgres://{user}:{SECRET}@127.0.0.1:1/{name}");
    let mut cases = vec![
        (
            refused.clone(),
            5,
            vec!["127.0.0.1:1", "Connection refused", "is the server running"],
        ),
        (
            format!("postgres://{user}:{SECRET}@:x/{name}"),
            2,
            vec!["`port`", "an address is written as"],
        ),
        (
            format!("postgres://a:{SECRET}@b@c/d"),
            2,
            vec!["more than one `@`"],
        ),
        (
            format!("postgres:host=127.0.0.1 pasword={SECRET}"),
            2,
            vec!["did you mean `password`"],
        ),
        (
            format!("postgres:password={SECRET}"),
            2,
            vec!["names no server"],
        ),
        (
            format!("postgre://a:{SECRET}@b/c"),
            2,
            vec!["is not a store", "a:***@b/c"],
        ),
        (
            format!("postgre:host=b password='{SECRET}'"),
            2,
            vec!["is not a store"],
        ),
        (
            "postgres:host=/nowhere user=a".to_owned(),
            5,
            vec!["No such file", "is the server running"],
        ),
    ];
    if is_private {
        let other = words.replace(&format!("dbname='{name}'"), "dbname='nowhere'");
        let other = other.replace(SECRET, "a password");
        assert!(other.contains("nowhere"), "{other}");
        cases.push((
            format!("postgres:{words}"),
            5,
            vec!["password authentication failed", "PGPASSWORD"],
        ));
        cases.push((
            format!("postgres:{other}"),
            5,
            vec!["\"nowhere\" does not exist", "`amends` makes no databases"],
        ));
        cases.push((
            format!("postgres://{user}@127.0.0.1:{}/{name}", server.port()),
            5,
            vec!["asks for a password", "PGPASSWORD"],
        ));
    }
    for (store, code, words) in cases {
        for arguments in ["list", "doctor", "migrate --apply", "list --json"] {
            let said = said(&store, arguments);
            assert_eq!(
                (said.code, said.out.as_str()),
                (code, ""),
                "{store}: {said:?}"
            );
            assert!(!said.err.contains(SECRET), "{store}: {}", said.err);
            for word in &words {
                let json = word.replace('"', "\\\"");
                assert!(
                    said.err.contains(word) || said.err.contains(&json),
                    "{store} {arguments}: {}",
                    said.err
                );
            }
        }
    }

    // Nor where it stands at a wrong place.
    for arguments in [
        format!("list {refused}"),
        format!("list --color {refused}"),
        format!("list --limit password={SECRET}"),
    ] {
        let said = said("sagas.db", &arguments);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(!said.err.contains(SECRET), "{}", said.err);
        assert!(said.err.contains("***"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_come_from_where_psql_takes_it() {
    let server = Server::own(&[]).await;
    let url = format!("postgres://amends@127.0.0.1:{}/postgres", server.port());
    let with = |store: &str, password: &str| -> Said {
        let mut command = amends(store, "migrate --apply");
        command.env("PGPASSWORD", password).output().unwrap().into()
    };
    with(&url, "a password").well();
    assert_eq!(with(&url, "another").code, 5);
    let pairs = format!(
        "postgres:host=127.0.0.1 port={} user=amends dbname=postgres",
        server.port()
    );
    with(&pairs, "a password").well();
    let its_own = format!("{pairs} password='a password'");
    with(&its_own, "another").well();

    // As servers of tests are, it would lose everything with its machine.
    let mut doctor = amends(&url, "doctor");
    let said: Said = doctor
        .env("PGPASSWORD", "a password")
        .env("COLUMNS", "120")
        .output()
        .unwrap()
        .into();
    assert_eq!(said.code, 6, "{said:?}");
    let off = "✗ commits      synchronous_commit is on, fsync off, full_page_writes on";
    assert!(said.out.contains(off), "{}", said.out);
}
