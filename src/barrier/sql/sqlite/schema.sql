create table if not exists amends_barrier_runs (
    run        text primary key,
    fence      integer not null,
    touched_at integer not null
);
create index if not exists amends_barrier_runs_touched_at on amends_barrier_runs (touched_at);

-- Stays empty, so that a row that refers to it can't be committed where foreign keys are enforced.
create table if not exists amends_barrier_never (id integer primary key check (id is null));

create table if not exists amends_barrier (
    run          text not null,
    effect_key   text not null,
    state        text not null
        check (state in ('open', 'done', 'undoing', 'undone', 'void', 'never', 'unrecorded')),
    request      text,
    result       text,
    undo_request text,
    undo_result  text,
    attempt      integer,
    unrecorded   integer references amends_barrier_never (id) deferrable initially deferred,
    touched_at   integer not null,
    primary key (run, effect_key)
);
