select run from amends_barrier_runs r
where r.touched_at < now() - make_interval(secs => $1) and not exists (
    select from amends_barrier b where b.run = r.run and b.touched_at >= now() - make_interval(secs => $1))
order by r.touched_at limit $2
for update skip locked
