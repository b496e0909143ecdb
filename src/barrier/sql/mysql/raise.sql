insert into amends_barrier_runs (run, fence, touched_at) values (?, ?, unix_timestamp())
on duplicate key update
    touched_at = greatest(touched_at, values(touched_at)),
    fence = greatest(fence, values(fence))
