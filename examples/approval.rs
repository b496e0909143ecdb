//! Refunds that wait for somebody's word, also while nobody is there to hear it.
//!
//! `cargo run --example approval` starts an office, a process of its own whose refunds wait for approval, and kills
//! it. The answers go into the store by another process, and the office finds them when it is opened again:
//! approved, denied, and, of a refund that was urgent, nothing in time.

#[path = "desk/tell.rs"]
mod tell;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use amends::journal::{self, CommandAnswer, Verb};
use amends::operator::{Operator, Sent};
use amends::store::SqliteStore;
use amends::{
    ApprovalVerdict, Coordinator, FailureMode, PartialResult, Saga, SagaError, StepContext,
    StepStatus, approval, irreversible_fn, step_fn,
};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use tell::tell;

/// Whatever ends a process of this example early. It goes to a person, as text.
type Error = Box<dyn std::error::Error + Send + Sync>;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The money is set aside first, and given back to the till where nobody approves.
fn refund(name: &str, patience: Duration) -> Result<Saga<u64, String>, SagaError> {
    let mut saga = Saga::builder::<u64>(name);
    let cents = saga.input();
    let set_aside = async |_: &StepContext, cents: &u64| Ok(format!("{cents} cents set aside"));
    let money = saga.add(
        step_fn("set-aside", set_aside, async |_, _, _| Ok(())),
        cents,
    );
    let boss = approval("boss")
        .approvers(["ada", "grace"])
        .within(patience)
        .required();
    let approved = saga.add(boss.after(money), ());
    let pay_out = async |_: &StepContext, cents: &u64| Ok(format!("{cents} cents paid out"));
    let paid = saga.add(
        irreversible_fn("pay-out", pay_out).after(approved).pivot(),
        cents,
    );
    saga.returns(paid)
}

/// What the office does, each time it is opened: the same ids give the same runs.
#[tokio::main]
async fn office(file: &Path) -> Result<(), Error> {
    let (usual, urgent) = (
        refund("refund", DAY)?,
        refund("urgent", Duration::from_secs(1))?,
    );
    let coordinator = Coordinator::builder(SqliteStore::open(file)?)
        .register(&usual)
        .register(&urgent)
        .build()
        .await?;
    let runs = [
        coordinator.start(&usual, "shoes", 5_900).await?,
        coordinator.start(&usual, "yacht", 90_000_000).await?,
        coordinator.start(&urgent, "ticket", 4_200).await?,
    ];
    println!("the office is open");
    for run in runs {
        tell(&run.outcome().await?.partial());
    }
    coordinator.shutdown().await;
    Ok(())
}

/// Opens the office in a process of its own, which ends with this one, and waits until it is open.
async fn open_office(file: &Path) -> Result<(Child, Lines<BufReader<ChildStdout>>), Error> {
    let mut office = Command::new(std::env::current_exe()?)
        .arg(file)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = office.stdout.take().ok_or("the office has no output")?;
    let mut lines = BufReader::new(out).lines();
    let line = lines.next_line().await?;
    println!("{}", line.ok_or("the office did not open")?);
    Ok((office, lines))
}

async fn seen(operator: &Operator, refund: &str) -> Result<PartialResult, Error> {
    let view = operator.view(&refund.into()).await?;
    Ok(view.ok_or("no such refund")?.partial())
}

#[tokio::main]
async fn play() -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("refunds.db");
    let (mut office, _) = open_office(&file).await?;
    let operator = Operator::new(Arc::new(SqliteStore::open_reader(&file)?));
    for refund in ["shoes", "yacht"] {
        let waits = async || {
            let refund = seen(&operator, refund).await?;
            let boss = refund.step("boss").ok_or("no boss")?;
            Ok::<_, Error>(boss.status == StepStatus::Waiting)
        };
        while !waits().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{refund} waits for the boss");
    }
    office.kill().await?;
    println!("the office is killed\n");

    let (yes, no) = (ApprovalVerdict::Approved, ApprovalVerdict::Denied);
    let mut answers = Vec::new();
    for (refund, verdict, by, reason) in [
        ("shoes", yes, "ada", "they were too small"),
        ("yacht", yes, "mallory", "a friend"),
        ("yacht", no, "grace", "it has been sailed"),
    ] {
        let command = journal::Command::new(refund, Verb::signal("boss", verdict))
            .by(by)
            .reason(reason);
        let sent = operator.send(&command, Duration::ZERO).await?;
        assert_eq!(sent, Sent::Waiting);
        println!("{refund}: {by} says {verdict:?}, and nobody hears it yet");
        answers.push((by, command.token));
    }

    println!();
    let (mut office, mut lines) = open_office(&file).await?;
    while let Some(line) = lines.next_line().await? {
        println!("{line}");
    }
    if !office.wait().await?.success() {
        return Err("the office ended badly".into());
    }

    println!();
    for (by, token) in answers {
        let Sent::Answered(answer) = operator.answer(&token, Duration::ZERO).await? else {
            return Err(format!("{by} has no answer").into());
        };
        let refused = match answer {
            CommandAnswer::Refused { why, .. } => Some(why),
            _ => None,
        };
        println!(
            "{by} was told: {}",
            refused.as_deref().unwrap_or("accepted")
        );
        assert_eq!(refused.is_some(), by == "mallory");
    }
    for (refund, failure) in [
        ("shoes", None),
        ("yacht", Some(FailureMode::PermissionDenied)),
        ("ticket", Some(FailureMode::StepTimeout)),
    ] {
        let refund = seen(&operator, refund).await?;
        let paid = refund.step("pay-out").ok_or("no pay-out")?.status;
        assert_eq!(refund.failure_mode, failure);
        assert_eq!(paid == StepStatus::Done, failure.is_none());
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    match std::env::args_os().nth(1) {
        None => play(),
        Some(file) => office(&PathBuf::from(file)),
    }
}
