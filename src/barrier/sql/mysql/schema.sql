create table if not exists amends_barrier_runs (
    run        varchar(64) character set ascii collate ascii_bin not null primary key,
    fence      bigint not null,
    touched_at bigint not null,
    index (touched_at)
) engine = InnoDB;

create table if not exists amends_barrier_fences (
    run        varchar(64) character set ascii collate ascii_bin not null,
    fence      bigint not null,
    primary key (run, fence)
) engine = InnoDB;

create table if not exists amends_barrier (
    run          varchar(64) character set ascii collate ascii_bin not null,
    effect_key   varchar(2048) character set ascii collate ascii_bin not null,
    state        varchar(10) character set ascii collate ascii_bin not null
        check (state in ('open', 'done', 'undoing', 'undone', 'void', 'never', 'unrecorded')),
    request      varchar(64) character set ascii collate ascii_bin,
    result       longtext character set utf8mb4,
    undo_request varchar(64) character set ascii collate ascii_bin,
    undo_result  longtext character set utf8mb4,
    attempt      bigint,
    unrecorded   int,
    touched_at   bigint not null,
    primary key (run, effect_key)
) engine = InnoDB row_format = dynamic;
