select fence from amends_barrier_runs where run = $1 for share
