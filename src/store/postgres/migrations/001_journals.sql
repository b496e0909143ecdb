-- Journals, the lists of runs, and what workers share. {schema} is the schema that they lie in.
--
-- Nothing is ever updated in a table that grows with the number of runs, but for the version of a run that
-- is migrated: what changes lies in small tables, so that the garbage of updates is small, too.
-- Texts are compared by bytes (collation "C"): ids sort as Rust sorts them, and no upgrade of the
-- operating system's collations breaks an index.

CREATE TABLE {schema}.runs (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         text COLLATE "C" NOT NULL UNIQUE,
    saga       text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    -- Times are microseconds since 1970, as workers say them; the database's own clock is in timestamptz.
    started_at bigint NOT NULL
);
CREATE INDEX runs_by_saga ON {schema}.runs (left(saga, 500), number);
CREATE INDEX runs_by_start ON {schema}.runs (started_at, number);

CREATE TABLE {schema}.journal (
    run       bigint  NOT NULL,
    seq       bigint  NOT NULL,
    form      integer NOT NULL,
    append_id bytea   NOT NULL,
    at        bigint  NOT NULL,
    events    text    NOT NULL,
    checksum  bytea   NOT NULL,
    -- This is what makes a claim, and a zombie's write collide: one record at each place, whoever writes it.
    PRIMARY KEY (run, seq)
) WITH (
    -- Rows are written once. Vacuum has nothing to remove here but what was pruned; it runs for the map of
    -- pages that are visible to all, and freezes rows on its first visit, so that no later one has to
    -- read the whole table against wraparound.
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_freeze_min_age = 0,
    autovacuum_analyze_scale_factor = 0.02
);

-- Sagas and their versions by number, for the index by which work is found.
CREATE TABLE {schema}.kinds (
    number  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    saga    text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    UNIQUE (saga, version)
);

-- Runs that have not ended. Each changes a few times and then goes, so there is always garbage here.
CREATE TABLE {schema}.open_runs (
    run      bigint  PRIMARY KEY,
    kind     integer NOT NULL,
    -- The worker that drives it, by number; 0 is nobody.
    owner    bigint  NOT NULL,
    standing text COLLATE "C" NOT NULL,
    wake_at  bigint
) WITH (
    -- Room for the next versions of a row in its own page, so that the table stays as small as it is.
    fillfactor = 50,
    -- Vacuum as soon as some thousand rows are dead, however large the table is, and without pauses: it is
    -- small, and a scan by the index for work has to step over every dead row.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05,
    -- Giving pages back at the table's end takes a lock that stops all writers; they are needed again anyway.
    vacuum_truncate = off
);
-- What a worker looks for: runs of its sagas that are due, of nobody or of a worker that is gone.
CREATE INDEX due_runs ON {schema}.open_runs (kind, owner, (coalesce(wake_at, 0)))
    WHERE standing IN ('running', 'waiting');
CREATE INDEX parked_runs ON {schema}.open_runs (run) WHERE standing = 'parked';

CREATE TABLE {schema}.ended_runs (
    run      bigint PRIMARY KEY,
    standing text COLLATE "C" NOT NULL,
    ended_at bigint NOT NULL
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_freeze_min_age = 0);
CREATE INDEX ended_otherwise ON {schema}.ended_runs (standing, run) WHERE standing <> 'completed';

CREATE TABLE {schema}.labels (
    run   bigint NOT NULL,
    key   text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL
);
-- An entry of an index has a greatest length, and labels don't: so the index holds how they begin.
CREATE INDEX labels_by_value ON {schema}.labels (left(key, 250), left(value, 250), run);
CREATE INDEX labels_by_run ON {schema}.labels (run);

CREATE TABLE {schema}.troubles (
    run  bigint PRIMARY KEY,
    step text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX troubles_by_step ON {schema}.troubles (left(step, 500), run);
CREATE INDEX troubles_by_mode ON {schema}.troubles (left(mode, 500), run);

CREATE TABLE {schema}.definitions (
    saga        text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    outline     text NOT NULL,
    handling    text,
    PRIMARY KEY (saga, version, fingerprint)
);

-- Numbers come from a counter and not from a sequence: its row stays locked until the command that took
-- the number is committed, so commands are committed in the order of their numbers, and whoever
-- has seen one has seen all before it.
CREATE TABLE {schema}.counters (
    name  text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO {schema}.counters VALUES ('commands', 0);

CREATE TABLE {schema}.commands (
    number  bigint PRIMARY KEY,
    token   text COLLATE "C" NOT NULL UNIQUE,
    run     bigint NOT NULL,
    -- When it was accepted, by the database's clock: this counts, and not what the command says itself.
    at      bigint NOT NULL,
    command text NOT NULL,
    answer  text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX open_commands ON {schema}.commands (number) WHERE answer IS NULL;
CREATE INDEX commands_by_run ON {schema}.commands (run);

-- An append that is sent again and finds its own row writes here, so that the answer to it comes from a
-- commit, and with it from whatever standby commits wait for. A few rows, so that few wait for one another.
CREATE TABLE {schema}.confirmations (
    slot  integer PRIMARY KEY,
    times bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO {schema}.confirmations SELECT slot, 0 FROM generate_series(0, 15) slot;

-- Workers, and when their leases run out by the database's clock. A worker whose lease was found to have run
-- out is dead for ever, and stays here as long as runs have it for their owner: so these are found by it.
CREATE TABLE {schema}.workers (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    name        text COLLATE "C" NOT NULL,
    labels      text NOT NULL,
    definitions text NOT NULL,
    joined_at   timestamptz NOT NULL,
    renewed_at  timestamptz NOT NULL,
    until       timestamptz NOT NULL,
    dead        boolean NOT NULL DEFAULT false,
    has_left    boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE {schema}.permits (
    limited text COLLATE "C" NOT NULL,
    permit  integer NOT NULL,
    worker  bigint NOT NULL,
    PRIMARY KEY (limited, permit)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX permits_by_worker ON {schema}.permits (worker);

-- The checksum of a record: the first 8 bytes of SHA-256 over all that it says, and its run's id.
CREATE FUNCTION {schema}.checksum(id text, seq bigint, form integer, append_id bytea, at bigint, events text)
RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT substr(sha256(convert_to(
        concat(seq, ' ', form, ' ', at, ' ', encode(append_id, 'hex'), ' ', octet_length(id), ' ', id, events), 'UTF8')), 1, 8)
$$;

-- For people: runs as they stand, with instants that can be read.
CREATE VIEW {schema}.run_list AS
SELECT r.number, r.id, r.saga, r.version, coalesce(o.standing, e.standing) AS standing, w.name AS worker,
       to_timestamp(r.started_at / 1000000.0) AS started_at,
       -- A wait without a limit has no instant.
       to_timestamp(nullif(o.wake_at, 9223372036854775807) / 1000000.0) AS wake_at,
       to_timestamp(e.ended_at / 1000000.0) AS ended_at
FROM {schema}.runs r
LEFT JOIN {schema}.open_runs o ON o.run = r.number
LEFT JOIN {schema}.ended_runs e ON e.run = r.number
LEFT JOIN {schema}.workers w ON w.number = o.owner;
