//! What is beneath the runs on a PostgreSQL server: its settings, the tables and their garbage, and the workers.

use std::time::Duration;

use amends::store::{
    Fleet, PostgresHold, PostgresHolder, PostgresReport, PostgresTable, WorkerEntry,
};

use super::{Check, Ground, TableForm, bytes, good, note, problem};
use crate::error::CliError;
use crate::instants::{coarse, now};
use crate::place::{Place, Server};

/// What has been open for so long holds up vacuum more than it should.
const LONG: Duration = Duration::from_secs(60);

/// And for so long it does harm.
const TOO_LONG: Duration = Duration::from_secs(3_600);

/// So many dead rows are no matter in any table.
const FEW_DEAD: u64 = 50_000;

pub(super) async fn ground(server: &Server) -> Result<Ground, CliError> {
    let report = server.examine().await?;
    let mut checks = of_server(&report, server.schema());
    let readable = report.unfit.is_none() && report.schema == Some(report.newest_schema);
    let store = if readable {
        let store = Place::Postgres(Box::new(server.clone()))
            .open_reader()
            .await?;
        let workers = match store.fleet() {
            Some(fleet) => Fleet::workers(fleet).await?,
            None => Vec::new(),
        };
        checks.push(of_workers(&workers));
        Some((store, workers.iter().any(|worker| worker.live)))
    } else {
        None
    };
    Ok(Ground {
        name: server.name(),
        checks,
        tables: report.tables.iter().map(form).collect(),
        store,
    })
}

fn form(table: &PostgresTable) -> TableForm {
    TableForm {
        table: table.name.clone(),
        bytes: table.bytes,
        rows: table.live,
        dead_rows: table.dead,
        vacuumed_at: table.vacuumed_at.map(|at| at.to_string()),
    }
}

fn of_server(report: &PostgresReport, schema: &str) -> Vec<Check> {
    let server = format!("PostgreSQL {}", report.server);
    let mut checks = vec![match &report.unfit {
        None => good("server", server),
        Some(why) => problem("server", server, why),
    }];
    checks.push(of_schema(report, schema));
    checks.push(of_commits(report));
    if !report.tables.is_empty() {
        checks.push(good("size", sizes(&report.tables)));
        checks.push(of_dead_rows(&report.tables, report.autovacuum));
    }
    checks.push(of_holds(&report.holds));
    checks
}

fn of_schema(report: &PostgresReport, schema: &str) -> Check {
    let newest = report.newest_schema;
    let help = |does: &str| {
        format!(
            "`amends migrate --apply` {does}, and so does a coordinator of this version; `amends migrate --print` \
             is for whoever may make tables there"
        )
    };
    match report.schema {
        None => problem(
            "schema",
            format!("`{schema}` has no tables yet"),
            help("makes them"),
        ),
        Some(found) if found < newest => problem(
            "schema",
            format!("`{schema}` has version {found}, and this build reads version {newest}"),
            help("brings it up to date"),
        ),
        Some(found) if found > newest => problem(
            "schema",
            format!(
                "`{schema}` has version {found}, and this build knows version {newest} at most"
            ),
            "use the version of `amends` that made it, or a later one",
        ),
        Some(found) => good(
            "schema",
            format!("`{schema}` has version {found}, the newest"),
        ),
    }
}

/// Whether what was acknowledged survives.
fn of_commits(report: &PostgresReport) -> Check {
    let on = |yes: bool| if yes { "on" } else { "off" };
    let commits = &report.synchronous_commit;
    let mut says = format!(
        "synchronous_commit is {commits}, fsync {}, full_page_writes {}",
        on(report.fsync),
        on(report.full_page_writes)
    );
    let standby = !report.synchronous_standby_names.is_empty();
    if standby {
        says = format!("{says}; standbys: {}", report.synchronous_standby_names);
    }
    if commits == "off" {
        let advice = "what was acknowledged may be lost with the server, so no store opens: \
                      ALTER ROLE .. SET synchronous_commit = on";
        problem("commits", says, advice)
    } else if !report.fsync || !report.full_page_writes {
        let advice =
            "a crash of the machine may lose or tear what was acknowledged: set both to `on`";
        problem("commits", says, advice)
    } else if standby && commits == "local" {
        let advice = "commits don't wait for the standby: what was acknowledged may be lost when it takes over";
        note("commits", says, advice)
    } else {
        good("commits", says)
    }
}

/// The whole, and the largest.
fn sizes(tables: &[PostgresTable]) -> String {
    const LARGEST: usize = 3;
    let whole: u64 = tables.iter().map(|table| table.bytes).sum();
    let largest: Vec<String> = tables
        .iter()
        .take(LARGEST)
        .map(|table| format!("{} {}", table.name, bytes(table.bytes)))
        .collect();
    format!("{}, of which {}", bytes(whole), largest.join(", "))
}

fn of_dead_rows(tables: &[PostgresTable], autovacuum: bool) -> Check {
    let sum: u64 = tables.iter().map(|table| table.dead).sum();
    let most = tables.iter().max_by_key(|table| table.dead);
    let says = match most {
        Some(most) if most.dead > 0 => format!(
            "about {sum}, of which {} has {} beside {} live ones",
            most.name, most.dead, most.live
        ),
        _ => "none".to_owned(),
    };
    let many = |table: &PostgresTable| table.dead > FEW_DEAD && table.dead > table.live;
    if !autovacuum {
        let advice = "autovacuum is off, so they are never removed: set `autovacuum = on`";
        problem("dead rows", says, advice)
    } else if tables.iter().any(many) {
        let advice = "vacuum does not keep up, and looking for work takes longer and longer: see what keeps rows, below";
        problem("dead rows", says, advice)
    } else {
        good("dead rows", says)
    }
}

