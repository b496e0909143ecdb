update amends_barrier_runs set fence = $2, touched_at = now()
where run = $1 and fence < $2
