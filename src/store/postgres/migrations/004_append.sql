-- A batch of appends as one call of a function: the server plans its statements once in each session instead of for
-- each batch, and nothing of the session is used that a pooler would have to keep.

-- Writes records, each where the one before it is there and its own place is free, and what they change elsewhere.
-- For each record, in their order, the number of its run, or null where it was not written; and whether the commit
-- promises too little, because the server doesn't wait for its disk.
--
-- The settings keep the plans what they are while tables grow: rows are found by their keys, one by one. A plan that
-- was made for an empty table would otherwise read the whole of it until somebody analyses it.
CREATE FUNCTION {schema}.append(
    -- Whether each place is looked at: otherwise one that is taken, or has none before it, is an error (23505, AM001),
    -- after which nothing is written.
    careful        boolean,
    -- The records: those that begin runs, which are numbered in this order, then those of runs that are named by
    -- ids, then those of runs that are named by numbers. No two are of one run.
    seqs           bigint[],
    forms          integer[],
    append_ids     bytea[],
    ats            bigint[],
    events         text[],
    checksums      bytea[],
    begun          text[],
    sagas          text[],
    versions       bigint[],
    ids            text[],
    numbers        bigint[],
    -- Of each run that is named by its number, the append id of the record before: a number that means another run
    -- to this server, as after a fail-over that lost commits, is nobody's.
    priors         bytea[],
    -- Workers that become owners, by their ids; what follows names them by their places here, and records by theirs.
    owners         text[],
    opens          integer[],
    open_kinds     integer[],
    open_owners    integer[],
    open_standings text[],
    open_wakes     bigint[],
    -- Runs that stay open: null is what stays as it is.
    stands         integer[],
    stand_kinds    integer[],
    stand_owners   integer[],
    standings      text[],
    wakes          bigint[],
    ends           integer[],
    end_standings  text[],
    migrates       integer[],
    migrate_to     bigint[],
    -- Troubles: a step that is null is that there is none any more.
    troubles       integer[],
    trouble_steps  text[],
    trouble_modes  text[],
    labels         integer[],
    label_keys     text[],
    label_values   text[],
    OUT written    bigint[],
    OUT careless   boolean
) LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $append$
DECLARE
    made     bigint[];
    made_of  text[];
    all_made bigint[];
    next     integer := 1;
    known    integer := cardinality(begun) + cardinality(ids);
    inserted bigint;
    place    integer;
    workers  bigint[];
