insert into amends_barrier_runs (run, fence) values ($1, $2)
on conflict (run) do nothing
