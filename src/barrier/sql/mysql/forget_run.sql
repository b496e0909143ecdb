delete r from amends_barrier_runs r
where r.run = ? and r.touched_at < unix_timestamp() - ? and not exists (
    select 1 from amends_barrier b where b.run = r.run and b.touched_at >= unix_timestamp() - ?)
