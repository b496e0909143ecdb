-- Every request that came, with the weather it got. A status is missing where the service was
-- killed, or the request was dropped, before anything was done; `barrier` says why the barrier
-- turned it away, if it did.
CREATE TABLE IF NOT EXISTS visit (
    id       INTEGER PRIMARY KEY,
    verb     TEXT NOT NULL,
    order_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    weather  TEXT NOT NULL,
    status   INTEGER,
    barrier  TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS visit_by_order ON visit (order_id, verb);
