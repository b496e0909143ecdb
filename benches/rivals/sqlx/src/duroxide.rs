use std::sync::Arc;
use std::time::Duration;

use ::duroxide::providers::Provider;
use ::duroxide::providers::sqlite::SqliteProvider;
use ::duroxide::runtime::Runtime;
use ::duroxide::runtime::registry::ActivityRegistry;
use ::duroxide::{
    ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus,
};
use measure::{Call, Contender, Failed, OUTPUT, Order, called};

pub(super) struct Duroxide {
    client: Client,
    fails: bool,
    _runtime: Arc<Runtime>,
}

async fn step<const STEP: u8>(number: String) -> Result<String, String> {
    called(Call::Do(STEP));
    let number: u64 = number.parse().map_err(|_| "not a number")?;
    Ok((number + 1).to_string())
}

async fn refuses(_: String) -> Result<String, String> {
    called(Call::Do(3));
    Err("no".to_owned())
}

async fn undo<const STEP: u8>(_: String) -> Result<String, String> {
    called(Call::Undo(STEP));
    Ok(String::new())
}

/// An undo is one more activity, as duroxide's guide shows it.
async fn w3(cx: OrchestrationContext, number: String) -> Result<String, String> {
    let one = cx.schedule_activity("one", number).await?;
    let two = cx.schedule_activity("two", one.clone()).await?;
    match cx.schedule_activity("three", two.clone()).await {
        Ok(three) => Ok(three),
        Err(error) => {
            cx.schedule_activity("undo two", two).await?;
            cx.schedule_activity("undo one", one).await?;
            Err(error)
        }
    }
}

/// Its provider has no setting for it, but gives its pool away: all five connections sync at each commit.
async fn sync(provider: &SqliteProvider) -> Result<(), Failed> {
    let mut connections = Vec::new();
    for _ in 0..5 {
        connections.push(provider.get_pool().acquire().await?);
    }
    for connection in &mut connections {
        sqlx::query("PRAGMA synchronous = FULL")
            .execute(&mut **connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn open(order: Order) -> Result<Duroxide, Failed> {
    let file = order.folder.join("sagas.db");
    let provider = match (&*order.store, &*order.setting) {
        ("memory", _) => SqliteProvider::new_in_memory().await?,
        ("SQLite", setting @ ("default" | "FULL")) => {
            std::fs::File::create(&file)?;
            let url = format!("sqlite:{}", file.display());
            let provider = SqliteProvider::new(&url, None).await?;
            if setting == "FULL" {
                sync(&provider).await?;
            }
            provider
        }
        _ => return Err(super::unknown(&order)),
    };
    let provider: Arc<dyn Provider> = Arc::new(provider);
    let activities = ActivityRegistry::builder()
        .register("one", |_: ActivityContext, n| step::<1>(n))
        .register("two", |_: ActivityContext, n| step::<2>(n))
        .register("undo two", |_: ActivityContext, n| undo::<2>(n))
        .register("undo one", |_: ActivityContext, n| undo::<1>(n));
    let activities = match order.fails {
        true => activities.register("three", |_: ActivityContext, n| refuses(n)),
        false => activities.register("three", |_: ActivityContext, n| step::<3>(n)),
    };
    let sagas = OrchestrationRegistry::builder().register("w3", w3);
    let runtime =
        Runtime::start_with_store(Arc::clone(&provider), activities.build(), sagas.build());
    Ok(Duroxide {
        _runtime: runtime.await,
        client: Client::new(provider),
        fails: order.fails,
    })
}

impl Contender for Duroxide {
    async fn saga(&self, number: u64) -> Result<(), Failed> {
        let id = format!("saga-{number}");
        self.client.start_orchestration(&*id, "w3", "1").await?;
        let end = self
            .client
            .wait_for_orchestration(&id, Duration::from_secs(600));
        match end.await? {
            OrchestrationStatus::Completed { output, .. }
                if !self.fails && output == OUTPUT.to_string() =>
            {
                Ok(())
            }
            OrchestrationStatus::Failed { .. } if self.fails => Ok(()),
            other => Err(format!("it ended as {other:?}").into()),
        }
    }
}
