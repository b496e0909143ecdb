-- Starting a run from SQL, so that any driver and any language can do so inside a transaction of its own.

-- Writes the first record of a run, which begins to exist with the transaction's commit; a worker that has the
-- definition takes it up. True where the run is new; false where it is there already, of the same saga and with the same input.
-- It does what its caller may do and no more: see `docs/fleet.md` for the rights that it needs.
CREATE FUNCTION {schema}.start(
    saga        text,
    id          text,
    input       jsonb,
    labels      jsonb DEFAULT '{}',
    version     integer DEFAULT NULL,
    deadline    interval DEFAULT NULL,
    traceparent text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $start$
DECLARE
    definition record;
    number     bigint;
    kind       integer;
    at         bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    append_id  bytea := decode(replace(gen_random_uuid()::text, '-', ''), 'hex');
    trace      text[];
    trace_id   text := replace(gen_random_uuid()::text, '-', '');
    parent     text;
    events     text;
    first      json;
BEGIN
    IF start.saga IS NULL OR start.id IS NULL OR start.input IS NULL THEN
        RAISE EXCEPTION 'a start needs a saga, an id and an input' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'A saga without an input is started with the JSON value null.';
    END IF;
    IF octet_length(start.id) NOT BETWEEN 1 AND 512 THEN
        RAISE EXCEPTION 'a run''s id has 1 to 512 bytes, and this one has %', octet_length(start.id)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        RAISE EXCEPTION '"synchronous_commit" is off in this transaction, so a start that was reported could be lost'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(coalesce(start.labels, '{}')) <> 'object'
        OR EXISTS (SELECT FROM jsonb_each(coalesce(start.labels, '{}')) l WHERE jsonb_typeof(l.value) <> 'string')
    THEN
        RAISE EXCEPTION 'the labels have to be an object of texts' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Of several structures under one version the one that somebody handles is meant.
    SELECT d.version, d.fingerprint, d.handled INTO definition FROM (
        SELECT k.version, k.fingerprint, k.handling = '"runs"' OR EXISTS (
            SELECT FROM {schema}.workers w WHERE NOT w.dead AND w.until > clock_timestamp()
                AND w.definitions::jsonb @> jsonb_build_array(jsonb_build_array(k.saga, k.version))
        ) IS TRUE AS handled
        FROM {schema}.definitions k
        WHERE k.saga = start.saga AND (start.version IS NULL OR k.version = start.version)
    ) d
    ORDER BY d.handled DESC NULLS LAST, d.version DESC, d.fingerprint LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no saga "%"% is known here', start.saga, coalesce(' version ' || start.version, '')
            USING ERRCODE = 'undefined_object',
            HINT = 'A worker makes its sagas known when it starts: start one that has this saga first.';
    END IF;
    IF start.version IS NULL AND definition.handled IS NOT TRUE THEN
        RAISE EXCEPTION 'no version of saga "%" is handled by any worker', start.saga
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Start a worker that has it, or say which version is meant: its runs wait for a worker then.';
    END IF;

    INSERT INTO {schema}.runs (id, saga, version, started_at)
    VALUES (start.id, start.saga, definition.version, at)
    ON CONFLICT ON CONSTRAINT runs_id_key DO NOTHING RETURNING runs.number INTO number;
    IF number IS NULL THEN
        SELECT (j.events::json) -> 0 -> 'run_started' INTO first
        FROM {schema}.runs r JOIN {schema}.journal j ON j.run = r.number AND j.seq = 1
        WHERE r.id = start.id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'run "%" was committed after this transaction took its view of the database', start.id
                USING ERRCODE = 'serialization_failure', HINT = 'Roll back and try again.';
        END IF;
        IF first ->> 'saga' <> start.saga THEN
            RAISE EXCEPTION 'run "%" is a run of saga "%", not of "%": choose another id',
                start.id, first ->> 'saga', start.saga USING ERRCODE = 'unique_violation';
        END IF;
        IF (first -> 'input')::jsonb <> start.input THEN
            RAISE EXCEPTION 'run "%" was started with another input: a new input needs a new id', start.id
                USING ERRCODE = 'unique_violation';
        END IF;
        RETURN false;
    END IF;

    -- W3C Trace Context: a malformed header is ignored, and the run has a trace of its own.
    trace := regexp_match(btrim(start.traceparent, E' \t'),
        '^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$');
    IF trace IS NOT NULL AND (trace[1] <> '00' OR trace[5] IS NULL) THEN
        trace_id := trace[2];
        parent := '00-' || trace[2] || '-' || trace[3] || '-' || encode(set_byte('\x00'::bytea, 0,
            get_byte(decode(trace[4], 'hex'), 0) & CASE trace[1] WHEN '00' THEN 3 ELSE 1 END), 'hex');
    END IF;

    events := '[{"run_started":{"saga":' || to_json(start.saga)::text
        || ',"version":' || definition.version::text
        || ',"fingerprint":' || to_json(definition.fingerprint::text)::text
        || ',"uid":"' || replace(gen_random_uuid()::text, '-', '')
        || '","trace_id":"' || trace_id || '"'
        || coalesce(',"traceparent":"' || parent || '"', '')
        || ',"input":' || start.input::text
        || coalesce(',"deadline":' || (at + extract(epoch FROM start.deadline) * 1000000)::bigint::text, '')
        || coalesce(',"labels":' || nullif(start.labels, '{}')::text, '')
        || ',"worker":""}}]';
    INSERT INTO {schema}.journal (run, seq, form, append_id, at, events, checksum)
    VALUES (number, 1, 1, append_id, at, events, {schema}.checksum(start.id, 1, 1, append_id, at, events));

    INSERT INTO {schema}.kinds (saga, version) SELECT start.saga, definition.version
    WHERE NOT EXISTS (SELECT FROM {schema}.kinds k WHERE k.saga = start.saga AND k.version = definition.version)
    ON CONFLICT DO NOTHING;
    SELECT k.number INTO kind FROM {schema}.kinds k WHERE k.saga = start.saga AND k.version = definition.version;
    INSERT INTO {schema}.open_runs (run, kind, owner, standing, wake_at) VALUES (number, kind, 0, 'running', NULL);
    INSERT INTO {schema}.labels (run, key, value)
    SELECT number, l.key, l.value FROM jsonb_each_text(coalesce(start.labels, '{}')) l;
    RETURN true;
END
$start$;
