insert into amends_barrier as b
    (run, effect_key, state, request, undo_request, attempt, unrecorded)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (run, effect_key) do update set
    request = case when b.state = 'never' and excluded.state = 'open' and excluded.attempt > b.attempt
        then excluded.request else b.request end,
    undo_request = case when b.state in ('done', 'never') and excluded.state = 'void'
        then excluded.undo_request else b.undo_request end,
    unrecorded = case
        when b.state = 'done' and excluded.state = 'void' then 1
        when b.state = 'never' and excluded.state = 'open' and excluded.attempt > b.attempt then 1
        else b.unrecorded end,
    state = case
        when b.state in ('open', 'undoing') then 'unrecorded'
        when b.state = 'done' and excluded.state = 'void' then 'undoing'
        when b.state = 'never' and excluded.state = 'void' then 'void'
        when b.state = 'never' and excluded.state = 'open' and excluded.attempt > b.attempt then 'open'
        else b.state end,
    attempt = case
        when b.state = 'never' and excluded.state = 'never' and excluded.attempt is null then null
        when b.state = 'never' and excluded.state = 'never' and excluded.attempt > b.attempt then excluded.attempt
        else b.attempt end,
    touched_at = now()
returning state, request, result, undo_request, undo_result
