-- The outbox: what was appended to journals, in an order in which readers miss nothing (rule W5).

-- Positions can't be given when a record is appended: of two transactions the one that appended first may
-- commit last, and a reader that has come past its position would never see it. So an append leaves only a note here,
-- and positions are given to notes that are committed, by one transaction at a time.
CREATE TABLE {schema}.unsequenced (
    -- Grows along a run: a record is appended when the one before it is committed.
    note bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run  bigint NOT NULL,
    seq  bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX unsequenced_by_run ON {schema}.unsequenced (run);

CREATE TABLE {schema}.outbox (
    position bigint PRIMARY KEY,
    run      bigint NOT NULL,
    seq      bigint NOT NULL
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_freeze_min_age = 0);
CREATE INDEX outbox_by_run ON {schema}.outbox (run);

-- How far readers have come, by their names.
CREATE TABLE {schema}.cursors (
    name     text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The last position that was given. It is never given again, whatever is forgotten.
INSERT INTO {schema}.counters VALUES ('outbox', 0);

CREATE FUNCTION {schema}.note_appends() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {schema}.unsequenced (run, seq) SELECT run, seq FROM appended ORDER BY run, seq;
    RETURN NULL;
END
$$;

-- From here on notes are made. It waits for appends that are on their way, and holds up others meanwhile, so that no
-- record is in between.
CREATE FUNCTION {schema}.turn_outbox_on() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $q${schema}.journal$q$::regclass AND tgname = 'outbox') THEN
        RETURN;
    END IF;
    LOCK TABLE {schema}.journal IN SHARE ROW EXCLUSIVE MODE;
    -- Somebody else may have done it while the lock was waited for.
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $q${schema}.journal$q$::regclass AND tgname = 'outbox') THEN
        RETURN;
    END IF;
    CREATE TRIGGER outbox AFTER INSERT ON {schema}.journal REFERENCING NEW TABLE AS appended
        FOR EACH STATEMENT EXECUTE FUNCTION {schema}.note_appends();
END
$$;

-- Gives positions to the oldest notes, so many at most, and says to how many. Of two calls one waits for the other, by
-- the row of the counter: nobody sees a position while a lower one is still to come. Notes whose transactions
-- are open hold up no others; they get a higher position once they are there.
CREATE FUNCTION {schema}.sequence_outbox(most integer DEFAULT 1000) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last  bigint;
    given bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.unsequenced) THEN
        RETURN 0;
    END IF;
    SELECT value INTO last FROM {schema}.counters WHERE name = 'outbox' FOR UPDATE;
    -- Looked at only now, with the counter in hand, so that what is taken is what the last one has left.
    WITH taken AS (
        DELETE FROM {schema}.unsequenced
        WHERE note IN (SELECT u.note FROM {schema}.unsequenced u ORDER BY u.note LIMIT most)
        RETURNING note, run, seq
    ), placed AS (
        INSERT INTO {schema}.outbox (position, run, seq)
        SELECT last + row_number() OVER (ORDER BY note), run, seq FROM taken RETURNING position
    )
    SELECT count(*) INTO given FROM placed;
    UPDATE {schema}.counters SET value = last + given WHERE name = 'outbox';
    RETURN given;
END
$$;