BEGIN
    -- Each expression costs a lone append some microseconds, so what most don't need is asked for together.
    careless := current_setting('synchronous_commit') = 'off';
    written := numbers;
    IF cardinality(numbers) < cardinality(seqs) THEN
        IF cardinality(ids) > 0 THEN
            written := ARRAY(
                SELECT (SELECT r.number FROM {schema}.runs r WHERE r.id = ids[n.i])
                FROM generate_series(1, cardinality(ids)) n (i) ORDER BY n.i
            ) || written;
        END IF;
        IF cardinality(begun) > 0 THEN
            WITH made AS (
                INSERT INTO {schema}.runs (id, saga, version, started_at)
                SELECT begun[n.i], sagas[n.i], versions[n.i], ats[n.i] FROM generate_series(1, cardinality(begun)) n (i)
                ON CONFLICT (id) DO NOTHING RETURNING number, id
            )
            SELECT array_agg(m.number), array_agg(m.id) INTO made, made_of FROM made m;
            IF made_of IS DISTINCT FROM begun THEN
                -- Those that are there already are left out.
                all_made := made;
                made := '{}';
                FOR place IN 1 .. cardinality(begun) LOOP
                    IF made_of[next] = begun[place] THEN
                        made[place] := all_made[next];
                        next := next + 1;
                    ELSE
                        made[place] := NULL;
                    END IF;
                END LOOP;
                IF next <= cardinality(made_of) THEN
                    -- Of a batch of one this can't be said.
                    RAISE EXCEPTION 'runs were numbered in another order than they came in' USING ERRCODE = 'AM002';
                END IF;
            END IF;
            written := made || written;
        END IF;
    END IF;

    -- In the order of runs, so that two batches that want the same places don't wait for each other in a circle. A
    -- run that was pruned takes nothing more, whatever a writer that lost it long ago has got in beside the pruning.
    IF careful THEN
        FOR place IN SELECT n.i FROM generate_series(1, cardinality(seqs)) n (i) ORDER BY written[n.i] LOOP
            INSERT INTO {schema}.journal (run, seq, form, append_id, at, events, checksum)
            SELECT written[place], seqs[place], forms[place], append_ids[place], ats[place], events[place], checksums[place]
            WHERE written[place] IS NOT NULL AND CASE WHEN seqs[place] = 1 THEN place <= cardinality(begun) ELSE (
                SELECT place <= known OR p.append_id = priors[place - known]
                FROM {schema}.journal p WHERE p.run = written[place] AND p.seq = seqs[place] - 1
                    AND EXISTS (SELECT FROM {schema}.runs r WHERE r.number = p.run)
            ) END
            ON CONFLICT (run, seq) DO NOTHING;
            IF NOT FOUND THEN
                written[place] := NULL;
            END IF;
        END LOOP;
    ELSE
        INSERT INTO {schema}.journal (run, seq, form, append_id, at, events, checksum)
        SELECT written[n.i], seqs[n.i], forms[n.i], append_ids[n.i], ats[n.i], events[n.i], checksums[n.i]
        FROM generate_series(1, cardinality(seqs)) n (i)
        WHERE written[n.i] IS NOT NULL AND CASE WHEN seqs[n.i] = 1 THEN n.i <= cardinality(begun) ELSE (
            SELECT n.i <= known OR p.append_id = priors[n.i - known]
            FROM {schema}.journal p WHERE p.run = written[n.i] AND p.seq = seqs[n.i] - 1
                AND EXISTS (SELECT FROM {schema}.runs r WHERE r.number = p.run)
        ) END
        ORDER BY written[n.i];
        GET DIAGNOSTICS inserted = ROW_COUNT;
        IF inserted < cardinality(seqs) AND inserted < cardinality(array_remove(written, NULL)) THEN
            RAISE EXCEPTION 'the record before one of these is not there' USING ERRCODE = 'AM001';
        END IF;
    END IF;

    IF cardinality(opens) + cardinality(stands) > 0 THEN
        workers := ARRAY(
            SELECT coalesce((SELECT w.number FROM {schema}.workers w WHERE w.id = owners[n.i]), 0)
            FROM generate_series(1, cardinality(owners)) n (i) ORDER BY n.i
        );
        INSERT INTO {schema}.open_runs (run, kind, owner, standing, wake_at)
        SELECT written[opens[n.i]], open_kinds[n.i], coalesce(workers[open_owners[n.i]], 0), open_standings[n.i], open_wakes[n.i]
        FROM generate_series(1, cardinality(opens)) n (i) WHERE written[opens[n.i]] IS NOT NULL;
        FOR place IN 1 .. cardinality(stands) LOOP
            UPDATE {schema}.open_runs o SET
                standing = coalesce(standings[place], o.standing),
                wake_at = CASE WHEN standings[place] IS NULL THEN o.wake_at ELSE wakes[place] END,
                owner = CASE WHEN stand_owners[place] IS NULL THEN o.owner ELSE workers[stand_owners[place]] END,
                kind = coalesce(stand_kinds[place], o.kind)
            WHERE o.run = written[stands[place]];
        END LOOP;
    END IF;
    IF cardinality(ends) > 0 THEN
        DELETE FROM {schema}.open_runs o
        WHERE o.run = ANY (ARRAY(SELECT written[ends[n.i]] FROM generate_series(1, cardinality(ends)) n (i)));
        IF careful THEN
            INSERT INTO {schema}.ended_runs AS e (run, standing, ended_at)
            SELECT written[ends[n.i]], end_standings[n.i], ats[ends[n.i]]
            FROM generate_series(1, cardinality(ends)) n (i) WHERE written[ends[n.i]] IS NOT NULL
            ON CONFLICT (run) DO UPDATE SET standing = excluded.standing, ended_at = excluded.ended_at;
        ELSE
            INSERT INTO {schema}.ended_runs (run, standing, ended_at)
            SELECT written[ends[n.i]], end_standings[n.i], ats[ends[n.i]]
            FROM generate_series(1, cardinality(ends)) n (i) WHERE written[ends[n.i]] IS NOT NULL;
        END IF;
    END IF;
    IF cardinality(migrates) + cardinality(troubles) + cardinality(labels) > 0 THEN
        FOR place IN 1 .. cardinality(migrates) LOOP
            UPDATE {schema}.runs r SET version = migrate_to[place] WHERE r.number = written[migrates[place]];
        END LOOP;
        FOR place IN 1 .. cardinality(troubles) LOOP
            IF written[troubles[place]] IS NULL THEN
                CONTINUE;
            ELSIF trouble_steps[place] IS NULL THEN
                DELETE FROM {schema}.troubles t WHERE t.run = written[troubles[place]];
            ELSE
                INSERT INTO {schema}.troubles AS t (run, step, mode)
                VALUES (written[troubles[place]], trouble_steps[place], trouble_modes[place])
                ON CONFLICT (run) DO UPDATE SET step = excluded.step, mode = excluded.mode;
            END IF;
        END LOOP;
        INSERT INTO {schema}.labels (run, key, value)
        SELECT written[labels[n.i]], label_keys[n.i], label_values[n.i]
        FROM generate_series(1, cardinality(labels)) n (i) WHERE written[labels[n.i]] IS NOT NULL;
    END IF;
END
$append$;
