select fence from amends_barrier_runs where run = ? lock in share mode
