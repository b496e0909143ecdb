//! What the table needs of the server itself: what it promises, and that nothing is left on it.

use measure::Failed;

use crate::options::Options;

/// What the server is, and what it does at a commit.
#[cfg(feature = "postgres")]
pub(crate) fn line(options: &Options) -> Result<Option<String>, Failed> {
    let Some(server) = &options.postgres else {
        return Ok(None);
    };
    let mut said = Vec::new();
    for setting in ["server_version", "synchronous_commit", "fsync"] {
        said.push(ask(server, &format!("SHOW {setting}"))?);
    }
    Ok(Some(format!(
        "PostgreSQL {}, synchronous_commit={}, fsync={}; its flushes are counted where its files are on the same disk.",
        said[0], said[1], said[2]
    )))
}

#[cfg(feature = "postgres")]
pub(crate) fn drop_schema(options: &Options, schema: &str) -> Result<(), Failed> {
    let server = options.postgres.as_deref().ok_or("no server")?;
    ask(server, &format!("DROP SCHEMA IF EXISTS {schema} CASCADE"))?;
    Ok(())
}

/// The first value of the answer.
#[cfg(feature = "postgres")]
fn ask(server: &str, sql: &str) -> Result<String, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(server, tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let answer = client.simple_query(sql).await?;
        drop(client);
        connection.await??;
        let first = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(first.unwrap_or_default().to_owned())
    })
}

#[cfg(not(feature = "postgres"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn line(_: &Options) -> Result<Option<String>, Failed> {
    Ok(None)
}

#[cfg(not(feature = "postgres"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn drop_schema(_: &Options, _: &str) -> Result<(), Failed> {
    Ok(())
}
