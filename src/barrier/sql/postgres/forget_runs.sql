delete from amends_barrier_runs r
where r.run = any ($1) and not exists (
    select from amends_barrier b where b.run = r.run and b.touched_at >= now() - make_interval(secs => $2))
returning run
