delete from amends_barrier_runs where run = ?1
