select run from amends_barrier_runs as r
where r.touched_at < unixepoch() - ?1 and not exists (
    select 1 from amends_barrier as b where b.run = r.run and b.touched_at >= unixepoch() - ?1)
order by r.touched_at limit ?2