/// What keeps dead rows in place, whoever it belongs to: a fleet goes on beside it, and gets slower.
fn of_holds(holds: &[PostgresHold]) -> Check {
    let Some(first) = holds.first() else {
        return good("kept rows", "nothing keeps vacuum from removing dead rows");
    };
    let oldest = holds
        .iter()
        .max_by_key(|hold| hold.held_for)
        .unwrap_or(first);
    let span = oldest.held_for.unwrap_or_default();
    let mut says = in_words(oldest);
    if holds.len() > 1 {
        says = format!("{says}, and {} more", holds.len() - 1);
    }
    if span < LONG {
        return good("kept rows", says);
    }
    let advice = match &oldest.holder {
        PostgresHolder::Session { pid, .. } => {
            format!(
                "vacuum removes nothing that died since: end it, or SELECT pg_terminate_backend({pid})"
            )
        }
        PostgresHolder::Prepared(name) => {
            format!(
                "vacuum removes nothing that died since: COMMIT PREPARED or ROLLBACK PREPARED '{name}'"
            )
        }
        _ => "vacuum removes nothing that died since".to_owned(),
    };
    if span < TOO_LONG {
        note("kept rows", says, advice)
    } else {
        problem("kept rows", says, advice)
    }
}

fn in_words(hold: &PostgresHold) -> String {
    let who = match &hold.holder {
        PostgresHolder::Session {
            pid,
            application,
            state,
        } => {
            let about: Vec<&str> = [application.as_str(), state.as_deref().unwrap_or_default()]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect();
            if about.is_empty() {
                format!("a transaction of process {pid}")
            } else {
                format!("a transaction of process {pid} ({})", about.join(", "))
            }
        }
        PostgresHolder::Prepared(name) => format!("the prepared transaction `{name}`"),
        PostgresHolder::Standby(name) => format!("a reader on the standby `{name}`"),
        PostgresHolder::Slot(name) => format!("the replication slot `{name}`"),
        _ => "something that this build does not know".to_owned(),
    };
    match hold.held_for {
        Some(span) => format!("{who}, open for {}", coarse(span)),
        None if hold.transactions == 1 => format!("{who}, for one transaction"),
        None => format!("{who}, for {} transactions", hold.transactions),
    }
}

fn of_workers(workers: &[WorkerEntry]) -> Check {
    let live = workers.iter().filter(|worker| worker.live).count();
    let left: u64 = workers
        .iter()
        .filter(|worker| !worker.live)
        .map(|worker| worker.runs)
        .sum();
    let gone = workers.len() - live;
    if live == 0 {
        let says = match workers.iter().map(|worker| worker.until).max() {
            Some(last) => format!(
                "none is live, and the last was gone {} ago: no run goes on, and commands wait",
                coarse(now().since(last))
            ),
            None => "none: no run goes on, and commands wait".to_owned(),
        };
        return note("workers", says, "start a coordinator");
    }
    let mut says = format!("{live} live");
    if gone > 0 {
        says = format!("{says}, {gone} gone");
    }
    if left == 0 {
        return good("workers", says);
    }
    let runs = if left == 1 { "run" } else { "runs" };
    note(
        "workers",
        format!("{says}, and {left} {runs} of theirs not taken over yet"),
        "those that go on by themselves are taken over within a second by a worker that has their definition: \
         `amends workers`, `amends definitions`",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn session(held_for: Option<Duration>) -> PostgresHold {
        let holder = PostgresHolder::Session {
            pid: 4711,
            application: "a report".to_owned(),
            state: Some("idle in transaction".to_owned()),
        };
        PostgresHold::new(holder, held_for, 9)
    }

    #[test]
    fn a_transaction_that_keeps_rows_matters_by_how_long_it_has_been_open() {
        for (held_for, verdict) in [
            (59, Verdict::Good),
            (60, Verdict::Note),
            (3_599, Verdict::Note),
            (3_600, Verdict::Problem),
        ] {
            let check = of_holds(&[session(Some(Duration::from_secs(held_for)))]);
            assert_eq!(check.verdict, verdict, "{held_for}");
            let end = "SELECT pg_terminate_backend(4711)";
            let says_how = check.advice.is_some_and(|advice| advice.contains(end));
            assert_eq!(says_how, verdict != Verdict::Good);
        }
        assert_eq!(of_holds(&[]).verdict, Verdict::Good);
    }

    #[test]
    fn the_one_that_has_been_open_for_longest_is_told() {
        let slot = PostgresHold::new(PostgresHolder::Slot("old".to_owned()), None, 90_000);
        let hour = session(Some(Duration::from_secs(3_600)));
        let check = of_holds(&[slot.clone(), session(None), hour]);
        assert_eq!(
            check.says,
            "a transaction of process 4711 (a report, idle in transaction), open for 1h, and 2 more"
        );
        let check = of_holds(&[slot]);
        assert_eq!(
            check.says,
            "the replication slot `old`, for 90000 transactions"
        );
        assert_eq!(check.verdict, Verdict::Good);
    }

    #[test]
    fn dead_rows_matter_where_they_are_many_and_more_than_live() {
        for (live, dead, autovacuum, verdict) in [
            (0, FEW_DEAD, true, Verdict::Good),
            (0, FEW_DEAD + 1, true, Verdict::Problem),
            (FEW_DEAD + 1, FEW_DEAD + 1, true, Verdict::Good),
            (9, 0, false, Verdict::Problem),
        ] {
            let table = PostgresTable::new("open_runs", 8_192, live, dead);
            let check = of_dead_rows(&[table], autovacuum);
            assert_eq!(check.verdict, verdict, "{live} {dead} {autovacuum}");
        }
    }
}
