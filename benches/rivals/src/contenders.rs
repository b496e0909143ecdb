/// An engine on a store with a setting: a row of the table in each of its blocks.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) engine: &'static str,
    pub(crate) store: &'static str,
    pub(crate) setting: &'static str,
    /// Store and setting, as the table says them.
    pub(crate) shown: &'static str,
    /// What a saga that has ended outlives.
    pub(crate) outlives: &'static str,
    /// Whether it is in the program for the rivals on sqlx.
    pub(crate) on_sqlx: bool,
}

const fn row(
    engine: &'static str,
    (store, setting): (&'static str, &'static str),
    shown: &'static str,
    outlives: &'static str,
) -> Contestant {
    let on_sqlx = matches!(engine.as_bytes(), b"durare" | b"duroxide");
    Contestant {
        engine,
        store,
        setting,
        shown,
        outlives,
        on_sqlx,
    }
}

const NOTHING: &str = "nothing";
const CRASH: &str = "a crash of the process";
const POWER_CUT: &str = "a power cut";
const SERVER: &str = "what the server does";

/// By what a saga outlives, so that those stand together which promise the same.
pub(crate) const CONTESTANTS: [Contestant; 13] = [
    row("amends", ("memory", "default"), "memory", NOTHING),
    row("cano", ("none", "default"), "none", NOTHING),
    row("durare", ("memory", "default"), "memory", NOTHING),
    row(
        "duroxide",
        ("memory", "default"),
        "SQLite in memory",
        NOTHING,
    ),
    row("steno", ("none", "default"), "none", NOTHING),
    row(
        "durare",
        ("SQLite", "default"),
        "SQLite, NORMAL (default)",
        CRASH,
    ),
    row(
        "duroxide",
        ("SQLite", "default"),
        "SQLite, NORMAL (default)",
        CRASH,
    ),
    row(
        "amends",
        ("SQLite", "default"),
        "SQLite, FULL (default)",
        POWER_CUT,
    ),
    row(
        "cano",
        ("redb", "default"),
        "redb, synced (default)",
        POWER_CUT,
    ),
    row("durare", ("SQLite", "FULL"), "SQLite, FULL", POWER_CUT),
    row("duroxide", ("SQLite", "FULL"), "SQLite, FULL", POWER_CUT),
    row(
        "amends",
        ("PostgreSQL", "default"),
        "PostgreSQL (default)",
        SERVER,
    ),
    row(
        "durare",
        ("PostgreSQL", "default"),
        "PostgreSQL (default)",
        SERVER,
    ),
];
