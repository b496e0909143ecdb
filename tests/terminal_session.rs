//! A failure, looked at and mended from a terminal: the real binary, a real store, another process that
//! runs the sagas, and one that was killed. `docs/session.md` shows what is printed here; this test keeps it
//! true. `AMENDS_UPDATE=1 cargo test --all-features --test terminal_session` records it anew.
#![cfg(all(feature = "cli", feature = "sqlite", unix))]
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests; the lints know test functions only.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use amends::policy::{Condition, Rule};
use amends::store::SqliteStore;
use amends::{
    Coordinator, Effect, Outcome, RecoveryPolicy, RecoveryStrategy, Retry, RunId, Saga, Step,
    StepContext, StepError, irreversible_fn, step, step_fn,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

#[allow(dead_code)]
mod children;
use children::{Process, role, tell};

/// Charges at a payments service that answers one line for one line.
struct ChargeCard {
    payments: SocketAddr,
}

impl Step for ChargeCard {
    type Input = u64;
    type Output = String;

    async fn execute(&self, cx: &StepContext, total: &u64) -> Result<String, StepError> {
        let mut stream = tokio::net::TcpStream::connect(self.payments).await?;
        let question = format!("{} {total}\n", cx.idempotency_key());
        stream.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        tokio::io::BufReader::new(stream)
            .read_line(&mut answer)
            .await?;
        Ok(answer.trim().to_owned())
    }

    async fn compensate(
        &self,
        _: &StepContext,
        _: &u64,
        _: Effect<&String>,
    ) -> Result<(), StepError> {
        Ok(())
    }
}

fn saga(payments: SocketAddr) -> Saga<u64, String> {
    let mut saga = Saga::builder::<u64>("place-order").policy(
        RecoveryPolicy::saga().first(
            Rule::new("payments needs eyes", RecoveryStrategy::Manual)
                .when(Condition::Step("charge-card".to_owned())),
        ),
    );
    let total = saga.input();
    let stock = saga.add(
        step_fn(
            "reserve-stock",
            async |_: &StepContext, total: &u64| Ok(*total),
            async |_, _, _| Ok(()),
        ),
        total,
    );
    let retry = Retry::constant()
        .initial(Duration::from_millis(20))
        .max_attempts(3);
    let payment = saga.add(
        step("charge-card", ChargeCard { payments })
            .atomic()
            .retry(retry),
        stock,
    );
    let parcel = saga.add(
        irreversible_fn("ship", async |_: &StepContext, _: &String| {
            Ok("parcel-9".to_owned())
        })
        .pivot(),
        payment,
    );
    saga.returns(parcel).unwrap()
}

/// The process that runs the sagas: starts the run that its role names, and tells how it goes.
#[tokio::test]
async fn child() {
    let Some((role, file)) = role() else { return };
    let (run, payments) = role.split_once('@').unwrap();
    let saga = saga(payments.parse().unwrap());
    let coordinator = Coordinator::builder(SqliteStore::open(file).unwrap())
        .register(&saga)
        .worker("shop")
        .build()
        .await
        .unwrap();
    let run = coordinator
        .start(&saga, RunId::new(run), 4_200)
        .await
        .unwrap();
    let outcome = run.outcome().await.unwrap();
    tell(outcome.word());
    if matches!(outcome, Outcome::Parked(_)) {
        tell(run.ended().await.unwrap().word());
    }
    coordinator.shutdown().await;
}

/// What a person types, and what they see.
struct Terminal {
    folder: PathBuf,
    seen: String,
}

impl Terminal {
    fn types(&mut self, command: &str) {
        self.ends_with(0, command);
    }

    /// The same for a command that ends with this code.
    fn ends_with(&mut self, code: i32, command: &str) {
        // As a shell splits it: what stands between quotes is one word.
        let words: Vec<&str> = command
            .split('\'')
            .enumerate()
            .flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().collect(),
                _ => vec![part],
            })
            .collect();
        assert_eq!(words[0], "amends");
        let done = Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(&words[1..])
            .current_dir(&self.folder)
            .env("AMENDS_STORE", "sqlite:sagas.db")
            .env("USER", "ada")
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        );
        assert_eq!(done.status.code(), Some(code), "{command}: {out}{err}");
        writeln!(self.seen, "$ {command}\n{out}{err}").unwrap();
    }

    fn says(&mut self, words: &str) {
        writeln!(self.seen, "# {words}\n").unwrap();
    }
}

