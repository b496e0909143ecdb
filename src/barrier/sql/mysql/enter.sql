insert into amends_barrier
    (run, effect_key, state, request, undo_request, attempt, unrecorded, touched_at)
values (?, ?, ?, ?, ?, ?, ?, unix_timestamp())
on duplicate key update
    request = case when state = 'never' and values(state) = 'open' and values(attempt) > attempt
        then values(request) else request end,
    undo_request = case when state in ('done', 'never') and values(state) = 'void'
        then values(undo_request) else undo_request end,
    unrecorded = case
        when state = 'done' and values(state) = 'void' then 1
        when state = 'never' and values(state) = 'open' and values(attempt) > attempt then 1
        else unrecorded end,
    state = case
        when state in ('open', 'undoing') then 'unrecorded'
        when state = 'done' and values(state) = 'void' then 'undoing'
        when state = 'never' and values(state) = 'void' then 'void'
        when state = 'never' and values(state) = 'open' and values(attempt) > attempt then 'open'
        else state end,
    attempt = case
        when state = 'never' and values(state) = 'never' and values(attempt) is null then null
        when state = 'never' and values(state) = 'never' and values(attempt) > attempt then values(attempt)
        else attempt end,
    touched_at = unix_timestamp()
