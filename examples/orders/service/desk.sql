-- What was done under which key. A row is never removed: it is what refuses a late repeat.
CREATE TABLE IF NOT EXISTS effect (
    key    TEXT PRIMARY KEY,
    verb   TEXT NOT NULL,
    digest BLOB,
    state  TEXT NOT NULL CHECK (state IN ('standing', 'undone', 'void', 'refused')),
    answer TEXT
) STRICT;

-- Every request that came, with the weather it got. A status is missing where the service was
-- killed, or the request was dropped, before anything was done.
CREATE TABLE IF NOT EXISTS visit (
    id       INTEGER PRIMARY KEY,
    verb     TEXT NOT NULL,
    order_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    weather  TEXT NOT NULL,
    status   INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS visit_by_order ON visit (order_id, verb);
