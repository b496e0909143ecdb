//! Counts over the lists, and what is wrong with the lists themselves.

use crate::ids::Timestamp;
use crate::journal::Standing;
use crate::store::{Counts, StoreError, Trouble};

use super::Shared;

/// All counts in one statement, so that they are of one moment.
const COUNT: &str = "
SELECT 'runs', r.saga, r.version, l.standing, NULL, NULL, count(*)
FROM (SELECT run, standing FROM {schema}.open_runs UNION ALL SELECT run, standing FROM {schema}.ended_runs) l
JOIN {schema}.runs r ON r.number = l.run GROUP BY 2, 3, 4
UNION ALL
SELECT 'parked', NULL, NULL, NULL, t.step, t.mode, count(*)
FROM {schema}.open_runs o LEFT JOIN {schema}.troubles t ON t.run = o.run
WHERE o.standing = 'parked' GROUP BY 5, 6
UNION ALL
SELECT 'commands', NULL, NULL, NULL, NULL, NULL, count(*) FROM {schema}.commands WHERE answer IS NULL";

/// How many runs stand how.
pub(super) async fn counts(shared: &Shared) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    for row in shared.ask("counting runs", COUNT, &[]).await? {
        let number = row.get::<_, i64>(6).unsigned_abs();
        match row.get(0) {
            "runs" => {
                // As the list has it: a word that is damaged must not hide the run.
                let standing = Standing::from_word(row.get(3), Timestamp::default());
                let standing = standing.unwrap_or(Standing::Running);
                let version = u32::try_from(row.get::<_, i64>(2)).unwrap_or_default();
                counts.add_runs(row.get(1), standing, number);
                counts.add_versions(row.get(1), version, standing, number);
            }
            "parked" => {
                let (step, mode): (Option<&str>, Option<&str>) = (row.get(4), row.get(5));
                let trouble = step.zip(mode).map(|(step, mode)| Trouble::new(step, mode));
                counts.add_parked(trouble, number);
            }
            _ => counts.open_commands = number,
        }
    }
    Ok(counts)
}

/// Of each kind of oddity, so many are told.
const TOLD: i64 = 100;

/// Rows that nothing leads to, and runs that no list has.
const LOOKS: [(&str, &str); 5] = [
    (
        "records of a run that is not in the list: number",
        "SELECT DISTINCT j.run::text FROM {schema}.journal j
         WHERE NOT EXISTS (SELECT 1 FROM {schema}.runs r WHERE r.number = j.run)",
    ),
    (
        "a run that is neither open nor ended:",
        "SELECT r.id FROM {schema}.runs r WHERE NOT EXISTS (SELECT 1 FROM {schema}.open_runs o WHERE o.run = r.number)
         AND NOT EXISTS (SELECT 1 FROM {schema}.ended_runs e WHERE e.run = r.number)",
    ),
    (
        "a run that is both open and ended:",
        "SELECT r.id FROM {schema}.open_runs o JOIN {schema}.ended_runs e ON e.run = o.run
         JOIN {schema}.runs r ON r.number = o.run",
    ),
    (
        "a standing without a run: number",
        "SELECT run::text FROM (SELECT run FROM {schema}.open_runs UNION ALL SELECT run FROM {schema}.ended_runs) l
         WHERE NOT EXISTS (SELECT 1 FROM {schema}.runs r WHERE r.number = run)",
    ),
    (
        "what can be searched for without a run: number",
        "SELECT run::text FROM (SELECT run FROM {schema}.labels UNION SELECT run FROM {schema}.troubles
                                UNION SELECT run FROM {schema}.commands) f
         WHERE NOT EXISTS (SELECT 1 FROM {schema}.runs r WHERE r.number = run)",
    ),
];

/// What is wrong with the tables beyond the journals.
pub(super) async fn oddities(shared: &Shared) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for (what, sql) in LOOKS {
        let sql = format!("{sql} LIMIT {TOLD}");
        let rows = shared.ask("checking the tables", &sql, &[]).await?;
        let told = |row: &tokio_postgres::Row| format!("{what} {}", row.get::<_, &str>(0));
        found.extend(rows.iter().map(told));
    }
    Ok(found)
}
