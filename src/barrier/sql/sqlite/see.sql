insert into amends_barrier_runs (run, fence, touched_at) values (?1, ?2, unixepoch())
on conflict (run) do update set
    touched_at = max(touched_at, excluded.touched_at),
    fence = max(fence, excluded.fence)
returning fence