/// A port that nobody listens at, until somebody does.
fn payments() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Answers one question.
fn answer(socket: TcpSocket) -> std::thread::JoinHandle<()> {
    let (listens, listening) = std::sync::mpsc::channel();
    let service = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = socket.listen(8).unwrap();
            listens.send(()).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = String::new();
            tokio::io::BufReader::new(&mut stream)
                .read_line(&mut question)
                .await
                .unwrap();
            stream.write_all(b"payment-77\n").await.unwrap();
        });
    });
    listening.recv().unwrap();
    service
}

#[test]
fn a_run_that_failed_is_found_understood_and_retried_from_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sagas.db");
    let mut terminal = Terminal {
        folder: dir.path().to_owned(),
        seen: String::new(),
    };

    let (closed, at) = payments();
    let mut shop = Process::start(&format!("order-4711@{at}"), &file);
    assert_eq!(shop.line().as_deref(), Some("parked"));
    terminal.types("amends list --parked");
    terminal.types("amends show order-4711");
    terminal.types("amends why order-4711");
    terminal.says("The payments service is up again; the shop runs all the while.");
    let service = answer(closed);
    terminal
        .types("amends retry order-4711 --strategy retry_failed --reason 'payments is up again'");
    assert_eq!(shop.line().as_deref(), Some("completed"));
    shop.end();
    service.join().unwrap();
    terminal.types("amends list");

    terminal.says("Another day, and this time the shop is killed while its run is parked.");
    let (closed, at) = payments();
    let mut shop = Process::start(&format!("order-4712@{at}"), &file);
    assert_eq!(shop.line().as_deref(), Some("parked"));
    shop.kill();
    terminal.ends_with(7, "amends retry order-4712 --wait 0s");
    terminal.says("The next start of the shop finds the command.");
    let service = answer(closed);
    let mut shop = Process::start(&format!("order-4712@{at}"), &file);
    let told: Vec<String> = shop.rest();
    assert_eq!(told.last().map(String::as_str), Some("completed"));
    service.join().unwrap();
    terminal.types("amends show order-4712");

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/session.md");
    let recorded = format!("```console\n{}\n```\n", terminal.seen.trim_end());
    let before = std::fs::read_to_string(&page).unwrap();
    let (head, kept) = before.split_at(before.find("```console").unwrap());
    if std::env::var_os("AMENDS_UPDATE").is_some() {
        std::fs::write(&page, format!("{head}{recorded}")).unwrap();
        return;
    }
    assert_eq!(
        steady(kept),
        steady(&recorded),
        "docs/session.md is another session: see the top of this file"
    );
}

/// A session without what differs from one to the next: instants, durations, ids, and the widths that follow
/// from them.
fn steady(session: &str) -> String {
    let mut steady = String::new();
    for line in session.lines() {
        let words = line
            .split(|c: char| c.is_whitespace() || "─┬┼┴╌═".contains(c))
            .filter(|word| !word.is_empty())
            .filter(|word| !["µs", "us", "ms", "s", "m", "h", "ago"].contains(word))
            .map(|word| {
                let varies = word.chars().any(|c| c.is_ascii_digit())
                    && !word.contains("order-47")
                    && !word.starts_with("payment-")
                    && !word.starts_with("parcel-");
                if varies { "#" } else { word }
            });
        let words: Vec<&str> = words.collect();
        steady += &words.join(" ");
        steady.push('\n');
    }
    steady
}
